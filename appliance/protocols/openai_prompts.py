"""A chat-completions request, read into a prompt and written from one.

Reference: OpenAI's API reference, "Create chat completion". What is lost on
the way out: an answer's ``phase``, that a tool failed (``is_error``), whether
thinking is shown, and how many tokens it may take, which becomes an effort.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from appliance.model.calls import Dialect
from appliance.model.errors import InvalidRequest
from appliance.model.prompts import (
    CustomTool,
    Format,
    Grammar,
    Prompt,
    Reasoning,
    Tool,
    ToolChoice,
)
from appliance.protocols import request_members as members
from appliance.protocols.known_members import unknown
from appliance.protocols.openai_conversation import read_messages, write_messages

# What says nothing about the answer: it may be left out.
HINTS = frozenset(
    {
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
    }
)
# Values that ask for nothing beyond the usual.
HARMLESS: Mapping[str, frozenset[bytes]] = {
    "n": frozenset({b"1"}),
    "logprobs": frozenset({b"false"}),
    "top_logprobs": frozenset({b"0"}),
    "frequency_penalty": frozenset({b"0", b"0.0"}),
    "presence_penalty": frozenset({b"0", b"0.0"}),
    "logit_bias": frozenset({b"{}"}),
    "modalities": frozenset({b'["text"]'}),
}
# Hints of the responses API that mean the same here. Not ``store``: the
# gateway keeps responses itself.
_SHARED_HINTS = HINTS - {"store", "prediction"}
_ELSEWHERE = frozenset({"model", "stream", "stream_options"})
_TRANSLATED = frozenset(
    {
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "reasoning_effort",
        "response_format",
        "seed",
        "stop",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
    }
)
_KNOWN = _TRANSLATED | HINTS
_NAMES = {
    "answers": "n",
    "format": "response_format",
    "stops": "stop",
}
# The members of each thing that are read.
_TOOL = frozenset({"cache_control", "function", "type"})
_FUNCTION = frozenset({"cache_control", "description", "name", "parameters", "strict"})
_CUSTOM_TOOL = frozenset({"cache_control", "custom", "type"})
_CUSTOM = frozenset({"description", "format", "name"})
_CHOICE = frozenset({"allowed_tools", "custom", "function", "type"})
_FORMAT = frozenset({"json_schema", "type"})
_SCHEMA = frozenset({"description", "name", "schema", "strict"})
_THINKING = frozenset({"budget_tokens", "display", "type"})
_SMALL_BUDGET, _LARGE_BUDGET = 4_096, 16_384  # tokens; between them an effort is medium
_CHOICES = "is none, auto, required, a tool or allowed_tools"


def read_prompt(body: Mapping[str, bytes]) -> Prompt:
    """Read a request; raise :exc:`InvalidRequest` naming what cannot be understood."""
    given = members.read_members(body, but=_ELSEWHERE)
    others = {
        name: value
        for name, value in given.items()
        if name not in _KNOWN and value != [] and (name, value) != ("modalities", ["text"])
    }
    limit = "max_completion_tokens" if "max_completion_tokens" in given else "max_tokens"
    return Prompt(
        dialect=Dialect.OPENAI,
        messages=read_messages(given.get("messages")),
        tools=_read_tools(given, others),
        choice=_read_choice(given, others),
        parallel_tools=_read_parallel(given),
        output_limit=members.optional_whole(given.get(limit), limit, least=1),
        temperature=members.optional_number(given.get("temperature"), "temperature"),
        top_p=members.optional_number(given.get("top_p"), "top_p"),
        top_k=members.optional_whole(given.get("top_k"), "top_k"),
        stops=_read_stops(given.get("stop")),
        seed=members.optional_whole(given.get("seed"), "seed", least=-(2**63), most=2**64 - 1),
        frequency_penalty=members.optional_number(
            given.get("frequency_penalty"), "frequency_penalty"
        ),
        presence_penalty=members.optional_number(given.get("presence_penalty"), "presence_penalty"),
        logit_bias=_read_bias(given.get("logit_bias")),
        top_logprobs=_read_logprobs(given),
        answers=members.optional_whole(given.get("n"), "n", least=1, most=128) or 1,
        format=_read_format(given.get("response_format"), others),
        reasoning=_read_reasoning(given, others),
        verbosity=members.optional_text(given.get("verbosity"), "verbosity"),
        user=members.optional_text(given.get("user"), "user"),
        hints={name: value for name, value in given.items() if name in HINTS},
        others=others,
        names=_NAMES
        | {
            "choice": "function_call" if given.get("tool_choice") is None else "tool_choice",
            "output_limit": limit,
            "parallel_tools": "functions" if "functions" in given else "parallel_tool_calls",
            "reasoning": "thinking" if "thinking" in given else "reasoning_effort",
            "top_logprobs": "top_logprobs" if given.get("top_logprobs") else "logprobs",
        },
    )


def _read_stops(stop: object) -> tuple[str, ...]:
    if isinstance(stop, str):
        return (stop,)
    if isinstance(stop, list) and all(isinstance(each, str) for each in stop):
        return tuple(stop)
    if stop is None:
        return ()
    raise InvalidRequest.at("stop", "is not text or a list of texts")


def _read_bias(value: object) -> Mapping[str, float] | None:
    bias = members.optional_object(value, "logit_bias")
    if bias is None:
        return None
    return {token: members.optional_number(each, "logit_bias") or 0 for token, each in bias.items()}


def _read_logprobs(given: Mapping[str, Any]) -> int | None:
    most = members.optional_whole(given.get("top_logprobs"), "top_logprobs")
    if members.optional_flag(given.get("logprobs"), "logprobs"):
        return most or 0
    if most:
        raise InvalidRequest.at("top_logprobs", "needs logprobs", "set logprobs to true")
    return None


def _read_format(value: object, others: dict[str, Any]) -> Format | None:
    if isinstance(value, dict):
        others |= unknown(value, "response_format", _FORMAT)
    match value:
        case None:
            return None
        case {"type": "text" | "json_object" as kind}:
            return Format(kind=kind)
        case {"type": "json_schema", "json_schema": {"schema": dict(schema), **rest}}:
            at = "response_format.json_schema"
            others |= unknown(rest, at, _SCHEMA)
            return Format(
                kind="json_schema",
                schema=schema,
                name=members.optional_text(rest.get("name"), f"{at}.name") or "",
                strict=members.optional_flag(rest.get("strict"), f"{at}.strict"),
                description=members.optional_text(rest.get("description"), f"{at}.description"),
            )
    raise InvalidRequest.at("response_format", "is text, json_object or json_schema")


def _read_reasoning(given: Mapping[str, Any], others: dict[str, Any]) -> Reasoning | None:
    effort = members.optional_text(given.get("reasoning_effort"), "reasoning_effort")
    thinking = members.thinking(given.get("thinking"), "thinking")
    if thinking is None:
        if "thinking" in given:
            others["thinking"] = given["thinking"]
        return None if effort is None else Reasoning(effort=effort)
    others |= unknown(given["thinking"], "thinking", _THINKING)
    return Reasoning(
        effort=effort, mode=thinking.mode, budget=thinking.budget, display=thinking.display
    )


def _read_tools(given: Mapping[str, Any], others: dict[str, Any]) -> tuple[Tool | CustomTool, ...]:
    tools: list[Tool | CustomTool] = []
    for i, tool in enumerate(members.items(given.get("tools"), "tools")):
        at = f"tools[{i}]"
        match tool:
            case {"function": dict(function)} if tool.get("type", "function") == "function":
                others |= unknown(tool, at, _TOOL)
                others |= unknown(function, f"{at}.function", _FUNCTION)
                read = _read_function(f"{at}.function", function)
                tools.append(replace(read, cache=members.cache_control(tool, at) or read.cache))
            case {"type": "custom", "custom": dict(custom)}:
                others |= unknown(tool, at, _CUSTOM_TOOL)
                others |= unknown(custom, f"{at}.custom", _CUSTOM)
                cache = members.cache_control(tool, at)
                tools.append(replace(_read_custom(at, custom, others), cache=cache))
            case {"type": str(kind)} if kind not in {"function", "custom"}:
                others[f"{at}.type"] = kind
            case _:
                raise InvalidRequest.at(at, "is no function and no custom tool", "give it a name")
    functions = members.items(given.get("functions"), "functions")
    if functions and tools:
        raise InvalidRequest.at("functions", "cannot stand beside tools", "leave it out")
    for i, function in enumerate(functions):
        at = f"functions[{i}]"
        found = members.optional_object(function, at) or {}
        others |= unknown(found, at, _FUNCTION)
        tools.append(_read_function(at, found))
    return tuple(tools)


def _read_parallel(given: Mapping[str, Any]) -> bool | None:
    if "functions" in given:
        return False  # an answer of that kind has room for one call
    return members.optional_flag(given.get("parallel_tool_calls"), "parallel_tool_calls")


def _read_function(at: str, function: Mapping[str, Any]) -> Tool:
    return Tool(
        name=members.text(function.get("name"), f"{at}.name"),
        description=members.optional_text(function.get("description"), f"{at}.description"),
        parameters=members.parameters(function.get("parameters"), f"{at}.parameters"),
        strict=members.optional_flag(function.get("strict"), f"{at}.strict"),
        cache=members.cache_control(function, at),  # some clients say it here
        at=at,
    )


def _read_custom(at: str, custom: Mapping[str, Any], others: dict[str, Any]) -> CustomTool:
    where = f"{at}.custom"
    return CustomTool(
        name=members.text(custom.get("name"), f"{where}.name"),
        description=members.optional_text(custom.get("description"), f"{where}.description"),
        grammar=_read_grammar(f"{where}.format", custom.get("format"), others),
        at=at,
    )


def _read_grammar(at: str, value: object, others: dict[str, Any]) -> Grammar | None:
    match value:
        case None:
            return None
        case {"type": "text", **rest}:
            others |= unknown(rest, at, ())
            return None
        case {
            "type": "grammar",
            "grammar": {"syntax": str(syntax), "definition": str(definition), **more},
            **rest,
        }:
            others |= unknown(rest, at, ()) | unknown(more, f"{at}.grammar", ())
            return Grammar(syntax=syntax, definition=definition)
    raise InvalidRequest.at(at, "is text, or a grammar with its syntax and definition")


def _read_choice(given: Mapping[str, Any], others: dict[str, Any]) -> ToolChoice | None:
    choice = given.get("tool_choice")
    if isinstance(choice, dict):
        others |= unknown(choice, "tool_choice", _CHOICE)
    match choice:
        case None:
            return _read_function_choice(given.get("function_call"))
        case "auto" | "none" | "required" as mode:
            return ToolChoice(mode=mode)
        case {"type": "function", "function": {"name": str(name)}} | {
            "type": "custom",
            "custom": {"name": str(name)},
        }:
            return ToolChoice(mode="named", names=(name,))
        case {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(tools)},
        }:
            at = "tool_choice.allowed_tools.tools"
            return ToolChoice(mode=mode, names=tuple(_allowed(at, tool) for tool in tools))
    raise InvalidRequest.at("tool_choice", _CHOICES)


def _allowed(at: str, tool: object) -> str:
    match tool:
        case (
            {"function": {"name": str(name)}}
            | {"custom": {"name": str(name)}}
            | {"name": str(name)}
        ):
            return name
    raise InvalidRequest.at(at, "names no tool")


def _read_function_choice(value: object) -> ToolChoice | None:
    match value:
        case None:
            return None
        case "auto" | "none" as mode:
            return ToolChoice(mode=mode)
        case {"name": str(name)}:
            return ToolChoice(mode="named", names=(name,))
    raise InvalidRequest.at("function_call", "is none, auto or a function")


def write_body(prompt: Prompt) -> dict[str, bytes]:
    """Write a request, but for the model's name, the limit and how the answer travels."""
    own = prompt.dialect is Dialect.OPENAI
    written: dict[str, Any] = {}
    if own:
        written |= members.own_members(prompt)
    else:
        prompt.refuse_others()
    prompt.require_choice()
    if prompt.dialect is Dialect.RESPONSES:
        written |= {name: v for name, v in prompt.hints.items() if name in _SHARED_HINTS}
    written |= {
        "messages": write_messages(prompt),
        "temperature": prompt.temperature,
        "top_p": prompt.top_p,
        "top_k": prompt.top_k,
        "stop": prompt.stops or None,
        "seed": prompt.seed,
        "frequency_penalty": prompt.frequency_penalty,
        "presence_penalty": prompt.presence_penalty,
        "logit_bias": prompt.logit_bias,
        "verbosity": prompt.verbosity,
        "user": prompt.user,
        "response_format": _written_format(prompt.format),
        "n": None if prompt.answers == 1 else prompt.answers,
    }
    if prompt.top_logprobs is not None:
        written |= {"logprobs": True, "top_logprobs": prompt.top_logprobs or None}
    if prompt.reasoning is not None:
        written |= _written_reasoning(prompt.reasoning, own=own)
    if prompt.tools:
        written["tools"] = [_written_tool(tool, own=own) for tool in prompt.tools]
        written["tool_choice"] = _written_choice(prompt.choice, prompt.custom_names)
        written["parallel_tool_calls"] = prompt.parallel_tools
    return members.write_members(written)


def _written_format(wanted: Format | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    if wanted.kind != "json_schema":
        return {"type": wanted.kind}
    schema: dict[str, Any] = {"name": wanted.name or "answer", "schema": wanted.schema}
    if wanted.strict is not None:
        schema["strict"] = wanted.strict
    if wanted.description is not None:
        schema["description"] = wanted.description
    return {"type": "json_schema", "json_schema": schema}


def _written_reasoning(reasoning: Reasoning, *, own: bool) -> dict[str, Any]:
    if own:
        return {
            "reasoning_effort": reasoning.effort,
            "thinking": members.written_thinking(reasoning),
        }
    if reasoning.mode == "disabled":
        return {"reasoning_effort": "none"}
    effort = reasoning.effort
    if effort is None and reasoning.budget is not None:
        effort = "low" if reasoning.budget < _SMALL_BUDGET else "medium"
        effort = "high" if reasoning.budget >= _LARGE_BUDGET else effort
    return {"reasoning_effort": effort}


def _written_tool(tool: Tool | CustomTool, *, own: bool) -> dict[str, Any]:
    kind = "custom" if isinstance(tool, CustomTool) else "function"
    told: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        told["description"] = tool.description
    match tool:
        case Tool():
            told["parameters"] = members.schema_of(tool.parameters)
            if tool.strict is not None:
                told["strict"] = tool.strict
        case CustomTool(grammar=Grammar(syntax=syntax, definition=definition)):
            grammar = {"syntax": syntax, "definition": definition}
            told["format"] = {"type": "grammar", "grammar": grammar}
    written: dict[str, Any] = {"type": kind, kind: told}
    if own and tool.cache is not None:
        written["cache_control"] = tool.cache
    return written


def _written_choice(choice: ToolChoice | None, custom: Collection[str]) -> Any:
    if choice is None:
        return None
    kinds = ((name, "custom" if name in custom else "function") for name in choice.names)
    listed = [{"type": kind, kind: {"name": name}} for name, kind in kinds]
    if choice.mode == "named":
        return listed[0]
    if not listed:
        return choice.mode
    return {
        "type": "allowed_tools",
        "allowed_tools": {"mode": choice.mode, "tools": listed},
    }
