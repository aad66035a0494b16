"""Sums over the usage ledger, for reports."""

from dataclasses import dataclass
from enum import StrEnum

import msgspec
import trio

from appliance.model.errors import InvalidRequest
from appliance.storage.connection import Connection, DatabaseRoot, connected, damage_reported
from appliance.storage.ledger import FILE, IN_PERIOD
from appliance.storage.ledger_schema import SCHEMA
from appliance.storage.migrations import check

MOST_ROWS = 100_000  # of one tenant's report
# What later schemas have added, and which one did.
_ADDED = (
    ("sandbox_cpu_ms", 2),
    ("input_audio_tokens", 3),
    ("output_audio_tokens", 3),
    ("web_searches", 3),
)


class Granularity(StrEnum):
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class GroupBy(StrEnum):
    MODEL = "model"
    AGENT = "agent"
    CHANNEL = "channel"
    SESSION = "session"
    KIND = "kind"


@dataclass(frozen=True, slots=True)
class TagGroup:
    """By the value of one tag; calls without it are in the group ""."""

    name: str

    @property
    def value(self) -> str:
        """As it is asked for."""
        return f"tag:{self.name}"


_PERIODS = {
    Granularity.HOUR: "hour * 3600",
    Granularity.DAY: "hour / 24 * 86400",
    Granularity.MONTH: "unixepoch(hour * 3600, 'unixepoch', 'start of month')",
}
_GROUPS = {
    None: "NULL",
    # A call that reached no provider is known by what the caller asked for.
    GroupBy.MODEL: "iif(provider = '', route, provider || '/' || model)",
    GroupBy.AGENT: "coalesce(agent, '')",
    GroupBy.CHANNEL: "coalesce(channel, '')",
    GroupBy.SESSION: "coalesce(session, '')",
    GroupBy.KIND: "kind",
}
# A correction has the tags of what it corrects.
_BY_TAG = """
coalesce((
    SELECT substr(value, :tag_length) FROM json_each(tags)
    WHERE substr(value, 1, :tag_length - 1) = :tag LIMIT 1
), '')
"""
_SUMS = """
    currency,
    count(*) FILTER (WHERE corrects IS NULL AND kind <> 'sandbox'),
    count(*) FILTER (WHERE corrects IS NULL AND cost_nano IS NULL),
    coalesce(sum(estimated), 0),
    sum(input_tokens), sum(output_tokens), sum(cache_read_tokens), sum(cache_write_tokens),
    sum(reasoning_tokens), sum(tool_calls), sum(sandbox_ms), coalesce(sum(cost_nano), 0),
    {added}
FROM entries_in_period GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LIMIT :most
"""


class UsageRow(msgspec.Struct, array_like=True, frozen=True):
    """What one group used in one period, in one currency; ``start`` in seconds since 1970."""

    start: int
    group: str | None
    currency: str
    requests: int
    unpriced_requests: int
    estimated_requests: int
    input: int
    output: int
    cache_read: int
    cache_write: int
    reasoning: int
    tool_calls: int
    sandbox_ms: int
    cost_nano: int
    sandbox_cpu_ms: int = 0
    input_audio: int = 0
    output_audio: int = 0
    web_searches: int = 0


async def read_usage(
    root: DatabaseRoot,
    start_ns: int,
    end_ns: int,
    *,
    granularity: Granularity,
    group_by: GroupBy | TagGroup | None,
) -> list[UsageRow]:
    """The sums of a tenant, oldest first; none if it has never spent.

    The tenant may be awake or not: the ledger is read through a connection of
    its own, beside whoever else has it open, and nothing is created.

    Raises :exc:`InvalidRequest` for more than ``MOST_ROWS`` rows and
    :exc:`TenantBroken` for a damaged ledger.
    """
    values: dict[str, int | str] = {"start": start_ns, "end": end_ns, "most": MOST_ROWS + 1}
    if isinstance(group_by, TagGroup):
        group = _BY_TAG
        values |= {"tag": f"{group_by.name}=", "tag_length": len(group_by.name) + 2}
    else:
        group = _GROUPS[group_by]
    query = f"{IN_PERIOD} SELECT {_PERIODS[granularity]}, {group}, {_SUMS}"

    def read() -> list[UsageRow]:
        if not root.exists(FILE):
            return []
        with damage_reported("ledger"):
            path = root.sqlite_path(FILE)
        with connected(path, "ledger") as connection:
            return _rows(connection, query, values)

    rows = await trio.to_thread.run_sync(read)
    if len(rows) > MOST_ROWS:
        raise InvalidRequest.at(
            "from", f"the report has more than {MOST_ROWS} rows", "ask for a shorter time"
        )
    return rows


def _rows(connection: Connection, query: str, values: dict[str, int | str]) -> list[UsageRow]:
    connection.execute("PRAGMA query_only = ON")
    # A tenant that sleeps since before the last upgrade has not got every column.
    version = check(connection, SCHEMA)
    added = (f"sum({name})" if version >= since else "0" for name, since in _ADDED)
    query = query.format(added=", ".join(added))
    return msgspec.convert(connection.execute(query, values).fetchall(), list[UsageRow])
