"""``health`` and ``status``: of the tenant, or of the gateway for an admin who acts for nobody."""

from typing import Annotated

from msgspec import Meta

from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope
from appliance.services.snapshot_shapes import Health, Status
from appliance.transports.rpc.method import Method, MethodCall, Params, Raw, Who


class HealthParams(Params, frozen=True, kw_only=True):
    probe: Annotated[bool, Meta(description="Look now, however fresh the last look is.")] = False
    include_sensitive: Annotated[bool, Meta(description="Changes nothing.")] = False


class StatusParams(Params, frozen=True, kw_only=True):
    include_channel_summary: Annotated[bool, Meta(description="Changes nothing yet.")] = True
    include_cli_projection: Annotated[bool, Meta(description="Add the agents' names.")] = False


async def health(call: MethodCall[HealthParams]) -> Raw:
    snapshots, probe = call.services.snapshots, call.params.probe
    if call.tenant is None:
        return Raw(snapshots.gateway_health(probe=probe))
    return Raw(await snapshots.health(call.tenant, probe=probe))


def health_nowait(call: MethodCall[HealthParams]) -> Raw:
    snapshots, probe = call.services.snapshots, call.params.probe
    if call.tenant is None:
        return Raw(snapshots.gateway_health(probe=probe))
    return Raw(snapshots.health_nowait(call.tenant, probe=probe))


async def status(call: MethodCall[StatusParams]) -> Status:
    for_cli = call.params.include_cli_projection
    if call.tenant is None:
        return call.services.snapshots.gateway_status(for_cli=for_cli)
    return await call.services.snapshots.status(call.tenant, for_cli=for_cli)


METHODS = (
    Method(
        name="health",
        summary="Show how the tenant is; for an admin at large, the gateway",
        scope=OperatorScope.READ,
        needs=None,
        params=HealthParams,
        result=Health,
        who=Who.ANYONE,
        handler=health,
        inline=health_nowait,
    ),
    Method(
        name="status",
        summary="Show agents, sessions and how full they are; for an admin at large, the gateway",
        scope=OperatorScope.READ,
        needs=Scope.CHAT,
        params=StatusParams,
        result=Status,
        who=Who.ANYONE,
        handler=status,
    ),
)
