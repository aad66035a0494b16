"""``tokens.*``: a tenant's tokens. Their text goes out once, when they are made."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Self

from msgspec import Meta

from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope, TokenRecord
from appliance.transports.rpc.fields import TokenIdText
from appliance.transports.rpc.method import Method, MethodCall, Result, Who
from appliance.transports.rpc.tenants_shapes import OfTenant
from appliance.transports.schemas.base import Duration, duration
from appliance.transports.schemas.tokens import Label, Models


class TokensCreateParams(OfTenant, frozen=True, kw_only=True):
    label: Label = ""
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1, max_length=len(Scope))] = (Scope.FULL,)
    expires_in: Duration | None = None
    models: Models = ()


class TokensListParams(OfTenant, frozen=True, kw_only=True):
    pass


class TokensRevokeParams(OfTenant, frozen=True, kw_only=True):
    token_id: TokenIdText


class TokenRow(Result, frozen=True, kw_only=True):
    id: str
    label: str = ""
    scopes: Sequence[str]
    created_at: datetime
    expires_at: datetime | None = None
    models: Sequence[str] = ()
    last_used_at: datetime | None = None

    @classmethod
    def of(cls, token: TokenRecord) -> Self:
        return cls(**_fields(token), last_used_at=token.last_used_at)


class TokensListResult(Result, frozen=True, kw_only=True):
    tenant_id: str
    tokens: Sequence[TokenRow]


class TokensCreateResult(TokenRow, frozen=True, kw_only=True):
    tenant_id: str
    token: Annotated[str, Meta(description="Shown this once; only its digest is kept.")]


class TokensRevokeResult(Result, frozen=True, kw_only=True):
    tenant_id: str
    token_id: str
    revoked: bool


async def tokens_create(call: MethodCall[TokensCreateParams]) -> TokensCreateResult:
    params, tenant = call.params, call.params.require_tenant()
    life = None if params.expires_in is None else duration(params.expires_in, "expiresIn")
    minted = await call.services.tenants.create_token(
        call.caller,
        tenant,
        label=params.label,
        scopes=params.scopes,
        expires_in=life,
        models=params.models,
    )
    return TokensCreateResult(**_fields(minted.token), tenant_id=tenant, token=minted.text)


async def tokens_list(call: MethodCall[TokensListParams]) -> TokensListResult:
    tenant = call.params.require_tenant()
    tokens = await call.services.tenants.list_tokens(call.caller, tenant)
    return TokensListResult(tenant_id=tenant, tokens=[TokenRow.of(token) for token in tokens])


async def tokens_revoke(call: MethodCall[TokensRevokeParams]) -> TokensRevokeResult:
    tenant, token_id = call.params.require_tenant(), call.params.token_id
    await call.services.tenants.revoke_token(call.caller, tenant, token_id)
    return TokensRevokeResult(tenant_id=tenant, token_id=token_id, revoked=True)


def _fields(token: TokenRecord) -> dict[str, Any]:
    return {
        "id": token.id,
        "label": token.label,
        "scopes": sorted(token.scopes),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "models": token.models,
    }


METHODS = (
    Method(
        name="tokens.create",
        summary="Mint a token with at most the caller's own scopes",
        scope=OperatorScope.ADMIN,
        needs=Scope.MANAGE,
        params=TokensCreateParams,
        result=TokensCreateResult,
        who=Who.ANYONE,
        handler=tokens_create,
        audited="token.mint",
    ),
    Method(
        name="tokens.list",
        summary="List the tokens and browser sessions; never their text",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=TokensListParams,
        result=TokensListResult,
        who=Who.ANYONE,
        handler=tokens_list,
    ),
    Method(
        name="tokens.revoke",
        summary="End a token and everything that runs with it",
        scope=OperatorScope.ADMIN,
        needs=Scope.MANAGE,
        params=TokensRevokeParams,
        result=TokensRevokeResult,
        who=Who.ANYONE,
        handler=tokens_revoke,
        audited="token.revoke",
        outside=True,
    ),
)
