"""What was said and waits for its turn: acknowledged, but in no transcript yet.

A row leaves in the very transaction that puts the message into the transcript,
or that ends its run without it. So what a process leaves here when it dies is
what would be lost otherwise; whoever opens the store next puts it where it was
said, marked as unanswered. Nothing is run again by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from appliance.model.periods import to_ns
from appliance.model.session_keys import SessionKey
from appliance.storage import runs, transcripts
from appliance.storage.connection import Connection
from appliance.storage.database import Database
from appliance.storage.session_rows import (
    Message,
    MessageKind,
    RunStatus,
    decode_object,
    encode,
    require_unicode,
)

_PUT = """
INSERT OR REPLACE INTO inbox
    (run, space, session_key, kind, message, meta, credential, request_id, received_ns)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_COLUMNS = "SELECT run, space, session_key, kind, message, meta, request_id, received_ns FROM inbox"
_ALL = _COLUMNS + " ORDER BY id"
_ONE = _COLUMNS + " WHERE run = ? AND space = ?"
_TAKE = "DELETE FROM inbox WHERE run = ?"
_DROP = "DELETE FROM inbox WHERE run = ? AND space = ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingMessage:
    """A message of a person. A command is a ``note``: people see it, the model does not."""

    run_id: str
    space: str  # of its request
    key: SessionKey
    message: Mapping[str, object]
    kind: MessageKind = MessageKind.MESSAGE
    meta: Mapping[str, object] = field(default_factory=dict)
    credential: str
    request_id: str
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Unanswered:
    """How the run ended that was to answer a message and never got to it."""

    status: RunStatus
    stop_reason: str
    error: str = ""


RESTARTED = Unanswered(
    RunStatus.CRASHED, "restart", "the gateway was restarted before the run began"
)


class Inbox:
    """The waiting messages of one tenant. Methods run in the loop."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, waiting: WaitingMessage) -> None:
        """Keep a message until its turn. Raises :exc:`InvalidRequest` for what is not Unicode."""
        values = (
            require_unicode(waiting.run_id, field="runId"),
            waiting.space,
            waiting.key.short,
            waiting.kind.value,
            encode(waiting.message, field="message"),
            encode(waiting.meta, field="meta"),
            waiting.credential,
            waiting.request_id,
            to_ns(waiting.received_at),
        )
        self._database.write(lambda tx: tx.execute(_PUT, values).fetchall())

    def waiting(self) -> list[str]:
        """The runs whose messages wait, in the order they came."""
        return [row.run for row in self._database.read(_rows)]

    def recover(self, *, now: datetime) -> int:
        """Put what a dead process left into its transcripts; return how many there were."""
        if not self._database.read(_rows):
            return 0

        def leave_all(tx: Connection) -> int:
            left = _rows(tx)
            for row in left:
                _leave(tx, row, RESTARTED, now_ns=to_ns(now))
            tx.execute("DELETE FROM inbox")
            return len(left)

        return self._database.write(leave_all)


def take(tx: Connection, run_ids: Sequence[str]) -> None:
    """These messages go into the transcript, in the caller's transaction."""
    for run_id in run_ids:
        tx.execute(_TAKE, (run_id,))


def drop(tx: Connection, space: str, run_id: str) -> None:
    """The message's run is over, or never was."""
    tx.execute(_DROP, (run_id, space))


def leave(tx: Connection, space: str, run_id: str, unanswered: Unanswered, *, now_ns: int) -> None:
    """If the message still waits, put it into the transcript, though nobody answers it."""
    for values in tx.execute(_ONE, (run_id, space)).fetchall():
        _leave(tx, msgspec.convert(values, _Row), unanswered, now_ns=now_ns)
    drop(tx, space, run_id)


class _Row(msgspec.Struct, array_like=True):
    run: str
    space: str
    session_key: str
    kind: MessageKind
    message: str
    meta: str
    request_id: str
    received_ns: int

    @property
    def key(self) -> SessionKey:
        _, agent, rest = self.session_key.split(":", 2)
        return SessionKey("", agent, rest)  # whose, says the database


def _rows(tx: Connection) -> list[_Row]:
    return [msgspec.convert(values, _Row) for values in tx.execute(_ALL).fetchall()]


def _leave(tx: Connection, row: _Row, unanswered: Unanswered, *, now_ns: int) -> None:
    meta = decode_object(row.meta) | {"unanswered": True, "stopReason": unanswered.stop_reason}
    message: Message = decode_object(row.message)
    if row.kind is not MessageKind.MESSAGE:
        transcripts.append_line(
            tx, row.key, None, role="user", message=row.message, kind=row.kind, meta=meta,
            now_ns=row.received_ns,
        )  # fmt: skip
        return
    runs.leave(
        tx, row.key, runs.Beginning.of([message], meta), request_id=row.request_id,
        source=row.space, status=unanswered.status, error=unanswered.error,
        said_ns=row.received_ns, now_ns=now_ns,
    )  # fmt: skip
