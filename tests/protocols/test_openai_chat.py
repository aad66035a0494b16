"""What we write in OpenAI's words: requests to a provider, answers to a caller."""

import json
from typing import Any

import pytest

from appliance.model.calls import (
    Delta,
    Finished,
    FinishReason,
    LogprobsDelta,
    ModelCall,
    ReasoningDelta,
    ReasoningSeal,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from appliance.model.usage import TokenUsage
from appliance.protocols import sse
from appliance.protocols.openai_answers import StreamReader
from appliance.protocols.openai_chat import (
    AnswerBuilder,
    ChatWriter,
    ChunkEncoder,
    encode_request,
)
from tests.protocols.calls import call

USAGE = TokenUsage(input=70, output=20, cache_read=25, cache_write=5, reasoning=10)
USAGE_OBJECT = {
    "prompt_tokens": 100,
    "completion_tokens": 30,
    "total_tokens": 130,
    "prompt_tokens_details": {"cached_tokens": 25, "cache_write_tokens": 5},
    "completion_tokens_details": {"reasoning_tokens": 10},
}


def encoder() -> ChunkEncoder:
    return ChunkEncoder(id="chatcmpl-1", created=7, model='mo"del')


def read(chunks: bytes) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in sse.payloads(chunks)]


def test_only_the_top_level_of_a_request_is_written_anew() -> None:
    messages = b'[ {"role" : "user","content":"caf\\u00e9"} ]'
    body = {"model": b'"alias"', "messages": messages, "vendor_key": b'{"a": 1.50}'}

    request = encode_request(ModelCall(model="real", body=body, stream=False))

    assert request == b'{"model":"real","messages":' + messages + b',"vendor_key":{"a": 1.50}}'


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, "nonsense"])
def test_a_stream_is_always_asked_for_its_usage(options: object) -> None:
    asked = call(model="m", stream=False) if options is None else call(stream_options=options)
    request = json.loads(encode_request(ModelCall(model="m", body=asked.body, stream=True)))

    assert request["stream"] is True
    assert request["stream_options"] == {"include_usage": True}


def test_other_stream_options_are_kept() -> None:
    asked = call(stream_options={"include_obfuscation": False})

    assert json.loads(encode_request(asked))["stream_options"] == {
        "include_obfuscation": False,
        "include_usage": True,
    }


def test_an_answer_in_one_piece_is_asked_for_without_stream_options() -> None:
    asked = call(stream=False, stream_options={"include_usage": True})

    request = json.loads(encode_request(asked))

    assert "stream" not in request
    assert "stream_options" not in request


@pytest.mark.parametrize(
    ("given", "limit", "field", "expected"),
    [
        ({}, None, None, {}),
        ({"max_tokens": 5}, None, None, {"max_tokens": 5}),
        ({"max_completion_tokens": 5}, None, None, {"max_completion_tokens": 5}),
        ({"max_tokens": 5}, None, "max_completion_tokens", {"max_completion_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, None, None, {"max_completion_tokens": 6}),
        ({"max_tokens": None}, None, None, {}),
        ({}, 9, None, {"max_tokens": 9}),
        ({}, 9, "max_completion_tokens", {"max_completion_tokens": 9}),
        ({"max_tokens": 50}, 9, None, {"max_tokens": 9}),
        ({"max_completion_tokens": 50}, 9, None, {"max_completion_tokens": 9}),
        ({"max_completion_tokens": 50, "max_tokens": 50}, 9, "max_tokens", {"max_tokens": 9}),
    ],
)
def test_one_limit_goes_out_under_the_name_the_provider_wants(
    given: dict[str, Any], limit: int | None, field: Any, expected: dict[str, int]
) -> None:
    request = json.loads(encode_request(call(output_limit=limit, **given), max_tokens_field=field))

    assert {name: value for name, value in request.items() if name.startswith("max")} == expected


def test_an_answer_is_streamed_as_the_official_clients_expect_it() -> None:
    write = encoder()
    deltas: list[Delta] = [
        ReasoningDelta("hm"),
        TextDelta('a "word"\n'),
        ToolCallDelta(0, id="call_1", name="find", arguments=""),
        ToolCallDelta(0, arguments='{"x":1}'),
        Finished(FinishReason.TOOL_CALLS, USAGE),
    ]

    chunks = read(write.start() + b"".join(map(write.delta, deltas)) + write.usage(USAGE))

    assert {(c["id"], c["object"], c["created"], c["model"]) for c in chunks} == {
        ("chatcmpl-1", "chat.completion.chunk", 7, 'mo"del')
    }
    assert [c["choices"][0]["delta"] for c in chunks[:-1]] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "hm"},
        {"content": 'a "word"\n'},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "find", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"x":1}'}}]},
        {},
    ]
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]] == [None] * 5 + ["tool_calls"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == USAGE_OBJECT


def test_deltas_become_one_completion() -> None:
    answer = AnswerBuilder()
    answer.add([ReasoningDelta("h"), TextDelta("One"), TextDelta(" two"), ReasoningDelta("m")])
    answer.add([Finished(FinishReason.STOP, USAGE)])

    completion = json.loads(answer.encode(encoder()))

    assert completion["object"] == "chat.completion"
    assert completion["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "One two",
                "refusal": None,
                "reasoning_content": "hm",
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert completion["usage"] == USAGE_OBJECT


def test_tool_calls_without_text_have_null_content_and_an_empty_answer_has_none_of_them() -> None:
    calling, silent = AnswerBuilder(), AnswerBuilder()
    calling.add(
        [
            ToolCallDelta(0, "a", "f", "{"),
            ToolCallDelta(1, "b", "g"),
            ToolCallDelta(0, arguments="}"),
        ]
    )
    calling.add([Finished(FinishReason.TOOL_CALLS, None)])
    silent.add([Finished(FinishReason.STOP, None)])

    completion = json.loads(calling.encode(encoder()))
    message = completion["choices"][0]["message"]

    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": ""}},
    ]
    assert "usage" not in completion
    message = json.loads(silent.encode(encoder()))["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "", "refusal": None}


CUSTOM: list[Delta] = [
    ToolCallDelta(0, "a", "run", is_custom=True),
    ToolCallDelta(1, "b", "f", "{}"),
    ToolCallDelta(0, arguments="ls "),
    ToolCallDelta(0, arguments="-l"),
    ToolCallDelta(2, "c", "run", is_custom=True),
    Finished(FinishReason.TOOL_CALLS, None),
]


def test_calls_of_custom_tools_hold_an_input() -> None:
    write, answer = encoder(), AnswerBuilder()
    answer.add(CUSTOM)

    chunks = read(b"".join(map(write.delta, CUSTOM)))
    (choice,) = json.loads(answer.encode(encoder()))["choices"]

    pieces = [p for c in chunks for p in c["choices"][0]["delta"].get("tool_calls", ())]
    assert pieces == [
        {"index": 0, "id": "a", "type": "custom", "custom": {"name": "run", "input": ""}},
        {"index": 1, "id": "b", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"index": 0, "custom": {"input": "ls "}},
        {"index": 0, "custom": {"input": "-l"}},
        {"index": 2, "id": "c", "type": "custom", "custom": {"name": "run", "input": ""}},
    ]
    assert choice["message"]["tool_calls"] == [
        {"id": "a", "type": "custom", "custom": {"name": "run", "input": "ls -l"}},
        {"id": "b", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "c", "type": "custom", "custom": {"name": "run", "input": ""}},
    ]
    assert choice["finish_reason"] == "tool_calls"


def test_half_an_answer_is_never_written_as_a_whole_one() -> None:
    with pytest.raises(ValueError, match="not finished"):
        AnswerBuilder().encode(encoder())


TOKEN = {"token": "No", "logprob": -0.5, "bytes": None, "top_logprobs": []}
SEALED: list[Delta] = [
    ReasoningDelta("H"),
    ReasoningDelta("m."),
    ReasoningSeal(signature="s"),
    ReasoningSeal(hidden="d"),
    ReasoningDelta("Ah."),
    ReasoningSeal(signature="t"),
    RefusalDelta("No"),
    LogprobsDelta([TOKEN]),
    Finished(FinishReason.CONTENT_FILTER, None),
]
BLOCKS = [
    {"type": "thinking", "thinking": "Hm.", "signature": "s"},
    {"type": "redacted_thinking", "data": "d"},
    {"type": "thinking", "thinking": "Ah.", "signature": "t"},
]


def test_seals_refusals_and_likelihoods_are_streamed() -> None:
    write = encoder()

    choices = [chunk["choices"][0] for chunk in read(b"".join(map(write.delta, SEALED)))]

    blocks = [b for c in choices for b in c["delta"].get("thinking_blocks", [])]
    # The official client joins lists by the index of what is in them.
    assert blocks == [{"index": i, **block} for i, block in enumerate(BLOCKS)]
    assert "".join(c["delta"].get("reasoning_content", "") for c in choices) == "Hm.Ah."
    assert choices[-3]["delta"] == {"refusal": "No"}
    assert choices[-2]["logprobs"] == {"content": [TOKEN], "refusal": None}
    assert choices[-1]["finish_reason"] == "content_filter"


def test_seals_refusals_and_likelihoods_stand_in_a_whole_answer() -> None:
    answer = AnswerBuilder()
    answer.add(SEALED)

    (choice,) = json.loads(answer.encode(encoder()))["choices"]

    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": "No",
        "reasoning_content": "Hm.Ah.",
        "thinking_blocks": BLOCKS,
    }
    assert choice["logprobs"] == {"content": [TOKEN], "refusal": None}


@pytest.mark.parametrize("deltas", [SEALED, CUSTOM])
def test_what_is_written_is_read_the_same(deltas: list[Delta]) -> None:
    writer = ChatWriter(id="c", created=1)
    stream = writer.start("m") + writer.deltas(deltas) + writer.tail()
    reader = StreamReader()

    assert list(reader.deltas(stream)) == deltas


@pytest.mark.parametrize("is_custom", [False, True])  # whatever the provider makes of it
def test_who_asks_with_functions_is_answered_with_a_call_of_one(*, is_custom: bool) -> None:
    deltas: list[Delta] = [
        ToolCallDelta(0, id="c", name="f", is_custom=is_custom),
        ToolCallDelta(0, arguments="{}"),
        ToolCallDelta(1, id="d", name="g", arguments="{}"),
        Finished(FinishReason.TOOL_CALLS, None),
    ]
    streamed = ChatWriter(id="c", created=1, of_functions=True)
    chunks = read(streamed.start("m") + streamed.deltas(deltas))
    collected = ChatWriter(id="c", created=1, of_functions=True)
    collected.collect(deltas)
    (choice,) = json.loads(collected.whole("m", None))["choices"]

    assert [c["choices"][0]["delta"] for c in chunks[1:]] == [
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": "{}"}},
        {},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "f", "arguments": "{}"}
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "function_call"
