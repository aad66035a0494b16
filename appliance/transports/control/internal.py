"""The original's ``/internal/v1``, for control planes that were written for it.

The same services do the work, so what holds elsewhere holds here: errors have
their right status, everything is audited, and a removed tenant's data is kept
aside unless ``?delete_data=true`` asks for its erasure.
"""

import os

from appliance import __version__
from appliance.model.tenants import TenantRecord
from appliance.transports.control.call import Call
from appliance.transports.control.route import Route, Who
from appliance.transports.schemas.base import NoBody, NoQuery
from appliance.transports.schemas.internal import (
    HostMetrics,
    InternalStatus,
    InternalTenant,
    InternalTenantCreate,
    InternalTenantCreated,
    InternalTenantDeleted,
)
from appliance.transports.schemas.tenants import TenantDeleteQuery

_TENANT = "/internal/v1/tenants/{id}"
_CAPABILITIES = ("tenants", "quotas", "usage", "audit")


async def status(call: Call[NoBody, NoQuery]) -> InternalStatus:
    services = call.services
    facts, now = services.facts(), services.clock()
    return InternalStatus(
        version=__version__,
        status="ok" if services.readiness().ready else "not ready",
        capabilities=_CAPABILITIES,
        multi_tenant=True,
        tenants_count=facts.tenants_known,
        metrics=HostMetrics(
            cpu_count=os.cpu_count() or 1,
            load1m=os.getloadavg()[0],
            memory_total_bytes=_pages("SC_PHYS_PAGES"),
            memory_free_bytes=_pages("SC_AVPHYS_PAGES"),
            uptime_seconds=int((now - facts.started_at).total_seconds()),
            tenants_count=facts.tenants_known,
            reported_at=now,
        ),
    )


async def get(call: Call[NoBody, NoQuery]) -> InternalTenant:
    return _view(await call.services.tenants.get(call.caller, call.tenant))


async def create(call: Call[InternalTenantCreate, NoQuery]) -> InternalTenantCreated:
    name = call.body.display_name or ""
    made = await call.services.tenants.create(call.caller, tenant_id=call.tenant, name=name)
    return InternalTenantCreated(tenant=_view(made.record), token=made.token_text)


async def delete(call: Call[NoBody, TenantDeleteQuery]) -> InternalTenantDeleted:
    erase = call.query.delete_data
    await call.services.tenants.delete(call.caller, call.tenant, delete_data=erase)
    call.services.metrics.forget(call.tenant)
    return InternalTenantDeleted(id=call.tenant, deleted=True, data_deleted=erase)


def _view(record: TenantRecord) -> InternalTenant:
    return InternalTenant(
        id=record.id,
        display_name=record.name,
        created_at=record.created_at,
        disabled=record.disabled,
    )


def _pages(name: str) -> int:
    return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")


ROUTES = (
    Route(
        name="internal.status",
        method="GET",
        path="/internal/v1/status",
        who=Who.CONTROL_PLANE,
        summary="Show the gateway and its machine",
        handler=status,
        answer=InternalStatus,
    ),
    Route(
        name="internal.tenant",
        method="GET",
        path=_TENANT,
        who=Who.CONTROL_PLANE,
        summary="Show a tenant",
        handler=get,
        answer=InternalTenant,
    ),
    Route(
        name="internal.create",
        method="POST",
        path=_TENANT,
        who=Who.CONTROL_PLANE,
        summary="Create a tenant and its first token",
        handler=create,
        body=InternalTenantCreate,
        answer=InternalTenantCreated,
        status=201,
        failures=(409,),
    ),
    Route(
        name="internal.delete",
        method="DELETE",
        path=_TENANT,
        who=Who.CONTROL_PLANE,
        summary="Remove a tenant",
        handler=delete,
        query=TenantDeleteQuery,
        answer=InternalTenantDeleted,
    ),
)
