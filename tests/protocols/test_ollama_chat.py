"""Ollama's own chat API."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.calls import Delta, Finished, FinishReason
from appliance.model.errors import InvalidRequest
from appliance.model.usage import TokenUsage
from appliance.protocols.answers import ErrorReported, MalformedAnswer
from appliance.protocols.ollama_chat import StreamReader, encode_request
from tests.protocols.calls import call, calls_of, end_of, text_of, thoughts_of
from tests.protocols.cuts import at_every_position, pieces

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def said(**members: Any) -> dict[str, Any]:
    request: dict[str, Any] = json.loads(encode_request(call(**members)))
    return request


def line(text: str = "", **fields: Any) -> bytes:
    message = {"role": "assistant", "content": text}
    whole = {"created_at": "2026T1Z", "message": message, "done": False, **fields}
    return json.dumps(whole).encode() + b"\n"


END = line(done=True, done_reason="stop", prompt_eval_count=3, eval_count=2)
STREAM = line("Hel") + line("lo") + END


def read(*parts: bytes) -> tuple[StreamReader, list[Delta]]:
    reader = StreamReader()
    return reader, [delta for part in parts for delta in reader.deltas(part)]


def test_the_least_request_is_always_a_stream() -> None:
    assert said() == {
        "model": "provider-model",
        "stream": True,
        "messages": [{"role": "user", "content": "hello"}],
    }


def test_sampling_and_limits_are_options() -> None:
    request = said(temperature=0, top_p=0.5, seed=7, stop="x", max_tokens=9, frequency_penalty=1)

    assert request["options"] == {
        "temperature": 0,
        "top_p": 0.5,
        "seed": 7,
        "stop": ["x"],
        "num_predict": 9,
        "frequency_penalty": 1,
    }
    assert said(max_tokens=9, output_limit=5)["options"] == {"num_predict": 5}


def test_messages_are_translated_with_their_pictures_and_calls() -> None:
    request = said(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                ],
            },
            {
                "role": "assistant",
                "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": '{"x":1}'}}],
            },
            {"role": "tool", "tool_call_id": "a", "content": "done"},
        ],
        tools=[TOOL],
    )

    assert request["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Look", "images": ["AAAA"]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}],
        },
        {"role": "tool", "content": "done", "tool_name": "f"},
    ]
    assert request["tools"] == [TOOL]
    assert "tools" not in said(tools=[TOOL], tool_choice="none")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"type": "json_object"}, "json"),
        (
            {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
            {"type": "object"},
        ),
        ({"type": "text"}, None),
    ],
)
def test_the_response_format_is_translated(wanted: object, expected: object) -> None:
    assert said(response_format=wanted).get("format") == expected


def test_an_effort_becomes_a_thought_or_none() -> None:
    assert said(reasoning_effort="high")["think"] == "high"
    assert said(reasoning_effort="none")["think"] is False


@pytest.mark.parametrize(
    "members",
    [
        {"n": 2},
        {"logprobs": True},
        {"logit_bias": {"1": 1}},
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"response_format": {"type": "xml"}},
        {"functions": "f"},
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(members: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        encode_request(call(**members))

    assert caught.value.fields[0].field == next(iter(members))


def test_a_picture_by_address_is_refused() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}
    with pytest.raises(InvalidRequest, match="data URLs only"):
        encode_request(call(messages=[{"role": "user", "content": [picture]}]))


def test_wherever_a_stream_is_cut_the_same_answer_is_read() -> None:
    for cut in at_every_position(STREAM):
        reader, deltas = read(*cut)

        assert text_of(deltas) == "Hello"
        assert end_of(deltas) == Finished(FinishReason.STOP, TokenUsage(input=3, output=2))
        assert reader.finished
        assert reader.usage == TokenUsage(input=3, output=2)


@given(pieces(STREAM.replace(b"\n", b"\r\n")))
def test_any_number_of_cuts_changes_nothing(parts: list[bytes]) -> None:
    assert text_of(read(*parts)[1]) == "Hello"


def test_thoughts_and_calls_are_read_and_each_call_gets_an_id() -> None:
    calls = [{"function": {"name": name, "arguments": {"x": 1}}} for name in ("f", "g")]
    data = [
        line(message={"role": "assistant", "thinking": "Hm"}),
        line(message={"role": "assistant", "content": "", "tool_calls": calls}),
    ]

    deltas = read(*data, END)[1]

    assert thoughts_of(deltas) == "Hm"
    assert calls_of(deltas) == [
        ("call_2026T1Z_0", "f", '{"x":1}'),
        ("call_2026T1Z_1", "g", '{"x":1}'),
    ]
    assert end_of(deltas).reason is FinishReason.TOOL_CALLS


def test_an_answer_that_was_cut_off_says_so() -> None:
    assert end_of(read(line(done=True, done_reason="length"))[1]).reason is FinishReason.LENGTH


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        ({"prompt_eval_count": 3, "eval_count": 2}, TokenUsage(input=3, output=2)),
        ({"eval_count": 2}, TokenUsage(output=2)),
        ({"eval_count": "two"}, None),
        ({}, None),
    ],
)
def test_counts_are_believed_where_they_are_numbers(
    counts: dict[str, Any], usage: TokenUsage | None
) -> None:
    assert read(line(done=True, **counts))[0].usage == usage


def test_an_error_in_a_line_is_told_after_what_came() -> None:
    reader, deltas = read(line("Hi") + b'{"error":"out of memory"}\n' + line("never"))

    assert text_of(deltas) == "Hi"
    assert isinstance(reader.failure, ErrorReported)
    assert reader.failure.error.message == "out of memory"


def test_a_broken_line_or_one_without_end_is_malformed() -> None:
    assert isinstance(read(b'{"message":\n')[0].failure, MalformedAnswer)
    reader = StreamReader()
    for _ in range(5):
        reader.deltas(b"x" * 1024 * 1024)
    assert isinstance(reader.failure, MalformedAnswer)


@given(st.lists(st.dictionaries(
    st.sampled_from(["message", "done", "error", "done_reason", "eval_count"]),
    st.none() | st.booleans() | st.integers() | st.sampled_from(
        [[], {}, "x", {"content": 5}, {"tool_calls": [5, {}, {"function": 5}]}]),
)))  # fmt: skip
def test_no_line_whatever_its_shape_is_more_than_a_failure(lines: list[dict[str, Any]]) -> None:
    read(b"".join(json.dumps(each).encode() + b"\n" for each in lines))
