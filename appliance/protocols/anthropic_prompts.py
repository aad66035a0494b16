"""A request of Anthropic's Messages API, read into a prompt and written from one.

Reference: "Create a Message". What is lost on the way out: which system
message stood where, the name and the strictness of an answer's schema (it is
always kept to), tools that are there but not allowed, and hints. What it has
that is not read is refused by name.
"""

from collections.abc import Mapping
from typing import Any

from appliance.model.calls import Dialect
from appliance.model.errors import InvalidRequest
from appliance.model.prompts import Format, Prompt, Reasoning, Tool, ToolChoice
from appliance.protocols import request_members as members
from appliance.protocols.anthropic_conversation import (
    read_messages,
    read_system,
    write_messages,
    write_system,
)
from appliance.protocols.known_members import unknown

DEFAULT_MAX_TOKENS = 4096  # Anthropic requires a limit; a caller may have set none

# They change where and at what price an answer is made, not what it says.
HINTS = frozenset(
    {
        "cache_control",
        "diagnostics",
        "metadata",
        "service_tier",
        "speed",
        "user_profile_id",
        "workspace_id",
    }
)
_ELSEWHERE = frozenset({"model", "stream"})
_TRANSLATED = frozenset(
    {
        "max_tokens",
        "messages",
        "output_config",
        "output_format",
        "stop_sequences",
        "system",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
    }
)
_KNOWN = _TRANSLATED | HINTS
_NAMES = {
    "choice": "tool_choice",
    "format": "output_config.format",
    "output_limit": "max_tokens",
    "parallel_tools": "tool_choice.disable_parallel_tool_use",
    "reasoning": "thinking",
    "stops": "stop_sequences",
    "user": "metadata.user_id",
}
# The members of each thing that are read, or that change no answer: whether the
# arguments of a call arrive in pieces, and what becomes of thinking that only
# Anthropic can check.
_TOOL = frozenset(
    {
        "allowed_callers",
        "cache_control",
        "defer_loading",
        "description",
        "eager_input_streaming",
        "input_schema",
        "name",
        "strict",
        "type",
    }
)
_CHOICE = frozenset({"disable_parallel_tool_use", "name", "type"})
_CONFIG = frozenset({"effort", "format"})
_FORMAT = frozenset({"schema", "type"})
_THINKING = frozenset({"block_binding", "budget_tokens", "display", "type"})
_EFFORTS = {"minimal": "low", **{name: name for name in ("low", "medium", "high", "xhigh", "max")}}
_EARLIER_THINKING = "clear_thinking_"


def read_prompt(body: Mapping[str, bytes]) -> Prompt:
    """Read a request; raise :exc:`InvalidRequest` naming what cannot be understood."""
    given = members.read_members(body, but=_ELSEWHERE)
    others = {name: value for name, value in given.items() if name not in _KNOWN and value != []}
    hints = {name: value for name, value in given.items() if name in HINTS}
    if _clears_thinking_only(others.get("context_management")):
        hints["context_management"] = others.pop("context_management")
    config = members.optional_object(given.get("output_config"), "output_config") or {}
    others |= unknown(config, "output_config", _CONFIG)
    choice, parallel = _read_choice(given.get("tool_choice"), others)
    metadata = members.optional_object(hints.pop("metadata", None), "metadata") or {}
    return Prompt(
        dialect=Dialect.ANTHROPIC,
        messages=read_system(given.get("system")) + read_messages(given.get("messages")),
        tools=_read_tools(given.get("tools"), others),
        choice=choice,
        parallel_tools=parallel,
        output_limit=members.optional_whole(given.get("max_tokens"), "max_tokens", least=1),
        temperature=members.optional_number(given.get("temperature"), "temperature"),
        top_p=members.optional_number(given.get("top_p"), "top_p"),
        top_k=members.optional_whole(given.get("top_k"), "top_k"),
        stops=members.texts(given.get("stop_sequences"), "stop_sequences"),
        format=_read_format(given, config, others),
        reasoning=_read_reasoning(given, config, others),
        user=members.optional_text(metadata.get("user_id"), "metadata.user_id"),
        hints=hints,
        others=others,
        names=_NAMES,
    )


def _clears_thinking_only(management: object) -> bool:
    """Earlier thinking reaches no other provider anyway: nothing is left to clear."""
    match management:
        case {"edits": list(edits), **rest} if not rest:
            kinds = [edit.get("type") if isinstance(edit, dict) else None for edit in edits]
            return all(isinstance(k, str) and k.startswith(_EARLIER_THINKING) for k in kinds)
    return False


def _read_format(
    given: Mapping[str, Any], config: Mapping[str, Any], others: dict[str, Any]
) -> Format | None:
    at = "output_config.format" if config.get("format") is not None else "output_format"
    wanted = config.get("format") or given.get("output_format")
    if isinstance(wanted, dict):
        others |= unknown(wanted, at, _FORMAT)
    match wanted:
        case None:
            return None
        case {"type": "json_schema", "schema": dict(schema)}:
            return Format(kind="json_schema", schema=schema, strict=True)
    raise InvalidRequest.at(at, "is no json_schema with a schema")


def _read_reasoning(
    given: Mapping[str, Any], config: Mapping[str, Any], others: dict[str, Any]
) -> Reasoning | None:
    effort = members.optional_text(config.get("effort"), "output_config.effort")
    thinking = members.thinking(given.get("thinking"), "thinking")
    if thinking is None:
        if "thinking" in given:
            others["thinking"] = given["thinking"]
        return None if effort is None else Reasoning(effort=effort)
    others |= unknown(given["thinking"], "thinking", _THINKING)
    return Reasoning(
        effort=effort, mode=thinking.mode, budget=thinking.budget, display=thinking.display
    )


def _read_tools(value: object, others: dict[str, Any]) -> tuple[Tool, ...]:
    tools: list[Tool] = []
    for i, tool in enumerate(members.items(value, "tools")):
        at = f"tools[{i}]"
        if not isinstance(tool, dict):
            raise InvalidRequest.at(at, "is not a tool")
        if tool.get("type") not in (None, "custom"):
            others[f"{at}.type"] = tool["type"]
            continue
        others |= unknown(tool, at, _TOOL)
        if tool.get("defer_loading") not in (None, False):
            others[f"{at}.defer_loading"] = tool["defer_loading"]
        if tool.get("allowed_callers") not in (None, ["direct"]):
            others[f"{at}.allowed_callers"] = tool["allowed_callers"]
        tools.append(
            Tool(
                name=members.text(tool.get("name"), f"{at}.name"),
                description=members.optional_text(tool.get("description"), f"{at}.description"),
                parameters=members.parameters(tool.get("input_schema"), f"{at}.input_schema"),
                strict=members.optional_flag(tool.get("strict"), f"{at}.strict"),
                cache=members.cache_control(tool, at),
                at=at,
            )
        )
    return tuple(tools)


def _read_choice(value: object, others: dict[str, Any]) -> tuple[ToolChoice | None, bool | None]:
    """What to call, and whether several calls at once are fine."""
    choice = members.optional_object(value, "tool_choice")
    if choice is None:
        return None, None
    others |= unknown(choice, "tool_choice", _CHOICE)
    flag = "disable_parallel_tool_use"
    parallel = False if members.optional_flag(choice.get(flag), f"tool_choice.{flag}") else None
    match choice:
        case {"type": "auto" | "none" as mode}:
            return ToolChoice(mode=mode), parallel
        case {"type": "any"}:
            return ToolChoice(mode="required"), parallel
        case {"type": "tool", "name": str(name)}:
            return ToolChoice(mode="named", names=(name,)), parallel
    raise InvalidRequest.at("tool_choice", "is auto, any, none or a tool")


def write_body(prompt: Prompt) -> dict[str, bytes]:
    """Write a request, but for the model's name, the limit and how the answer travels."""
    written: dict[str, Any] = {}
    if prompt.dialect is Dialect.ANTHROPIC:
        written |= members.own_members(prompt)
    else:
        prompt.refuse_others()
    tools = prompt.require_functions()
    prompt.require_choice()
    prompt.refuse("answers", "top_logprobs", "logit_bias", "frequency_penalty", "presence_penalty")
    prompt = prompt.with_speakers()
    written |= {
        "system": write_system(prompt),
        "messages": write_messages(prompt),
        "temperature": _temperature(prompt),
        "top_p": prompt.top_p,
        "top_k": prompt.top_k,
        "stop_sequences": prompt.stops or None,
        "metadata": None if prompt.user is None else {"user_id": prompt.user},
        **_written_reasoning(prompt),
        **_written_tools(prompt, tools),
    }
    return members.write_members(written)


def _temperature(prompt: Prompt) -> float | None:
    if prompt.temperature is not None and not 0 <= prompt.temperature <= 1:
        raise InvalidRequest.at(
            prompt.named("temperature"), "lies between 0 and 1 for this model's provider"
        )
    return prompt.temperature


def _written_reasoning(prompt: Prompt) -> dict[str, Any]:
    """``thinking``, ``output_config``, and a limit that has room for the thinking."""
    written: dict[str, Any] = {}
    config: dict[str, Any] = {}
    reasoning = prompt.reasoning or Reasoning()
    thinking = members.written_thinking(reasoning)
    if reasoning.effort == "none":
        thinking = {"type": "disabled"}
    elif reasoning.effort is not None:
        if reasoning.effort not in _EFFORTS:
            efforts = ", ".join(("none", *_EFFORTS))
            raise InvalidRequest.at(prompt.named("reasoning"), f"is one of {efforts} here")
        config["effort"] = _EFFORTS[reasoning.effort]
    if wanted := _written_format(prompt):
        config["format"] = wanted
    if thinking is not None:
        written["thinking"] = thinking
    if config:
        written["output_config"] = config
    if prompt.output_limit is None and reasoning.budget is not None:
        written["max_tokens"] = DEFAULT_MAX_TOKENS + reasoning.budget
    return written


def _written_format(prompt: Prompt) -> dict[str, Any] | None:
    match prompt.format:
        case None | Format(kind="text"):
            return None
        case Format(kind="json_schema", schema=schema, description=told) if schema is not None:
            # A schema of its own has a place for what is told about it.
            described = schema if told is None else {"description": told, **schema}
            return {"type": "json_schema", "schema": described}
    raise InvalidRequest.at(
        prompt.named("format"), "this model's provider knows text and json_schema only"
    )


def _written_tools(prompt: Prompt, tools: tuple[Tool, ...]) -> dict[str, Any]:
    choice = prompt.choice
    if choice is not None and choice.mode != "named" and choice.names:
        # There is no other word for it than to show these only.
        tools = tuple(tool for tool in tools if tool.name in choice.names)
    if not tools:
        return {}
    written = {"tools": [_written_tool(tool) for tool in tools]}
    word = _written_choice(choice)
    if prompt.parallel_tools is False:
        word = word or {"type": "auto"}
        if word["type"] != "none":
            word["disable_parallel_tool_use"] = True
    return written if word is None else {**written, "tool_choice": word}


def _written_choice(choice: ToolChoice | None) -> dict[str, Any] | None:
    match choice:
        case None:
            return None
        case ToolChoice(mode="named", names=(name, *_)):
            return {"type": "tool", "name": name}
        case ToolChoice(mode="required"):
            return {"type": "any"}
    return {"type": choice.mode}


def _written_tool(tool: Tool) -> dict[str, Any]:
    written: dict[str, Any] = {
        "name": tool.name,
        "input_schema": members.schema_of(tool.parameters),
    }
    if tool.description is not None:
        written["description"] = tool.description
    if tool.strict:
        written["strict"] = True
    if tool.cache is not None:
        written["cache_control"] = tool.cache
    return written
