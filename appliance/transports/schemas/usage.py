"""Usage on the wire: what was asked for, and the table that answers it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from msgspec import Meta, field

from appliance.model.errors import InvalidRequest
from appliance.transports.schemas.base import Query, View

Granularity = Literal["hour", "day", "month"]
Grouping = Annotated[
    str,
    Meta(
        max_length=68,
        pattern=r"^(model|agent|channel|session|kind|tag:[a-z0-9_.:-]{1,64})$",
        description="model, agent, channel, session, kind, or tag:NAME: a tag of the callers'.",
    ),
]

_MOMENT = "A month 2026-11, a day 2026-11-30, or a moment 2026-11-30T12:00:00Z; without zone, UTC."
_REMEDY = "write 2026-11, 2026-11-30 or 2026-11-30T12:00:00Z"
_MONTH = re.compile(r"\d{4}-\d{2}", re.ASCII)
# What one answer may hold: a table of a million rows is an export, not a report.
_LONGEST = {
    "hour": timedelta(days=62),
    "day": timedelta(days=1100),
    "month": timedelta(days=3700),
}


class UsageQuery(Query, frozen=True):
    from_: Annotated[str, Meta(max_length=40, description=f"From here on. {_MOMENT}")] | None = (
        field(name="from", default=None)
    )
    to: (
        Annotated[str, Meta(max_length=40, description=f"Up to, not including. {_MOMENT}")] | None
    ) = None
    granularity: Granularity = "day"
    group_by: Grouping | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """The moments ``start <= t < end``."""

    start: datetime
    end: datetime


def span_of(query: UsageQuery, *, now: datetime) -> Span:
    """What ``query`` covers; by default the current month up to now.

    Raises :exc:`InvalidRequest` for what is no time, no span or too long a one.
    """
    month = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    start = month if query.from_ is None else _moment(query.from_, "from")
    end = now if query.to is None else _moment(query.to, "to")
    if end <= start:
        raise InvalidRequest.at("to", "does not come after from", "ask for a later end")
    longest = _LONGEST[query.granularity]
    if end - start > longest:
        reason = f"by {query.granularity}, a report covers at most {longest.days} days"
        raise InvalidRequest.at("to", reason, "ask for less, or a coarser granularity")
    return Span(start, end)


def _moment(text: str, name: str) -> datetime:
    try:
        if _MONTH.fullmatch(text):
            return datetime.fromisoformat(f"{text}-01").replace(tzinfo=UTC)
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise InvalidRequest.at(name, "is not a time", _REMEDY) from exc
    return moment


class UsageTotals(View, frozen=True):
    requests: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    total_tokens: int
    tool_calls: int
    sandbox_ms: int
    cost: Annotated[str, Meta(description="Of the calls whose price is known.")]
    unpriced_requests: Annotated[int, Meta(description="Calls whose price nobody knows.")]
    estimated_requests: Annotated[
        int, Meta(description="Calls of which the provider did not say what they used.")
    ]
    sandbox_cpu_ms: int
    input_audio_tokens: Annotated[int, Meta(description="Of input_tokens.")]
    output_audio_tokens: Annotated[int, Meta(description="Of output_tokens.")]
    web_searches: Annotated[int, Meta(description="That providers made.")]


class UsageRow(UsageTotals, frozen=True):
    period: Annotated[datetime, Meta(description="When the hour, day or month began, in UTC.")]
    tenant: str
    group: Annotated[str | None, Meta(description="The model, agent … asked for by group_by.")]
    currency: str


class UsageReport(View, frozen=True):
    from_: datetime = field(name="from")
    to: datetime
    granularity: Granularity
    group_by: Grouping | None
    currency: str
    rows: Sequence[UsageRow]
    totals: Annotated[UsageTotals, Meta(description="Costs: of the rows in this currency.")]
    unreadable: Annotated[
        Sequence[str], Meta(description="Tenants whose ledger is damaged: their rows are missing.")
    ] = ()
