"""How long responses and conversations are kept, and how many: within the caller's transaction.

Whatever continues something belongs to its thread, and a thread is kept until
a while after its last use: a conversation never loses its beginning first.
What has expired is found no more and is removed a few rows with each write.
"""

from dataclasses import dataclass
from datetime import timedelta

import msgspec

from appliance.model.errors import QuotaExceeded
from appliance.storage.connection import Connection

EVENTS_KEPT = timedelta(hours=24)  # after the end of a run in the background
_THREADS_AT_ONCE = 4
_RESPONSES_AT_ONCE = 16
MOST_EVICTED = 64  # for one response
_ITEMS_AT_ONCE = 200
_EVENTS_AT_ONCE = 1_000

_ADD = "INSERT INTO threads (expires_ns) VALUES (?) RETURNING id"
_RENEW = "UPDATE threads SET expires_ns = max(expires_ns, ?) WHERE id = ?"
_EXPIRED = "SELECT id FROM threads WHERE expires_ns <= ? ORDER BY expires_ns LIMIT ?"
_OVER = "status NOT IN ('queued', 'in_progress')"
_REMOVE_EVENTS = """
DELETE FROM events WHERE (response, sequence) IN (
    SELECT e.response, e.sequence FROM events AS e JOIN responses AS r ON r.id = e.response
    WHERE r.thread = ? LIMIT ?
)
"""
_REMOVE_ITEMS = """
DELETE FROM conversation_items WHERE id IN (
    SELECT i.id FROM conversation_items AS i JOIN conversations AS c ON c.id = i.conversation
    WHERE c.thread = ? LIMIT ?
)
"""
_REMOVE_SAID = f"""
DELETE FROM items WHERE id IN (
    SELECT i.id FROM items AS i JOIN responses AS r ON r.id = i.response
    WHERE r.thread = ? AND r.{_OVER} LIMIT ?
)
"""  # noqa: S608 - all of it is ours
_REMOVE_RESPONSES = f"""
DELETE FROM responses WHERE id IN (
    SELECT id FROM responses WHERE thread = ? AND {_OVER} ORDER BY id LIMIT ?
)
"""  # noqa: S608 - all of it is ours
_REMOVE = """
DELETE FROM threads
WHERE id = ? AND NOT EXISTS (SELECT 1 FROM responses WHERE thread = threads.id)
"""
_OLDEST = f"""
SELECT r.id FROM threads AS t JOIN responses AS r ON r.thread = t.id
WHERE r.{_OVER} AND t.id IS NOT ? ORDER BY t.expires_ns, t.id, r.id LIMIT ?
"""  # noqa: S608 - all of it is ours
_REMOVE_ONE = "DELETE FROM responses WHERE id = ?"
_OLD_EVENTS = """
SELECT id FROM responses WHERE events > 0 AND ended_ns <= ? ORDER BY ended_ns LIMIT 1
"""
_REMOVE_OLD_EVENTS = """
DELETE FROM events WHERE response = ? AND sequence IN (
    SELECT sequence FROM events WHERE response = ? LIMIT ?
)
"""
_NO_EVENTS = "UPDATE responses SET events = 0 WHERE id = ?"
_TOTALS = "SELECT responses, conversations, bytes FROM totals"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of it all is kept."""

    responses: int = 10_000
    conversations: int = 10_000
    bytes: int = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Totals:
    responses: int
    conversations: int
    bytes: int


def totals(tx: Connection) -> Totals:
    ((responses, conversations, size),) = tx.execute(_TOTALS).fetchall()
    return Totals(
        msgspec.convert(responses, int),
        msgspec.convert(conversations, int),
        msgspec.convert(size, int),
    )


def begin(tx: Connection, *, expires_ns: int) -> int:
    ((thread,),) = tx.execute(_ADD, (expires_ns,)).fetchall()
    return msgspec.convert(thread, int)


def renew(tx: Connection, thread: int, *, expires_ns: int) -> None:
    tx.execute(_RENEW, (expires_ns, thread))


def sweep(tx: Connection, *, now_ns: int) -> None:
    """Take a step in removing what nobody can reach any more."""
    for (thread,) in tx.execute(_EXPIRED, (now_ns, _THREADS_AT_ONCE)).fetchall():
        _clear(tx, msgspec.convert(thread, int))
    ended_ns = now_ns - EVENTS_KEPT // timedelta(microseconds=1) * 1_000
    for (response,) in tx.execute(_OLD_EVENTS, (ended_ns,)).fetchall():
        tx.execute(_REMOVE_OLD_EVENTS, (response, response, _EVENTS_AT_ONCE))
        if tx.changes() < _EVENTS_AT_ONCE:
            tx.execute(_NO_EVENTS, (response,))


def oldest(tx: Connection, size: int, limits: Limits, *, spare: int | None) -> int | None:
    """The response that should go first for one more of ``size`` bytes, None if none has to."""
    found = totals(tx)
    if found.responses < limits.responses and found.bytes + size <= limits.bytes:
        return None
    rows = tx.execute(_OLDEST, (spare, 1)).fetchall()
    return msgspec.convert(rows[0][0], int) if rows else None


def make_room(tx: Connection, size: int, limits: Limits, *, spare: int | None) -> None:
    """Let the oldest responses go for one more of ``size`` bytes; not those of thread ``spare``.

    Raises :exc:`QuotaExceeded` where all that is left must stay.
    """
    found = totals(tx)
    if found.responses < limits.responses and found.bytes + size <= limits.bytes:
        return
    for (response,) in tx.execute(_OLDEST, (spare, MOST_EVICTED)).fetchall():
        tx.execute(_REMOVE_ONE, (response,))
        found = totals(tx)
        if found.responses < limits.responses and found.bytes + size <= limits.bytes:
            return
    # A few large ones may be worth many small ones: those go with the next writes. What
    # may not go at all, conversations and what is under way, has to fit.
    if found.responses >= limits.responses or found.bytes >= 2 * limits.bytes:
        raise full(limits)


def require_place(tx: Connection, limits: Limits, *, spare: int | None) -> None:
    """Raise what :func:`make_room` would, of any response."""
    found = totals(tx)
    is_full = found.responses >= limits.responses or found.bytes >= 2 * limits.bytes
    if is_full and not tx.execute(_OLDEST, (spare, 1)).fetchall():
        raise full(limits)


def require_room(tx: Connection, size: int, limits: Limits) -> None:
    """Raise :exc:`QuotaExceeded` if ``size`` more bytes would be too many, whatever went for it."""
    if totals(tx).bytes + size > limits.bytes:
        raise full(limits)


def full(limits: Limits) -> QuotaExceeded:
    return QuotaExceeded(
        f"as many responses and conversations are stored as may be ({limits.responses}, and "
        f"{limits.bytes} bytes of both); delete some, or send store=false"
    )


def _clear(tx: Connection, thread: int) -> None:
    for statement, most in (
        (_REMOVE_EVENTS, _EVENTS_AT_ONCE),
        (_REMOVE_ITEMS, _ITEMS_AT_ONCE),
        (_REMOVE_SAID, _ITEMS_AT_ONCE),
        (_REMOVE_RESPONSES, _RESPONSES_AT_ONCE),
    ):
        tx.execute(statement, (thread, most))
        if tx.changes() >= most:
            return
    tx.execute(_REMOVE, (thread,))
