"""Routes of a tenant's limits."""

from appliance.transports.control.call import Call
from appliance.transports.control.route import Route, Who
from appliance.transports.schemas.base import Body, NoBody, NoQuery, View
from appliance.transports.schemas.quotas import QuotasInForce, QuotasWanted, in_force, written


async def get(call: Call[NoBody, NoQuery]) -> View:
    quotas = await call.services.tenants.quotas(call.caller, call.tenant)
    return in_force(quotas.effective)


async def put(call: Call[Body, NoQuery]) -> View:
    raw = written(call.body)
    quotas = await call.services.tenants.put_quotas(call.caller, call.tenant, raw)
    return in_force(quotas.effective)


ROUTES = (
    Route(
        name="quotas.get",
        method="GET",
        path="/v1/tenants/{id}/quotas",
        who=Who.TENANT,
        summary="Show the limits in force",
        handler=get,
        answer=QuotasInForce,
    ),
    Route(
        name="quotas.put",
        method="PUT",
        path="/v1/tenants/{id}/quotas",
        who=Who.ADMIN,
        summary="Replace the tenant's own limits; keys not named follow the gateway's defaults",
        handler=put,
        body=QuotasWanted,
        answer=QuotasInForce,
    ),
)
