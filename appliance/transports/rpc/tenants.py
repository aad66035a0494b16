"""``tenants.*``: what the operator, and a tenant for itself, does with a tenant."""

from datetime import timedelta

from msgspec import UNSET

from appliance.model.errors import InvalidRequest
from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope
from appliance.services import tenants as service
from appliance.transports.rpc.method import Method, MethodCall, Who
from appliance.transports.rpc.tenants_shapes import (
    BrokenRow,
    TenantRow,
    TenantsCreateParams,
    TenantsCreateResult,
    TenantsDeleteParams,
    TenantsDeleteResult,
    TenantsGetParams,
    TenantsGetResult,
    TenantsListParams,
    TenantsListResult,
    TenantsRotateParams,
    TenantsRotateResult,
    TenantsUpdateParams,
    TenantsUpdateResult,
    row_fields,
)
from appliance.transports.schemas.base import duration


async def tenants_list(call: MethodCall[TenantsListParams]) -> TenantsListResult:
    params = call.params
    page = await call.services.tenants.list(
        call.caller, limit=params.limit, cursor=params.cursor, query=params.query
    )
    return TenantsListResult(
        tenants=[TenantRow.of(record) for record in page.records],
        next_cursor=page.next_cursor,
        broken=[BrokenRow(tenant_id=name, reason=why) for name, why in page.broken.items()],
    )


async def tenants_create(call: MethodCall[TenantsCreateParams]) -> TenantsCreateResult:
    params = call.params
    made = await call.services.tenants.create(
        call.caller,
        tenant_id=params.require_tenant(),
        name=params.display_name or "",
        quotas=params.quotas,
        config=params.config,
        template=params.template,
    )
    return TenantsCreateResult(
        tenant_id=made.record.id,
        token=made.token_text,
        created_at=made.record.created_at,
        state_dir=_state_dir(made.record.id),
        display_name=made.record.name or None,
    )


async def tenants_get(call: MethodCall[TenantsGetParams]) -> TenantsGetResult:
    record = await call.services.tenants.get(call.caller, call.params.require_tenant())
    return TenantsGetResult(**row_fields(record), state_dir=_state_dir(record.id))


async def tenants_update(call: MethodCall[TenantsUpdateParams]) -> TenantsUpdateResult:
    params = call.params
    record = await call.services.tenants.update(
        call.caller,
        params.require_tenant(),
        name=service.UNSET if params.display_name is UNSET else params.display_name or "",
        disabled=service.UNSET if params.disabled is UNSET else params.disabled,
        reason=params.disabled_reason,
    )
    return TenantsUpdateResult(**row_fields(record), updated=True)


async def tenants_rotate(call: MethodCall[TenantsRotateParams]) -> TenantsRotateResult:
    params = call.params
    grace = timedelta() if params.grace is None else duration(params.grace, "grace")
    tenant = params.require_tenant()
    minted = await call.services.tenants.rotate(call.caller, tenant, grace=grace)
    return TenantsRotateResult(tenant_id=tenant, token=minted.text, token_id=minted.token.id)


async def tenants_delete(call: MethodCall[TenantsDeleteParams]) -> TenantsDeleteResult:
    params, tenant = call.params, call.params.require_tenant()
    if call.caller.is_admin:
        erase = params.delete_data is True
    else:
        call.caller.require_access(tenant, Scope.FULL)
        if not params.confirm:
            raise InvalidRequest.at("confirm", "must be true for a tenant to end itself")
        erase = params.delete_data is not False
    await call.services.tenants.delete(call.caller, tenant, delete_data=erase)
    return TenantsDeleteResult(deleted=True, tenant_id=tenant, data_deleted=erase)


def _state_dir(tenant: str) -> str:
    return f"tenant:{tenant}"


METHODS = (
    Method(
        name="tenants.list",
        summary="List the tenants in order of id",
        scope=OperatorScope.ADMIN,
        needs=Scope.READ,
        params=TenantsListParams,
        result=TenantsListResult,
        who=Who.ADMIN,
        handler=tenants_list,
    ),
    Method(
        name="tenants.create",
        summary="Create a tenant and its first token",
        scope=OperatorScope.ADMIN,
        needs=Scope.MANAGE,
        params=TenantsCreateParams,
        result=TenantsCreateResult,
        who=Who.ADMIN,
        handler=tenants_create,
        audited="tenant.create",
    ),
    Method(
        name="tenants.get",
        summary="Show a tenant",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=TenantsGetParams,
        result=TenantsGetResult,
        who=Who.ANYONE,
        handler=tenants_get,
    ),
    Method(
        name="tenants.update",
        summary="Rename, disable or enable a tenant; disabling ends all it runs",
        scope=OperatorScope.ADMIN,
        needs=Scope.MANAGE,
        params=TenantsUpdateParams,
        result=TenantsUpdateResult,
        who=Who.ADMIN,
        handler=tenants_update,
        audited="tenant.update",
        outside=True,
    ),
    Method(
        name="tenants.rotate",
        summary="Replace all tokens by a new one; the old ones end now or after a grace period",
        scope=OperatorScope.ADMIN,
        needs=Scope.MANAGE,
        params=TenantsRotateParams,
        result=TenantsRotateResult,
        who=Who.ANYONE,
        handler=tenants_rotate,
        audited="token.rotate",
        outside=True,
    ),
    Method(
        name="tenants.delete",
        summary="Remove a tenant; a tenant may end itself with confirm: true",
        scope=OperatorScope.ADMIN,
        needs=Scope.FULL,
        params=TenantsDeleteParams,
        result=TenantsDeleteResult,
        who=Who.ANYONE,
        handler=tenants_delete,
        audited="tenant.delete",
        outside=True,
    ),
)
