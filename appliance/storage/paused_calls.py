"""Turns that wait for results of their caller's tools, and the turns that went on with them.

Who sends the whole conversation each time does not know what the agent itself
did on the way to its calls, and who lost an answer asks for it once more. Both
are found again by the ids of the caller's calls, which nobody can guess. A
paused turn is only for whoever was told of its calls: ``owner`` is that
credential, ``digest`` what had been said before (``services.turns.pauses``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from appliance.storage.connection import Connection
from appliance.storage.session_rows import Message, decode_object

KEPT_NS = 7 * 86_400 * 1_000_000_000

_ADD = """
INSERT INTO paused_calls (call, run, owner, digest, created_ns) VALUES (?, ?, ?, ?, ?)
"""
_FORGET = "DELETE FROM paused_calls WHERE created_ns < ?"
_FORGET_RESUMPTIONS = "DELETE FROM resumptions WHERE created_ns < ?"
_FIND = """
SELECT p.run, p.digest, s.key FROM paused_calls AS p
JOIN runs AS r ON r.id = p.run JOIN sessions AS s ON s.id = r.session
WHERE p.call = ? AND p.owner = ?
"""
_RESUME = """
INSERT OR REPLACE INTO resumptions (paused, answers, run, created_ns) VALUES (?, ?, ?, ?)
"""
_RESUMED = "SELECT run FROM resumptions WHERE paused = ? AND answers = ?"
_ROUNDS = """
SELECT m.message, m.meta FROM runs AS r JOIN messages AS m ON m.session = r.session AND m.run = r.id
WHERE r.id = ? AND m.kind = 'message' AND m.seq >= r.own_seq ORDER BY m.seq
"""
_SUPERSEDE = "UPDATE runs SET answered = 0 WHERE id = ?"

Line = tuple[Message, Mapping[str, object] | None]  # a message and its ``meta``


@dataclass(frozen=True, slots=True)
class PausedTurn:
    """``session`` is the row's key: of an archived incarnation it leads nowhere."""

    run: str
    digest: bytes
    session: str


@dataclass(frozen=True, slots=True)
class Resumption:
    """A turn that goes on where ``paused`` stopped, with these ``answers`` (their digest).

    ``rounds`` is what an earlier one did with the same answers and this one
    need not do again; it takes the place of the run ``supersedes`` in their
    session.
    """

    paused: str
    answers: bytes
    rounds: Sequence[Line] = ()
    supersedes: str | None = None


def add(
    tx: Connection, calls: Sequence[str], run: str, *, owner: str, digest: bytes, now_ns: int
) -> None:
    tx.execute(_FORGET, (now_ns - KEPT_NS,))
    tx.execute(_FORGET_RESUMPTIONS, (now_ns - KEPT_NS,))
    for call in calls:
        tx.execute(_ADD, (call, run, owner, digest, now_ns))


def find(tx: Connection, calls: Sequence[str], *, owner: str) -> PausedTurn | None:
    """The turn that made all of these calls; None also where it is somebody else's."""
    found: set[PausedTurn] = set()
    for call in calls:
        rows = tx.execute(_FIND, (call, owner)).fetchall()
        if not rows:
            return None
        ((run, digest, session),) = rows
        found.add(PausedTurn(str(run), msgspec.convert(digest, bytes), str(session)))
    return found.pop() if len(found) == 1 else None


def rounds(tx: Connection, run: str) -> list[Line]:
    """What a turn itself said and did, its answer included; empty if nobody knows it."""
    return [
        (
            msgspec.json.decode(str(message)),
            None if meta is None else decode_object(str(meta)),
        )
        for message, meta in tx.execute(_ROUNDS, (run,)).fetchall()
    ]


def resumed(tx: Connection, paused: str, answers: bytes) -> str | None:
    """The latest run that went on from ``paused`` with these answers."""
    for (run,) in tx.execute(_RESUMED, (paused, answers)).fetchall():
        return str(run)
    return None


def resume(tx: Connection, resumption: Resumption, run: str, *, now_ns: int) -> None:
    tx.execute(_RESUME, (resumption.paused, resumption.answers, run, now_ns))
    if resumption.supersedes is not None:
        tx.execute(_SUPERSEDE, (resumption.supersedes,))
