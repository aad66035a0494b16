"""``models.*``: what a tenant may ask for."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from msgspec import Meta

from appliance.model.errors import ModelUnknown
from appliance.model.operator_scopes import OperatorScope
from appliance.model.periods import to_ms
from appliance.model.tokens import Scope
from appliance.services.context_windows import context_window
from appliance.services.routing import Target
from appliance.tenants.runtime import TenantRuntime
from appliance.transports.rpc.fields import AgentIdText, SessionKeyText
from appliance.transports.rpc.method import Method, MethodCall, Params, Result

_AGENTS = "openclaw"  # the owner of agents that HTTP clients name as models


class ModelsListParams(Params, frozen=True, kw_only=True):
    """Only ``view`` makes a difference: the list is always as new as it gets."""

    agent_id: AgentIdText | None = None
    session_key: SessionKeyText | None = None
    view: Literal["default", "configured", "provider-config", "all"] = "default"
    include_details: bool = False
    include_provider_capabilities: bool = False
    prepared_only: bool = False
    refresh: bool = False


class ModelChoice(Result, frozen=True, kw_only=True):
    id: Annotated[str, Meta(description="Without the provider, which stands beside it.")]
    name: str
    provider: str
    alias: str | None = None
    tags: tuple[str, ...] = ()
    context_window: int


class ModelsListResult(Result, frozen=True, kw_only=True):
    models: list[ModelChoice]


class ModelsAuthStatusParams(Params, frozen=True, kw_only=True):
    refresh: bool = False
    agent_id: AgentIdText | None = None


class AuthProfile(Result, frozen=True, kw_only=True):
    profile_id: str
    type: str
    status: str


class AuthProvider(Result, frozen=True, kw_only=True):
    provider: str
    display_name: str
    status: str
    profiles: list[AuthProfile]


class ModelsAuthStatusResult(Result, frozen=True, kw_only=True):
    ts: int
    providers: list[AuthProvider]


async def list_all(call: MethodCall[ModelsListParams]) -> ModelsListResult:
    if call.params.session_key is not None:
        call.session_key(call.params.session_key)  # the list is the same for every session
    tenant, params = call.awake, call.params
    if params.agent_id is not None:
        call.services.agents.require(tenant, params.agent_id)
    configured = list(dict.fromkeys(_configured(call)))
    offered: Iterable[Target] = ()
    if params.view != "configured":
        offered = await _offered(call)
    default = next(_targets(call, tenant.config.models.default), None)
    aliases = {name: text for text, name in tenant.config.models.aliases.items()}
    return ModelsListResult(
        models=[
            ModelChoice(
                id=target.model,
                name=target.model,
                provider=target.provider,
                alias=aliases.get(str(target)),
                tags=("default",) if target == default else (),
                context_window=context_window(tenant.config, str(target)),
            )
            for target in dict.fromkeys([*configured, *offered])
        ]
    )


async def auth_status(call: MethodCall[ModelsAuthStatusParams]) -> ModelsAuthStatusResult:
    tenant, params = call.awake, call.params
    if params.agent_id is not None:
        call.services.agents.require(tenant, params.agent_id)
    return ModelsAuthStatusResult(
        ts=to_ms(call.services.clock()),
        providers=[_auth(tenant, name) for name in sorted(tenant.config.providers)],
    )


def require_model(call: MethodCall[Any], name: str | None) -> None:
    """Refuse a name that leads nowhere with :exc:`ModelUnknown`; none at all is fine."""
    if not name:
        return
    target = Target.parse(name)
    if target is not None and call.awake.provider_key(target.provider) is not None:
        return  # a provider of the tenant's own
    call.services.router.resolve(name, call.awake.config)


def _configured(call: MethodCall[Any]) -> Iterator[Target]:
    """What the config names, the default first."""
    config = call.awake.config
    agents = [agent.model for agent in config.defaults.agents.values()]
    models = config.models
    for name in (models.default, *agents, *models.aliases, *models.failover, *models.balance):
        yield from _targets(call, name)


async def _offered(call: MethodCall[Any]) -> list[Target]:
    entries = await call.services.catalogue(call.awake)
    parsed = (Target.parse(entry.id) for entry in entries if entry.owned_by != _AGENTS)
    return [target for target in parsed if target is not None]


def _targets(call: MethodCall[Any], name: str | None) -> Iterator[Target]:
    if name is None:
        return
    try:
        yield from call.services.router.resolve(name, call.awake.config).targets
    except ModelUnknown:
        return  # of a provider that is gone; calls will say so


def _auth(tenant: TenantRuntime, provider: str) -> AuthProvider:
    profiles = []
    if tenant.provider_key(provider) is not None:
        profiles = [AuthProfile(profile_id=f"{provider}:own", type="api_key", status="static")]
    return AuthProvider(
        provider=provider, display_name=provider, status="static", profiles=profiles
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="models.list",
        summary="List the models that this tenant may use",
        scope=OperatorScope.READ,
        needs=Scope.CHAT,
        params=ModelsListParams,
        result=ModelsListResult,
        handler=list_all,
    ),
    Method(
        name="models.authStatus",
        summary="Tell whose keys the providers are asked with, never the keys",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=ModelsAuthStatusParams,
        result=ModelsAuthStatusResult,
        handler=auth_status,
    ),
)
