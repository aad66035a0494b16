"""A request of Anthropic's Messages API, but for its messages."""

import json
from typing import Any

import pytest

from appliance.model.calls import Dialect
from appliance.model.errors import InvalidRequest
from appliance.model.prompts import Format, Message, Prompt, Reasoning, Role, Text, Tool, ToolChoice
from appliance.protocols.anthropic_prompts import DEFAULT_MAX_TOKENS, read_prompt, write_body
from tests.protocols.prompting import body, field_of

MESSAGES = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
HELLO = (Message(role=Role.USER, blocks=(Text(text="Hi"),)),)
CACHE = {"type": "ephemeral"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"name": "f", "description": "d", "input_schema": SCHEMA, "strict": True}
F = Tool(name="f", description="d", parameters=SCHEMA, strict=True)


def read(**members: Any) -> Prompt:
    return read_prompt(body(messages=MESSAGES, **members))


def written(prompt: Prompt) -> dict[str, Any]:
    found = {name: json.loads(value) for name, value in write_body(prompt).items()}
    assert found.pop("messages") == MESSAGES
    return found


BOTH_WAYS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"temperature": 1, "top_p": 0.5, "top_k": 3}, {"temperature": 1, "top_p": 0.5, "top_k": 3}),
    ({"stop_sequences": ["a", "b"]}, {"stops": ("a", "b")}),
    ({"metadata": {"user_id": "u"}}, {"user": "u"}),
    ({"tools": [TOOL]}, {"tools": (F,)}),
    (
        {
            "tools": [
                {
                    "name": "g",
                    "input_schema": {"type": "object", "properties": {}},
                    "cache_control": CACHE,
                }
            ]
        },
        {"tools": (Tool(name="g", cache=CACHE),)},
    ),
    (
        {"tools": [TOOL], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
        {"tools": (F,), "choice": ToolChoice(mode="required"), "parallel_tools": False},
    ),
    (
        {"tools": [TOOL], "tool_choice": {"type": "none"}},
        {"tools": (F,), "choice": ToolChoice(mode="none")},
    ),
    (
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "f"}},
        {"tools": (F,), "choice": ToolChoice(mode="named", names=("f",))},
    ),
    (
        {
            "thinking": {"type": "adaptive", "display": "omitted"},
            "output_config": {"effort": "max"},
        },
        {"reasoning": Reasoning(mode="adaptive", display="omitted", effort="max")},
    ),
    (
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        {"format": Format(kind="json_schema", schema=SCHEMA, strict=True)},
    ),
    (
        {"service_tier": "auto", "speed": "fast", "cache_control": CACHE},
        {"hints": {"service_tier": "auto", "speed": "fast", "cache_control": CACHE}},
    ),
    (
        {"container": "c", "mcp_servers": [{}], "inference_geo": "eu"},
        {"others": {"container": "c", "mcp_servers": [{}], "inference_geo": "eu"}},
    ),
    (
        {"thinking": {"type": "between_tools"}},
        {"others": {"thinking": {"type": "between_tools"}}},
    ),
]


@pytest.mark.parametrize(("members", "attributes"), BOTH_WAYS)
def test_a_request_is_read_and_written(members: dict[str, Any], attributes: dict[str, Any]) -> None:
    prompt = Prompt(dialect=Dialect.ANTHROPIC, messages=HELLO, **attributes)

    assert read(**members) == prompt
    assert written(prompt) == members


@pytest.mark.parametrize(
    ("members", "attributes"),
    [
        ({"model": "m", "stream": True, "max_tokens": 7}, {"output_limit": 7}),
        (
            {"output_format": {"type": "json_schema", "schema": SCHEMA}},
            {"format": Format(kind="json_schema", schema=SCHEMA, strict=True)},
        ),
        (
            {"tools": [{**TOOL, "type": "custom", "eager_input_streaming": True}]},
            {"tools": (F,)},
        ),
        (
            {"tools": [TOOL, {"type": "web_search_20250305", "name": "web_search"}]},
            {"tools": (F,), "others": {"tools[1].type": "web_search_20250305"}},
        ),
        (
            {"tools": [{**TOOL, "defer_loading": True, "allowed_callers": ["direct"]}]},
            {"tools": (F,), "others": {"tools[0].defer_loading": True}},
        ),
        (
            {"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}},
            {"hints": {"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}}},
        ),
        (
            {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
            {"others": {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}},
        ),
        (
            {"output_config": {"task_budget": {"total": 9}}},
            {"others": {"output_config.task_budget": {"total": 9}}},
        ),
        ({"mcp_servers": [], "fallbacks": [], "container": None}, {}),
    ],
)
def test_other_spellings_and_others_tools(
    members: dict[str, Any], attributes: dict[str, Any]
) -> None:
    assert read(**members) == Prompt(dialect=Dialect.ANTHROPIC, messages=HELLO, **attributes)


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"stop_sequences": "x"}, "stop_sequences"),
        ({"stop_sequences": [1]}, "stop_sequences[0]"),
        ({"system": 5}, "system"),
        ({"system": [{"type": "image"}]}, "system[0]"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"user_id": 5}}, "metadata.user_id"),
        ({"tools": {}}, "tools"),
        ({"tools": [5]}, "tools[0]"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tools": [{"name": "f", "input_schema": []}]}, "tools[0].input_schema"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice"),
        (
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": 1}},
            "tool_choice.disable_parallel_tool_use",
        ),
        ({"thinking": []}, "thinking"),
        ({"thinking": {"type": "enabled", "budget_tokens": "x"}}, "thinking.budget_tokens"),
        ({"output_config": 5}, "output_config"),
        ({"output_config": {"effort": 5}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format"),
        ({"output_format": {"type": "xml"}}, "output_format"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(members: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(**members)

    assert field_of(caught.value) == field


def test_thinking_gets_room_where_the_caller_set_no_limit() -> None:
    thinking = Reasoning(mode="enabled", budget=10_000)
    prompt = Prompt(dialect=Dialect.OPENAI, messages=HELLO, reasoning=thinking)

    assert written(prompt)["max_tokens"] == DEFAULT_MAX_TOKENS + 10_000


def test_what_is_told_about_a_schema_stands_in_it() -> None:
    told = Format(kind="json_schema", schema=SCHEMA, description="where to")
    prompt = Prompt(dialect=Dialect.OPENAI, messages=HELLO, format=told)

    schema = written(prompt)["output_config"]["format"]["schema"]
    assert schema == {**SCHEMA, "description": "where to"}


def test_no_effort_is_no_thinking() -> None:
    prompt = Prompt(dialect=Dialect.OPENAI, messages=HELLO, reasoning=Reasoning(effort="none"))

    assert written(prompt) == {"thinking": {"type": "disabled"}}


@pytest.mark.parametrize(
    ("attributes", "field"),
    [
        ({"answers": 2}, "n"),
        ({"top_logprobs": 0}, "logprobs"),
        ({"format": Format(kind="json_object")}, "response_format"),
        ({"temperature": 1.5}, "temperature"),
        ({"reasoning": Reasoning(effort="most")}, "reasoning_effort"),
        ({"others": {"audio": {}}}, "audio"),
    ],
)
def test_what_there_is_no_word_for_is_refused_in_the_callers_words(
    attributes: dict[str, Any], field: str
) -> None:
    names = {
        "answers": "n",
        "top_logprobs": "logprobs",
        "format": "response_format",
        "reasoning": "reasoning_effort",
    }
    prompt = Prompt(dialect=Dialect.OPENAI, messages=HELLO, names=names, **attributes)

    with pytest.raises(InvalidRequest) as caught:
        write_body(prompt)

    assert field_of(caught.value) == field
