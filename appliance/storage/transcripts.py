"""The lines of a session: adding one, and reading them.

Reading is by number, from the newest backwards, and bounded in lines and bytes:
one message may hold a picture of five megabytes.
"""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import closing

import msgspec

from appliance.model.errors import NotFound
from appliance.model.periods import from_ns
from appliance.model.session_keys import SessionKey
from appliance.storage.connection import Connection
from appliance.storage.session_changes import open_session
from appliance.storage.session_rows import (
    Message,
    MessageKind,
    Run,
    RunStatus,
    SessionRow,
    StoredMessage,
    TranscriptLine,
    decode_object,
    encode,
    estimated_tokens,
    live_row,
    session_row,
)

MOST_MESSAGES = 1_000  # a page
MOST_BYTES = 16 * 1024 * 1024  # of JSON, a page
_MOST_LOOKED_AT = 200  # lines that are none between the newest and what is wanted

_NEXT_SEQ = "UPDATE sessions SET messages = messages + 1 WHERE id = ? RETURNING messages"
_APPEND = """
INSERT INTO messages (session, seq, run, role, message, tokens, created_ns, public_id, kind, meta)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
TRANSCRIPT = """
SELECT m.seq, m.message, m.created_ns, m.run, r.status FROM sessions AS s
JOIN messages AS m ON m.session = s.id LEFT JOIN runs AS r ON r.id = m.run
WHERE s.key = ? AND m.seq > ? AND m.seq >= s.first_seq ORDER BY m.seq LIMIT ?
"""
_COLUMNS = """
SELECT m.seq, m.id, m.public_id, m.role, m.kind, m.meta, m.created_ns, m.run, r.status, m.tokens,
       octet_length(m.message), CASE WHEN octet_length(m.message) <= ? THEN m.message END
FROM messages AS m LEFT JOIN runs AS r ON r.id = m.run
"""
BACKWARDS = _COLUMNS + "WHERE m.session = ? AND m.seq > ? AND m.seq < ? ORDER BY m.seq DESC LIMIT ?"
FORWARDS = _COLUMNS + "WHERE m.session = ? AND m.seq > ? AND m.seq < ? ORDER BY m.seq LIMIT ?"
ANY = 2**62  # more than any number or size


class _LineRow(msgspec.Struct, array_like=True):
    seq: int
    message: str
    created_ns: int
    run: str | None
    status: RunStatus | None


class MessageRow(msgspec.Struct, array_like=True):
    seq: int
    number: int
    public_id: str | None
    role: str
    kind: MessageKind
    meta: str | None
    created_ns: int
    run: str | None
    status: RunStatus | None
    tokens: int
    bytes: int
    message: str | None


def append(
    tx: Connection,
    session: int,
    *,
    role: str,
    message: str,
    now_ns: int,
    run: str | None = None,
    kind: MessageKind = MessageKind.MESSAGE,
    meta: str | None = None,
) -> str:
    """Add a line to the session of this row; return its id."""
    ((seq,),) = tx.execute(_NEXT_SEQ, (session,)).fetchall()
    # With the time in front, the index grows at its end and one page of it is written.
    public_id = f"msg_{now_ns // 1_000:014x}{secrets.token_hex(5)}"
    tokens = estimated_tokens(message)
    values = (session, seq, run, role, message, tokens, now_ns, public_id, kind.value, meta)
    tx.execute(_APPEND, values)
    return public_id


def append_line(
    tx: Connection,
    key: SessionKey,
    run: Run | str | None,
    *,
    role: str,
    message: str,
    kind: MessageKind,
    meta: Mapping[str, object] | None,
    now_ns: int,
) -> StoredMessage:
    session, run_id = _place(tx, key, run, now_ns)
    encoded = None if meta is None else encode(meta, field="meta")
    public_id = append(
        tx, session, role=role, message=message, now_ns=now_ns, run=run_id, kind=kind, meta=encoded
    )
    tx.execute("UPDATE sessions SET updated_ns = ? WHERE id = ?", (now_ns, session))
    stored = message_by_id(tx, public_id)
    if stored is None:
        raise AssertionError("a line that was just added is there")
    return stored


def row_of(tx: Connection, session: SessionKey | str) -> SessionRow | None:
    """The row of a live session's key, or of any session's id."""
    if isinstance(session, SessionKey):
        return live_row(tx, session.short)
    return session_row(tx, "WHERE public_id = ?", session)


def lines(tx: Connection, key: SessionKey, *, after: int, limit: int) -> list[TranscriptLine]:
    limit = min(max(limit, 1), MOST_MESSAGES)
    rows = tx.execute(TRANSCRIPT, (key.short, after, limit)).fetchall()
    return [_line(msgspec.convert(row, _LineRow)) for row in rows]


def messages(
    tx: Connection,
    session: SessionKey | str,
    *,
    limit: int,
    before_seq: int | None,
    after_seq: int | None,
    omit_over: int | None,
) -> list[StoredMessage]:
    row = row_of(tx, session)
    if row is None:
        return []
    forwards = after_seq is not None and before_seq is None
    after = max(after_seq or 0, row.first_seq - 1)
    before = ANY if before_seq is None else before_seq
    limit = min(max(limit, 0), MOST_MESSAGES)
    values = (ANY if omit_over is None else omit_over, row.number, after, before, limit)
    found: list[StoredMessage] = []
    left = MOST_BYTES
    with closing(tx.execute(FORWARDS if forwards else BACKWARDS, values)) as cursor:
        for each in cursor:
            line = msgspec.convert(each, MessageRow)
            left -= 0 if line.message is None else line.bytes
            if left < 0 and found:
                break
            found.append(_message(line))
    return found if forwards else found[::-1]


def message_by_id(tx: Connection, public_id: str) -> StoredMessage | None:
    values: tuple[object, ...]
    if public_id.startswith("msg_n") and public_id[5:].isdecimal() and len(public_id) < 24:
        query, values = "WHERE m.id = ? AND m.public_id IS NULL", (ANY, int(public_id[5:]))
    else:
        query, values = "WHERE m.public_id = ?", (ANY, public_id)
    for row in tx.execute(_COLUMNS + query, values).fetchall():
        return _message(msgspec.convert(row, MessageRow))
    return None


def last_message(tx: Connection, key: SessionKey) -> StoredMessage | None:
    row = live_row(tx, key.short)
    if row is None:
        return None
    for line in newest(tx, row, largest=ANY):
        if line.kind is MessageKind.MESSAGE:
            return _message(line)
    return None


def truncate(tx: Connection, key: SessionKey, *, keep_last: int, now_ns: int) -> int:
    row = live_row(tx, key.short)
    if row is None:
        return 0
    first = max(row.first_seq, row.last_seq - max(keep_last, 0) + 1)
    if first != row.first_seq:
        tx.execute(
            "UPDATE sessions SET first_seq = ?, kept_from = max(kept_from, ?), updated_ns = ? "
            "WHERE id = ?",
            (first, first, now_ns, row.number),
        )
    return row.last_seq - first + 1


def newest(tx: Connection, row: SessionRow, *, largest: int) -> Iterator[MessageRow]:
    """The last lines, newest first; without the content where that has more bytes."""
    values = (largest, row.number, row.first_seq - 1, ANY, _MOST_LOOKED_AT)
    with closing(tx.execute(BACKWARDS, values)) as cursor:
        for each in cursor:
            yield msgspec.convert(each, MessageRow)


def _place(
    tx: Connection, key: SessionKey, run: Run | str | None, now_ns: int
) -> tuple[int, str | None]:
    """The row of the session that a line goes to, and the run it belongs to."""
    if run is None:
        return open_session(tx, key, model="", facts={}, now_ns=now_ns).number, None
    run_id = run if isinstance(run, str) else run.id
    for (session,) in tx.execute("SELECT session FROM runs WHERE id = ?", (run_id,)).fetchall():
        return msgspec.convert(session, int), run_id
    raise NotFound(f"the session of run {run_id} was deleted")


def _line(row: _LineRow) -> TranscriptLine:
    message = msgspec.json.decode(row.message)
    return TranscriptLine(row.seq, message, from_ns(row.created_ns), row.run, row.status)


def _message(row: MessageRow) -> StoredMessage:
    message: Message = {} if row.message is None else msgspec.json.decode(row.message)
    return StoredMessage(
        seq=row.seq,
        id=row.public_id or f"msg_n{row.number}",
        role=row.role,
        kind=row.kind,
        message=message,
        meta={} if row.meta is None else decode_object(row.meta),
        created_at=from_ns(row.created_ns),
        run=row.run,
        status=row.status,
        tokens=row.tokens,
        bytes=row.bytes,
        omitted=row.message is None,
    )
