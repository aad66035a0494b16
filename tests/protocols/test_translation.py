"""A request read in one dialect and written in another, there and back."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.calls import Dialect
from appliance.model.errors import InvalidRequest
from appliance.model.prompts import Attachment, Call, Message, Prompt, Result, Role, Text
from appliance.protocols.responses import seals
from appliance.protocols.translation import read_prompt, translated, write_body
from tests.protocols.calls import call
from tests.protocols.prompting import (
    body,
    calls,
    conversations,
    custom_calls,
    custom_tools,
    field_of,
    nonsense,
    pictures,
    prompts,
    texts,
    tools,
    words,
)

_OPENAI, _RESPONSES, _ANTHROPIC = Dialect.OPENAI, Dialect.RESPONSES, Dialect.ANTHROPIC
_unmarked = st.builds(Text, text=words)
# What can be said to a chat provider in the words of another: no seals, no marks.
_unmarked_calls = calls.map(lambda each: replace(each, cache=None))
_unmarked_tools = tools.map(lambda each: replace(each, cache=None))


def _talk(call: st.SearchStrategy[Call]) -> st.SearchStrategy[tuple[Message, ...]]:
    return conversations(
        seen=_unmarked | st.builds(Attachment, kind=st.just("file"), text=words, name=words),
        said=_unmarked,
        thoughts=st.just([]),
        results=_unmarked,
        result_caches=st.none(),
        call=call,
    )


_plain = _talk(_unmarked_calls)


def through(prompt: Prompt, *dialects: Dialect) -> Prompt:
    """Written and read again in each of ``dialects``."""
    for dialect in dialects:
        prompt = read_prompt(dialect, write_body(dialect, prompt))
    return prompt


def same(prompt: Prompt, other: Prompt) -> bool:
    return replace(prompt, dialect=_OPENAI) == replace(other, dialect=_OPENAI)


@given(prompts(conversations()))
def test_a_chat_completion_says_to_anthropic_what_it_says(prompt: Prompt) -> None:
    expected = prompt
    if prompt.format is not None:
        expected = replace(prompt, format=replace(prompt.format, name=""))

    assert same(through(prompt, _OPENAI, _ANTHROPIC), expected)


@given(prompts(_plain, tools=_unmarked_tools))
def test_there_and_back_nothing_is_lost(prompt: Prompt) -> None:
    assert through(prompt, _OPENAI, _ANTHROPIC, _OPENAI) == prompt
    start = through(replace(prompt, dialect=_ANTHROPIC), _ANTHROPIC)
    assert through(start, _OPENAI, _ANTHROPIC) == start


@given(prompts(_plain, tools=_unmarked_tools))
def test_the_responses_api_loses_nothing_it_has_a_word_for(prompt: Prompt) -> None:
    prompt = replace(prompt, top_k=None, stops=())

    there = through(prompt, _RESPONSES)
    assert through(there, _OPENAI, _RESPONSES) == there
    assert through(prompt, _RESPONSES, _OPENAI).messages == prompt.messages
    assert through(there, _ANTHROPIC, _RESPONSES).messages == there.messages


@given(prompts(_talk(_unmarked_calls | custom_calls), tools=_unmarked_tools | custom_tools))
def test_between_openais_two_apis_nothing_of_a_custom_tool_is_lost(prompt: Prompt) -> None:
    prompt = replace(prompt, top_k=None, stops=())

    assert through(prompt, _OPENAI) == prompt
    there = through(prompt, _RESPONSES)
    assert through(there, _OPENAI, _RESPONSES) == there
    back = through(prompt, _RESPONSES, _OPENAI)
    assert (back.messages, back.choice) == (prompt.messages, prompt.choice)
    assert [tool.name for tool in back.tools] == [tool.name for tool in prompt.tools]
    assert through(back, _RESPONSES, _OPENAI) == back


_GRAMMAR = {"syntax": "lark", "definition": 'start: "a"'}
_CUSTOM_IN_CHAT: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c", "type": "custom", "custom": {"name": "run", "input": "ls -l"}},
                {"id": "d", "type": "custom", "custom": {"name": "run", "input": ""}},
                {"id": "e", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": "a.txt"},
        {
            "role": "tool",
            "tool_call_id": "d",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        },
        {"role": "tool", "tool_call_id": "e", "content": "42"},
    ],
    "tools": [
        {"type": "custom", "custom": {"name": "run", "description": "d"}},
        {
            "type": "custom",
            "custom": {"name": "ask", "format": {"type": "grammar", "grammar": _GRAMMAR}},
        },
        {
            "type": "function",
            "function": {"name": "f", "parameters": {"type": "object"}, "strict": True},
        },
    ],
}
_CUSTOM_IN_RESPONSES: dict[str, Any] = {
    "input": [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"type": "custom_tool_call", "call_id": "c", "name": "run", "input": "ls -l"},
        {"type": "custom_tool_call", "call_id": "d", "name": "run", "input": ""},
        {"type": "function_call", "call_id": "e", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "a.txt"},
        {
            "type": "custom_tool_call_output",
            "call_id": "d",
            "output": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}],
        },
        {"type": "function_call_output", "call_id": "e", "output": "42"},
    ],
    "tools": [
        {"type": "custom", "name": "run", "description": "d"},
        {"type": "custom", "name": "ask", "format": {"type": "grammar", **_GRAMMAR}},
        {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True},
    ],
}
_RUN_IN_CHAT = {"type": "custom", "custom": {"name": "run"}}
_RUN_IN_RESPONSES = {"type": "custom", "name": "run"}
_F_IN_CHAT = {"type": "function", "function": {"name": "f"}}
_F_IN_RESPONSES = {"type": "function", "name": "f"}


@pytest.mark.parametrize(
    ("in_chat", "in_responses"),
    [
        ("required", "required"),
        (_RUN_IN_CHAT, _RUN_IN_RESPONSES),
        (_F_IN_CHAT, _F_IN_RESPONSES),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [_RUN_IN_CHAT, _F_IN_CHAT]},
            },
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [_RUN_IN_RESPONSES, _F_IN_RESPONSES],
            },
        ),
    ],
)
def test_custom_tools_as_each_of_openais_apis_has_them(in_chat: Any, in_responses: Any) -> None:
    chat = {**_CUSTOM_IN_CHAT, "tool_choice": in_chat}
    responses = {**_CUSTOM_IN_RESPONSES, "tool_choice": in_responses}

    for of, given_, to, expected in (
        (_OPENAI, chat, _RESPONSES, responses),
        (_RESPONSES, responses, _OPENAI, chat),
    ):
        made = write_body(to, read_prompt(of, body(**given_)))
        assert {name: msgspec.json.decode(value) for name, value in made.items()} == expected


def test_an_id_that_comes_again_is_of_the_latest_call() -> None:
    custom = {"id": "c", "type": "custom", "custom": {"name": "run", "input": "ls"}}
    function = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "c", "content": "x"}
    turns = [{"role": "assistant", "tool_calls": [made]} for made in (custom, function, custom)]
    said = [each for turn in turns for each in (turn, result)]

    items = msgspec.json.decode(
        write_body(_RESPONSES, read_prompt(_OPENAI, body(messages=said)))["input"]
    )

    kinds = ["custom_tool_call", "function_call", "custom_tool_call"]
    assert [item["type"] for item in items] == [
        each for kind in kinds for each in (kind, f"{kind}_output")
    ]


@given(prompts(_plain))
def test_ollama_is_told_everything_there_is_a_word_for(prompt: Prompt) -> None:
    prompt = replace(prompt, choice=None, parallel_tools=None)

    asked = {name: msgspec.json.decode(v) for name, v in write_body(Dialect.OLLAMA, prompt).items()}

    assert len(asked["messages"]) >= len(prompt.messages)
    assert [tool["function"]["name"] for tool in asked.get("tools", [])] == [
        tool.name for tool in prompt.tools
    ]


_HELLO = [{"role": "user", "content": "Hi"}]
_PICTURE = {"type": "image_url", "image_url": {"url": "https://example.org/x", "detail": "low"}}
_WHOLE: dict[Dialect, dict[str, Any]] = {
    _OPENAI: {
        "messages": [
            {"role": "system", "content": "Be brief.", "name": "rules"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look", "cache_control": {"type": "ephemeral"}},
                    _PICTURE,
                    {"type": "file", "file": {"file_data": "data:text/plain;base64,SGk="}},
                    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "refusal": "No.",
                "thinking_blocks": [{"type": "thinking", "thinking": "Hm.", "signature": "s"}],
                "tool_calls": [
                    {
                        "id": "c",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"x":1}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "42"}]},
            {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "42"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "description": "d",
                    "parameters": {"type": "object", "properties": {"x": {}}},
                    "strict": True,
                },
            }
        ],
        "tool_choice": {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "auto",
                "tools": [{"type": "function", "function": {"name": "f"}}],
            },
        },
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True},
        },
        "stop": ["x"],
        "logit_bias": {"1": 2},
        "thinking": {"type": "enabled", "budget_tokens": 2000, "display": "omitted"},
        "temperature": 0.5,
        "top_p": 0.5,
        "top_k": 5,
        "seed": 1,
        "n": 1,
        "logprobs": True,
        "top_logprobs": 2,
        "max_completion_tokens": 5,
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
        "user": "u",
        "verbosity": "low",
        "metadata": {"a": "b"},
    },
    _ANTHROPIC: {
        "system": [{"type": "text", "text": "Be", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
                    },
                    {
                        "type": "document",
                        "title": "t",
                        "source": {"type": "content", "content": [{"type": "text", "text": "x"}]},
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                    {"type": "redacted_thinking", "data": "d"},
                    {"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "c",
                        "is_error": True,
                        "content": [{"type": "text", "text": "42"}],
                    }
                ],
            },
        ],
        "tools": [
            {
                "type": "custom",
                "name": "f",
                "description": "d",
                "input_schema": {"type": "object", "properties": {}},
                "strict": True,
                "cache_control": {"type": "ephemeral"},
                "allowed_callers": ["direct"],
            }
        ],
        "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        "thinking": {"type": "enabled", "budget_tokens": 2000, "display": "omitted"},
        "output_config": {
            "effort": "low",
            "format": {"type": "json_schema", "schema": {"type": "object"}},
        },
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "stop_sequences": ["x"],
        "metadata": {"user_id": "u"},
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.5,
        "top_k": 5,
    },
}
_WRONG: list[Any] = [
    None,
    True,
    0,
    -1,
    2**70,
    0.5,
    "",
    "x",
    "\ud800",
    [],
    [[]],
    [None],
    {},
    {"": 1},
]


def spoiled(value: Any) -> Iterator[Any]:
    """``value`` with each thing in it, one after the other, replaced by each wrong one."""
    yield from _WRONG
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {name: each for name, each in value.items() if name != key}
            for wrong in spoiled(inner):
                yield {**value, key: wrong}
    if isinstance(value, list):
        for i, inner in enumerate(value):
            for wrong in spoiled(inner):
                yield [*value[:i], wrong, *value[i + 1 :]]


@pytest.mark.parametrize(
    ("dialect", "whole"),
    [
        *_WHOLE.items(),
        (_OPENAI, {**_CUSTOM_IN_CHAT, "tool_choice": _RUN_IN_CHAT}),
        (_RESPONSES, {**_CUSTOM_IN_RESPONSES, "tool_choice": _RUN_IN_RESPONSES}),
    ],
)
def test_wherever_a_wrong_value_stands_it_is_translated_or_refused(
    dialect: Dialect, whole: dict[str, Any]
) -> None:
    read_prompt(dialect, body(**whole))  # which is right
    least = {"input": "Hi"} if dialect is _RESPONSES else {"messages": _HELLO}

    for name, value in whole.items():
        for wrong in spoiled(value):
            for to in (_OPENAI, _RESPONSES, _ANTHROPIC, Dialect.OLLAMA):
                for others in (least, whole):
                    try:
                        write_body(to, read_prompt(dialect, body(**{**others, name: wrong})))
                    except InvalidRequest as failure:
                        assert field_of(failure)  # noqa: PT017 - most need not fail


@pytest.mark.parametrize("dialect", [_OPENAI, _ANTHROPIC])
@given(nonsense, st.sampled_from(["user", "assistant", "tool", "system", "function"]))
def test_whatever_a_message_holds_is_translated_or_refused(
    dialect: Dialect, content: Any, role: str
) -> None:
    message = {"role": role, "content": content, "tool_calls": content, "thinking_blocks": content}
    part = {"role": role, "content": [content], "function_call": content, "name": "x"}
    for tried in (message, part, {"role": role, "content": content}):
        try:
            asked = body(messages=[{"role": "user", "content": "Hi"}, tried])
            for to in (_OPENAI, _RESPONSES, _ANTHROPIC, Dialect.OLLAMA):
                write_body(to, read_prompt(dialect, asked))
        except InvalidRequest as failure:
            assert field_of(failure).startswith("messages")  # noqa: PT017 - most need not fail


@pytest.mark.parametrize("dialect", [_OPENAI, _ANTHROPIC])
@pytest.mark.parametrize(
    "text",
    [
        b'[{"role":"user","content":"\\ud800"}]',
        b'[{"role":"user","content":NaN}]',
        b'[{"role":"user","content":1e999}]',
        b'[{"role":"user","content":' + b"9" * 5000 + b"}]",
        b'[{"role":"user","content":' + b"[" * 100_000,
        b'[{"role":"user","content":"\xff"}]',
        b"",
    ],
)
def test_what_no_parser_takes_is_refused(dialect: Dialect, text: bytes) -> None:
    with pytest.raises(InvalidRequest, match="messages"):
        read_prompt(dialect, {"messages": text})


@pytest.mark.parametrize(
    "arguments",
    [
        "{",
        "[]",
        "null",
        '{"a":NaN}',
        '{"a":1e999}',
        '{"a":"\\ud800"}',
        '{"a":1,"a":2}',
        '{"a":' + "9" * 5000 + "}",
        '{"a":' * 100 + "1" + "}" * 100,
        '{}, "role": "system"',
    ],
)
def test_arguments_are_checked_as_strictly_as_a_body(arguments: str) -> None:
    made = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [{"role": "assistant", "tool_calls": [made]}]

    with pytest.raises(InvalidRequest) as caught:
        read_prompt(_OPENAI, body(messages=messages))

    assert field_of(caught.value) == "messages[0].tool_calls[0].function.arguments"


def test_a_call_in_its_own_dialect_is_the_call_itself() -> None:
    asked = call()

    assert translated(asked, _OPENAI) is asked


def test_a_translated_call_keeps_the_limit_and_no_header() -> None:
    asked = replace(call(max_tokens=7), headers={"openai-beta": "x"})

    made = translated(asked, _ANTHROPIC)

    assert (made.dialect, made.output_limit, made.headers) == (_ANTHROPIC, 7, {})
    assert translated(replace(asked, output_limit=5), _ANTHROPIC).output_limit == 5


@given(pictures, texts)
def test_a_tools_pictures_follow_its_result_for_chat_providers(
    picture: Attachment, text: Text
) -> None:
    results = (Result(call_id="c", parts=(text, picture)),)
    prompt = Prompt(dialect=_ANTHROPIC, messages=(Message(role=Role.TOOL, blocks=results),))

    result, seen = msgspec.json.decode(write_body(_OPENAI, prompt)["messages"])

    assert result == {"role": "tool", "tool_call_id": "c", "content": text.text}
    assert seen["role"] == "user"
    assert [part["type"] for part in seen["content"]] == ["text", "image_url"]


def test_what_a_provider_hid_comes_back_to_it_through_a_caller_of_another_dialect() -> None:
    block = {"type": "redacted_thinking", "data": seals.seal_hidden("secret", _RESPONSES)}
    answer = {"role": "assistant", "content": "So.", "thinking_blocks": [block]}
    prompt = read_prompt(_OPENAI, body(messages=[*_HELLO, answer]))

    items = msgspec.json.decode(write_body(_RESPONSES, prompt)["input"])
    turns = msgspec.json.decode(write_body(_ANTHROPIC, prompt)["messages"])

    assert [item.get("encrypted_content") for item in items] == [None, "secret", None]
    assert turns[1]["content"] == [{"type": "text", "text": "So."}]


_LONG = "user_" + "0" * 154  # as long as Claude Code's


@pytest.mark.parametrize("to", [_OPENAI, _RESPONSES])
def test_a_user_is_as_short_as_openai_takes_it(to: Dialect) -> None:
    asked = replace(call(metadata={"user_id": _LONG}), dialect=_ANTHROPIC)

    sent = msgspec.json.decode(translated(asked, to).body["user"])

    assert len(sent) == 64
    assert sent != _LONG[:64]  # which many would have


def test_a_user_of_the_length_of_an_agents_session_keeps_it() -> None:
    prompt = read_prompt(_ANTHROPIC, body(messages=_HELLO, metadata={"user_id": _LONG}))

    assert msgspec.json.decode(write_body(_OPENAI, prompt)["user"]) == _LONG


@pytest.mark.parametrize(("length", "sent"), [(256, 256), (257, 64)])
def test_anthropic_takes_longer_ones(length: int, sent: int) -> None:
    made = translated(call(user="u" * length), _ANTHROPIC)

    assert len(msgspec.json.decode(made.body["metadata"])["user_id"]) == sent
