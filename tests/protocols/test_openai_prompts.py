"""A chat-completions request, but for its messages."""

import json
from dataclasses import replace
from typing import Any

import pytest

from appliance.model.calls import Dialect
from appliance.model.errors import InvalidRequest
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
from appliance.protocols.openai_prompts import read_prompt, write_body
from tests.protocols.prompting import body, field_of

MESSAGES = [{"role": "user", "content": "Hi"}]
HELLO = (Message(role=Role.USER, blocks=(Text(text="Hi"),)),)
CACHE = {"type": "ephemeral"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}
TOOL = {"type": "function", "function": FUNCTION}
F = Tool(name="f", description="d", parameters=SCHEMA, strict=True)
BARE = {"name": "g", "parameters": {"type": "object", "properties": {}}}


def custom(**more: Any) -> dict[str, Any]:
    return {"type": "custom", "custom": {"name": "c", **more}}


def read(**members: Any) -> Prompt:
    return read_prompt(body(messages=MESSAGES, **members))


def written(prompt: Prompt) -> dict[str, Any]:
    found = {name: json.loads(value) for name, value in write_body(prompt).items()}
    assert found.pop("messages") == MESSAGES
    return found


BOTH_WAYS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    (
        {"temperature": 1.5, "top_p": 0.5, "top_k": 3},
        {"temperature": 1.5, "top_p": 0.5, "top_k": 3},
    ),
    ({"stop": ["a", "b"]}, {"stops": ("a", "b")}),
    ({"seed": -4, "user": "u", "verbosity": "low"}, {"seed": -4, "user": "u", "verbosity": "low"}),
    (
        {"frequency_penalty": -1, "presence_penalty": 0.5, "logit_bias": {"50256": -100}},
        {"frequency_penalty": -1, "presence_penalty": 0.5, "logit_bias": {"50256": -100}},
    ),
    ({"n": 2}, {"answers": 2}),
    (
        {
            "tools": [
                TOOL,
                custom(description="d") | {"cache_control": CACHE},
            ],
            "tool_choice": custom(),
        },
        {
            "tools": (F, CustomTool(name="c", description="d", cache=CACHE)),
            "choice": ToolChoice(mode="named", names=("c",)),
        },
    ),
    (
        {
            "tools": [
                custom(
                    format={
                        "type": "grammar",
                        "grammar": {"syntax": "regex", "definition": "a+"},
                    }
                )
            ],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [custom()]},
            },
        },
        {
            "tools": (CustomTool(name="c", grammar=Grammar(syntax="regex", definition="a+")),),
            "choice": ToolChoice(mode="auto", names=("c",)),
        },
    ),
    ({"logprobs": True}, {"top_logprobs": 0}),
    ({"logprobs": True, "top_logprobs": 5}, {"top_logprobs": 5}),
    ({"response_format": {"type": "text"}}, {"format": Format(kind="text")}),
    ({"response_format": {"type": "json_object"}}, {"format": Format(kind="json_object")}),
    (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": SCHEMA, "strict": True, "description": "d"},
            }
        },
        {
            "format": Format(
                kind="json_schema", name="x", schema=SCHEMA, strict=True, description="d"
            )
        },
    ),
    ({"reasoning_effort": "none"}, {"reasoning": Reasoning(effort="none")}),
    (
        {"thinking": {"type": "enabled", "budget_tokens": 9}, "reasoning_effort": "max"},
        {"reasoning": Reasoning(mode="enabled", budget=9, effort="max")},
    ),
    ({"tools": [TOOL]}, {"tools": (F,)}),
    (
        {"tools": [{"type": "function", "function": BARE, "cache_control": CACHE}]},
        {"tools": (Tool(name="g", cache=CACHE),)},
    ),
    (
        {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
        {"tools": (F,), "choice": ToolChoice(mode="required"), "parallel_tools": False},
    ),
    (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"tools": (F,), "choice": ToolChoice(mode="named", names=("f",))},
    ),
    (
        {
            "tools": [TOOL],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "auto",
                    "tools": [{"type": "function", "function": {"name": "f"}}],
                },
            },
        },
        {"tools": (F,), "choice": ToolChoice(mode="auto", names=("f",))},
    ),
    (
        {"metadata": {"a": "b"}, "store": True, "service_tier": "flex"},
        {"hints": {"metadata": {"a": "b"}, "store": True, "service_tier": "flex"}},
    ),
    (
        {"web_search_options": {}, "audio": {"voice": "x"}},
        {"others": {"web_search_options": {}, "audio": {"voice": "x"}}},
    ),
]


@pytest.mark.parametrize(("members", "attributes"), BOTH_WAYS)
def test_a_request_is_read_and_written(members: dict[str, Any], attributes: dict[str, Any]) -> None:
    prompt = Prompt(dialect=Dialect.OPENAI, messages=HELLO, **attributes)

    assert read(**members) == prompt
    assert written(prompt) == members


@pytest.mark.parametrize(
    ("members", "attributes"),
    [
        ({"model": "m", "stream": True, "stream_options": {"include_usage": True}}, {}),
        ({"max_tokens": 7}, {"output_limit": 7}),
        ({"max_tokens": 7, "max_completion_tokens": 8}, {"output_limit": 8}),
        ({"stop": "a"}, {"stops": ("a",)}),
        ({"n": 1, "logprobs": False, "top_logprobs": 0, "modalities": ["text"]}, {}),
        ({"web_search_options": None, "temperature": None}, {}),
        (
            {"functions": [FUNCTION], "function_call": {"name": "f"}},
            {
                "tools": (F,),
                "choice": ToolChoice(mode="named", names=("f",)),
                "parallel_tools": False,
            },
        ),
        (
            {"functions": [FUNCTION], "function_call": "none"},
            {"tools": (F,), "choice": ToolChoice(mode="none"), "parallel_tools": False},
        ),
        (
            {"tools": [TOOL, {"type": "web_search"}]},
            {"tools": (F,), "others": {"tools[1].type": "web_search"}},
        ),
        (
            {"tools": [{"type": "custom", "custom": {"name": "c", "format": {"type": "text"}}}]},
            {"tools": (CustomTool(name="c"),)},
        ),
    ],
)
def test_other_spellings_mean_the_same(members: dict[str, Any], attributes: dict[str, Any]) -> None:
    assert read(**members) == Prompt(dialect=Dialect.OPENAI, messages=HELLO, **attributes)


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"top_k": 1.5}, "top_k"),
        ({"n": 0}, "n"),
        ({"n": 10**6}, "n"),
        ({"stop": [1]}, "stop"),
        ({"seed": 2**70}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": "1"}, "max_completion_tokens"),
        ({"logit_bias": []}, "logit_bias"),
        ({"logit_bias": {"1": "x"}}, "logit_bias"),
        ({"logprobs": 1}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"reasoning_effort": 5}, "reasoning_effort"),
        ({"tools": {}}, "tools"),
        ({"tools": [{}]}, "tools[0]"),
        ({"tools": [{"function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "custom"}]}, "tools[0]"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].custom.name"),
        ({"tools": [custom(description=5)]}, "tools[0].custom.description"),
        ({"tools": [custom(format="text")]}, "tools[0].custom.format"),
        ({"tools": [custom(format={"type": "grammar"})]}, "tools[0].custom.format"),
        (
            {"tools": [custom(format={"type": "grammar", "grammar": {"syntax": "lark"}})]},
            "tools[0].custom.format",
        ),
        ({"tools": [{"function": {"name": "f", "parameters": 5}}]}, "tools[0].function.parameters"),
        ({"tools": [TOOL], "functions": [FUNCTION]}, "functions"),
        ({"functions": [5]}, "functions[0]"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"function_call": "any"}, "function_call"),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [5]},
                }
            },
            "tool_choice.allowed_tools.tools",
        ),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"user": 5}, "user"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(members: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(**members)

    assert field_of(caught.value) == field


def test_a_tool_of_another_kind_is_refused_by_who_must_write_it() -> None:
    prompt = read(tools=[{"type": "web_search"}])

    with pytest.raises(InvalidRequest) as caught:
        write_body(prompt)

    assert field_of(caught.value) == "tools[0].type"


@pytest.mark.parametrize(
    ("reasoning", "effort"),
    [
        (Reasoning(mode="disabled"), "none"),
        (Reasoning(mode="adaptive"), None),
        (Reasoning(mode="adaptive", effort="max"), "max"),
        (Reasoning(mode="enabled", budget=1024), "low"),
        (Reasoning(mode="enabled", budget=8000), "medium"),
        (Reasoning(mode="enabled", budget=31_999), "high"),
        (Reasoning(mode="enabled", budget=31_999, effort="low"), "low"),
    ],
)
def test_a_budget_of_another_dialect_becomes_an_effort(
    reasoning: Reasoning, effort: str | None
) -> None:
    prompt = Prompt(dialect=Dialect.ANTHROPIC, messages=HELLO, reasoning=reasoning)

    assert written(prompt) == ({} if effort is None else {"reasoning_effort": effort})


def test_hints_of_other_dialects_go_where_they_mean_the_same() -> None:
    hints = {"metadata": {"a": "b"}, "store": True, "truncation": "auto"}
    prompt = Prompt(dialect=Dialect.RESPONSES, messages=HELLO, hints=hints)

    assert written(prompt) == {"metadata": {"a": "b"}}
    assert written(replace(prompt, dialect=Dialect.ANTHROPIC)) == {}


def test_what_only_another_dialect_has_a_word_for_is_refused_by_its_name() -> None:
    prompt = Prompt(dialect=Dialect.ANTHROPIC, messages=HELLO, others={"mcp_servers": []})

    with pytest.raises(InvalidRequest, match="mcp_servers: cannot be expressed"):
        write_body(prompt)


def test_an_answers_schema_needs_a_name() -> None:
    wanted = Format(kind="json_schema", schema=SCHEMA)
    prompt = Prompt(dialect=Dialect.ANTHROPIC, messages=HELLO, format=wanted)

    assert written(prompt)["response_format"]["json_schema"] == {
        "name": "answer",
        "schema": SCHEMA,
    }
