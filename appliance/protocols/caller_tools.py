"""The tools that come with a chat completion: the caller runs them, never we.

The model sees them beside the agent's own. ``tool_choice`` is about these
alone (OpenAI's API reference, "Create chat completion").
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from appliance.model.errors import InvalidRequest
from appliance.protocols.request_members import read_member

MOST = 128
_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class CallerTools:
    """``definitions`` as they came. ``choice`` is what is asked of the model.

    ``must_call``: an answer without a call of one of these is none.
    ``only_these``: the agent's own would not be an answer to that.
    """

    definitions: tuple[Mapping[str, Any], ...] = ()
    names: frozenset[str] = frozenset()
    choice: object = "auto"
    must_call: bool = False
    only_these: bool = False
    is_parallel: bool = True

    @classmethod
    def read(cls, body: Mapping[str, bytes]) -> "CallerTools":
        """Raises :exc:`InvalidRequest` naming what cannot be honoured."""
        definitions = _definitions(read_member(body, "tools"))
        names = [str(definition["function"]["name"]) for definition in definitions]
        if len(set(names)) < len(names):
            raise InvalidRequest.at("tools", "two tools have the same name")
        tools = cls(
            tuple(definitions),
            frozenset(names),
            is_parallel=read_member(body, "parallel_tool_calls") is not False,
        )
        return tools._chosen(read_member(body, "tool_choice"))

    def _chosen(self, choice: object) -> "CallerTools":
        match choice:
            case None | "auto":
                return self
            case "none":
                return replace(self, definitions=(), names=frozenset())
            case "required":
                self._require_any()
                return replace(self, choice=choice, must_call=True)
            case {"type": "function", "function": {"name": str(name)}}:
                self._require_named(name)
                return replace(self, choice=choice, must_call=True, only_these=True)
            case {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(listed)}}:
                return self._allowed(mode, listed)
        raise InvalidRequest.at(
            "tool_choice", "is none, auto, required, a function or allowed_tools"
        )

    def _allowed(self, mode: object, listed: list[object]) -> "CallerTools":
        kept = set()
        for entry in listed:
            match entry:
                case {"function": {"name": str(name)}} | {"name": str(name)}:
                    self._require_named(name)
                    kept.add(name)
                case _:
                    raise InvalidRequest.at("tool_choice.allowed_tools.tools", "names no function")
        if mode not in {"auto", "required"} or not kept:
            raise InvalidRequest.at(
                "tool_choice.allowed_tools", "is a mode (auto or required) and at least one tool"
            )
        left = tuple(d for d in self.definitions if d["function"]["name"] in kept)
        return replace(
            self,
            definitions=left,
            names=frozenset(kept),
            choice=mode,
            must_call=mode == "required",
        )

    def _require_any(self) -> None:
        if not self.names:
            raise InvalidRequest.at("tool_choice", "requires a tool, and there are none in tools")

    def _require_named(self, name: str) -> None:
        if name not in self.names:
            raise InvalidRequest.at("tool_choice", f"{name[:64]!r} is not among the tools")


def _definitions(tools: object) -> list[dict[str, Any]]:
    if tools is None:
        return []
    if not isinstance(tools, list) or len(tools) > MOST:
        raise InvalidRequest.at("tools", f"is not a list of at most {MOST} tools")
    for number, tool in enumerate(tools):
        match tool:
            case {"type": "function", "function": {"name": str(name)}} if _is_name(name):
                continue
            case {"type": str(kind)} if kind != "function":
                raise InvalidRequest.at(
                    f"tools[{number}].type",
                    f"{kind[:40]!r} cannot be passed through an agent",
                    "send function tools; the agent has its own",
                )
        raise InvalidRequest.at(
            f"tools[{number}]", "is not a function with a name of 1 to 64 of a-z, A-Z, 0-9, _ and -"
        )
    return tools


def _is_name(name: str) -> bool:
    return (
        0 < len(name) <= _LONGEST_NAME
        and name.isascii()
        and (name.replace("_", "").replace("-", "").isalnum())
    )
