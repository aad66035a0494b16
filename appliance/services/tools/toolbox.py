"""The tools there are, and which of them one turn is offered."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from appliance.config.schema import AgentConfig, GatewayConfig
from appliance.config.tool_schema import ToolDefaults, ToolRules
from appliance.model.session_keys import SessionKey
from appliance.model.tool_policy import Rule, ToolPolicy
from appliance.services.tools.base import Effect, Tool, ToolSource, ToolTenant
from appliance.services.turn_requests import agent_of
from appliance.storage.session_rows import Session

_LOOKING = frozenset({Effect.READ, Effect.FETCH})


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """Where tools are wanted: policies look at all of it."""

    key: SessionKey
    channel: str = ""
    depth: int = 0  # of sub-agents
    permission: str = ""  # the session's permissionMode
    over_http: bool = False  # POST /tools/invoke


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
    )


def policy_for(config: GatewayConfig, agent: AgentConfig, occasion: Occasion) -> ToolPolicy:
    tools = config.defaults.tools
    policy = ToolPolicy((_rule(tools),))
    if (for_channel := tools.by_channel.get(occasion.channel)) is not None:
        policy = policy.within(_rule(for_channel))
    if agent.tools is not None:
        policy = policy.within(_rule(agent.tools))
    if occasion.depth:
        policy = policy.within(Rule(deny=tools.subagents.deny))
    if occasion.depth >= tools.subagents.max_depth:
        policy = policy.within(Rule(deny=("sessions_spawn",)))
    if occasion.over_http:
        policy = policy.within(Rule(deny=tools.http_deny))
    return policy


def schema_of(tool: Tool[Any]) -> Mapping[str, Any]:
    """The JSON Schema of a tool's parameters, complete in itself."""
    if tool.schema is not None:
        return tool.schema
    (schema,), definitions = msgspec.json.schema_components([tool.params])
    inner = dict(definitions[tool.params.__name__])
    del schema
    inner.pop("title", None)
    others = {name: value for name, value in definitions.items() if name != tool.params.__name__}
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
