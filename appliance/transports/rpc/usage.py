"""``usage.*``: what a tenant used, what it cost, and how much is left."""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from msgspec import Meta

from appliance.config.fields import check_time_zone
from appliance.model.errors import InvalidRequest
from appliance.model.money import NANO
from appliance.model.operator_scopes import OperatorScope
from appliance.model.periods import to_ns
from appliance.model.spending import QuotaStanding
from appliance.model.tokens import Scope
from appliance.services.usage_reports import UsageLine
from appliance.transports.rpc.fields import AgentIdText
from appliance.transports.rpc.method import Method, MethodCall, NoParams, Params, Result

_MILLISECOND = 1_000_000  # ns
_MOST_DAYS = 366
_RANGES = {"7d": 7, "30d": 30, "90d": 90, "1y": 365, "all": _MOST_DAYS}
_OFFSET = re.compile(r"UTC(?P<sign>[+-])(?P<hours>\d{1,2})(?::(?P<minutes>[0-5]\d))?", re.ASCII)
_MOST_OFFSET = timedelta(hours=14)

Day = Annotated[str, Meta(max_length=10, description="As 2026-11-21.")]


class UsageCostParams(Params, frozen=True, kw_only=True):
    """Days are counted back from today, which is included; a range or dates come first."""

    days: Annotated[int, Meta(ge=1, description="At most 366 are told.")] | None = None
    range: Literal["7d", "30d", "90d", "1y", "all"] | None = None
    start_date: Day | None = None
    end_date: Day | None = None
    mode: Annotated[
        Literal["utc", "gateway", "specific"],
        Meta(description="Whose days: the gateway's are UTC; specific means utcOffset."),
    ] = "gateway"
    utc_offset: Annotated[str, Meta(max_length=16, description="Such as UTC+2.")] | None = None
    time_zone: Annotated[str, Meta(max_length=64, description="Such as Europe/Berlin.")] | None = (
        None
    )
    agent_id: AgentIdText | None = None
    agent_scope: Literal["all"] | None = None


class CostTotals(Result, frozen=True, kw_only=True):
    """Money in units of the gateway's currency; it is not told apart by class of token."""

    input: int
    output: Annotated[int, Meta(description="With what the model thought.")]
    cache_read: int
    cache_write: int
    total_tokens: int
    total_cost: float
    input_cost: float
    output_cost: float
    cache_read_cost: float
    cache_write_cost: float
    missing_cost_entries: Annotated[int, Meta(description="Requests without a known price.")]
    estimated_entries: Annotated[
        int, Meta(description="Requests of which the provider did not say what they used.")
    ]


class CostDay(CostTotals, frozen=True, kw_only=True):
    date: str


class UsageCostResult(Result, frozen=True, kw_only=True):
    updated_at: int
    days: int
    daily: Annotated[list[CostDay], Meta(description="Days on which anything was used.")]
    totals: CostTotals
    currency: str


class UsageWindow(Result, frozen=True, kw_only=True):
    label: str
    used_percent: float
    reset_at: int | None = None


class UsageProvider(Result, frozen=True, kw_only=True):
    provider: str
    display_name: str
    windows: list[UsageWindow]


class UsageStatusResult(Result, frozen=True, kw_only=True):
    updated_at: int
    providers: Annotated[
        list[UsageProvider], Meta(description="The tenant's own budgets, if it has any.")
    ]


async def status(call: MethodCall[NoParams]) -> UsageStatusResult:
    windows = [
        _window(quota, quota.limit)
        for quota in call.awake.meter.standing().quotas
        if quota.limit is not None and quota.resets_at is not None
    ]
    gateway = UsageProvider(provider="openclawmu", display_name="OpenClawMU", windows=windows)
    return UsageStatusResult(updated_at=_now_ms(call), providers=[gateway] if windows else [])


async def cost(call: MethodCall[UsageCostParams]) -> UsageCostResult:
    params = call.params
    zone = _zone(params)
    first, last = _days(params, call.services.clock().astimezone(zone).date())
    by_agent = params.agent_id is not None and params.agent_scope is None
    table = await call.services.usage.report(
        call.caller,
        tenant=call.awake.id,
        start=datetime.combine(first, datetime.min.time(), zone).astimezone(UTC),
        end=datetime.combine(last + timedelta(days=1), datetime.min.time(), zone).astimezone(UTC),
        granularity="hour",
        group_by="agent" if by_agent else None,
    )
    lines = [line for line in table.lines if not by_agent or line.group == params.agent_id]
    days: dict[date, list[UsageLine]] = {}
    for line in lines:
        days.setdefault(line.period.astimezone(zone).date(), []).append(line)
    return UsageCostResult(
        updated_at=_now_ms(call),
        days=(last - first).days + 1,
        daily=[
            CostDay(date=day.isoformat(), **_sums(days[day], table.currency))
            for day in sorted(days)
        ],
        totals=CostTotals(**_sums(lines, table.currency)),
        currency=table.currency,
    )


def _sums(lines: Sequence[UsageLine], currency: str) -> dict[str, Any]:
    usages = [line.usage for line in lines]
    nano = sum(line.cost_nano for line in lines if line.currency == currency)
    return {
        "input": sum(usage.input for usage in usages),
        "output": sum(usage.output + usage.reasoning for usage in usages),
        "cache_read": sum(usage.cache_read for usage in usages),
        "cache_write": sum(usage.cache_write for usage in usages),
        "total_tokens": sum(usage.total for usage in usages),
        "total_cost": nano / NANO,
        "input_cost": 0,
        "output_cost": 0,
        "cache_read_cost": 0,
        "cache_write_cost": 0,
        "missing_cost_entries": sum(line.unpriced_requests for line in lines),
        "estimated_entries": sum(line.estimated_requests for line in lines),
    }


def _days(params: UsageCostParams, today: date) -> tuple[date, date]:
    """The first and the last day asked for."""
    if params.start_date is not None or params.end_date is not None:
        last = _date(params.end_date, "endDate") or today
        first = _date(params.start_date, "startDate") or last - timedelta(days=29)
        if first > last:
            raise InvalidRequest.at("endDate", "comes before startDate", "swap them")
        if (last - first).days >= _MOST_DAYS:
            raise InvalidRequest.at("startDate", f"more than {_MOST_DAYS} days before endDate")
        return first, last
    days = _RANGES[params.range] if params.range else min(params.days or 30, _MOST_DAYS)
    return today - timedelta(days=days - 1), today


def _date(text: str | None, field: str) -> date | None:
    if text is None:
        return None
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise InvalidRequest.at(field, "is not a day", "write it as 2026-11-21") from None
    if not 1970 < found.year < 9000:
        raise InvalidRequest.at(field, "is out of range")
    return found


def _zone(params: UsageCostParams) -> tzinfo:
    """Hours are the finest the books know: of an odd offset, its full hours count."""
    if params.time_zone is not None:
        try:
            check_time_zone(params.time_zone)
        except ValueError as exc:
            raise InvalidRequest.at("timeZone", str(exc)) from None
        return ZoneInfo(params.time_zone)
    if params.mode != "specific" or params.utc_offset is None:
        return UTC
    match = _OFFSET.fullmatch(params.utc_offset)
    offset = timedelta() if match is None else _offset(match)
    if match is None or offset > _MOST_OFFSET:
        raise InvalidRequest.at("utcOffset", "is not an offset", "write it as UTC+2 or UTC-5:30")
    return timezone(offset if match["sign"] == "+" else -offset)


def _offset(match: re.Match[str]) -> timedelta:
    return timedelta(hours=int(match["hours"]), minutes=int(match["minutes"] or 0))


def _window(quota: QuotaStanding, limit: int) -> UsageWindow:
    used = quota.used + quota.reserved
    percent = 100.0 if limit == 0 else min(100.0, round(100 * used / limit, 1))
    resets = quota.resets_at
    return UsageWindow(
        label=quota.key.replace("_", " "),
        used_percent=percent,
        reset_at=None if resets is None else to_ns(resets) // _MILLISECOND,
    )


def _now_ms(call: MethodCall[Any]) -> int:
    return to_ns(call.services.clock()) // _MILLISECOND


METHODS: tuple[Method, ...] = (
    Method(
        name="usage.status",
        summary="Tell how much of the tenant's budgets is used",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        result=UsageStatusResult,
        handler=status,
    ),
    Method(
        name="usage.cost",
        summary="Sum up tokens and money by day",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=UsageCostParams,
        result=UsageCostResult,
        handler=cost,
    ),
)
