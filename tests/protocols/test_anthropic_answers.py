"""Anthropic's event stream, read into deltas."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.calls import Delta, Finished, FinishReason
from appliance.model.usage import TokenUsage
from appliance.protocols.answers import ErrorReported, MalformedAnswer
from appliance.protocols.anthropic_answers import StreamReader, read_usage
from tests.protocols.calls import calls_of, end_of, text_of, thoughts_of
from tests.protocols.cuts import at_every_position, pieces


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> bytes:
    events = [event("content_block_start", index=index, content_block=start)]
    events += [event("content_block_delta", index=index, delta=delta) for delta in deltas]
    return b"".join([*events, event("content_block_stop", index=index)])


def text(*words: str) -> bytes:
    deltas = ({"type": "text_delta", "text": word} for word in words)
    return block(0, {"type": "text", "text": ""}, *deltas)


def end(reason: str | None = "end_turn", **usage: Any) -> bytes:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return event("message_delta", delta=delta, usage=usage) + event("message_stop")


START = event(
    "message_start",
    message={
        "id": "msg_1",
        "content": [],
        "usage": {"input_tokens": 10, "cache_read_input_tokens": 4, "output_tokens": 1},
    },
)
STREAM = START + event("ping") + text("Hel", "lo") + end(output_tokens=7)
USAGE = TokenUsage(input=10, output=7, cache_read=4)


def read(*parts: bytes) -> tuple[StreamReader, list[Delta]]:
    reader = StreamReader()
    return reader, [delta for part in parts for delta in reader.deltas(part)]


def test_wherever_a_stream_is_cut_the_same_answer_is_read() -> None:
    for cut in at_every_position(STREAM):
        reader, deltas = read(*cut)

        assert text_of(deltas) == "Hello"
        assert end_of(deltas) == Finished(FinishReason.STOP, USAGE)
        assert reader.finished
        assert reader.text_bytes == 5


@given(pieces(STREAM.replace(b"\n", b"\r\n")))
def test_other_line_ends_and_any_number_of_cuts_change_nothing(parts: list[bytes]) -> None:
    assert text_of(read(*parts)[1]) == "Hello"


def test_thoughts_come_apart_from_the_text_and_signatures_not_at_all() -> None:
    thinking = block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "Hm"},
        {"type": "signature_delta", "signature": "c2ln"},
    )
    hidden = block(1, {"type": "redacted_thinking", "data": "xyz"})

    deltas = read(START, thinking, hidden, text("Yes"), end(output_tokens=9))[1]

    assert (thoughts_of(deltas), text_of(deltas)) == ("Hm", "Yes")


def test_tool_calls_are_numbered_anew_and_always_have_arguments() -> None:
    pieces = ({"type": "input_json_delta", "partial_json": part} for part in ("", '{"x"', ":1}"))
    data = [
        text("Look"),
        block(1, {"type": "tool_use", "id": "a", "name": "f", "input": {}}, *pieces),
        block(2, {"type": "tool_use", "id": "b", "name": "g", "input": {}}),
        block(3, {"type": "tool_use", "id": "c", "name": "h", "input": {"y": 2}}),
        block(4, {"type": "server_tool_use", "id": "d", "name": "search", "input": {}}),
    ]

    deltas = read(START, *data, end("tool_use", output_tokens=5))[1]

    assert calls_of(deltas) == [("a", "f", '{"x":1}'), ("b", "g", "{}"), ("c", "h", '{"y":2}')]
    assert end_of(deltas).reason is FinishReason.TOOL_CALLS


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("end_turn", FinishReason.STOP),
        ("stop_sequence", FinishReason.STOP),
        ("pause_turn", FinishReason.STOP),
        ("max_tokens", FinishReason.LENGTH),
        ("model_context_window_exceeded", FinishReason.LENGTH),
        ("refusal", FinishReason.CONTENT_FILTER),
        ("something_new", FinishReason.STOP),
        (None, FinishReason.STOP),
    ],
)
def test_every_reason_to_end_has_openais_word(theirs: str | None, ours: FinishReason) -> None:
    assert end_of(read(START, end(theirs, output_tokens=1))[1]).reason is ours


def test_what_is_new_is_skipped() -> None:
    new = [
        event("something_new", index=3),
        block(7, {"type": "hologram"}, {"type": "hologram_delta", "hologram": "x"}),
        event("content_block_delta", index=0, delta={"type": "citations_delta", "citation": {}}),
        b"event: x\ndata: {}\n\n",
    ]

    assert text_of(read(START, *new, text("Hi"), end(output_tokens=1))[1]) == "Hi"


def test_later_usage_replaces_what_was_said_at_the_start() -> None:
    usage: dict[str, Any] = {
        "input_tokens": 12,
        "cache_creation_input_tokens": 3,
        "cache_read_input_tokens": None,
        "output_tokens": 20,
        "output_tokens_details": {"thinking_tokens": 15},
    }

    reader, _ = read(START, end(**usage))

    assert reader.usage == TokenUsage(input=12, output=5, cache_read=4, cache_write=3, reasoning=15)


def test_who_leaves_early_has_used_what_came() -> None:
    reader, _ = read(START, text("x" * 400))

    assert reader.usage == TokenUsage(input=10, output=100, cache_read=4, estimated=True)
    assert read()[0].usage is None


def test_an_error_amid_the_stream_is_told_after_what_came() -> None:
    error = event("error", error={"type": "overloaded_error", "message": "Overloaded"})

    reader, deltas = read(START + text("Hi") + error + text("never"))

    assert text_of(deltas) == "Hi"
    assert isinstance(reader.failure, ErrorReported)
    assert reader.failure.error.type == "overloaded_error"
    assert not reader.finished
    assert reader.deltas(STREAM) == []


@pytest.mark.parametrize(
    "broken",
    [
        b"data: {\n\n",
        b"data: []\n\n",
        event(
            "content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": "{"}
        ),
    ],
)
def test_a_broken_stream_is_malformed(broken: bytes) -> None:
    reader, deltas = read(START + text("Hi") + broken)

    assert text_of(deltas) == "Hi"
    assert isinstance(reader.failure, MalformedAnswer)


@given(st.lists(st.dictionaries(
    st.sampled_from(["type", "index", "delta", "content_block", "message", "usage", "text"]),
    st.none() | st.integers() | st.sampled_from(
        ["message_start", "content_block_start", "content_block_delta", "message_delta",
         "content_block_stop", "error", "text_delta", {}, {"type": "text"}, {"usage": {}}]),
)))  # fmt: skip
def test_no_event_whatever_its_shape_is_more_than_a_failure(events: list[dict[str, Any]]) -> None:
    read(b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in events))


@pytest.mark.parametrize(
    "usage", [{}, {"input_tokens": 1}, {"input_tokens": "1", "output_tokens": 2}]
)
def test_usage_that_says_too_little_is_none(usage: dict[str, Any]) -> None:
    assert read_usage(usage) is None
