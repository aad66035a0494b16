"""``terminal.support.*``: operators ask, tenants consent, either side ends it."""

from datetime import timedelta
from typing import Any

from appliance.model.errors import Forbidden
from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope
from appliance.services.terminals.parts import TerminalTenant
from appliance.transports.rpc.method import Method, MethodCall, Who
from appliance.transports.rpc.terminals import shown
from appliance.transports.rpc.terminals_shapes import (
    SupportAskParams,
    SupportEndParams,
    SupportListParams,
    SupportListResult,
    SupportResolveParams,
    SupportShown,
)


async def request(call: MethodCall[SupportAskParams]) -> SupportShown:
    params = call.params
    asked = await call.services.terminals.support.request(
        await _wake(call, params.tenant_id),
        call.caller,
        call.client,
        terminal_id=params.terminal_id,
        mode=params.mode,
        reason=params.reason,
        lasts=None if params.minutes is None else timedelta(minutes=params.minutes),
    )
    return shown(asked)


async def list_all(call: MethodCall[SupportListParams]) -> SupportListResult:
    tenant = await _wake(call, call.params.tenant_id)
    return SupportListResult(
        requests=[shown(each) for each in call.services.terminals.support.list(tenant)]
    )


async def resolve(call: MethodCall[SupportResolveParams]) -> SupportShown:
    params = call.params
    resolved = await call.services.terminals.support.resolve(
        call.awake, call.caller, params.request_id, allow=params.decision == "allow"
    )
    return shown(resolved)


async def end(call: MethodCall[SupportEndParams]) -> SupportShown:
    params = call.params
    tenant = await _wake(call, params.tenant_id)
    ended = await call.services.terminals.support.end(tenant, call.caller, params.request_id)
    return shown(ended)


async def _wake(call: MethodCall[Any], tenant_id: str | None) -> TerminalTenant:
    """The tenant that is meant: the connection's own, or the one an operator at large names."""
    if call.tenant is None and tenant_id is not None:
        return await call.services.terminals.wake(tenant_id)
    tenant = call.awake
    if tenant_id is not None and tenant_id != tenant.id:
        raise Forbidden("the connection is about another tenant")
    return tenant


METHODS: tuple[Method, ...] = (
    Method(
        name="terminal.support.request",
        summary="Ask a tenant to let support look into its terminals, or type into them",
        scope=OperatorScope.ADMIN,
        needs=Scope.FULL,
        who=Who.ADMIN,
        params=SupportAskParams,
        result=SupportShown,
        handler=request,
        audited="terminal.support.request",
    ),
    Method(
        name="terminal.support.list",
        summary="List what support asks for or may do now",
        scope=OperatorScope.READ,
        needs=Scope.TERMINAL,
        who=Who.ANYONE,
        params=SupportListParams,
        result=SupportListResult,
        handler=list_all,
    ),
    Method(
        name="terminal.support.resolve",
        summary="Let support in, or do not; only the tenant itself can",
        scope=OperatorScope.WRITE,
        needs=Scope.TERMINAL,
        params=SupportResolveParams,
        result=SupportShown,
        handler=resolve,
        audited="terminal.support.allow",
    ),
    Method(
        name="terminal.support.end",
        summary="End support access, or withdraw the request; either side may",
        scope=OperatorScope.WRITE,
        needs=Scope.TERMINAL,
        who=Who.ANYONE,
        params=SupportEndParams,
        result=SupportShown,
        handler=end,
        audited="terminal.support.end",
    ),
)
