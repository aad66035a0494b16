"""The route of the status: the whole for an admin, its own standing for a tenant."""

from appliance import __version__
from appliance.transports.control.call import Call
from appliance.transports.control.collaborators import ControlServices
from appliance.transports.control.route import Route, Who
from appliance.transports.schemas.base import NoBody, NoQuery
from appliance.transports.schemas.status import (
    GatewayStatus,
    SandboxStatus,
    TenantCounts,
    TenantStatus,
)


async def status(call: Call[NoBody, NoQuery]) -> GatewayStatus | TenantStatus:
    tenant = call.caller.tenant
    if tenant is None:
        return gateway_status(call.services)
    return TenantStatus.of(tenant, await call.services.standing(tenant))


def gateway_status(services: ControlServices) -> GatewayStatus:
    facts = services.facts()
    readiness = services.readiness()
    return GatewayStatus(
        version=__version__,
        started_at=facts.started_at,
        uptime_seconds=int((services.clock() - facts.started_at).total_seconds()),
        ready=readiness.ready,
        reasons=readiness.reasons,
        warnings=readiness.warnings,
        loop_lag_ms=readiness.loop_lag_ms,
        tenants=TenantCounts(
            known=facts.tenants_known,
            disabled=facts.tenants_disabled,
            awake=facts.tenants_awake,
            broken=facts.broken,
        ),
        disk_free_bytes=facts.disk_free_bytes,
        config_problem=facts.config_problem,
        providers=facts.providers,
        sandbox=SandboxStatus.of(facts.sandbox, running=facts.sandboxes_running),
    )


ROUTES = (
    Route(
        name="status.get",
        method="GET",
        path="/v1/status",
        who=Who.TENANT,
        summary="Show the gateway to an admin, to a tenant where it stands with its quotas",
        handler=status,
        answer=GatewayStatus,
        also=(TenantStatus,),
    ),
)
