"""Anthropic's event stream, read into deltas."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.calls import (
    Delta,
    Finished,
    FinishReason,
    ReasoningDelta,
    ReasoningSeal,
    TextDelta,
    ToolCallDelta,
)
from appliance.model.usage import TokenUsage
from appliance.protocols import sse
from appliance.protocols.answers import ErrorReported, MalformedAnswer
from appliance.protocols.anthropic_answers import MessageAnswer, StreamReader, read_usage
from tests.protocols.calls import calls_of, end_of, text_of
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


def test_thoughts_come_apart_from_the_text_each_with_its_seal() -> None:
    thinking = block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "Hm"},
        {"type": "signature_delta", "signature": "c2"},
        {"type": "signature_delta", "signature": "ln"},
    )
    hidden = block(1, {"type": "redacted_thinking", "data": "xyz"})

    deltas = read(START, thinking, hidden, text("Yes"), end(output_tokens=9))[1]

    assert deltas[:-1] == [
        ReasoningDelta("Hm"),
        ReasoningSeal(signature="c2ln"),
        ReasoningSeal(hidden="xyz"),
        TextDelta("Yes"),
    ]


def test_the_stop_sequence_is_told() -> None:
    delta = {"stop_reason": "stop_sequence", "stop_sequence": "END"}
    ending = event("message_delta", delta=delta, usage={"output_tokens": 1})

    last = end_of(read(START, ending, event("message_stop"))[1])

    assert (last.reason, last.stop) == (FinishReason.STOP, "END")


def test_what_is_kept_for_an_hour_is_counted_apart() -> None:
    usage = {
        "input_tokens": 1,
        "output_tokens": 2,
        "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
    }

    assert read_usage(usage) == TokenUsage(input=1, output=2, cache_write=30, cache_write_hour=20)


SEARCHING = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
FETCHING = {**SEARCHING, "name": "web_fetch"}


@pytest.mark.parametrize(
    ("told", "searches"),
    [
        ({"web_search_requests": 3, "web_fetch_requests": 9}, 3),
        ({"web_search_requests": 0}, 0),
        ({"web_search_requests": "3"}, 0),
        ({}, 0),
        (None, 0),
        (7, 0),
    ],
)
def test_searches_are_counted_by_who_made_them(told: object, searches: int) -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "server_tool_use": told}

    assert read_usage(usage) == TokenUsage(input=1, output=2, web_searches=searches)


@pytest.mark.parametrize("relays", [True, False])
def test_searches_are_counted_as_they_come_until_their_number_is_told(*, relays: bool) -> None:
    def after(*parts: bytes) -> StreamReader:
        reader = StreamReader()
        for part in parts:
            if relays:
                assert reader.relay(part, include_usage=True) in {part, b""}
            else:
                reader.deltas(part)
        return reader

    seen = block(0, SEARCHING) + block(1, FETCHING) + block(2, SEARCHING)
    told = end(output_tokens=7, server_tool_use={"web_search_requests": 1})

    assert after(START, seen).usage == TokenUsage(
        input=10 + 20_000, output=1, cache_read=4, web_searches=2, estimated=True
    )
    assert after(START, seen, told).usage == replace(USAGE, web_searches=1)
    assert after(START, seen, end(output_tokens=7)).usage == replace(USAGE, web_searches=2)


def test_the_searches_of_an_answer_in_one_piece_are_counted() -> None:
    usage: dict[str, Any] = {"input_tokens": 1, "output_tokens": 2}
    message: dict[str, Any] = {
        "type": "message",
        "content": [SEARCHING, FETCHING, 7],
        "usage": usage,
    }

    answer = MessageAnswer(json.dumps(message).encode())
    assert answer.usage == TokenUsage(input=1, output=2, web_searches=1)
    message["usage"] = {**usage, "server_tool_use": {"web_search_requests": 4}}
    answer = MessageAnswer(json.dumps(message).encode())
    assert answer.usage == TokenUsage(input=1, output=2, web_searches=4)


def test_tool_calls_are_numbered_anew_and_always_have_arguments() -> None:
    pieces = ({"type": "input_json_delta", "partial_json": part} for part in ("", '{"x"', ":1}"))
    data = [
        text("Look"),
        block(1, {"type": "tool_use", "id": "a", "name": "f", "input": {}}, *pieces),
        block(2, {"type": "tool_use", "id": "b", "name": "g", "input": {}}),
        block(3, {"type": "tool_use", "id": "c", "name": "h", "input": {"y": 2}}),
        block(
            4,
            {"type": "server_tool_use", "id": "d", "name": "search", "input": {}},
            {"type": "input_json_delta", "partial_json": '{"q":1}'},
        ),
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
    data = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in events)

    read(data)
    relay(data + event("message_stop"))


@pytest.mark.parametrize(
    "usage", [{}, {"input_tokens": 1}, {"input_tokens": "1", "output_tokens": 2}]
)
def test_usage_that_says_too_little_is_none(usage: dict[str, Any]) -> None:
    assert read_usage(usage) is None


def relay(*parts: bytes) -> tuple[StreamReader, bytes]:
    """What is passed on, with what a finished answer ends with."""
    reader = StreamReader(prompt_bytes=30)
    passed = b"".join(reader.relay(part, include_usage=True) for part in parts)
    if reader.finished:
        passed += reader.ending(reader.usage, include_usage=True)
    return reader, passed


PASSED = STREAM.removesuffix(event("message_stop"))


def test_wherever_a_stream_is_cut_its_own_bytes_are_handed_on_but_for_the_end() -> None:
    for cut in at_every_position(STREAM):
        reader, passed = relay(*cut)

        assert passed == PASSED
        assert reader.finished
        assert reader.usage == USAGE


@given(pieces(STREAM.replace(b"\n", b"\r\n")))
def test_other_line_ends_are_handed_on_as_they_are(parts: list[bytes]) -> None:
    reader, passed = relay(*parts)

    assert passed == PASSED.replace(b"\n", b"\r\n")
    assert reader.finished


def test_what_is_new_is_handed_on() -> None:
    new = event("something_new", index=3) + block(7, {"type": "hologram"}, {"type": "x_delta"})

    assert relay(START + new)[1] == START + new


def test_a_text_about_the_protocol_is_text() -> None:
    said = text('{"type":"message_stop"}', '{"type":"error","error":{"message":"x"}}')

    reader, passed = relay(START + said)

    assert passed == START + said
    assert not reader.finished
    assert reader.failure is None


def events_of(passed: bytes) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in sse.payloads(passed)]


def test_why_an_answer_ended_waits_until_it_is_complete() -> None:
    ending, stop = (each + b"\n\n" for each in end(output_tokens=7).split(b"\n\n")[:-1])
    error = event("error", error={"type": "overloaded_error", "message": "Overloaded"})

    assert relay(START, text("Hi"), ending)[1] == START + text("Hi")
    assert relay(START, text("Hi"), ending, error, stop)[1] == START + text("Hi")
    assert relay(START, text("Hi"), ending, stop)[1] == START + text("Hi") + ending


def test_an_end_that_never_ends_is_a_failure() -> None:
    ending = event("message_delta", delta={"stop_reason": "x" * 1_000_000})

    assert isinstance(relay(START, *[ending] * 6)[0].failure, MalformedAnswer)


@pytest.mark.parametrize(
    "usage", [None, {}, {"input_tokens": None, "output_tokens": "1"}, [], {"service_tier": "x"}]
)
def test_usage_stands_where_the_official_clients_look_for_it(usage: Any) -> None:
    message = {"id": "msg_1", "content": [], "usage": usage}
    if usage is None:
        del message["usage"]
    start = event("message_start", message=message)
    ending = {"stop_reason": "end_turn", "stop_sequence": None}

    reader, passed = relay(
        start + text("x" * 40) + event("message_delta", delta=ending) + event("message_stop")
    )
    first, *_, last = events_of(passed)

    told = first["message"]["usage"]
    assert (told["input_tokens"], told["output_tokens"]) == (8, 0)
    assert first["message"]["id"] == "msg_1"
    assert last["delta"] == ending
    assert last["usage"]["output_tokens"] == 10
    assert reader.finished


def test_an_estimate_is_told_in_place_of_figures_that_cannot_be() -> None:
    reader = StreamReader()
    reader.relay(START + text("Hi") + end(output_tokens=0), include_usage=True)
    estimate = TokenUsage(input=10, cache_read=4, output=1, estimated=True)

    (last,) = events_of(reader.ending(estimate, include_usage=True))

    assert (last["usage"]["input_tokens"], last["usage"]["output_tokens"]) == (10, 1)
    assert last["delta"]["stop_reason"] == "end_turn"


def test_half_of_the_usage_is_not_lost_with_the_other_half() -> None:
    start = event("message_start", message={"id": "msg_1", "content": []})

    assert read(start, text("Hi"), end(output_tokens=7))[0].usage == TokenUsage(output=7)


def test_an_error_is_withheld_with_all_that_follows() -> None:
    error = event("error", error={"type": "overloaded_error", "message": "Overloaded"})

    reader, passed = relay(START + text("Hi"), error + text("never"), STREAM)

    assert passed == START + text("Hi")
    assert isinstance(reader.failure, ErrorReported)
    assert not reader.finished


def test_nothing_follows_the_end() -> None:
    assert relay(STREAM + STREAM, STREAM)[1] == PASSED


def test_an_event_without_its_name_is_given_it() -> None:
    unnamed = b"".join(part.split(b"\n", 1)[1] + b"\n\n" for part in STREAM.split(b"\n\n")[:-1])

    reader, passed = relay(b": hello\n\n" + unnamed)

    assert passed == b": hello\n\n" + PASSED
    assert reader.text_bytes == 5


def test_a_name_that_is_none_is_not_made_one() -> None:
    odd = b'data: {"type":"x\\nevent: message_stop"}\n\n'

    assert relay(odd)[1] == odd


@pytest.mark.parametrize("broken", [b"data: {\n\n", b'event: x\ndata: {"message_": \n\n'])
def test_what_concerns_us_and_cannot_be_read_is_a_failure(broken: bytes) -> None:
    reader, passed = relay(START + broken + text("never"))

    assert passed == START
    assert isinstance(reader.failure, MalformedAnswer)


def test_an_event_without_end_is_a_failure() -> None:
    assert isinstance(relay(b"data: " + b"x" * 5_000_000)[0].failure, MalformedAnswer)


def test_who_leaves_a_relay_early_has_used_what_came() -> None:
    words = ["word " * 10] * 40

    reader, _ = relay(START, *(part for part in text(*words).splitlines(keepends=True)))

    assert reader.usage is not None
    assert reader.usage.estimated
    assert reader.usage.output == pytest.approx(40 * 50 / 4, rel=0.2)


MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "content": [
        {"type": "thinking", "thinking": "Hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "Hi", "citations": []},
        {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
        {"type": "tool_use", "id": "b", "name": "g", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "c", "content": []},
        "nonsense",
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 10, "output_tokens": 7, "cache_read_input_tokens": 4},
}


def test_an_answer_in_one_piece_says_the_same_as_a_stream() -> None:
    data = json.dumps(MESSAGE).encode()

    answer = MessageAnswer(data)

    assert answer.text == data
    assert answer.usage == USAGE
    assert answer.deltas() == [
        ReasoningDelta("Hm"),
        ReasoningSeal(signature="s"),
        ReasoningSeal(hidden="x"),
        TextDelta("Hi"),
        ToolCallDelta(0, id="a", name="f", arguments='{"x":1}'),
        ToolCallDelta(1, id="b", name="g"),
        ToolCallDelta(1, arguments="{}"),
        Finished(FinishReason.TOOL_CALLS, USAGE),
    ]


def test_an_answer_without_usage_has_none() -> None:
    assert MessageAnswer(b'{"content": []}').usage is None


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        (b'{"type":"error","error":{"type":"overloaded_error","message":"x"}}', ErrorReported),
        (b'{"type":"error"}', ErrorReported),
        (b'{"error":"x"}', ErrorReported),
        (b'{"content":"x"}', MalformedAnswer),
        (b"{}", MalformedAnswer),
        (b"<html>", MalformedAnswer),
        (b"[]", MalformedAnswer),
    ],
)
def test_what_is_no_message_is_a_failure(text: bytes, failure: type[Exception]) -> None:
    with pytest.raises(failure):
        MessageAnswer(text)
