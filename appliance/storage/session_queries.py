"""Which sessions there are: listings by last use, and finding one by what it is called.

A listing walks an index from its newest end and looks at no message. What has to
be looked for (a word, an agent) is looked for among the sessions last used.
"""

import re

import msgspec

from appliance.model.errors import InvalidRequest
from appliance.model.periods import to_ns
from appliance.model.session_keys import SessionKey
from appliance.storage.connection import Connection
from appliance.storage.session_rows import (
    SESSION_COLUMNS,
    Session,
    SessionFilter,
    SessionListing,
    SessionPage,
    SessionRow,
    require_unicode,
    session_row,
)

MOST_SESSIONS = 200  # a page
MOST_LISTED = 1_000  # in one listing
# Looking through so many in the loop takes a few milliseconds.
FARTHEST = 10_000

_LAST = 2**63 - 1
_CURSOR = re.compile(r"[0-8]?[0-9]{1,18}\.[0-9]{1,18}", re.ASCII)

PAGE = (
    SESSION_COLUMNS
    + """
WHERE archived_ns IS NULL AND (updated_ns, id) < (?, ?)
  AND (? = '' OR instr(lower(key), lower(?)) OR instr(lower(title), lower(?)))
ORDER BY updated_ns DESC, id DESC LIMIT ?
"""
)
# What the index holds, and what most listings ask for.
_BY_INDEX = """
WHERE archived_ns IS NULL AND updated_ns >= :since
  AND (:put_away IS NULL OR put_away = :put_away)
  AND (:agent IS NULL OR agent = :agent)
"""
_BY_LOOKING = (
    _BY_INDEX
    + """
  AND (:label IS NULL OR label = :label)
  AND (:spawned_by IS NULL OR spawned_by = :spawned_by)
  AND (:search = '' OR instr(lower(key), lower(:search)) OR instr(lower(title), lower(:search))
       OR instr(lower(coalesce(label, '')), lower(:search)))
"""
)
_NEWEST = "ORDER BY updated_ns DESC, id DESC LIMIT :limit OFFSET :offset"
LIST = SESSION_COLUMNS + _BY_INDEX + _NEWEST
LOOK = SESSION_COLUMNS + _BY_LOOKING + _NEWEST
TOTAL = """
SELECT coalesce(sum(live), 0) FROM session_counts
WHERE (:put_away IS NULL OR put_away = :put_away) AND (:agent IS NULL OR agent = :agent)
"""
_COUNT = f"SELECT count(*) FROM (SELECT 1 FROM sessions {_BY_LOOKING} LIMIT :farthest)"  # noqa: S608 - ours
FARTHEST_USE = """
SELECT updated_ns FROM sessions WHERE archived_ns IS NULL
ORDER BY updated_ns DESC, id DESC LIMIT 1 OFFSET ?
"""


def page(tx: Connection, *, limit: int, cursor: str | None, query: str) -> SessionPage:
    limit = min(max(limit, 1), MOST_SESSIONS)
    before = _parse_cursor(cursor)
    require_unicode(query, field="query")
    rows = tx.execute(PAGE, (*before, query, query, query, limit + 1)).fetchall()
    found = [msgspec.convert(row, SessionRow) for row in rows]
    more = len(found) > limit
    last = found[limit - 1] if more else None
    return SessionPage(
        tuple(row.session() for row in found[:limit]),
        f"{last.updated_ns}.{last.number}" if last is not None else None,
    )


def listing(tx: Connection, wanted: SessionFilter) -> SessionListing:
    limit = min(max(wanted.limit, 0), MOST_LISTED)
    offset = min(max(wanted.offset, 0), FARTHEST)
    since = 0 if wanted.active_since is None else to_ns(wanted.active_since)
    looks = bool(wanted.search or wanted.label or wanted.spawned_by)
    values = {
        "since": max(since, _farthest_use(tx)) if looks or wanted.agent else since,
        "put_away": None if wanted.archived is None else int(wanted.archived),
        "agent": wanted.agent,
        "label": wanted.label,
        "spawned_by": wanted.spawned_by,
        "search": wanted.search,
    }
    for name in ("agent", "label", "spawned_by", "search"):
        require_unicode(str(values[name] or ""), field=name)
    rows = tx.execute(
        LOOK if looks else LIST, {**values, "limit": limit, "offset": offset}
    ).fetchall()
    sessions = tuple(msgspec.convert(row, SessionRow).session() for row in rows)
    if len(sessions) < limit and (sessions or offset == 0):
        return SessionListing(sessions, offset + len(sessions))
    count = _COUNT if looks or since else TOTAL
    ((total,),) = tx.execute(count, {**values, "farthest": FARTHEST}).fetchall()
    return SessionListing(sessions, msgspec.convert(total, int))


def incarnations(tx: Connection, key: SessionKey, *, limit: int) -> list[Session]:
    live = tx.execute(SESSION_COLUMNS + "WHERE key = ?", (key.short,)).fetchall()
    archived = tx.execute(
        SESSION_COLUMNS + "WHERE live_key = ? AND archived_ns IS NOT NULL ORDER BY id DESC LIMIT ?",
        (key.short, limit),
    ).fetchall()
    return [msgspec.convert(row, SessionRow).session() for row in [*live, *archived][:limit]]


def find(tx: Connection, condition: str, value: str) -> Session | None:
    row = session_row(tx, condition, value)
    return None if row is None else row.session()


def _farthest_use(tx: Connection) -> int:
    """When the least recently used one was used of those that are looked through."""
    for (updated_ns,) in tx.execute(FARTHEST_USE, (FARTHEST - 1,)).fetchall():
        return msgspec.convert(updated_ns, int)
    return 0


def _parse_cursor(cursor: str | None) -> tuple[int, int]:
    if cursor is None:
        return _LAST, _LAST
    updated_ns, _, number = cursor.partition(".")
    if _CURSOR.fullmatch(cursor) is None:
        raise InvalidRequest.at("cursor", "is not one that a listing returned", "leave it out")
    return int(updated_ns), int(number)
