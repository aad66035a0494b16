"""Routes of a tenant's own provider keys."""

from appliance.model.tokens import Scope
from appliance.transports.control.call import Call
from appliance.transports.control.collaborators import ProviderKeyInfo
from appliance.transports.control.route import Route, Who
from appliance.transports.schemas.base import NoBody, NoQuery
from appliance.transports.schemas.credentials import (
    ProviderKeyList,
    ProviderKeyPut,
    ProviderKeyView,
)

_PATH = "/v1/tenants/{id}/credentials"


async def list_all(call: Call[NoBody, NoQuery]) -> ProviderKeyList:
    keys = await call.services.provider_keys.list(call.caller, call.tenant)
    return ProviderKeyList(credentials=[_view(key) for key in keys])


async def put(call: Call[ProviderKeyPut, NoQuery]) -> ProviderKeyView:
    body = call.body
    key = await call.services.provider_keys.put(
        call.caller,
        call.tenant,
        call.path["provider"],
        api_key=body.api_key,
        dialect=body.dialect,
        base_url=body.base_url,
    )
    return _view(key)


async def delete(call: Call[NoBody, NoQuery]) -> None:
    await call.services.provider_keys.delete(call.caller, call.tenant, call.path["provider"])


def _view(key: ProviderKeyInfo) -> ProviderKeyView:
    return ProviderKeyView(provider=key.provider, dialect=key.dialect, base_url=key.base_url)


ROUTES = (
    Route(
        name="credentials.list",
        method="GET",
        path=_PATH,
        who=Who.TENANT,
        summary="List the providers for which the tenant has a key of its own",
        handler=list_all,
        answer=ProviderKeyList,
    ),
    Route(
        name="credentials.put",
        method="PUT",
        path=f"{_PATH}/{{provider}}",
        who=Who.TENANT,
        summary="Set the tenant's own key for a provider",
        handler=put,
        scope=Scope.MANAGE,
        body=ProviderKeyPut,
        answer=ProviderKeyView,
    ),
    Route(
        name="credentials.delete",
        method="DELETE",
        path=f"{_PATH}/{{provider}}",
        who=Who.TENANT,
        summary="Forget the tenant's own key for a provider",
        handler=delete,
        scope=Scope.MANAGE,
        status=204,
        failures=(422,),
    ),
)
