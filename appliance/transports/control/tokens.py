"""Routes of a tenant's tokens."""

from datetime import timedelta

from appliance.model.tokens import Scope
from appliance.transports.control.call import Call
from appliance.transports.control.route import Route, Who
from appliance.transports.schemas.base import NoBody, NoQuery, duration
from appliance.transports.schemas.tokens import (
    TokenCreate,
    TokenCreated,
    TokenList,
    TokenRotate,
    TokenView,
)


async def rotate(call: Call[TokenRotate, NoQuery]) -> TokenCreated:
    grace = timedelta() if call.body.grace is None else duration(call.body.grace, "grace")
    minted = await call.services.tenants.rotate(call.caller, call.tenant, grace=grace)
    return TokenCreated.of(minted.token, minted.text)


async def create(call: Call[TokenCreate, NoQuery]) -> TokenCreated:
    body = call.body
    lifetime = None if body.expires_in is None else duration(body.expires_in, "expires_in")
    minted = await call.services.tenants.create_token(
        call.caller,
        call.tenant,
        label=body.label,
        scopes=body.scopes,
        expires_in=lifetime,
        models=body.models,
    )
    return TokenCreated.of(minted.token, minted.text)


async def list_all(call: Call[NoBody, NoQuery]) -> TokenList:
    tokens = await call.services.tenants.list_tokens(call.caller, call.tenant)
    return TokenList(tokens=[TokenView.of(token) for token in tokens])


async def revoke(call: Call[NoBody, NoQuery]) -> None:
    await call.services.tenants.revoke_token(call.caller, call.tenant, call.path["tid"])


ROUTES = (
    Route(
        name="tokens.rotate",
        method="POST",
        path="/v1/tenants/{id}/rotate",
        who=Who.TENANT,
        summary="Replace all tokens by a new one; the old ones end now or after a grace period",
        handler=rotate,
        scope=Scope.MANAGE,
        body=TokenRotate,
        answer=TokenCreated,
    ),
    Route(
        name="tokens.list",
        method="GET",
        path="/v1/tenants/{id}/tokens",
        who=Who.TENANT,
        summary="List the tokens and browser sessions; never their text",
        handler=list_all,
        scope=Scope.READ,
        answer=TokenList,
    ),
    Route(
        name="tokens.create",
        method="POST",
        path="/v1/tenants/{id}/tokens",
        who=Who.TENANT,
        summary="Mint a token with at most the caller's own scopes",
        handler=create,
        scope=Scope.MANAGE,
        body=TokenCreate,
        answer=TokenCreated,
        status=201,
    ),
    Route(
        name="tokens.revoke",
        method="DELETE",
        path="/v1/tenants/{id}/tokens/{tid}",
        who=Who.TENANT,
        summary="End a token and everything that runs with it",
        handler=revoke,
        scope=Scope.MANAGE,
        status=204,
    ),
)
