"""What was said: a tenant's sessions, their messages, and the runs that answered.

A message is kept as the JSON it arrived as, so a transcript gives back every
text and every field. A run is one turn: what the user said and, if it came to
one, the answer. A process that dies leaves runs ``running``; whoever opens the
store next marks them ``crashed``.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec

from appliance.model.errors import InvalidRequest
from appliance.model.ids import new_id
from appliance.model.periods import from_ns, to_ns
from appliance.model.session_keys import SessionKey
from appliance.model.usage import TokenUsage
from appliance.storage.connection import Connection, DatabaseRoot
from appliance.storage.database import Database
from appliance.storage.sessions_schema import SCHEMA

FILE = "sessions/sessions.sqlite"

LONGEST_TITLE = 80  # characters
MOST_SESSIONS = 200  # a page
MOST_MESSAGES = 1_000  # a page
_BYTES_A_TOKEN = 4  # of a message in the model's context, its frame included

_LAST = 2**63 - 1
_CURSOR = re.compile(r"[0-8]?[0-9]{1,18}\.[0-9]{1,18}", re.ASCII)

Message = dict[str, object]


class RunStatus(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class Run:
    """A turn under way."""

    id: str
    session: int


@dataclass(frozen=True, slots=True)
class Session:
    """``key`` is without the tenant prefix; tokens are sums over all runs."""

    id: str
    key: str
    agent: str
    title: str
    model: str
    created_at: datetime
    updated_at: datetime
    messages: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class SessionPage:
    """``cursor`` continues the listing; None at its end."""

    sessions: tuple[Session, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class TranscriptLine:
    """``status`` is how the message's run ended, None for a message without one."""

    seq: int
    message: Message
    created_at: datetime
    run: str | None
    status: RunStatus | None


class SessionStore:
    """The sessions of one tenant. Methods that are not async run in the loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.durable = database.durable
        self.tend = database.tend
        self.close = database.close

    @classmethod
    async def open(cls, root: DatabaseRoot, *, now: datetime) -> "SessionStore":
        """Open or create the store; what the last process left running has crashed."""
        store = cls(await Database.open(root, FILE, SCHEMA))
        try:
            store.mark_crashed(now=now)
        except BaseException:
            await store.close()
            raise
        return store

    def mark_crashed(self, *, now: datetime) -> int:
        """End every run that is still running; return how many there were."""

        def end(tx: Connection) -> int:
            tx.execute(
                "UPDATE runs SET status = 'crashed', ended_ns = ? WHERE status = 'running'",
                (to_ns(now),),
            )
            return tx.changes()

        return self._database.write(end)

    def begin_run(
        self,
        key: SessionKey,
        messages: Sequence[Mapping[str, object]],
        *,
        request_id: str,
        model: str,
        now: datetime,
    ) -> Run:
        """Store what was said, in a new session if there is none with this key.

        Raises :exc:`InvalidRequest` for text that is not Unicode.
        """
        encoded = [_encode(message) for message in messages]
        roles = [str(message.get("role", "")) for message in messages]
        title = _title(messages)
        run_id = new_id("run")
        now_ns = to_ns(now)

        def insert(tx: Connection) -> int:
            session = _open_session(tx, key, title=title, model=model, now_ns=now_ns)
            tx.execute(
                """
                INSERT INTO runs (id, session, request_id, model, status, started_ns)
                VALUES (?, ?, ?, ?, 'running', ?)
                """,
                (run_id, session, request_id, model, now_ns),
            )
            for role, text in zip(roles, encoded, strict=True):
                _append(tx, session, run_id, role, text, now_ns)
            return session

        return Run(run_id, self._database.write(insert))

    def finish_run(
        self, run: Run, *, text: str, usage: TokenUsage, status: RunStatus, now: datetime
    ) -> bool:
        """Store the answer, as far as it came, and how the run ended.

        Returns False if the session was deleted meanwhile; nothing is kept then.
        """
        # What a model says may be cut anywhere, and must not be lost for it.
        said = text.encode(errors="replace").decode()
        answer = _encode({"role": "assistant", "content": said}) if text else None
        now_ns = to_ns(now)

        def update(tx: Connection) -> bool:
            tx.execute(
                """
                UPDATE runs SET status = ?, answered = ?, ended_ns = ?, input_tokens = ?,
                                output_tokens = ?
                WHERE id = ?
                """,
                (status.value, answer is not None, now_ns, usage.prompt, usage.completion, run.id),
            )
            if tx.changes() == 0:
                return False
            if answer is not None:
                _append(tx, run.session, run.id, "assistant", answer, now_ns)
            tx.execute(
                """
                UPDATE sessions SET updated_ns = ?, input_tokens = input_tokens + ?,
                                    output_tokens = output_tokens + ?
                WHERE id = ?
                """,
                (now_ns, usage.prompt, usage.completion, run.session),
            )
            return True

        return self._database.write(update)

    def history(self, key: SessionKey, *, limit_tokens: int) -> list[Message]:
        """The latest turns that fit into ``limit_tokens``, oldest first.

        Turns are taken whole, so an answer never stands without its question.
        What was never answered is not part of the conversation.
        """
        newest_first = self._database.read(lambda tx: _latest(tx, key, limit_tokens))
        return [msgspec.json.decode(row.message) for row in reversed(newest_first)]

    def find(self, key: SessionKey) -> Session | None:
        rows = self._database.read(
            lambda tx: tx.execute(_SESSIONS + "WHERE key = ?", (key.short,)).fetchall()
        )
        return _session(rows[0]) if rows else None

    def page(self, *, limit: int = 50, cursor: str | None = None, query: str = "") -> SessionPage:
        """Sessions, the last used first; ``query`` is looked for in keys and titles.

        Raises :exc:`InvalidRequest` for a cursor that did not come from here.
        """
        limit = min(max(limit, 1), MOST_SESSIONS)
        before = _parse_cursor(cursor)
        rows = self._database.read(
            lambda tx: tx.execute(_PAGE, (*before, query, query, query, limit + 1)).fetchall()
        )
        found = [msgspec.convert(row, _SessionRow) for row in rows]
        more = len(found) > limit
        last = found[limit - 1] if more else None
        return SessionPage(
            tuple(_session(row) for row in rows[:limit]),
            f"{last.updated_ns}.{last.number}" if last is not None else None,
        )

    def transcript(
        self, key: SessionKey, *, after: int = 0, limit: int = MOST_MESSAGES
    ) -> list[TranscriptLine]:
        """The messages that follow number ``after``, oldest first, with all turns in it."""
        limit = min(max(limit, 1), MOST_MESSAGES)
        rows = self._database.read(
            lambda tx: tx.execute(_TRANSCRIPT, (key.short, after, limit)).fetchall()
        )
        return [_line(row) for row in rows]

    def delete(self, key: SessionKey) -> bool:
        """Delete the session with everything in it; False if there is none."""

        def delete(tx: Connection) -> bool:
            tx.execute("DELETE FROM sessions WHERE key = ?", (key.short,))
            return tx.changes() == 1

        return self._database.write(delete)


_SESSIONS = """
SELECT id, public_id, key, agent, title, model, created_ns, updated_ns, messages,
       input_tokens, output_tokens
FROM sessions
"""
_PAGE = (
    _SESSIONS
    + """
WHERE (updated_ns, id) < (?, ?)
  AND (? = '' OR instr(lower(key), lower(?)) OR instr(lower(title), lower(?)))
ORDER BY updated_ns DESC, id DESC LIMIT ?
"""
)
_TRANSCRIPT = """
SELECT m.seq, m.message, m.created_ns, m.run, r.status FROM sessions AS s
JOIN messages AS m ON m.session = s.id LEFT JOIN runs AS r ON r.id = m.run
WHERE s.key = ? AND m.seq > ? ORDER BY m.seq LIMIT ?
"""
_HISTORY = """
SELECT m.run, m.message, m.tokens FROM sessions AS s
JOIN messages AS m ON m.session = s.id LEFT JOIN runs AS r ON r.id = m.run
WHERE s.key = ? AND (m.run IS NULL OR r.answered) ORDER BY m.seq DESC
"""
_OPEN_SESSION = """
INSERT INTO sessions (public_id, key, agent, title, model, created_ns, updated_ns)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET model = excluded.model, updated_ns = excluded.updated_ns
RETURNING id
"""
_NEXT_SEQ = "UPDATE sessions SET messages = messages + 1 WHERE id = ? RETURNING messages"
_APPEND = """
INSERT INTO messages (session, seq, run, role, message, tokens, created_ns)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""


class _SessionRow(msgspec.Struct, array_like=True):
    number: int
    public_id: str
    key: str
    agent: str
    title: str
    model: str
    created_ns: int
    updated_ns: int
    messages: int
    input_tokens: int
    output_tokens: int


class _HistoryRow(msgspec.Struct, array_like=True):
    run: str | None
    message: str
    tokens: int


class _LineRow(msgspec.Struct, array_like=True):
    seq: int
    message: str
    created_ns: int
    run: str | None
    status: RunStatus | None


def _latest(tx: Connection, key: SessionKey, limit_tokens: int) -> list[_HistoryRow]:
    """The rows of the latest whole turns within the limit, newest first."""
    taken: list[_HistoryRow] = []
    left = limit_tokens
    cursor = tx.execute(_HISTORY, (key.short,))
    try:
        for values in cursor:
            row = msgspec.convert(values, _HistoryRow)
            left -= row.tokens
            if left < 0:
                # The rest of the turn that this message belongs to goes with it.
                while row.run is not None and taken and taken[-1].run == row.run:
                    taken.pop()
                break
            taken.append(row)
    finally:
        cursor.close()  # an unread row would keep the transaction open
    return taken


def _open_session(tx: Connection, key: SessionKey, *, title: str, model: str, now_ns: int) -> int:
    values = (new_id("ses"), key.short, key.agent, title, model, now_ns, now_ns)
    ((number,),) = tx.execute(_OPEN_SESSION, values).fetchall()
    return msgspec.convert(number, int)


def _append(tx: Connection, session: int, run: str, role: str, message: str, now_ns: int) -> None:
    ((seq,),) = tx.execute(_NEXT_SEQ, (session,)).fetchall()
    tokens = -(-len(message.encode()) // _BYTES_A_TOKEN)
    tx.execute(_APPEND, (session, seq, run, role, message, tokens, now_ns))


def _session(values: object) -> Session:
    row = msgspec.convert(values, _SessionRow)
    return Session(
        id=row.public_id,
        key=row.key,
        agent=row.agent,
        title=row.title,
        model=row.model,
        created_at=from_ns(row.created_ns),
        updated_at=from_ns(row.updated_ns),
        messages=row.messages,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
    )


def _line(values: object) -> TranscriptLine:
    row = msgspec.convert(values, _LineRow)
    message = msgspec.json.decode(row.message)
    return TranscriptLine(row.seq, message, from_ns(row.created_ns), row.run, row.status)


def _encode(message: Mapping[str, object]) -> str:
    try:
        return msgspec.json.encode(message).decode()
    except UnicodeEncodeError:
        raise InvalidRequest.at(
            "messages", "the text holds half of a surrogate pair", "send whole characters"
        ) from None


def _title(messages: Sequence[Mapping[str, object]]) -> str:
    """The beginning of the first thing that was said in words."""
    for message in messages:
        content = message.get("content")
        if isinstance(content, str) and (words := content[: 4 * LONGEST_TITLE].split()):
            return " ".join(words)[:LONGEST_TITLE]
    return ""


def _parse_cursor(cursor: str | None) -> tuple[int, int]:
    if cursor is None:
        return _LAST, _LAST
    updated_ns, _, number = cursor.partition(".")
    if _CURSOR.fullmatch(cursor) is None:
        raise InvalidRequest.at("cursor", "is not one that a listing returned", "leave it out")
    return int(updated_ns), int(number)
