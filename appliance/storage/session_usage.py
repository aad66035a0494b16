"""What the usage ledger knows of sessions, and the session store of what was said in them."""

from collections.abc import Mapping
from typing import TypeVar

import msgspec
import trio

from appliance.model.errors import InvalidRequest
from appliance.storage.connection import Connection, DatabaseRoot, connected, damage_reported
from appliance.storage.ledger import FILE as LEDGER
from appliance.storage.ledger import IN_PERIOD
from appliance.storage.ledger_schema import SCHEMA as LEDGER_SCHEMA
from appliance.storage.migrations import Schema, check
from appliance.storage.sessions import FILE as SESSIONS
from appliance.storage.sessions_schema import SCHEMA as SESSIONS_SCHEMA

T = TypeVar("T")

MOST_ROWS = 50_000
MOST_CALLS = 2_000  # of one session, the newest

_BY_SESSION = """
SELECT session, coalesce(agent, ''), coalesce(channel, ''), provider, model,
       (ts_ns / 1000000000 + :shift) / 86400, coalesce(price, ''),
       count(*) FILTER (WHERE corrects IS NULL),
       count(*) FILTER (WHERE corrects IS NULL AND cost_nano IS NULL),
       count(*) FILTER (WHERE outcome IN ('failed', 'crashed')),
       sum(input_tokens), sum(output_tokens + reasoning_tokens),
       sum(cache_read_tokens), sum(cache_write_tokens), sum(tool_calls),
       coalesce(sum(cost_nano), 0),
       min(ts_ns), max(settled_ns),
       sum(settled_ns - ts_ns) FILTER (WHERE outcome = 'ok'),
       min(settled_ns - ts_ns) FILTER (WHERE outcome = 'ok'),
       max(settled_ns - ts_ns) FILTER (WHERE outcome = 'ok'),
       count(*) FILTER (WHERE outcome = 'ok')
FROM entries_in_period
WHERE session IS NOT NULL AND kind <> 'sandbox' AND currency = :currency
    AND (:session = '' OR session = :session)
GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 6, 1, 4, 5 LIMIT :most
"""
_CALLS = """
SELECT ts_ns, input_tokens, output_tokens + reasoning_tokens, cache_read_tokens,
       cache_write_tokens, coalesce(cost_nano, 0), request_id
FROM entries
WHERE session = :session AND kind <> 'sandbox' AND ts_ns >= :start AND currency = :currency
ORDER BY id DESC LIMIT :most
"""
_SAID = """
SELECT coalesce(s.live_key, s.key), (m.created_ns / 1000000000 + :shift) / 86400, m.role, count(*)
FROM messages AS m JOIN sessions AS s ON s.id = m.session
WHERE m.created_ns >= :start AND m.created_ns < :end AND m.kind = 'message'
GROUP BY 1, 2, 3 LIMIT :most
"""


class SessionCalls(msgspec.Struct, array_like=True, frozen=True):
    """The calls of one session to one model on one day, at one price.

    ``session`` is the whole key; ``day`` counts from 1970 in the time zone asked
    for; the latency is that of the ``timed`` calls which came to an answer.
    """

    session: str
    agent: str
    channel: str
    provider: str
    model: str
    day: int
    price: str
    requests: int
    unpriced: int
    errors: int
    input: int
    output: int
    cache_read: int
    cache_write: int
    tool_calls: int
    cost_nano: int
    first_ns: int
    last_ns: int
    latency_ns: int | None
    fastest_ns: int | None
    slowest_ns: int | None
    timed: int


class Call(msgspec.Struct, array_like=True, frozen=True):
    ts_ns: int
    input: int
    output: int
    cache_read: int
    cache_write: int
    cost_nano: int
    request_id: str


class Said(msgspec.Struct, array_like=True, frozen=True):
    """How many messages of one role there were in a session (a short key) on one day."""

    session: str
    day: int
    role: str
    messages: int


async def read_session_calls(
    root: DatabaseRoot,
    start_ns: int,
    end_ns: int,
    *,
    currency: str,
    shift: int = 0,
    session: str = "",
) -> list[SessionCalls]:
    """What sessions used; days begin ``shift`` seconds before those of UTC.

    Raises :exc:`InvalidRequest` for more than ``MOST_ROWS`` rows and
    :exc:`TenantBroken` for a damaged ledger.
    """
    values: dict[str, int | str] = {
        "start": start_ns,
        "end": end_ns,
        "shift": shift,
        "session": session,
        "currency": currency,
        "most": MOST_ROWS + 1,
    }
    rows = await _rows(root, LEDGER, LEDGER_SCHEMA, IN_PERIOD + _BY_SESSION, values)
    return _require_few(msgspec.convert(rows, list[SessionCalls]))


async def read_calls(
    root: DatabaseRoot, session: str, start_ns: int, *, currency: str
) -> list[Call]:
    """The newest calls of one session since ``start_ns``, oldest first."""
    values: dict[str, int | str] = {
        "session": session,
        "start": start_ns,
        "currency": currency,
        "most": MOST_CALLS,
    }
    rows = await _rows(root, LEDGER, LEDGER_SCHEMA, _CALLS, values)
    return msgspec.convert(rows[::-1], list[Call])


async def read_said(
    root: DatabaseRoot, start_ns: int, end_ns: int, *, shift: int = 0
) -> list[Said]:
    """How much was said where, on which day, by whom."""
    values = {"start": start_ns, "end": end_ns, "shift": shift, "most": MOST_ROWS + 1}
    rows = await _rows(root, SESSIONS, SESSIONS_SCHEMA, _SAID, values)
    return _require_few(msgspec.convert(rows, list[Said]))


async def _rows(
    root: DatabaseRoot, name: str, schema: Schema, query: str, values: Mapping[str, int | str]
) -> list[object]:
    """The rows of a query in a file that others may have open; none if there is no file."""

    def read() -> list[object]:
        if not root.exists(name):
            return []
        with damage_reported(schema.kind):
            path = root.sqlite_path(name)
        with connected(path, schema.kind) as connection:
            return _read(connection, schema, query, values)

    return await trio.to_thread.run_sync(read)


def _read(
    connection: Connection, schema: Schema, query: str, values: Mapping[str, int | str]
) -> list[object]:
    connection.execute("PRAGMA query_only = ON")
    check(connection, schema)
    return list(connection.execute(query, values).fetchall())


def _require_few(rows: list[T]) -> list[T]:
    if len(rows) > MOST_ROWS:
        raise InvalidRequest.at(
            "startDate", f"the report has more than {MOST_ROWS} rows", "ask for a shorter time"
        )
    return rows
