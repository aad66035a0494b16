"""The tools there are, and which of them one turn is offered."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec

from appliance.config.schema import AgentConfig, GatewayConfig
from appliance.config.tool_schema import ToolDefaults, ToolRules
from appliance.model import session_scopes as scopes
from appliance.model.session_keys import SessionKey
from appliance.model.tool_policy import Rule, ToolPolicy
from appliance.services.tools.base import Effect, Tool, ToolParams, ToolSource, ToolTenant
from appliance.services.turns.requests import agent_of
from appliance.storage.session_rows import Session

_ON_BEHALF = "onBehalfOf"
_LOOKING = frozenset({Effect.READ, Effect.FETCH})


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """Where tools are wanted: policies look at all of it."""

    key: SessionKey
    channel: str = ""
    depth: int = 0  # of sub-agents
    permission: str = ""  # the session's permissionMode
    over_http: bool = False  # POST /tools/invoke
    only_chats: bool = False  # whoever calls the tool itself, and may change no settings
    on_behalf: "OnBehalf | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnBehalf:
    """Who a sub-agent works for, up to who began it: it may use no more than any of them."""

    agents: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()

    def and_for(self, agent: str, channel: str) -> "OnBehalf":
        return OnBehalf(
            agents=tuple(dict.fromkeys((*self.agents, agent))),
            channels=tuple(dict.fromkeys((*self.channels, channel))),
        )

    @classmethod
    def of(cls, session: Session | None) -> "OnBehalf":
        """As :attr:`facts` say, which no client can set."""
        said = None if session is None else session.facts.get(_ON_BEHALF)
        found = said if isinstance(said, Mapping) else {}
        names = [tuple(map(str, found.get(which) or ())) for which in ("agents", "channels")]
        return cls(agents=names[0], channels=names[1])

    @property
    def facts(self) -> dict[str, object]:
        return {_ON_BEHALF: {"agents": list(self.agents), "channels": list(self.channels)}}


@dataclass(frozen=True, slots=True)
class Offer:
    """What one turn may use, by the names the model knows them by.

    ``needs_approval`` are effects that somebody must agree to each time.
    """

    tools: Mapping[str, Tool[Any]] = field(default_factory=dict)
    needs_approval: frozenset[Effect] = frozenset()

    def without_names(self, taken: Iterable[str]) -> "Offer":
        """The same under names that are not ``taken``: a caller's own tools keep theirs."""
        clashing = set(taken) & self.tools.keys()
        if not clashing:
            return self
        renamed = dict(self.tools)
        for name in clashing:
            tool = renamed.pop(name)
            other = f"own_{name}"
            while other in renamed or other in clashing:
                other = f"own_{other}"
            renamed[other] = tool
        return Offer(renamed, self.needs_approval)

    def described(self) -> list[dict[str, object]]:
        """As a chat completion's ``tools``."""
        return [
            {
                "type": "function",
                "function": {
                    "name": name,
                    "description": tool.description,
                    "parameters": schema_of(tool),
                },
            }
            for name, tool in self.tools.items()
        ]


class Toolbox:
    def __init__(
        self, tools: Iterable[Tool[Any]] = (), *, sources: Iterable[ToolSource] = ()
    ) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._sources = list(sources)

    def add(self, *tools: Tool[Any]) -> None:
        """Put tools in; some of them need what itself needs the toolbox."""
        self._tools |= {tool.name: tool for tool in tools}

    def add_source(self, source: ToolSource) -> None:
        self._sources.append(source)

    @property
    def builtin(self) -> Sequence[Tool[Any]]:
        """Those that are the same for all, in the order they were given."""
        return tuple(self._tools.values())

    async def offer(self, tenant: ToolTenant, occasion: Occasion) -> Offer:
        """What may be used on this occasion. Raises :exc:`ModelUnknown` for an unknown agent."""
        agent = agent_of(tenant, occasion.key.agent)
        policy = policy_for(tenant.config, agent, occasion)
        found = {
            tool.name: tool
            for tool in self._tools.values()
            if policy.allows(tool.name, tool.group) and _permitted(tool, occasion.permission)
        }
        for source in self._sources:
            for tool in await source.tools(tenant, occasion.key.agent):
                if policy.allows(tool.name, tool.group) and _permitted(tool, occasion.permission):
                    found.setdefault(tool.name, tool)
        guarded = occasion.permission == "guarded"
        asked = {Effect.EXECUTE, Effect.SEND, Effect.WRITE} if guarded else set()
        return Offer(found, frozenset(asked))


def occasion_of(key: SessionKey, session: Session | None, *, channel: str) -> Occasion:
    """The occasion of a turn in a session as it is set."""
    settings = {} if session is None else session.settings
    depth = settings.get("spawnDepth")
    return Occasion(
        key=key,
        channel=channel,
        depth=depth if isinstance(depth, int) else 0,
        permission=str(settings.get("permissionMode") or ""),
        on_behalf=OnBehalf.of(session) if scopes.is_subagent(key) else None,
    )


def policy_for(config: GatewayConfig, agent: AgentConfig, occasion: Occasion) -> ToolPolicy:
    tools = config.defaults.tools
    policy = ToolPolicy((_rule(tools),))
    behalf = occasion.on_behalf or OnBehalf()
    # Who calls over HTTP names a channel, and can narrow with it what HTTP may do.
    channels = {occasion.channel, *behalf.channels, *(("http",) if occasion.over_http else ())}
    policy = policy.within(
        *(_rule(tools.by_channel[c]) for c in channels & tools.by_channel.keys())
    )
    agents = [agent, *(config.defaults.agents.get(name) for name in behalf.agents)]
    policy = policy.within(*(_rule(a.tools) for a in agents if a is not None and a.tools))
    if occasion.depth:
        policy = policy.within(Rule(deny=tools.subagents.deny))
    if occasion.depth >= tools.subagents.max_depth:
        policy = policy.within(Rule(deny=("sessions_spawn",)))
    if occasion.over_http or occasion.only_chats:
        policy = policy.within(Rule(deny=tools.http_deny))
    return policy


def schema_of(tool: Tool[Any]) -> Mapping[str, Any]:
    """The JSON Schema of a tool's parameters, complete in itself."""
    if tool.schema is not None:
        return tool.schema
    params: type[ToolParams] = tool.params
    return _schema(params)


# Each turn asks for all of them.
@lru_cache(maxsize=256)
def _schema(params: type[ToolParams]) -> Mapping[str, Any]:
    _, definitions = msgspec.json.schema_components([params])
    inner = dict(definitions[params.__name__])
    inner.pop("title", None)
    others = {name: value for name, value in definitions.items() if name != params.__name__}
    if others:
        inner["$defs"] = others
    complete: dict[str, Any] = _with_local_references(inner)
    return complete


def _with_local_references(value: Any) -> Any:
    match value:
        case {"$ref": str(reference), **rest}:
            local = reference.replace("#/components/schemas/", "#/$defs/")
            return {"$ref": local.replace("#/$defs/#/$defs/", "#/$defs/"), **rest}
        case dict():
            return {key: _with_local_references(each) for key, each in value.items()}
        case list():
            return [_with_local_references(each) for each in value]
        case _:
            return value


def _rule(rules: ToolDefaults | ToolRules) -> Rule:
    return Rule(profile=rules.profile, allow=rules.allow, deny=rules.deny)


def _permitted(tool: Tool[Any], permission: str) -> bool:
    if permission == "read-only":
        return tool.effect in _LOOKING
    return permission != "workspace" or tool.effect is not Effect.SEND
