"""What providers of OpenAI's dialect answer, well-behaved and otherwise."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.calls import (
    Delta,
    Finished,
    FinishReason,
    LogprobsDelta,
    ReasoningDelta,
    ReasoningSeal,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from appliance.model.usage import TokenUsage
from appliance.protocols import sse
from appliance.protocols.answers import AnswerFailed, ErrorReported, MalformedAnswer
from appliance.protocols.openai_answers import Completion, StreamReader, read_usage
from tests.protocols.calls import calls_of, end_of, text_of, thoughts_of
from tests.protocols.cuts import at_every_position, one_by_one, pieces

DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def event(**fields: Any) -> bytes:
    chunk = {"id": "c", "object": "chat.completion.chunk", **fields}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def delta(said: Any = None, finish: str | None = None, **fields: Any) -> bytes:
    return event(choices=[{"index": 0, "delta": said or {}, "finish_reason": finish}], **fields)


ROLE = delta({"role": "assistant", "content": ""}, usage=None)
WORDS = [delta({"content": word}) for word in ("One", ' "two"', " [DONE] ", ' {"usage":{}}')]
END = delta({}, "stop")
USAGE_CHUNK = event(choices=[], usage=USAGE)
STREAM = b"".join([ROLE, b": ping\n\n", *WORDS, END, USAGE_CHUNK, DONE])
TEXT = 'One "two" [DONE]  {"usage":{}}'


def relay(parts: list[bytes], *, include_usage: bool = False) -> tuple[StreamReader, list[bytes]]:
    """What is passed on with each part; with the last of the answer what it ends with."""
    reader, passed = StreamReader(), []
    for part in parts:
        was_finished = reader.finished
        events = reader.relay(part, include_usage=include_usage)
        if reader.finished and not was_finished:
            events += reader.ending(reader.usage, include_usage=include_usage)
        passed.append(events)
    return reader, passed


def decode(parts: list[bytes]) -> tuple[StreamReader, list[Delta]]:
    reader = StreamReader()
    return reader, [delta for part in parts for delta in reader.deltas(part)]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("include_usage", [True, False], ids=["usage", "no usage"])
def test_wherever_a_stream_is_cut_the_same_events_pass_untouched(
    line_end: bytes, *, include_usage: bool
) -> None:
    withheld = DONE if include_usage else USAGE_CHUNK + DONE
    expected = STREAM.removesuffix(withheld).replace(b"\n", line_end)
    data = STREAM.replace(b"\n", line_end)

    for parts in [*map(list, at_every_position(data)), one_by_one(data)]:
        reader, passed = relay(parts, include_usage=include_usage)

        assert b"".join(passed) == expected
        assert all(piece.endswith(2 * line_end) for piece in passed if piece)
        assert reader.finished
        assert reader.failure is None
        assert reader.usage == TokenUsage(input=3, output=2)


@given(pieces(STREAM))
def test_every_read_passes_on_whole_events_at_once(parts: list[bytes]) -> None:
    reader, passed = relay(parts)

    assert reader.finished
    known = 0
    for part, out in zip(parts, passed, strict=True):
        known += len(part)
        whole = STREAM[:known].rpartition(b"\n\n")[0]
        assert len(b"".join(passed[: passed.index(out) + 1])) <= len(whole) + 2
        assert not out or out.endswith(b"\n\n")


@given(pieces(STREAM))
def test_wherever_a_stream_is_cut_the_same_answer_is_read(parts: list[bytes]) -> None:
    reader, deltas = decode(parts)

    assert text_of(deltas) == TEXT
    assert end_of(deltas) == Finished(FinishReason.STOP, TokenUsage(input=3, output=2))
    assert sum(isinstance(each, Finished) for each in deltas) == 1
    assert reader.text_bytes == len(TEXT)


def test_nothing_counts_after_the_end() -> None:
    reader, passed = relay([DONE + WORDS[0], WORDS[1]])

    assert passed == [b"", b""]
    assert reader.finished


def test_a_last_word_without_a_blank_line_is_understood() -> None:
    for last in (b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]\r\n"):
        reader, passed = relay([ROLE, END, last])

        assert reader.finished, last
        assert passed == [ROLE, b"", END]


def test_without_done_an_answer_is_not_finished() -> None:
    reader, _ = relay([ROLE, *WORDS, END, USAGE_CHUNK])

    assert not reader.finished


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        ({"message": "busy", "code": "overloaded"}, "busy", "overloaded"),
        ({"message": "busy", "code": 503}, "busy", "503"),
        ("busy", "busy", ""),
    ],
)
def test_an_error_amid_a_stream_is_told_and_what_came_before_passes(
    error: Any, message: str, code: str
) -> None:
    data = ROLE + WORDS[0] + event(error=error) + WORDS[1] + DONE
    for reader, out in (relay([data]), decode([data])):
        assert isinstance(reader.failure, ErrorReported)
        assert (reader.failure.error.message, reader.failure.error.code) == (message, code)
        assert not reader.finished
        assert out in ([ROLE + WORDS[0]], [TextDelta("One")])


def test_an_error_that_is_null_is_none() -> None:
    reader, passed = relay([delta({"content": "x"}, error=None), DONE])

    assert reader.failure is None
    assert passed[0]


@pytest.mark.parametrize(
    "broken", [b'data: {"choices":[{"del\n\n', b'data: ["usage",{"error":1}]\n\n', b"data: \\u\n\n"]
)
def test_a_broken_event_ends_the_stream_after_what_came_before(broken: bytes) -> None:
    reader, passed = relay([ROLE + WORDS[0] + broken + WORDS[1]])

    assert passed == [ROLE + WORDS[0]]
    assert isinstance(reader.failure, MalformedAnswer)


def test_chunks_without_choices_are_kept_from_those_who_index_them() -> None:
    filtered = event(choices=[], prompt_filter_results=[])

    assert relay([filtered + ROLE])[1] == [ROLE]
    assert relay([filtered + ROLE], include_usage=True)[1] == [filtered + ROLE]


def test_usage_on_every_chunk_is_overwritten_not_added() -> None:
    data = [delta({"content": "x"}, usage={**USAGE, "completion_tokens": n}) for n in (1, 2, 3)]
    data = [ROLE, *data, END]

    reader, passed = relay([*data, DONE])

    assert b"".join(passed) == b"".join(data)
    assert reader.usage == TokenUsage(input=3, output=3)


@pytest.mark.parametrize("words", [1, 10, 200])
def test_the_estimate_is_near_the_truth_without_decoding(words: int) -> None:
    said = [delta({"content": f"word{i} "}) for i in range(words)]
    size = sum(len(f"word{i} ") for i in range(words))

    joined, _ = relay([ROLE + b"".join(said), END])
    single, _ = relay([ROLE, *said, b": ping\n\n" * 50, END])

    for reader in (joined, single):
        assert size * 0.9 - 20 <= reader.text_bytes <= size * 1.1 + 40


def test_a_tool_call_is_read_from_its_pieces() -> None:
    start = {"index": 0, "id": "call_1", "function": {"name": "find", "arguments": ""}}
    said = [
        delta({"role": "assistant", "content": None, "tool_calls": [start]}),
        delta({"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]}),
        delta({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}),
        delta({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g"}}]}),
        delta({}, "tool_calls"),
    ]

    _, deltas = decode([*said, DONE])

    assert calls_of(deltas) == [("call_1", "find", '{"x":1}'), ("b", "g", "")]
    assert end_of(deltas).reason is FinishReason.TOOL_CALLS


def test_a_tool_call_without_index_and_id_with_an_object_is_understood() -> None:
    whole = [{"function": {"name": name, "arguments": {"x": 1}}} for name in ("f", "g")]

    _, deltas = decode([delta({"tool_calls": whole}), DONE])

    assert calls_of(deltas) == [("call_c_0", "f", '{"x":1}'), ("call_c_1", "g", '{"x":1}')]
    assert end_of(deltas).reason is FinishReason.TOOL_CALLS


def test_pieces_of_a_call_are_joined_by_id_where_there_is_no_index() -> None:
    said = [
        delta({"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{"}}]}),
        delta({"tool_calls": [{"id": "b", "function": {"name": "g", "arguments": "["}}]}),
        delta({"tool_calls": [{"id": "a", "function": {"arguments": "}"}}]}),
        delta({"tool_calls": [{"function": {"arguments": "]"}}]}),
    ]

    assert calls_of(decode([*said, DONE])[1]) == [("a", "f", "{}"), ("b", "g", "[]")]


def test_reasoning_is_read_under_both_names() -> None:
    said = [delta({"reasoning_content": "h"}), delta({"reasoning": "m"}), DONE]

    assert thoughts_of(decode(said)[1]) == "hm"


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("length", FinishReason.LENGTH),
        ("content_filter", FinishReason.CONTENT_FILTER),
        ("function_call", FinishReason.TOOL_CALLS),
        ("end_turn", FinishReason.STOP),
        ("something new", FinishReason.STOP),
        ("", FinishReason.STOP),
        (None, FinishReason.STOP),
    ],
)
def test_every_reason_to_end_is_one_of_four(reason: str | None, expected: FinishReason) -> None:
    assert end_of(decode([delta({}, reason), DONE])[1]).reason is expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["choices", "delta", "index", "content", "tool_calls", "function", "id", "name",
             "arguments", "usage", "prompt_tokens", "completion_tokens", "error", "finish_reason"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


@given(st.lists(json_values, max_size=5))
def test_no_json_whatever_its_shape_is_more_than_a_failure(values: list[object]) -> None:
    data = b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)

    decode([data])
    relay([data + DONE], include_usage=True)
    try:
        Completion(json.dumps(values).encode()).deltas()
        for value in values:
            Completion(json.dumps(value).encode()).deltas()
    except AnswerFailed:
        pass


def test_an_answer_in_one_piece_is_passed_on_as_it_came() -> None:
    text = b'{ "choices":[{"index":0, "message":{"role":"assistant","content":"hi",'
    text += b'"reasoning":"hm"}, "finish_reason":"length"}],\n'
    text += b'"usage":{"prompt_tokens":3,"completion_tokens":2}}'

    completion = Completion(text)
    deltas = completion.deltas()

    assert completion.relayed(completion.usage) is text
    assert completion.usage == TokenUsage(input=3, output=2)
    assert (thoughts_of(deltas), text_of(deltas)) == ("hm", "hi")
    assert end_of(deltas) == Finished(FinishReason.LENGTH, TokenUsage(input=3, output=2))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>",
        b'{"choices":[{"mess',
        b"[]",
        b"null",
        b'{"choices":[]}',
        b'{"choices":null}',
        b'{"choices":[5]}',
        b'{"choices":[{"index":0,"message":null,"finish_reason":"stop"}]}',
    ],
)
def test_what_is_no_completion_is_malformed(text: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        Completion(text)


@pytest.mark.parametrize(
    "error", [{"error": {"message": "no"}}, {"error": "no"}, {"object": "error", "message": "no"}]
)
def test_an_error_with_a_good_status_is_an_error(error: object) -> None:
    with pytest.raises(ErrorReported) as caught:
        Completion(json.dumps(error).encode())

    assert caught.value.error.message == "no"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (USAGE, TokenUsage(input=3, output=2)),
        ({"prompt_tokens": 3.0, "completion_tokens": 2}, TokenUsage(input=3, output=2)),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "total_tokens": 150,
                "prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 10},
                "completion_tokens_details": {"reasoning_tokens": 40},
            },
            TokenUsage(input=60, output=10, cache_read=30, cache_write=10, reasoning=40),
        ),
        # xAI counts reasoning beside the completion; the total tells.
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "total_tokens": 190,
                "completion_tokens_details": {"reasoning_tokens": 40},
            },
            TokenUsage(input=100, output=50, reasoning=40),
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 1, "prompt_cache_hit_tokens": 8},
            TokenUsage(input=2, output=1, cache_read=8),
        ),
        # More cached than there was, more reasoning than was said: never below zero.
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 99, "cache_write_tokens": 99},
                "completion_tokens_details": {"reasoning_tokens": 99},
            },
            TokenUsage(cache_read=10, reasoning=5),
        ),
        # Sound is among the tokens; where some may be cached it is the others.
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "prompt_tokens_details": {"cached_tokens": 30, "audio_tokens": 60},
                "completion_tokens_details": {"reasoning_tokens": 10, "audio_tokens": 25},
            },
            TokenUsage(
                input=70, output=40, cache_read=30, reasoning=10, input_audio=60, output_audio=25
            ),
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 99},
                "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 99},
            },
            TokenUsage(input=6, output=2, cache_read=4, reasoning=3, input_audio=6, output_audio=2),
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "prompt_tokens_details": {"audio_tokens": -1},
                "completion_tokens_details": {"audio_tokens": "5"},
            },
            TokenUsage(input=10, output=5),
        ),
        ({"prompt_tokens": "3", "completion_tokens": 2}, None),
        ({"prompt_tokens": -3, "completion_tokens": 2}, None),
        ({"prompt_tokens": True, "completion_tokens": 2}, None),
        ({"prompt_tokens": 3}, None),
        ({"prompt_tokens": 2**60, "completion_tokens": 2}, None),
        ([], None),
        (None, None),
        ("many", None),
    ],
)
def test_usage_is_translated_or_not_believed(usage: object, expected: TokenUsage | None) -> None:
    assert read_usage(usage) == expected


def test_an_event_split_from_its_blank_line_waits_for_it() -> None:
    reader = StreamReader()

    assert reader.relay(ROLE[:-1], include_usage=False) == b""
    assert reader.relay(b"\n", include_usage=False) == ROLE
    assert list(sse.payloads(ROLE)) == [ROLE[6:-2]]


def said(message: Any, **choice: Any) -> list[Delta]:
    """What one whole completion says, but for its end."""
    whole = {"id": "c", "choices": [{"index": 0, "message": message, **choice}]}
    return Completion(json.dumps(whole).encode()).deltas()[:-1]


@pytest.mark.parametrize(
    ("message", "deltas"),
    [
        ({"content": None, "refusal": "No."}, [RefusalDelta("No.")]),
        ({"content": "a", "reasoning": "Hm."}, [ReasoningDelta("Hm."), TextDelta("a")]),
        (
            {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, 5]},
            [TextDelta("ab")],
        ),
        (
            {
                "reasoning_content": "Hm.",
                "thinking_blocks": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                    {"type": "redacted_thinking", "data": "d"},
                    {"type": "thinking", "thinking": 5, "signature": None},
                    5,
                ],
            },
            [ReasoningDelta("Hm."), ReasoningSeal(signature="s"), ReasoningSeal(hidden="d")],
        ),
        (
            {"thinking_blocks": [{"type": "thinking", "thinking": "Hm.", "signature": "s"}]},
            [ReasoningDelta("Hm."), ReasoningSeal(signature="s")],
        ),
        (
            {
                "reasoning": "Hm.",
                "reasoning_details": [
                    {
                        "type": "reasoning.text",
                        "text": "Hm.",
                        "signature": "s",
                        "format": "anthropic-claude-v1",
                    },
                    {"type": "reasoning.encrypted", "data": "d", "format": "openai-responses-v1"},
                    {"type": "reasoning.encrypted", "data": "e"},
                ],
            },
            [ReasoningDelta("Hm."), ReasoningSeal(signature="s"), ReasoningSeal(hidden="e")],
        ),
        (
            {"content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]},
            [ToolCallDelta(0, id="call_c_0", name="f", arguments='{"x":1}')],
        ),
        ({"content": 5, "refusal": [], "thinking_blocks": {}, "tool_calls": "x"}, []),
    ],
)
def test_whatever_an_answer_says_is_read(message: Any, deltas: list[Delta]) -> None:
    assert said(message) == deltas


def test_how_likely_the_tokens_were_is_read() -> None:
    token = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}

    assert said({"content": "a"}, logprobs={"content": [token]}) == [
        TextDelta("a"),
        LogprobsDelta([token]),
    ]
    nothings: list[Any] = [None, {}, {"content": None}, {"content": []}, {"content": [5]}, "x"]
    for nothing in nothings:
        assert said({"content": "a"}, logprobs=nothing) == [TextDelta("a")]


def test_a_seal_at_the_end_of_a_stream_does_not_repeat_the_thought() -> None:
    block = {"index": 0, "type": "thinking", "thinking": "Hm.", "signature": "s"}
    parts = [
        delta({"reasoning_content": "H"}),
        delta({"reasoning_content": "m."}),
        delta({"thinking_blocks": [block]}),
        END + DONE,
    ]

    _, deltas = decode(parts)

    assert thoughts_of(deltas) == "Hm."
    assert ReasoningSeal(signature="s") in deltas


@pytest.mark.parametrize(
    "chunk",
    [
        event(choices=[]),
        event(choices=None),
        event(choices=[None, 5]),
        event(choices=[{"index": 0, "delta": None, "finish_reason": None}]),
        event(choices=[{"index": 0, "delta": {"content": None}, "finish_reason": ""}]),
        event(choices=[{"index": 1, "delta": {"content": "of another choice"}}]),
        b": comment\r\n\r\n",
        b"data:\n\n",
    ],
)
def test_what_says_nothing_changes_nothing(chunk: bytes) -> None:
    reader, deltas = decode([WORDS[0], chunk, END, DONE])

    assert text_of(deltas) == "One"
    assert end_of(deltas).reason is FinishReason.STOP
    assert reader.failure is None


def test_a_chunk_may_hold_words_and_the_end() -> None:
    _, deltas = decode([delta({"content": "One"}, "length"), DONE])

    assert text_of(deltas) == "One"
    assert end_of(deltas).reason is FinishReason.LENGTH
