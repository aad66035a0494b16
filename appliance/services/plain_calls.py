"""Whether a call may go out with the key it would go out with."""

from collections.abc import Sequence

import trio

from appliance.model.callers import Caller
from appliance.protocols.json_body import INLINE_BYTES
from appliance.services import estimates, surcharges
from appliance.services.asking import owner_of
from appliance.services.call_requests import AwakeTenant, CallRequest
from appliance.services.routing import GATEWAY, Route, Target


async def require_plain(
    tenant: AwakeTenant, caller: Caller, request: CallRequest, route: Route
) -> None:
    """What costs more than its tokens is not for the gateway's key, unless the operator says so.

    The operator says so with ``providers.*.extras``, or with a price for it in the rate card.

    Nor is it for a token that is to lead to some models only, whoever pays.
    """
    paid = [target for target in route.targets if _is_the_gateways_to_pay(tenant, target)]
    if not paid and not caller.models:
        return
    for target in paid:
        section = tenant.config.providers.get(target.provider)
        # Names may lead anywhere: tenants have aliases of their own. A provider's list is the
        # operator's.
        if section is None or target.model not in section.models:
            surcharges.require_plain_model(target.model)
    rule = surcharges.GATEWAYS_KEY if paid else surcharges.SOME_MODELS
    asked = request.dialect, request.body, rule, _priced(tenant, paid)
    if _is_small(request):
        surcharges.require_plain(*asked)
    else:
        await trio.to_thread.run_sync(surcharges.require_plain, *asked)


async def searches_to_reserve(request: CallRequest) -> int:
    """How often a provider may search for ``request``."""
    asked = request.dialect, request.body
    if _is_small(request):
        return estimates.searches_to_reserve(*asked)
    return await trio.to_thread.run_sync(estimates.searches_to_reserve, *asked)


def _is_small(request: CallRequest) -> bool:
    return sum(map(len, request.body.values())) <= INLINE_BYTES


def _priced(tenant: AwakeTenant, paid: Sequence[Target]) -> frozenset[str]:
    """What else than text has a price with all whom the gateway pays.

    That is the operator's word; the public list alone lets nobody spend more than before.
    """
    rates = [tenant.config.models.rate_card.get(str(target)) for target in paid]
    priced = [frozenset[str]() if rate is None else rate.surcharges() for rate in rates]
    return frozenset[str]().union(*priced).intersection(*priced)


def _is_the_gateways_to_pay(tenant: AwakeTenant, target: Target) -> bool:
    section = tenant.config.providers.get(target.provider)
    allows = section is not None and section.extras
    return not allows and owner_of(tenant, target) == GATEWAY
