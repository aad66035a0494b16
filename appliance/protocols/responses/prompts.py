"""A request's body in the Responses API and the ``Prompt`` that means the same."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from appliance.model.calls import Dialect
from appliance.model.prompts import (
    CustomTool,
    Format,
    Grammar,
    Message,
    Prompt,
    Reasoning,
    Role,
    Text,
    Tool,
    ToolChoice,
)
from appliance.protocols import request_members
from appliance.protocols.known_members import unknown
from appliance.protocols.responses import options
from appliance.protocols.responses.fields import Members
from appliance.protocols.responses.items import Item, input_items
from appliance.protocols.responses.messages import read_messages, write_items
from appliance.protocols.responses.options import LOGPROBS
from appliance.protocols.responses.outgoing import require_limit
from appliance.protocols.responses.request import PASSED_ON, ReadBody
from appliance.protocols.responses.tools import read_tool_choice, read_tools

# What this API calls the attributes of a Prompt that have another name here.
NAMES: Mapping[str, str] = {
    "messages": "input",
    "choice": "tool_choice",
    "parallel_tools": "parallel_tool_calls",
    "output_limit": "max_output_tokens",
    "format": "text.format",
    "verbosity": "text.verbosity",
    "top_logprobs": "include",
}
# They change nothing about an answer, and chat completions have the same names for them.
_HINTS = (
    "metadata",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
)
# Only for us, or about what a provider may do by itself.
_OWN_HINTS = ("max_tool_calls", "truncation")
# Of reasoning: what the usual asks for.
_USUAL = {"context": "auto", "mode": "standard"}
# The members of each thing that are read.
_TOOLS = {
    "function": frozenset({"description", "name", "parameters", "strict", "type"}),
    "custom": frozenset({"description", "format", "name", "type"}),
}
_FORMAT = frozenset({"description", "name", "schema", "strict", "type"})
# What a tool asks for that it has anyway.
_USUAL_TOOL = {"allowed_callers": ["direct"], "defer_loading": False}
_DISPLAYS = {"summarized": "auto"}
_SMALL_BUDGET, _LARGE_BUDGET = 4_096, 16_384  # tokens; between them an effort is medium


def read_prompt(body: Mapping[str, bytes]) -> Prompt:
    """Read a request; raise :exc:`InvalidRequest` naming what cannot be understood.

    References to stored items must have been replaced by the items.
    """
    at = Members(body)
    text = options.read_text(at.get("text"))
    tools = read_tools(at.get("tools"))
    include = options.read_include(at.get("include"))
    reasoning, others = _read_reasoning(at)
    messages = read_messages(_items(at, body))
    if instructions := at.text("instructions"):
        blocks = (Text(text=instructions, at="instructions"),)
        messages = (Message(role=Role.SYSTEM, blocks=blocks, at="instructions"), *messages)
    likely = at.integer("top_logprobs", least=0, most=20) or 0
    return Prompt(
        dialect=Dialect.RESPONSES,
        messages=messages,
        tools=tuple(
            _read_tool(tool, f"tools[{number}]")
            for number, tool in enumerate(tools)
            if tool["type"] in _TOOLS
        ),
        choice=_choice(at, tools),
        parallel_tools=_flag(at, "parallel_tool_calls"),
        output_limit=at.integer("max_output_tokens", least=1, most=10_000_000),
        temperature=at.number("temperature", least=0, most=2),
        top_p=at.number("top_p", least=0, most=1),
        frequency_penalty=at.number("frequency_penalty", least=-2, most=2),
        presence_penalty=at.number("presence_penalty", least=-2, most=2),
        top_logprobs=likely if LOGPROBS in include else None,
        format=_read_format((at.get("text") or {}).get("format"), text["format"]),
        reasoning=reasoning,
        verbosity=text.get("verbosity"),
        user=at.text("user"),
        hints={name: at.get(name) for name in (*_HINTS, *_OWN_HINTS) if at.get(name) is not None},
        others={
            **others,
            **_other_tools(tools, at.get("tools")),
            **_prewarm(at),
            **unknown((at.get("text") or {}).get("format") or {}, "text.format", _FORMAT),
            **{name: at.get(name) for name in PASSED_ON if at.get(name) is not None},
        },
        names=NAMES,
    )


def _items(at: Members, body: Mapping[str, bytes]) -> Sequence[Item]:
    if isinstance(body, ReadBody):
        return body.items_read
    raw = at.get("input")
    return () if raw is None else input_items(raw, "input")


def _flag(at: Members, name: str) -> bool | None:
    return None if at.get(name) is None else at.flag(name, default=True)


def _prewarm(at: Members) -> dict[str, Any]:
    """No hint: who has no word for it would answer, and bill that."""
    wanted = options.read_prewarm(at.get("prompt_cache_options"))
    return {"prompt_cache_options.prewarm": True} if wanted else {}


def _choice(at: Members, tools: Sequence[Mapping[str, Any]]) -> ToolChoice | None:
    given = at.get("tool_choice")
    return None if given is None else _read_choice(read_tool_choice(given, tools))


def _other_tools(
    tools: Sequence[Mapping[str, Any]], given: Sequence[Mapping[str, Any]] | None
) -> dict[str, Any]:
    """What only this API has: tools that the provider runs, and more of the others.

    ``given`` are the tools as they came.
    """
    kinds = enumerate(tool["type"] for tool in tools)
    others = {f"tools[{number}].type": kind for number, kind in kinds if kind not in _TOOLS}
    for number, tool in enumerate(given or ()):
        if (known := _TOOLS.get(tool["type"])) is not None:
            usual = [name for name, value in _USUAL_TOOL.items() if tool.get(name) == value]
            others |= unknown(tool, f"tools[{number}]", known.union(usual))
        if tool["type"] == "custom":
            form = tools[number]["format"]
            others |= unknown(tool.get("format") or {}, f"tools[{number}].format", form)
    return others


def _read_tool(tool: Mapping[str, Any], at: str) -> Tool | CustomTool:
    if tool["type"] == "custom":
        return CustomTool(
            name=tool["name"],
            description=tool.get("description"),
            grammar=_read_grammar(tool["format"]),
            at=at,
        )
    return Tool(
        name=tool["name"],
        description=tool["description"],
        parameters=request_members.parameters(tool["parameters"], f"{at}.parameters"),
        strict=tool["strict"],
        at=at,
    )


def _read_grammar(form: Mapping[str, Any]) -> Grammar | None:
    if form["type"] == "text":
        return None
    return Grammar(syntax=form["syntax"], definition=form["definition"])


def _read_choice(choice: object) -> ToolChoice | None:
    match choice:
        case "auto" | "none" | "required" as mode:
            return ToolChoice(mode=mode)
        case {"type": "function" | "custom", "name": str(name)}:
            return ToolChoice(mode="named", names=(name,))
        case {"mode": "auto" | "required" as mode, "tools": list(listed)}:
            names = (tool["name"] for tool in listed if tool["type"] in _TOOLS)
            return ToolChoice(mode=mode, names=tuple(names))
        case {"mode": "none"}:
            return ToolChoice(mode="none")
        case _:
            return None


def _read_format(given: object, form: Mapping[str, Any]) -> Format | None:
    if given is None:
        return None
    match form["type"]:
        case "json_schema":
            return Format(
                kind="json_schema",
                name=form["name"],
                schema=form["schema"],
                strict=form["strict"],
                description=form["description"],
            )
        case "json_object":
            return Format(kind="json_object")
        case _:
            return Format(kind="text")


def _read_reasoning(at: Members) -> tuple[Reasoning | None, dict[str, Any]]:
    """And what of it only this API has a word for."""
    found = options.read_reasoning(at.get("reasoning"))
    if found is None:
        return None, {}
    others = {
        f"reasoning.{name}": found[name]
        for name, usual in _USUAL.items()
        if found.get(name, usual) != usual
    }
    if found["effort"] is None and found["summary"] is None:
        return None, others
    return Reasoning(effort=found["effort"], summary=found["summary"]), others


def write_body(prompt: Prompt) -> dict[str, bytes]:
    """Write a request; raise :exc:`InvalidRequest` naming what there is no word for."""
    prompt.refuse("top_k", "stops", "logit_bias", "answers")
    prompt.require_choice()
    require_limit(prompt.output_limit, prompt.named("output_limit"))
    own = prompt.dialect is Dialect.RESPONSES
    members: dict[str, Any] = {
        "input": write_items(prompt.with_speakers().messages),
        "temperature": prompt.temperature,
        "top_p": prompt.top_p,
        "frequency_penalty": prompt.frequency_penalty,
        "presence_penalty": prompt.presence_penalty,
        "parallel_tool_calls": prompt.parallel_tools,
        "max_output_tokens": prompt.output_limit,
        "tool_choice": _write_choice(prompt.choice, prompt.custom_names),
        "reasoning": None if prompt.reasoning is None else _write_reasoning(prompt.reasoning),
        "text": _write_text(prompt),
        "user": prompt.user,
    }
    if prompt.tools:
        members["tools"] = [_write_tool(tool, own=own) for tool in prompt.tools]
    if prompt.top_logprobs is not None:
        members["top_logprobs"] = prompt.top_logprobs
        members["include"] = [LOGPROBS]
    if own:
        members |= request_members.own_members(prompt)
    else:
        prompt.refuse_others()
    if prompt.dialect is Dialect.OPENAI:
        members |= {name: prompt.hints[name] for name in _HINTS if name in prompt.hints}
    return request_members.write_members(members)


def _write_tool(tool: Tool | CustomTool, *, own: bool) -> dict[str, Any]:
    kind = "custom" if isinstance(tool, CustomTool) else "function"
    written: dict[str, Any] = {"type": kind, "name": tool.name}
    if tool.description is not None:
        written["description"] = tool.description
    if isinstance(tool, CustomTool):
        return written if tool.grammar is None else {**written, "format": _format(tool.grammar)}
    written["parameters"] = request_members.schema_of(tool.parameters)
    # Here tools are strict unless it is said otherwise; in the other dialects they are not.
    strict = tool.strict if own or tool.strict is not None else False
    return written if strict is None else {**written, "strict": strict}


def _format(grammar: Grammar) -> dict[str, Any]:
    return {"type": "grammar", "syntax": grammar.syntax, "definition": grammar.definition}


def _write_choice(
    choice: ToolChoice | None, custom: Collection[str]
) -> str | dict[str, Any] | None:
    if choice is None:
        return None
    kinds = ((name, "custom" if name in custom else "function") for name in choice.names)
    listed = [{"type": kind, "name": name} for name, kind in kinds]
    if choice.mode == "named":
        return listed[0]
    if not listed or choice.mode == "none":
        return choice.mode
    return {"type": "allowed_tools", "mode": choice.mode, "tools": listed}


def _write_text(prompt: Prompt) -> dict[str, Any] | None:
    text: dict[str, Any] = {}
    form = prompt.format
    if form is not None:
        text["format"] = {"type": form.kind}
    if form is not None and form.kind == "json_schema":
        text["format"] |= {"name": form.name or "answer", "schema": form.schema or {}}
        if form.strict is not None:
            text["format"]["strict"] = form.strict
        if form.description is not None:
            text["format"]["description"] = form.description
    if prompt.verbosity is not None:
        text["verbosity"] = prompt.verbosity
    return text or None


def _write_reasoning(reasoning: Reasoning) -> dict[str, Any] | None:
    found = {"effort": _effort(reasoning), "summary": reasoning.summary}
    if found["summary"] is None and reasoning.display in _DISPLAYS:
        found["summary"] = _DISPLAYS[reasoning.display]
    return {name: value for name, value in found.items() if value is not None} or None


def _effort(reasoning: Reasoning) -> str | None:
    """How much to think; a budget is said as the effort that usually takes as much."""
    if reasoning.mode == "disabled":
        return "none"
    if reasoning.effort is not None or reasoning.budget is None:
        return reasoning.effort
    if reasoning.budget < _SMALL_BUDGET:
        return "low"
    return "high" if reasoning.budget >= _LARGE_BUDGET else "medium"
