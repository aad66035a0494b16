"""A message written from deltas, as a stream and in one piece."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.calls import (
    Delta,
    Dialect,
    Finished,
    FinishReason,
    LogprobsDelta,
    ReasoningDelta,
    ReasoningSeal,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from appliance.model.errors import UpstreamFailed
from appliance.model.usage import TokenUsage
from appliance.protocols import sse
from appliance.protocols.anthropic_answers import MessageAnswer, StreamReader
from appliance.protocols.anthropic_writer import MessagesWriter, usage_object
from tests.protocols.calls import calls_of, end_of, text_of, thoughts_of

USAGE = TokenUsage(input=10, output=5, cache_read=3, cache_write=7, cache_write_hour=2, reasoning=4)
END = Finished(FinishReason.STOP, USAGE)


def streamed(*deltas: Delta, usage: TokenUsage | None = USAGE) -> list[dict[str, Any]]:
    """The events, each checked to have its name in front."""
    writer = MessagesWriter(id="msg_1", prompt_tokens=9)
    said = b"".join(writer.deltas([delta]) for delta in deltas)
    stream = writer.start("m") + said + writer.end(usage) + writer.tail()
    events = []
    for event in sse.split(stream):
        name, data = event.removesuffix(b"\n\n").split(b"\n")
        value = json.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + value["type"].encode()
        events.append(value)
    return events


def whole(*deltas: Delta, usage: TokenUsage | None = USAGE) -> dict[str, Any]:
    writer = MessagesWriter(id="msg_1", prompt_tokens=9)
    for delta in deltas:
        writer.collect([delta])
    message: dict[str, Any] = json.loads(writer.whole("m", usage))
    return message


def test_a_stream_has_blocks_one_after_the_other() -> None:
    events = streamed(
        ReasoningDelta("Hm"),
        ReasoningSeal(signature="s"),
        ReasoningSeal(hidden="x"),
        TextDelta("Loo"),
        TextDelta("king"),
        ToolCallDelta(0, id="a", name="f"),
        ToolCallDelta(0, arguments='{"x":'),
        ToolCallDelta(0, arguments="1}"),
        ToolCallDelta(1, id="b", name="g", arguments="{}"),
        Finished(FinishReason.TOOL_CALLS, USAGE),
    )

    thinking = {"type": "thinking", "thinking": "", "signature": ""}
    hidden = {"type": "redacted_thinking", "data": "x"}
    call = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    assert [(e["type"], e.get("content_block") or e.get("delta")) for e in events[1:-2]] == [
        ("content_block_start", thinking),
        ("content_block_delta", {"type": "thinking_delta", "thinking": "Hm"}),
        ("content_block_delta", {"type": "signature_delta", "signature": "s"}),
        ("content_block_stop", None),
        ("content_block_start", hidden),
        ("content_block_stop", None),
        ("content_block_start", {"type": "text", "text": ""}),
        ("content_block_delta", {"type": "text_delta", "text": "Loo"}),
        ("content_block_delta", {"type": "text_delta", "text": "king"}),
        ("content_block_stop", None),
        ("content_block_start", call),
        ("content_block_delta", {"type": "input_json_delta", "partial_json": '{"x":'}),
        ("content_block_delta", {"type": "input_json_delta", "partial_json": "1}"}),
        ("content_block_stop", None),
        ("content_block_start", call | {"id": "b", "name": "g"}),
        ("content_block_delta", {"type": "input_json_delta", "partial_json": "{}"}),
        ("content_block_stop", None),
    ]
    assert [e["index"] for e in events[1:-2] if e["type"] == "content_block_start"] == [
        0, 1, 2, 3, 4,
    ]  # fmt: skip
    assert events[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert events[-1] == {"type": "message_stop"}


def test_a_stream_begins_with_an_empty_message_and_a_guess() -> None:
    message = streamed(END)[0]["message"]

    assert {key: message[key] for key in ("id", "type", "role", "model", "content")} == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
    }
    assert message["stop_reason"] is None
    assert message["usage"]["input_tokens"] == 9
    assert message["usage"]["output_tokens"] == 0


def test_usage_is_counted_as_anthropic_counts() -> None:
    assert usage_object(USAGE) == {
        "input_tokens": 10,
        "cache_creation_input_tokens": 7,
        "cache_read_input_tokens": 3,
        "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 2},
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 4},
    }
    assert streamed(END)[-2]["usage"] == usage_object(USAGE) == whole(END)["usage"]


def test_usage_that_nobody_told_is_estimated() -> None:
    deltas = (TextDelta("x" * 40), Finished(FinishReason.STOP, None))

    for usage in (streamed(*deltas, usage=None)[-2]["usage"], whole(*deltas, usage=None)["usage"]):
        assert usage["input_tokens"] == 9
        assert usage["output_tokens"] in {10, 11}


@pytest.mark.parametrize(
    ("deltas", "reason", "stop"),
    [
        ([END], "end_turn", None),
        ([Finished(FinishReason.STOP, None, "END")], "stop_sequence", "END"),
        ([Finished(FinishReason.LENGTH, None)], "max_tokens", None),
        ([Finished(FinishReason.CONTENT_FILTER, None)], "refusal", None),
        ([ToolCallDelta(0, id="a", name="f"), END], "tool_use", None),
        ([TextDelta("a"), Finished(FinishReason.TOOL_CALLS, None)], "end_turn", None),
        (
            [ToolCallDelta(0, id="a", name="f"), Finished(FinishReason.LENGTH, None)],
            "max_tokens",
            None,
        ),
        ([RefusalDelta("No."), END], "refusal", None),
    ],
)
def test_every_end_has_anthropics_word(deltas: list[Delta], reason: str, stop: str | None) -> None:
    ending = {"stop_reason": reason, "stop_sequence": stop}

    assert streamed(*deltas)[-2]["delta"] == ending
    message = whole(*deltas)
    assert {key: message[key] for key in ending} == ending


def test_a_refusal_is_text_and_likelihoods_have_no_place() -> None:
    deltas = (RefusalDelta("No"), LogprobsDelta([{"token": "No"}]), TextDelta("."), END)

    assert whole(*deltas)["content"] == [{"type": "text", "text": "No."}]
    assert len(streamed(*deltas)) == 7


def test_a_message_in_one_piece_holds_the_same_blocks() -> None:
    message = whole(
        ReasoningDelta("H"),
        ReasoningDelta("m"),
        ReasoningSeal(signature="s"),
        ReasoningDelta("more"),
        ReasoningSeal(hidden="x"),
        TextDelta("Hi"),
        ToolCallDelta(0, id="a", name="f", arguments='{"x":'),
        ToolCallDelta(0, arguments="[1]}"),
        ToolCallDelta(1, id="b", name="g"),
        END,
    )

    assert message["content"] == [
        {"type": "thinking", "thinking": "Hm", "signature": "s"},
        {"type": "thinking", "thinking": "more", "signature": ""},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "Hi"},
        {"type": "tool_use", "id": "a", "name": "f", "input": {"x": [1]}},
        {"type": "tool_use", "id": "b", "name": "g", "input": {}},
    ]
    assert message["model"] == "m"


@pytest.mark.parametrize("arguments", ["{", "[1]", "null", '{"a":NaN}', "notjson", '{"a":1} x'])
def test_arguments_that_are_no_object_end_a_stream(arguments: str) -> None:
    start = ToolCallDelta(0, id="a", name="f")
    for rest in ([], [TextDelta("Done.")], [ToolCallDelta(1, id="b", name="g", arguments="{}")]):
        with pytest.raises(UpstreamFailed, match="no JSON object"):
            streamed(start, ToolCallDelta(0, arguments=arguments), *rest, END)


@pytest.mark.parametrize("first", ["no", "  [", '"x"'])
def test_what_cannot_become_an_object_is_not_even_begun(first: str) -> None:
    """The official clients read each piece as it comes, and raise what is no failure of ours."""
    writer = MessagesWriter(id="msg_1")
    writer.deltas([ToolCallDelta(0, id="a", name="f"), ToolCallDelta(0, arguments=" ")])

    with pytest.raises(UpstreamFailed):
        writer.deltas([ToolCallDelta(0, arguments=first)])


def test_arguments_that_the_limit_has_cut_are_told_as_they_are() -> None:
    events = streamed(
        ToolCallDelta(0, id="a", name="f", arguments='{"x":'),
        ToolCallDelta(1, id="b", name="g", arguments='{"y'),
        Finished(FinishReason.LENGTH, USAGE),
    )

    said = [e["delta"]["partial_json"] for e in events if e["type"] == "content_block_delta"]
    assert said == ['{"x":', '{"y']
    assert events[-2]["delta"]["stop_reason"] == "max_tokens"


def test_an_estimate_counts_what_was_said_and_nothing_of_how() -> None:
    said: list[Delta] = [
        TextDelta('"äö"\n'),
        ReasoningDelta("Hm."),
        ToolCallDelta(0, id="call_1", name="find", arguments='{"x":1}'),
    ]
    end = Finished(FinishReason.TOOL_CALLS, None)
    size = 7 + 3 + 4 + 7

    assert streamed(*said, end, usage=None)[-2]["usage"]["output_tokens"] == -(-size // 4)
    assert whole(*said, end, usage=None)["usage"]["output_tokens"] == -(-size // 4)


@pytest.mark.parametrize("arguments", ["{", "[1]", "null", '{"a":NaN}', "[" * 100_000])
def test_arguments_that_are_no_object_are_no_answer(arguments: str) -> None:
    call = ToolCallDelta(0, id="a", name="f", arguments=arguments)

    with pytest.raises(UpstreamFailed):
        whole(call, Finished(FinishReason.TOOL_CALLS, None))
    cut = whole(call, Finished(FinishReason.LENGTH, None))
    assert (cut["content"][0]["input"], cut["stop_reason"]) == ({}, "max_tokens")


def test_an_answer_without_an_end_is_never_written_as_whole() -> None:
    writer = MessagesWriter(id="msg_1")
    writer.collect([TextDelta("x")])
    writer.deltas([TextDelta("x")])

    with pytest.raises(ValueError, match="not finished"):
        writer.end(USAGE)
    with pytest.raises(ValueError, match="not finished"):
        writer.whole("m", USAGE)


def test_it_speaks_anthropics_dialect_and_tells_usage() -> None:
    writer = MessagesWriter(id="msg_1")

    assert writer.dialect is Dialect.ANTHROPIC
    assert writer.include_usage


def calls() -> st.SearchStrategy[list[Delta]]:
    """Whole calls; their numbers are given later."""
    arguments = st.dictionaries(st.text(max_size=3), st.integers(), max_size=2).map(json.dumps)
    return st.builds(
        lambda name, text, cut: [
            ToolCallDelta(-1, id=f"id_{name}", name=name, arguments=text[:cut]),
            *([ToolCallDelta(-1, arguments=text[cut:])] if text[cut:] else []),
        ],
        st.sampled_from("fgh"),
        arguments,
        st.integers(0, 8),
    )


def answers() -> st.SearchStrategy[list[Delta]]:
    some_text = st.text(min_size=1, max_size=8)
    single: st.SearchStrategy[list[Delta]] = st.one_of(
        st.builds(TextDelta, some_text),
        st.builds(ReasoningDelta, some_text),
        st.builds(lambda s: ReasoningSeal(signature=s), some_text),
        st.builds(lambda s: ReasoningSeal(hidden=s), some_text),
    ).map(lambda delta: [delta])
    ends = st.builds(
        Finished,
        st.sampled_from([FinishReason.STOP, FinishReason.LENGTH, FinishReason.CONTENT_FILTER]),
        st.just(USAGE),
    )
    return st.builds(_numbered, st.lists(single | calls(), max_size=8), ends)


def _numbered(groups: Sequence[Sequence[Delta]], end: Finished) -> list[Delta]:
    deltas: list[Delta] = []
    number = -1
    for group in groups:
        number += isinstance(group[0], ToolCallDelta)
        for delta in group:
            if isinstance(delta, ToolCallDelta):
                delta = ToolCallDelta(number, delta.id, delta.name, delta.arguments)
            deltas.append(delta)
    if number >= 0 and end.reason is FinishReason.STOP:
        end = Finished(FinishReason.TOOL_CALLS, end.usage)
    return [*deltas, end]


def gist(deltas: Sequence[Delta]) -> list[object]:
    """The same answer has the same gist, however it was cut into deltas."""
    found: list[object] = []
    for delta in deltas:
        last = found[-1] if found else None
        match delta, last:
            case (TextDelta(text), ("text", before)):
                found[-1] = ("text", f"{before}{text}")
            case (TextDelta(text), _):
                found.append(("text", text))
            case (ReasoningDelta(text), ("thought", before)):
                found[-1] = ("thought", f"{before}{text}")
            case (ReasoningDelta(text), _):
                found.append(("thought", text))
            case (ToolCallDelta(), _):
                pass
            case _:
                found.append(delta)
    return [*found, calls_of(list(deltas))]


@given(answers())
def test_what_is_written_is_read_back(deltas: list[Delta]) -> None:
    writer, reader = MessagesWriter(id="msg_1"), StreamReader()
    stream = writer.start("m") + b"".join(writer.deltas([delta]) for delta in deltas)
    stream += writer.end(USAGE) + writer.tail()

    read = list(reader.deltas(stream))

    assert reader.failure is None
    assert gist(read) == gist(deltas)
    collected = MessagesWriter(id="msg_1")
    collected.collect(deltas)
    again = MessageAnswer(collected.whole("m", USAGE)).deltas()
    assert (text_of(again), thoughts_of(again)) == (text_of(deltas), thoughts_of(deltas))
    assert end_of(again) == deltas[-1]


@given(answers())
def test_every_stream_opens_and_closes_its_blocks_in_order(deltas: list[Delta]) -> None:
    opened: list[int] = []
    is_open = False
    for event in streamed(*deltas)[1:-2]:
        if event["type"] == "content_block_start":
            assert not is_open
            opened.append(event["index"])
        assert event["index"] == opened[-1]
        is_open = event["type"] != "content_block_stop"
    assert not is_open
    assert opened == list(range(len(opened)))
