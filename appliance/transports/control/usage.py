"""Routes of what was used and what it cost, as JSON or CSV."""

from typing import Any

from appliance.model.money import format_amount
from appliance.services.usage_reports import UsageSums, UsageTable
from appliance.transports.control.call import Call
from appliance.transports.control.route import CSV, JSON, Answer, Route, Who
from appliance.transports.schemas.base import NoBody
from appliance.transports.schemas.usage import (
    UsageQuery,
    UsageReport,
    UsageRow,
    UsageTotals,
    span_of,
)

_TENANT = "/v1/tenants/{id}/usage"
_ALL = "/v1/usage"


async def report(call: Call[NoBody, UsageQuery]) -> Answer:
    if _prefers_csv(call.header("accept") or ""):
        return await report_csv(call)
    return Answer.of(_view(await _table(call), call))


async def report_csv(call: Call[NoBody, UsageQuery]) -> Answer:
    table = await _table(call)
    name = f"usage-{call.tenant or 'all'}.csv"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Answer(call.services.usage.csv(table).encode(), media_type=CSV, headers=headers)


async def _table(call: Call[NoBody, UsageQuery]) -> UsageTable:
    span = span_of(call.query, now=call.services.clock())
    return await call.services.usage.report(
        call.caller,
        tenant=call.tenant or call.caller.tenant,
        start=span.start,
        end=span.end,
        granularity=call.query.granularity,
        group_by=call.query.group_by,
    )


def _view(table: UsageTable, call: Call[NoBody, UsageQuery]) -> UsageReport:
    return UsageReport(
        from_=table.start,
        to=table.end,
        granularity=call.query.granularity,
        group_by=call.query.group_by,
        currency=table.currency,
        rows=[
            UsageRow(
                period=line.period,
                tenant=line.tenant,
                group=line.group,
                currency=line.currency,
                **_counted(line),
            )
            for line in table.lines
        ],
        totals=UsageTotals(**_counted(table.total)),
        unreadable=table.unreadable,
    )


def _counted(sums: UsageSums) -> dict[str, Any]:
    usage = sums.usage
    return {
        "requests": sums.requests,
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "cache_read_tokens": usage.cache_read,
        "cache_write_tokens": usage.cache_write,
        "reasoning_tokens": usage.reasoning,
        "total_tokens": usage.total,
        "tool_calls": sums.tool_calls,
        "sandbox_ms": sums.sandbox_ms,
        "cost": format_amount(sums.cost_nano),
        "unpriced_requests": sums.unpriced_requests,
        "estimated_requests": sums.estimated_requests,
        "sandbox_cpu_ms": sums.sandbox_cpu_ms,
        "input_audio_tokens": usage.input_audio,
        "output_audio_tokens": usage.output_audio,
        "web_searches": usage.web_searches,
    }


def _prefers_csv(accept: str) -> bool:
    """Whether CSV is asked for by name; ``*/*`` means JSON."""
    return any(part.partition(";")[0].strip().lower() == "text/csv" for part in accept.split(","))


def _route(name: str, path: str, who: Who, *, csv: bool, summary: str) -> Route:
    return Route(
        name=name,
        method="GET",
        path=f"{path}.csv" if csv else path,
        who=who,
        summary=summary,
        handler=report_csv if csv else report,
        query=UsageQuery,
        answer=None if csv else UsageReport,
        produces=(CSV,) if csv else (JSON, CSV),
    )


ROUTES = (
    _route("usage.tenant", _TENANT, Who.TENANT, csv=False, summary="Report a tenant's usage"),
    _route("usage.tenant_csv", _TENANT, Who.TENANT, csv=True, summary="The same as CSV"),
    _route("usage.all", _ALL, Who.ADMIN, csv=False, summary="Report the usage of all tenants"),
    _route("usage.all_csv", _ALL, Who.ADMIN, csv=True, summary="The same as CSV"),
)
