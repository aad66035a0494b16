"""Routes of tenants themselves."""

from msgspec import UNSET

from appliance.model.tokens import Scope
from appliance.services import tenants as service
from appliance.transports.control.call import Call
from appliance.transports.control.route import Route, Who
from appliance.transports.schemas.base import NoBody, NoQuery
from appliance.transports.schemas.tenants import (
    BrokenTenant,
    TenantCreate,
    TenantCreated,
    TenantDeleteQuery,
    TenantListQuery,
    TenantPage,
    TenantUpdate,
    TenantView,
)


async def create(call: Call[TenantCreate, NoQuery]) -> TenantCreated:
    body = call.body
    created = await call.services.tenants.create(
        call.caller,
        tenant_id=body.id,
        name=body.name or "",
        quotas=body.quotas,
        config=body.config,
        template=body.template,
    )
    return TenantCreated(tenant=TenantView.of(created.record), token=created.token_text)


async def list_page(call: Call[NoBody, TenantListQuery]) -> TenantPage:
    query = call.query
    page = await call.services.tenants.list(
        call.caller, limit=query.limit, cursor=query.cursor, query=query.q or ""
    )
    return TenantPage(
        tenants=[TenantView.of(record) for record in page.records],
        next_cursor=page.next_cursor,
        broken=[BrokenTenant(id=name, reason=reason) for name, reason in page.broken.items()],
    )


async def get(call: Call[NoBody, NoQuery]) -> TenantView:
    return TenantView.of(await call.services.tenants.get(call.caller, call.tenant))


async def update(call: Call[TenantUpdate, NoQuery]) -> TenantView:
    body = call.body
    record = await call.services.tenants.update(
        call.caller,
        call.tenant,
        name=service.UNSET if body.name is UNSET else body.name,
        disabled=service.UNSET if body.disabled is UNSET else body.disabled,
        reason=body.disabled_reason,
    )
    return TenantView.of(record)


async def delete(call: Call[NoBody, TenantDeleteQuery]) -> None:
    await call.services.tenants.delete(call.caller, call.tenant, delete_data=call.query.delete_data)
    call.services.metrics.forget(call.tenant)


ROUTES = (
    Route(
        name="tenants.create",
        method="POST",
        path="/v1/tenants",
        who=Who.ADMIN,
        summary="Create a tenant and its first token",
        handler=create,
        body=TenantCreate,
        answer=TenantCreated,
        status=201,
        failures=(409,),
    ),
    Route(
        name="tenants.list",
        method="GET",
        path="/v1/tenants",
        who=Who.ADMIN,
        summary="List the tenants in order of id",
        handler=list_page,
        query=TenantListQuery,
        answer=TenantPage,
    ),
    Route(
        name="tenants.get",
        method="GET",
        path="/v1/tenants/{id}",
        who=Who.TENANT,
        summary="Show a tenant",
        handler=get,
        scope=Scope.READ,
        answer=TenantView,
    ),
    Route(
        name="tenants.update",
        method="PATCH",
        path="/v1/tenants/{id}",
        who=Who.ADMIN,
        summary="Rename, disable or enable a tenant; disabling ends all it runs",
        handler=update,
        body=TenantUpdate,
        answer=TenantView,
    ),
    Route(
        name="tenants.delete",
        method="DELETE",
        path="/v1/tenants/{id}",
        who=Who.ADMIN,
        summary="Remove a tenant; a tenant created under its id later starts with nothing of it",
        handler=delete,
        query=TenantDeleteQuery,
        status=204,
    ),
)
