"""What a request asks of a provider beyond the tokens that are counted and priced.

Dearer tiers, tools that the provider runs and bills, prompts that are stored
with the key's owner: with the gateway's own key somebody else pays for them,
or is read. They are refused by name unless the operator allows them with
``providers.<name>.extras``. With a tenant's own key they are its own business.
"""

from collections.abc import Callable, Mapping

import msgspec

from appliance.model.calls import Dialect
from appliance.model.errors import InvalidRequest

Body = Mapping[str, bytes]  # a request's top-level members as JSON text


class _Tool(msgspec.Struct, frozen=True):
    type: str | None = None


_tools = msgspec.json.Decoder(list[_Tool])
_text = msgspec.json.Decoder(str)
_PLAIN_TIERS = frozenset({"auto", "default", "flex", "standard", "standard_only", "batch"})
# Anthropic's tools that it runs itself. The others are the caller's to run.
_RUN_THERE = ("web_search", "web_fetch", "code_execution", "mcp_toolset", "tool_search")
_REMEDY = "leave it out, use a key of your own, or ask the operator for providers.*.extras"


def require_plain(dialect: Dialect, body: Body) -> None:
    """Raise :exc:`InvalidRequest` for the first member that costs or reads more than its tokens."""
    for name in _MEMBERS.get(dialect, ()):
        value = body.get(name)
        if value is not None and value != b"null" and not _IS_PLAIN.get(name, _never)(value):
            reason = "is not priced, and so not passed on with the gateway's key"
            raise InvalidRequest.at(name, reason, _REMEDY)


def _is_plain_tier(value: bytes) -> bool:
    try:
        return _text.decode(value) in _PLAIN_TIERS
    except ValueError:
        return True  # no tier at all: its parser, or the provider, says so


def _are_the_callers(value: bytes) -> bool:
    try:
        tools = _tools.decode(value)
    except ValueError:
        return True
    return not any(tool.type is not None and tool.type.startswith(_RUN_THERE) for tool in tools)


def _is_empty(value: bytes) -> bool:
    return value == b"[]"


def _never(_: bytes) -> bool:
    return False


_MEMBERS: Mapping[Dialect, tuple[str, ...]] = {
    Dialect.OPENAI: ("service_tier", "web_search_options"),
    Dialect.RESPONSES: ("service_tier", "prompt"),
    Dialect.ANTHROPIC: ("service_tier", "speed", "tools", "mcp_servers", "container"),
}
_IS_PLAIN: Mapping[str, Callable[[bytes], bool]] = {
    "service_tier": _is_plain_tier,
    "tools": _are_the_callers,
    "mcp_servers": _is_empty,
}
