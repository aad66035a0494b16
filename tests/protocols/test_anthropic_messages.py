"""A chat-completions request in Anthropic's words."""

import json
from dataclasses import replace
from typing import Any

import pytest

from appliance.model.calls import Dialect, ModelCall
from appliance.model.errors import InvalidRequest
from appliance.protocols.anthropic_messages import encode_request
from appliance.protocols.anthropic_prompts import DEFAULT_MAX_TOKENS
from tests.protocols.calls import call

PIXEL = "iVBORw0KGgo="
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        "strict": True,
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def said(**members: Any) -> dict[str, Any]:
    request: dict[str, Any] = json.loads(encode_request(call(**members)))
    return request


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def test_the_least_request_is_always_a_stream_with_a_limit() -> None:
    assert said() == {
        "model": "provider-model",
        "max_tokens": DEFAULT_MAX_TOKENS,
        "stream": True,
        "messages": [{"role": "user", "content": [text("hello")]}],
    }


@pytest.mark.parametrize(
    ("members", "limit"),
    [
        ({"max_tokens": 7}, 7),
        ({"max_tokens": 7, "max_completion_tokens": 8}, 8),
        ({"max_tokens": 7, "output_limit": 5}, 5),
    ],
)
def test_the_limit_is_the_callers_or_ours(members: dict[str, Any], limit: int) -> None:
    assert said(**members)["max_tokens"] == limit


def test_system_and_developer_messages_become_the_system_prompt() -> None:
    request = said(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "developer", "content": [text("Be kind.")]},
        ]
    )

    assert request["system"] == [text("Be brief."), text("Be kind.")]
    assert request["messages"] == [{"role": "user", "content": [text("Hi")]}]


def test_a_round_of_tools_keeps_its_results_in_one_message_before_the_text() -> None:
    calls = [
        {"id": "call.1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": ""}},
    ]
    request = said(
        messages=[
            {"role": "user", "content": "Go"},
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "call.1", "content": "one"},
            {"role": "tool", "tool_call_id": "call_2", "content": [text("two")]},
            {"role": "user", "content": "And now?"},
        ],
        tools=[WEATHER],
    )

    assert request["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "call_1", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "call_2", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": [text("one")]},
                {"type": "tool_result", "tool_use_id": "call_2", "content": [text("two")]},
                text("And now?"),
            ],
        },
    ]


def test_pictures_and_documents_become_blocks() -> None:
    content = [
        text("Look"),
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/x.jpg", "detail": "low"}},
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PIXEL}"}},
    ]

    blocks = said(messages=[{"role": "user", "content": content}])["messages"][0]["content"]

    assert blocks[1:] == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
        {"type": "image", "source": {"type": "url", "url": "https://example.org/x.jpg"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": PIXEL},
        },
    ]


def test_sampling_stops_and_the_user_are_translated() -> None:
    request = said(temperature=0.5, top_p=0.9, top_k=5, stop=["a", "b"], user="u1")

    assert request["temperature"] == 0.5
    assert request["top_p"] == 0.9
    assert request["top_k"] == 5
    assert request["stop_sequences"] == ["a", "b"]
    assert request["metadata"] == {"user_id": "u1"}
    assert said(stop="x")["stop_sequences"] == ["x"]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "clock"}}, {"type": "tool", "name": "clock"}),
    ],
)
def test_tools_and_the_choice_among_them_are_translated(choice: Any, expected: object) -> None:
    request = said(tools=[WEATHER, CLOCK], tool_choice=choice)

    assert request["tools"] == [
        {
            "name": "get_weather",
            "description": "Weather of a city",
            "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
            "strict": True,
        },
        {"name": "clock", "input_schema": {"type": "object", "properties": {}}},
    ]
    assert request["tool_choice"] == expected


def test_allowed_tools_are_the_only_ones_shown() -> None:
    allowed = {"mode": "required", "tools": [CLOCK]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}

    request = said(tools=[WEATHER, CLOCK], tool_choice=choice)

    assert [tool["name"] for tool in request["tools"]] == ["clock"]
    assert request["tool_choice"] == {"type": "any"}


def test_one_tool_at_a_time_is_said_with_the_choice() -> None:
    single = {"type": "auto", "disable_parallel_tool_use": True}

    assert said(tools=[CLOCK], parallel_tool_calls=False)["tool_choice"] == single
    assert "tool_choice" not in said(tools=[CLOCK], parallel_tool_calls=True)
    choice = said(tools=[CLOCK], parallel_tool_calls=False, tool_choice="none")["tool_choice"]
    assert choice == {"type": "none"}


def test_a_schema_and_an_effort_go_into_the_output_config() -> None:
    schema = {"type": "object", "properties": {}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}

    request = said(response_format=wanted, reasoning_effort="minimal")

    assert request["output_config"] == {
        "effort": "low",
        "format": {"type": "json_schema", "schema": schema},
    }
    assert "output_config" not in said(response_format={"type": "text"}, reasoning_effort="none")


@pytest.mark.parametrize(
    "members",
    [
        {"n": 2},
        {"logprobs": True},
        {"top_logprobs": 3},
        {"frequency_penalty": 0.5},
        {"presence_penalty": -1},
        {"logit_bias": {"1": 2}},
        {"modalities": ["audio"]},
        {"audio": {"voice": "x"}},
        {"functions": [{"description": "has no name"}]},
        {"function_call": "any"},
        {"web_search_options": {}},
        {"response_format": {"type": "json_object"}},
        {"temperature": 1.5},
        {"temperature": "hot"},
        {"reasoning_effort": "most"},
        {"tool_choice": "any"},
        {"tools": "none"},
        {"stop": [1]},
        {"something_new": 1},
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(members: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        encode_request(call(**members))

    assert caught.value.fields[0].field.partition("[")[0] == next(iter(members))


@pytest.mark.parametrize(
    "members",
    [
        {"n": 1},
        {"logprobs": False},
        {"frequency_penalty": 0},
        {"presence_penalty": 0.0},
        {"logit_bias": {}},
        {"seed": 4},
        {"metadata": {"a": "b"}},
        {"service_tier": "auto"},
        {"store": True},
        {"web_search_options": None},
    ],
)
def test_hints_and_usual_values_are_dropped(members: dict[str, Any]) -> None:
    assert said(**members) == said()


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("hello", "messages[0]"),
        ({"role": "robot", "content": "x"}, "messages[0].role"),
        ({"role": "user", "content": 5}, "messages[0].content"),
        ({"role": "user", "content": [5]}, "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "messages[0].content[0]"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///x"}}]},
            "messages[0].content[0].image_url.url",
        ),
        (
            {"role": "user", "content": [{"type": "file", "file": {"file_data": "https://x/y"}}]},
            "messages[0].content[0].file.file_data",
        ),
        (
            {
                "role": "user",
                "content": [
                    {"type": "file", "file": {"file_data": "data:font/otf;base64,YQ=="}},
                ],
            },
            "messages[0].content[0].file.file_data",
        ),
        ({"role": "tool", "content": "x"}, "messages[0].tool_call_id"),
        ({"role": "assistant", "tool_calls": [{}]}, "messages[0].tool_calls[0]"),
        (
            {
                "role": "assistant",
                "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{"}}],
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_a_message_that_cannot_be_read_is_named(message: object, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        encode_request(call(messages=[message]))

    assert caught.value.fields[0].field == field


@pytest.mark.parametrize("messages", [[], None, "hello", {}])
def test_without_messages_there_is_no_request(messages: object) -> None:
    with pytest.raises(InvalidRequest, match="messages"):
        encode_request(call(messages=messages))


def test_only_the_top_level_of_a_callers_own_request_is_written_anew() -> None:
    messages = b'[ {"role" : "user","content":"caf\\u00e9 \xff"} ]'  # not even decoded
    body = {"model": b'"alias"', "messages": messages, "max_tokens": b"7", "new": b'{"a": 1.50}'}
    asked = ModelCall(model="real", body=body, stream=False, dialect=Dialect.ANTHROPIC)

    assert encode_request(asked) == (
        b'{"model":"real","messages":' + messages + b',"new":{"a": 1.50},"max_tokens":7}'
    )


@pytest.mark.parametrize(
    ("stream", "limit", "expected"),
    [
        (True, None, b'{"model":"m","max_tokens":7,"stream":true}'),
        (False, 5, b'{"model":"m","max_tokens":5}'),
    ],
)
def test_a_callers_own_request_travels_as_it_was_asked_for(
    stream: bool,  # noqa: FBT001 - a table's column
    limit: int | None,
    expected: bytes,
) -> None:
    body = {"max_tokens": b"7", "stream": b"true"}
    asked = ModelCall(
        model="m", body=body, stream=stream, dialect=Dialect.ANTHROPIC, output_limit=limit
    )

    assert encode_request(asked) == expected


@pytest.mark.parametrize(
    ("limit", "budget"),
    [(None, 2000), (4000, 2000), (2001, 2000), (2000, 1024), (1500, 1024), (1025, 1024)],
)
def test_thinking_fits_into_an_answer_that_is_cut(limit: int | None, budget: int) -> None:
    thinking = {"type": "enabled", "budget_tokens": 2000, "display": "omitted"}
    request = native(limit, max_tokens=4000, thinking=thinking)

    assert request["thinking"] == {**thinking, "budget_tokens": budget}
    assert request["thinking"]["budget_tokens"] < request["max_tokens"]


def test_an_answer_that_is_cut_below_any_thinking_is_refused_in_our_words() -> None:
    with pytest.raises(InvalidRequest, match=r"thinking: needs .* which may have 500"):
        native(500, max_tokens=4000, thinking={"type": "enabled", "budget_tokens": 2000})


@pytest.mark.parametrize(
    "thinking",
    [
        {"type": "enabled", "budget_tokens": 9000},  # interleaved, which may exceed an answer
        {"type": "adaptive"},
        {"type": "disabled"},
        None,
    ],
)
def test_thinking_that_is_the_callers_own_affair_is_left_alone(thinking: Any) -> None:
    assert native(500, max_tokens=4000, thinking=thinking)["thinking"] == thinking


def native(limit: int | None, **members: Any) -> dict[str, Any]:
    """The request that a caller of Anthropic's API comes to with a limit of the gateway's."""
    asked = call(**members)
    body = {**asked.body, **{name: json.dumps(value).encode() for name, value in members.items()}}
    ours = replace(asked, body=body, dialect=Dialect.ANTHROPIC, output_limit=limit)
    request: dict[str, Any] = json.loads(encode_request(ours))
    return request
