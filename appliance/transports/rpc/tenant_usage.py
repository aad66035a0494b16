"""``tenants.usage``, its history, and the quotas it counts against."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from appliance.model.errors import TenantBroken, TenantDisabled
from appliance.model.money import format_amount, parse_amount
from appliance.model.operator_scopes import OperatorScope
from appliance.model.periods import Period, from_ns, month_of, to_ns
from appliance.model.quotas import render_limit, render_quotas
from appliance.model.spending import Standing
from appliance.model.tokens import Scope
from appliance.services.disk_usage import DiskUsage
from appliance.services.usage_reports import UsageLine, UsageTable
from appliance.storage.session_rows import SessionFilter
from appliance.transports.rpc.method import Method, MethodCall, Who
from appliance.transports.rpc.quota_names import cents, in_original_names, in_our_names
from appliance.transports.rpc.tenants_shapes import (
    QuotaStatusResult,
    QuotaUpdateResult,
    TenantsHistoryParams,
    TenantsQuotaStatusParams,
    TenantsQuotaUpdateParams,
    TenantsUsageParams,
    UsageHistoryResult,
    UsageSnapshot,
)

_MS = 1_000_000  # nanoseconds


async def usage(call: MethodCall[TenantsUsageParams]) -> UsageSnapshot:
    tenant = call.params.require_tenant()
    await call.services.tenants.get(call.caller, tenant)  # may the caller, and is there one
    return await _usage_now(call, tenant, refresh_disk=call.params.refresh_disk)


async def history(call: MethodCall[TenantsHistoryParams]) -> UsageHistoryResult:
    tenant = call.params.require_tenant()
    await call.services.tenants.get(call.caller, tenant)
    now = call.services.clock()
    months = _months(now, call.params.months)
    table = await _table(call, tenant, months[-1].start_ns, months[0].end_ns)
    return UsageHistoryResult(
        tenant_id=tenant, history=[_snapshot(tenant, table, month, now) for month in months]
    )


async def quota_status(call: MethodCall[TenantsQuotaStatusParams]) -> QuotaStatusResult:
    tenant = call.params.require_tenant()
    limits = (await call.services.tenants.quotas(call.caller, tenant)).effective
    standing = await _standing(call, tenant)
    used = await _usage_now(call, tenant, standing=standing)
    tokens, cost = _used(standing, "tokens_per_month"), _used(standing, "cost_per_month")
    if standing is None:  # asleep for good: what the ledger says
        tokens, cost = used.total_tokens, parse_amount(used.total_cost)
    over_tokens = _is_over(tokens, limits.tokens_per_month)
    over_cost = _is_over(cost, limits.cost_per_month)
    over_disk = _is_over(used.disk_usage_bytes or 0, limits.disk_bytes)
    soft = _is_over(tokens, limits.soft_tokens_per_month) or _is_over(
        cost, limits.soft_cost_per_month
    )
    return QuotaStatusResult(
        tenant_id=tenant,
        quotas=in_original_names(limits),
        limits=render_quotas(limits),
        usage=used,
        token_usage_percent=_percent(tokens, limits.tokens_per_month),
        cost_usage_percent=_percent(cost, limits.cost_per_month),
        disk_usage_percent=_percent(used.disk_usage_bytes or 0, limits.disk_bytes),
        is_over_token_limit=over_tokens,
        is_over_cost_limit=over_cost,
        is_over_disk_limit=over_disk,
        is_at_soft_limit=soft or bool(standing and standing.soft_limits),
        is_blocked=over_tokens or over_cost or over_disk or _is_spent(standing),
    )


async def quota_update(call: MethodCall[TenantsQuotaUpdateParams]) -> QuotaUpdateResult:
    """Unlike REST's PUT, as in the original, this changes what is named and leaves the rest."""
    tenant, tenants = call.params.require_tenant(), call.services.tenants
    explicit = (await tenants.quotas(call.caller, tenant)).explicit
    before = {key: render_limit(key, value) for key, value in explicit.items()}
    wanted = {**before, **in_our_names(call.params.quotas)}
    limits = (await tenants.put_quotas(call.caller, tenant, wanted)).effective
    return QuotaUpdateResult(
        updated=True,
        tenant_id=tenant,
        quotas=in_original_names(limits),
        limits=render_quotas(limits),
    )


async def _usage_now(
    call: MethodCall[Any],
    tenant: str,
    *,
    refresh_disk: bool = False,
    standing: Standing | None = None,
) -> UsageSnapshot:
    now = call.services.clock()
    month = month_of(to_ns(now))
    table = await _table(call, tenant, month.start_ns, month.end_ns)
    standing = standing or await _standing(call, tenant)
    return _snapshot(
        tenant,
        table,
        month,
        now,
        standing=standing,
        disk=await call.services.resources.disk(tenant, refresh=refresh_disk),
        sessions=await _sessions(call, tenant),
    )


async def _table(call: MethodCall[Any], tenant: str, start_ns: int, end_ns: int) -> UsageTable:
    return await call.services.usage.report(
        call.caller,
        tenant=tenant,
        start=from_ns(start_ns),
        end=from_ns(end_ns),
        granularity="month",
    )


async def _standing(call: MethodCall[Any], tenant: str) -> Standing | None:
    """Where the tenant stands right now; None for one that cannot be woken."""
    try:
        return await call.services.standing(tenant)
    except (TenantDisabled, TenantBroken):
        return None


async def _sessions(call: MethodCall[Any], tenant: str) -> int | None:
    """How many sessions there are, if this is the tenant's own connection."""
    if call.tenant is None or call.tenant.id != tenant:
        return None
    store = await call.tenant.sessions()
    return store.list(filters=SessionFilter(limit=1, archived=None)).total


def _snapshot(
    tenant: str,
    table: UsageTable,
    month: Period,
    now: datetime,
    *,
    standing: Standing | None = None,
    disk: DiskUsage | None = None,
    sessions: int | None = None,
) -> UsageSnapshot:
    lines = [line for line in table.lines if to_ns(line.period) in month]
    # Money in another currency than today's cannot be added up.
    cost = sum(line.cost_nano for line in lines if line.currency == table.currency)
    return UsageSnapshot(
        tenant_id=tenant,
        period=f"{from_ns(month.start_ns):%Y-%m}",
        **_tokens(lines),
        total_cost_cents=cents(cost),
        total_cost=format_amount(cost),
        currency=table.currency,
        total_requests=sum(line.requests for line in lines),
        estimated_requests=sum(line.estimated_requests for line in lines),
        tool_calls=sum(line.tool_calls for line in lines),
        sandbox_cpu_seconds=sum(line.sandbox_cpu_ms for line in lines) / 1000,
        updated_at=to_ns(now) // _MS,
        quota_reset_at=month.end_ns // _MS,
        requests_this_minute=_counted(standing, "requests_per_minute"),
        requests_this_hour=_counted(standing, "requests_per_hour"),
        active_requests=_counted(standing, "concurrent_requests"),
        total_sessions=sessions,
        disk_usage_bytes=None if disk is None else disk.total,
        workspace_bytes=None if disk is None else disk.of("workspace"),
        agent_data_bytes=None if disk is None else disk.of("sessions"),
        memory_db_bytes=None if disk is None else disk.of("memory"),
        disk_measured_at=None if disk is None else to_ns(disk.measured_at) // _MS,
    )


def _tokens(lines: Iterable[UsageLine]) -> Mapping[str, int]:
    used = [line.usage for line in lines]
    return {
        "total_tokens": sum(each.total for each in used),
        "input_tokens": sum(each.input for each in used),
        "output_tokens": sum(each.output for each in used),
        "cache_read_tokens": sum(each.cache_read for each in used),
        "cache_write_tokens": sum(each.cache_write for each in used),
        "reasoning_tokens": sum(each.reasoning for each in used),
    }


def _months(now: datetime, count: int) -> list[Period]:
    """The last ``count`` months, this one first."""
    months = [month_of(to_ns(now))]
    while len(months) < count:
        months.append(month_of(months[-1].start_ns - 1))
    return months


def _used(standing: Standing | None, key: str) -> int:
    return _counted(standing, key) or 0


def _counted(standing: Standing | None, key: str) -> int | None:
    quota = None if standing is None else standing.find(key)
    return None if quota is None else quota.used


def _is_over(used: int, limit: int | None) -> bool:
    return limit is not None and used >= limit


def _is_spent(standing: Standing | None) -> bool:
    """Whether a budget, of the day as well as of the month, lets nothing through any more."""
    if standing is None:
        return False
    return any(quota.remaining == 0 for quota in standing.quotas if quota.resets_at is not None)


def _percent(used: int, limit: int | None) -> float:
    return 0.0 if not limit else round(100 * used / limit, 2)


METHODS = (
    Method(
        name="tenants.usage",
        summary="Show what a tenant used this month",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=TenantsUsageParams,
        result=UsageSnapshot,
        who=Who.ANYONE,
        handler=usage,
    ),
    Method(
        name="tenants.usage.history",
        summary="Show what a tenant used month by month, newest first",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=TenantsHistoryParams,
        result=UsageHistoryResult,
        who=Who.ANYONE,
        handler=history,
    ),
    Method(
        name="tenants.quota.status",
        summary="Show where a tenant stands with its quotas",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=TenantsQuotaStatusParams,
        result=QuotaStatusResult,
        who=Who.ANYONE,
        handler=quota_status,
    ),
    Method(
        name="tenants.quota.update",
        summary="Change the quotas that are named; the others stay",
        scope=OperatorScope.ADMIN,
        needs=Scope.MANAGE,
        params=TenantsQuotaUpdateParams,
        result=QuotaUpdateResult,
        who=Who.ADMIN,
        handler=quota_update,
        audited="quota.write",
    ),
)
