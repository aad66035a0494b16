"""Methods of the tools that agents use."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from msgspec import Meta

from appliance.model.operator_scopes import OperatorScope
from appliance.model.session_keys import DEFAULT_AGENT
from appliance.model.tokens import Scope
from appliance.model.tool_policy import PROFILES
from appliance.services.tools.invocations import Invocation, ListedTool
from appliance.services.turns.requests import agent_of
from appliance.transports.rpc.fields import AgentIdText, IdempotencyKey, SessionKeyText
from appliance.transports.rpc.method import Method, MethodCall, Params, Result

Word = Annotated[str, Meta(min_length=1, max_length=256)]
_MAIN = "main"
_GROUPS = {
    "fs": "Files",
    "runtime": "Commands",
    "web": "Web",
    "memory": "Memory",
    "sessions": "Sessions",
    "messaging": "Messaging",
    "automation": "Automation",
    "agents": "Agents",
    "media": "Media",
    "mcp": "MCP",
}


class CatalogParams(Params, frozen=True, kw_only=True):
    agent_id: AgentIdText | None = None
    include_plugins: bool = False


class EffectiveParams(Params, frozen=True, kw_only=True):
    session_key: SessionKeyText
    agent_id: AgentIdText | None = None


class InvokeParams(Params, frozen=True, kw_only=True):
    name: Word
    args: dict[str, Any] | None = None
    session_key: SessionKeyText | None = None
    agent_id: AgentIdText | None = None
    confirm: bool = False
    idempotency_key: IdempotencyKey | None = None
    conversation_read_origin: Literal["direct-operator"] | None = None


class Profile(Result, frozen=True, kw_only=True):
    id: str
    label: str


class CatalogTool(Result, frozen=True, kw_only=True):
    id: str
    label: str
    description: str
    source: str
    optional: bool = False
    default_profiles: tuple[str, ...]


class CatalogGroup(Result, frozen=True, kw_only=True):
    id: str
    label: str
    source: str
    tools: tuple[CatalogTool, ...]


class CatalogResult(Result, frozen=True, kw_only=True):
    agent_id: str
    profiles: tuple[Profile, ...]
    groups: tuple[CatalogGroup, ...]


class EffectiveTool(Result, frozen=True, kw_only=True):
    id: str
    label: str
    description: str
    source: str
    raw_description: str
    parameters: dict[str, Any]
    effect: str


class EffectiveGroup(Result, frozen=True, kw_only=True):
    id: str
    label: str
    source: str
    tools: tuple[EffectiveTool, ...]


class EffectiveResult(Result, frozen=True, kw_only=True):
    agent_id: str
    profile: str
    groups: tuple[EffectiveGroup, ...]


class InvokeResult(Result, frozen=True, kw_only=True):
    ok: bool
    tool_name: str
    source: str
    output: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


async def catalog(call: MethodCall[CatalogParams]) -> CatalogResult:
    agent = call.params.agent_id or DEFAULT_AGENT
    agent_of(call.awake, agent)
    groups = [
        CatalogGroup(
            id=name,
            label=_label(name),
            source="core",
            tools=tuple(
                CatalogTool(
                    id=each.tool.name,
                    label=each.tool.label,
                    description=each.tool.description,
                    source="core",
                    default_profiles=each.profiles,
                )
                for each in members
            ),
        )
        for name, members in _grouped(call.services.tools.catalogue()).items()
    ]
    profiles = tuple(Profile(id=name, label=name.capitalize()) for name in PROFILES)
    return CatalogResult(agent_id=agent, profiles=profiles, groups=tuple(groups))


async def effective(call: MethodCall[EffectiveParams]) -> EffectiveResult:
    key = call.session_key(call.params.session_key, agent=call.params.agent_id)
    found = await call.services.tools.effective(call.awake, key)
    groups = [
        EffectiveGroup(
            id=name,
            label=_label(name),
            source="mcp" if name == "mcp" else "core",
            tools=tuple(
                EffectiveTool(
                    id=each.tool.name,
                    label=each.tool.label,
                    description=each.tool.description,
                    raw_description=each.tool.description,
                    source="mcp" if name == "mcp" else "core",
                    parameters=dict(each.schema),
                    effect=each.tool.effect.value,
                )
                for each in members
            ),
        )
        for name, members in _grouped(found).items()
    ]
    profile = call.awake.config.defaults.tools.profile
    return EffectiveResult(agent_id=key.agent, profile=profile, groups=tuple(groups))


async def invoke(call: MethodCall[InvokeParams]) -> InvokeResult:
    params = call.params
    key = call.session_key(params.session_key or _MAIN, agent=params.agent_id)
    invocation = Invocation(
        key=key,
        name=params.name,
        arguments=params.args or {},
        idempotency_key=params.idempotency_key,
        channel="webchat",
    )
    invoked = await call.services.tools.invoke(call.awake, call.caller, invocation)
    source = "mcp" if "__" in params.name else "core"
    if not invoked.ok:
        error = {"code": "TOOL_ERROR", "message": invoked.text}
        return InvokeResult(ok=False, tool_name=params.name, source=source, error=error)
    content = [{"type": "text", "text": invoked.text}, *invoked.parts]
    output = {"content": content, "details": invoked.details}
    return InvokeResult(ok=True, tool_name=params.name, source=source, output=output)


def _grouped(listed: Iterable[ListedTool]) -> dict[str, list[ListedTool]]:
    groups: dict[str, list[ListedTool]] = {}
    for each in listed:
        groups.setdefault(each.tool.group, []).append(each)
    return groups


def _label(group: str) -> str:
    return _GROUPS.get(group, group.capitalize())


METHODS: tuple[Method, ...] = (
    Method(
        name="tools.catalog",
        summary="List the tools there are",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=CatalogParams,
        result=CatalogResult,
        handler=catalog,
    ),
    Method(
        name="tools.effective",
        summary="List the tools that may be used in a session",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=EffectiveParams,
        result=EffectiveResult,
        handler=effective,
    ),
    Method(
        name="tools.invoke",
        summary="Run a tool, as far as the session's policy allows it",
        scope=OperatorScope.WRITE,
        needs=Scope.CHAT,
        params=InvokeParams,
        result=InvokeResult,
        handler=invoke,
    ),
)
