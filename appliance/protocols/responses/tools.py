"""The tools of a request, and which of them the model is to use.

Functions and custom tools are the caller's to run. The others are run by the
provider: they go to one of this API as they came, and nowhere else.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from appliance.model.errors import InvalidRequest
from appliance.protocols.responses.fields import flag, listed, mapping, name, text, word

Json = Mapping[str, Any]

HOSTED = (
    "code_interpreter",
    "file_search",
    "image_generation",
    "mcp",
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
    "web_search_preview_2025_03_11",
)
_OWN = ("function", "custom")
_MODES = frozenset({"auto", "none", "required"})
_MOST_TOOLS = 128
_LONGEST_LABEL = 256
# What lets the provider in with somebody's MCP server is not shown again, or kept.
_SECRET = frozenset({"authorization", "headers"})


def is_hosted(tool: Json) -> bool:
    """Whether the provider runs it."""
    return tool["type"] in HOSTED


def read_tools(raw: object) -> tuple[Json, ...]:
    """Each as a response shows it. Raises :exc:`InvalidRequest`."""
    if raw is None:
        return ()
    found = listed(raw, "tools", most=_MOST_TOOLS)
    tools = tuple(_tool(tool, f"tools[{n}]") for n, tool in enumerate(found))
    names = [tool["name"] for tool in tools if not is_hosted(tool)]
    if len(set(names)) < len(names):
        raise InvalidRequest.at("tools", "two tools have the same name")
    return tools


def _tool(raw: object, at: str) -> Json:
    tool = mapping(raw, at)
    match tool.get("type"):
        case "function":
            return _function(tool, at)
        case "custom":
            return _custom(tool, at)
        case str(kind) if kind in HOSTED:
            return _hosted(tool, at)
        case kind:
            shown = f"{kind[:60]!r} " if isinstance(kind, str) else ""
            known = ", ".join((*_OWN, *HOSTED))
            raise InvalidRequest.at(
                f"{at}.type", f"{shown}is no tool that is offered here", f"send {known}"
            )


def _function(tool: Json, at: str) -> Json:
    """With all its keys."""
    given = {key: tool.get(key) for key in ("description", "parameters", "strict")}
    if given["description"] is not None:
        text(given["description"], f"{at}.description")
    if given["parameters"] is not None:
        mapping(given["parameters"], f"{at}.parameters")
    if given["strict"] is not None:
        flag(given["strict"], f"{at}.strict")
    return {"type": "function", "name": name(tool.get("name"), f"{at}.name"), **given}


def _custom(tool: Json, at: str) -> Json:
    """A tool whose input is text of any form, or of a grammar."""
    found = {"type": "custom", "name": name(tool.get("name"), f"{at}.name")}
    if tool.get("description") is not None:
        found["description"] = text(tool["description"], f"{at}.description")
    return {**found, "format": _format(tool.get("format"), f"{at}.format")}


def _format(raw: object, at: str) -> Json:
    if raw is None:
        return {"type": "text"}
    form = mapping(raw, at)
    if word(form.get("type"), f"{at}.type", ("text", "grammar")) == "text":
        return {"type": "text"}
    return {
        "type": "grammar",
        "syntax": word(form.get("syntax"), f"{at}.syntax", ("lark", "regex")),
        "definition": text(form.get("definition"), f"{at}.definition", shortest=1),
    }


def _hosted(tool: Json, at: str) -> Json:
    """As it came: what else is in it, its provider checks."""
    found = {key: value for key, value in tool.items() if key not in _SECRET}
    if tool["type"] == "mcp":
        place = f"{at}.server_label"
        text(tool.get("server_label"), place, longest=_LONGEST_LABEL, shortest=1)
        if tool.get("server_url") is not None:
            found["server_url"] = _origin(text(tool["server_url"], f"{at}.server_url"), at)
    return found


def _origin(url: str, at: str) -> str:
    """Where a server is, without what a path or a query may hold of secrets."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidRequest.at(f"{at}.server_url", "is no web address") from None
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def read_tool_choice(raw: object, tools: Sequence[Json]) -> str | Json:
    match raw:
        case None:
            return "auto"
        case "auto" | "none":
            return str(raw)
        case "required":
            if not tools:
                raise InvalidRequest.at(
                    "tool_choice", "requires a tool, and there are none in tools"
                )
            return "required"
        case dict() if raw.get("type") == "allowed_tools":
            return _allowed(raw, tools)
        case dict():
            return _chosen(raw, "tool_choice", tools)
    raise InvalidRequest.at("tool_choice", "is none, auto, required, a tool or allowed_tools")


def _allowed(raw: Json, tools: Sequence[Json]) -> Json:
    mode = raw.get("mode")
    mode = "auto" if mode is None else word(mode, "tool_choice.mode", _MODES)
    entries = listed(raw.get("tools"), "tool_choice.tools", most=_MOST_TOOLS)
    if not entries:
        raise InvalidRequest.at("tool_choice.tools", "must hold at least one tool")
    places = ((entry, f"tool_choice.tools[{number}]") for number, entry in enumerate(entries))
    allowed = [_chosen(mapping(entry, at), at, tools) for entry, at in places]
    return {"type": "allowed_tools", "mode": mode, "tools": allowed}


def _chosen(raw: Json, at: str, tools: Sequence[Json]) -> Json:
    """One of ``tools``, as it is named in a choice."""
    kind = word(raw.get("type"), f"{at}.type", (*_OWN, *HOSTED))
    chosen = {"type": kind}
    if kind in _OWN:
        chosen["name"] = text(raw.get("name"), f"{at}.name")
    elif kind == "mcp":
        chosen["server_label"] = text(raw.get("server_label"), f"{at}.server_label")
    for tool in tools:
        if all(tool.get(key) == value for key, value in chosen.items()):
            # Of a server's tools it may be a single one.
            one = {} if raw.get("name") is None else {"name": text(raw["name"], f"{at}.name")}
            return {**chosen, **one}
    key = list(chosen)[-1]
    raise InvalidRequest.at(f"{at}.{key}", f"{chosen[key][:64]!r} is not among the tools")
