"""``admin.*``: the machine, and what the tenants take of it."""

import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Literal

from msgspec import Meta

from appliance.model.errors import Unavailable
from appliance.model.money import format_amount
from appliance.model.operator_scopes import OperatorScope
from appliance.model.periods import to_ns
from appliance.model.tokens import Scope
from appliance.services.resources import HistoryPoint, Sample, SortBy, TenantResources, percent
from appliance.transports.rpc.method import Method, MethodCall, NoParams, Params, Result, Who
from appliance.transports.rpc.quota_names import cents

_MS = 1_000_000  # nanoseconds
_STEPS = {
    "30s": timedelta(seconds=30),
    "1m": timedelta(minutes=1),
    "5m": timedelta(minutes=5),
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
}


class TenantsResourcesParams(Params, frozen=True, kw_only=True):
    sort_by: SortBy = SortBy.TOKENS
    limit: Annotated[int, Meta(ge=1, le=1000)] = 50


class HistoryParams(Params, frozen=True, kw_only=True):
    hours: Annotated[float, Meta(gt=0, le=24, description="A day is kept.")] = 24
    resolution: Literal["30s", "1m", "5m", "15m", "1h"] = "5m"


class SandboxKillParams(Params, frozen=True, kw_only=True):
    sandbox_id: Annotated[str, Meta(min_length=1, max_length=128)]


class CpuFigures(Result, frozen=True, kw_only=True):
    cores: int
    usage_percent: float
    load_average: Sequence[float]


class SpaceFigures(Result, frozen=True, kw_only=True):
    total_bytes: int
    used_bytes: int
    free_bytes: int
    usage_percent: float


class ProcessFigures(Result, frozen=True, kw_only=True):
    pid: int
    uptime: Annotated[float, Meta(description="Seconds.")]
    cpu_percent: Annotated[float, Meta(description="Of all cores.")]
    memory_bytes: int
    threads: int
    open_files: int


class TenantFigures(Result, frozen=True, kw_only=True):
    total: int
    disabled: int
    awake: int
    broken: int


class SystemResources(Result, frozen=True, kw_only=True):
    timestamp: Annotated[int, Meta(description="ms since 1970, as elsewhere in here.")]
    cpu: CpuFigures
    memory: SpaceFigures
    disk: Annotated[SpaceFigures, Meta(description="Where the state directory lies.")]
    uptime: Annotated[float, Meta(description="Of the machine, in seconds.")]
    process: ProcessFigures
    active_connections: int
    active_sandboxes: int
    tenants: TenantFigures


class TenantLine(Result, frozen=True, kw_only=True):
    tenant_id: str
    display_name: str | None = None
    disabled: bool
    tokens_used: Annotated[int, Meta(description="This month, as the requests and the cost.")]
    requests: int
    cost_cents: int
    cost: str
    disk_usage_bytes: Annotated[int | None, Meta(description="Left out until measured.")] = None
    active_sessions: int
    active_connections: int
    last_active_at: int | None = None


class TenantAggregates(Result, frozen=True, kw_only=True):
    """Of all tenants, however few are shown."""

    tenants: int
    tokens_used: int
    requests: int
    cost_cents: int
    cost: str
    currency: str
    disk_usage_bytes: int
    active_sessions: int
    active_connections: int


class TenantsResources(Result, frozen=True, kw_only=True):
    timestamp: int
    tenants: Sequence[TenantLine]
    aggregates: TenantAggregates
    unreadable: Annotated[Sequence[str], Meta(description="Tenants whose ledger is damaged.")]


class HistoryLine(Result, frozen=True, kw_only=True):
    """Means over a stretch of time."""

    timestamp: int
    samples: int
    cpu_percent: float
    load_average: float
    memory_used_bytes: int
    memory_percent: float
    disk_used_bytes: int
    disk_percent: float
    process_memory_bytes: int
    active_connections: float
    active_sandboxes: float


class ResourcesHistory(Result, frozen=True, kw_only=True):
    history: Annotated[Sequence[HistoryLine], Meta(description="Oldest first.")]
    sample_count: int
    resolution: str
    hours_requested: float


async def system(call: MethodCall[NoParams]) -> SystemResources:
    try:
        sample = await call.services.resources.now()
    except OSError as error:
        raise Unavailable("the machine's figures cannot be read") from error
    facts = call.services.facts()
    return _system(
        sample,
        running_for=call.services.clock() - facts.started_at,
        tenants=TenantFigures(
            total=facts.tenants_known,
            disabled=facts.tenants_disabled,
            awake=facts.tenants_awake,
            broken=len(facts.broken),
        ),
    )


async def tenants(call: MethodCall[TenantsResourcesParams]) -> TenantsResources:
    table = await call.services.resources.table(call.caller)
    rows = table.tenants
    cost = sum(row.cost_nano for row in rows)
    return TenantsResources(
        timestamp=_ms(table.at),
        tenants=[_line(row) for row in table.top(call.params.sort_by, call.params.limit)],
        aggregates=TenantAggregates(
            tenants=len(rows),
            tokens_used=sum(row.tokens for row in rows),
            requests=sum(row.requests for row in rows),
            cost_cents=cents(cost),
            cost=format_amount(cost),
            currency=table.currency,
            disk_usage_bytes=sum(row.disk or 0 for row in rows),
            active_sessions=sum(row.activity.runs for row in rows),
            active_connections=sum(row.activity.connections for row in rows),
        ),
        unreadable=table.unreadable,
    )


async def history(call: MethodCall[HistoryParams]) -> ResourcesHistory:
    params = call.params
    points = call.services.resources.history(
        span=timedelta(hours=params.hours), step=_STEPS[params.resolution]
    )
    return ResourcesHistory(
        history=[_history_line(point) for point in points],
        sample_count=sum(point.samples for point in points),
        resolution=params.resolution,
        hours_requested=params.hours,
    )


def _system(sample: Sample, *, running_for: timedelta, tenants: TenantFigures) -> SystemResources:
    seen = sample.machine
    return SystemResources(
        timestamp=_ms(seen.at),
        cpu=CpuFigures(
            cores=seen.cores, usage_percent=seen.cpu_percent, load_average=list(seen.load)
        ),
        memory=_space(seen.memory_total, seen.memory_used),
        disk=_space(seen.disk_total, seen.disk_used),
        uptime=seen.uptime,
        process=ProcessFigures(
            pid=os.getpid(),
            uptime=running_for.total_seconds(),
            cpu_percent=seen.process_cpu_percent,
            memory_bytes=seen.process_memory,
            threads=seen.process_threads,
            open_files=seen.process_files,
        ),
        active_connections=sample.connections,
        active_sandboxes=sample.sandboxes,
        tenants=tenants,
    )


def _space(total: int, used: int) -> SpaceFigures:
    return SpaceFigures(
        total_bytes=total,
        used_bytes=used,
        free_bytes=total - used,
        usage_percent=percent(used, total),
    )


def _line(row: TenantResources) -> TenantLine:
    return TenantLine(
        tenant_id=row.record.id,
        display_name=row.record.name or None,
        disabled=row.record.disabled,
        tokens_used=row.tokens,
        requests=row.requests,
        cost_cents=cents(row.cost_nano),
        cost=format_amount(row.cost_nano),
        disk_usage_bytes=row.disk,
        active_sessions=row.activity.runs,
        active_connections=row.activity.connections,
        last_active_at=None if row.last_active is None else _ms(row.last_active),
    )


def _history_line(point: HistoryPoint) -> HistoryLine:
    return HistoryLine(
        timestamp=_ms(point.at),
        samples=point.samples,
        cpu_percent=point.cpu_percent,
        load_average=point.load,
        memory_used_bytes=point.memory_used,
        memory_percent=point.memory_percent,
        disk_used_bytes=point.disk_used,
        disk_percent=point.disk_percent,
        process_memory_bytes=point.process_memory,
        active_connections=point.connections,
        active_sandboxes=point.sandboxes,
    )


def _ms(moment: datetime) -> int:
    return to_ns(moment) // _MS


METHODS = (
    Method(
        name="admin.resources.system",
        summary="Show what the machine and the gateway use now",
        scope=OperatorScope.ADMIN,
        needs=Scope.READ,
        result=SystemResources,
        who=Who.ADMIN,
        handler=system,
    ),
    Method(
        name="admin.resources.tenants",
        summary="Show the tenants that use most, and the sums over all of them",
        scope=OperatorScope.ADMIN,
        needs=Scope.READ,
        params=TenantsResourcesParams,
        result=TenantsResources,
        who=Who.ADMIN,
        handler=tenants,
    ),
    Method(
        name="admin.resources.history",
        summary="Show what was used over the last day",
        scope=OperatorScope.ADMIN,
        needs=Scope.READ,
        params=HistoryParams,
        result=ResourcesHistory,
        who=Who.ADMIN,
        handler=history,
    ),
    Method(
        name="admin.sandboxes.list",
        summary="List the sandboxes that run",
        scope=OperatorScope.ADMIN,
        needs=Scope.READ,
        who=Who.ADMIN,
    ),
    Method(
        name="admin.sandboxes.kill",
        summary="End a sandbox",
        scope=OperatorScope.ADMIN,
        needs=Scope.MANAGE,
        params=SandboxKillParams,
        who=Who.ADMIN,
        audited="sandbox.kill",
    ),
)
