"""What providers answer in the Responses API, as deltas."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.calls import (
    Annotation,
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
from appliance.model.usage import TokenUsage
from appliance.protocols.answers import AnswerFailed, ErrorReported, MalformedAnswer
from appliance.protocols.responses import answer_items, seals
from appliance.protocols.responses.answers import ResponseAnswer, StreamReader, read_usage
from appliance.protocols.responses.asides import HostedCall, NewMessage, NewPart
from tests.protocols.prompting import nonsense

USAGE = {
    "input_tokens": 12,
    "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
    "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 4},
    "total_tokens": 21,
}
READ = TokenUsage(input=7, cache_read=3, cache_write=2, output=5, reasoning=4)
COMPLETED = {"type": "response.completed", "response": {"usage": USAGE}}
TOKEN = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}


def stream(*events: Any) -> bytes:
    return b"".join(b"data: %s\n\n" % msgspec.json.encode(event) for event in events)


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "output_index": 0, "item_id": "x", **fields}


def call_added(index: int = 0, **fields: Any) -> dict[str, Any]:
    item = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "", **fields}
    return event("output_item.added", output_index=index, item=item)


def item_done(**item: Any) -> dict[str, Any]:
    return event("output_item.done", item=item)


def read(*events: Any) -> list[Delta]:
    reader = StreamReader()
    deltas = list(reader.deltas(stream(*events)))
    assert reader.failure is None
    return deltas


@pytest.mark.parametrize(
    ("events", "deltas"),
    [
        ([event("output_text.delta", delta="a", logprobs=[])], [TextDelta("a")]),
        (
            [event("output_text.delta", delta="a", logprobs=[TOKEN])],
            [TextDelta("a"), LogprobsDelta([TOKEN])],
        ),
        ([event("refusal.delta", delta="no")], [RefusalDelta("no")]),
        ([event("reasoning_summary_text.delta", delta="hm")], [ReasoningDelta("hm")]),
        ([event("reasoning_text.delta", delta="hm")], [ReasoningDelta("hm")]),
        ([event("reasoning.delta", delta="hm")], [ReasoningDelta("hm")]),
        (
            [
                event("reasoning_summary_part.added", summary_index=0),
                event("reasoning_summary_text.delta", delta="one"),
                event("reasoning_summary_part.added", summary_index=1),
                event("reasoning_summary_text.delta", delta="two"),
            ],
            [ReasoningDelta("one"), ReasoningDelta("\n\n"), ReasoningDelta("two")],
        ),
        (
            [
                call_added(0),
                event("function_call_arguments.delta", delta="{"),
                event("function_call_arguments.delta", delta="}"),
                item_done(type="function_call", call_id="c", name="f", arguments="{}"),
                call_added(1, call_id="d"),
            ],
            [
                ToolCallDelta(0, "c", "f"),
                ToolCallDelta(0, arguments="{"),
                ToolCallDelta(0, arguments="}"),
                ToolCallDelta(1, "d", "f"),
            ],
        ),
        (  # a server that streams nothing of a call
            [item_done(type="function_call", call_id="c", name="f", arguments="{}")],
            [ToolCallDelta(0, "c", "f"), ToolCallDelta(0, arguments="{}")],
        ),
        (
            [
                item_done(
                    type="message",
                    content=[
                        {"type": "output_text", "text": "a", "logprobs": [TOKEN]},
                        {"type": "refusal", "refusal": "no"},
                        {"type": "output_hologram"},
                    ],
                )
            ],
            [TextDelta("a"), LogprobsDelta([TOKEN]), RefusalDelta("no")],
        ),
        (
            [
                event("output_text.delta", delta="a"),
                item_done(type="message", content=[{"type": "output_text", "text": "a"}]),
            ],
            [TextDelta("a")],
        ),
        (
            [item_done(type="reasoning", summary=[{"text": "one"}, {"text": "two"}])],
            [ReasoningDelta("one\n\ntwo")],
        ),
        (
            [item_done(type="reasoning", summary=[], encrypted_content="gAAA")],
            [ReasoningSeal(hidden=seals.seal_hidden("gAAA", Dialect.RESPONSES))],
        ),
        (
            [
                item_done(
                    type="reasoning", summary=[], encrypted_content=seals.seal_thinking("t", "s")
                )
            ],
            [ReasoningSeal(signature="s")],
        ),
        (
            [
                item_done(
                    type="reasoning",
                    summary=[],
                    encrypted_content=seals.seal_hidden("redacted", Dialect.ANTHROPIC),
                )
            ],
            [ReasoningSeal(hidden="redacted")],
        ),
        (
            [event("created"), event("web_search_call.searching"), {"type": 7}, {}, {"a": 1}],
            [],
        ),
    ],
)
def test_each_event_says_what_it_adds(events: list[Any], deltas: list[Delta]) -> None:
    assert read(*events) == deltas


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([COMPLETED], FinishReason.STOP),
        ([call_added(), COMPLETED], FinishReason.TOOL_CALLS),
        *[
            (
                [
                    event(
                        "incomplete",
                        response={"usage": USAGE, "incomplete_details": {"reason": said}},
                    )
                ],
                reason,
            )
            for said, reason in [
                ("max_output_tokens", FinishReason.LENGTH),
                ("content_filter", FinishReason.CONTENT_FILTER),
                ("boredom", FinishReason.LENGTH),
                (7, FinishReason.LENGTH),
            ]
        ],
    ],
)
def test_the_last_event_says_why_it_ended_and_what_it_cost(
    events: list[Any], reason: FinishReason
) -> None:
    reader = StreamReader()

    deltas = reader.deltas(stream(*events) + b"data: [DONE]\n\n")

    assert deltas[-1] == Finished(reason, READ)
    assert reader.finished
    assert reader.usage == READ
    assert reader.deltas(stream(event("output_text.delta", delta="late"))) == []


def test_a_stream_that_only_says_done_has_not_ended() -> None:
    reader = StreamReader()

    assert reader.deltas(b": hello\n\n" + b"data: [DONE]\n\n") == []
    assert not reader.finished


@pytest.mark.parametrize(
    ("last", "code"),
    [
        ({"type": "error", "code": "busy", "message": "later", "param": None}, "busy"),
        ({"type": "error", "error": {"type": "t", "code": "busy", "message": "later"}}, "busy"),
        (event("failed", response={"error": {"code": "busy", "message": "later"}}), "busy"),
        ({"error": {"code": "busy", "message": "later"}}, "busy"),
        (event("failed", response={"usage": USAGE}), ""),
        (event("cancelled"), ""),
    ],
)
def test_a_failure_comes_after_what_was_said(last: Any, code: str) -> None:
    reader = StreamReader()

    deltas = reader.deltas(stream(event("output_text.delta", delta="half"), last))

    assert deltas == [TextDelta("half")]
    assert isinstance(reader.failure, ErrorReported)
    assert reader.failure.error.code == code
    assert reader.text_bytes == 4
    assert not reader.finished


@pytest.mark.parametrize(
    "broken",
    [b"data: {\n\n", b"data: []\n\n", stream(event("function_call_arguments.delta", delta="{"))],
)
def test_what_breaks_the_format_is_a_failure(broken: bytes) -> None:
    reader = StreamReader()

    assert reader.deltas(broken) == []
    assert isinstance(reader.failure, MalformedAnswer)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "type": st.sampled_from(
                    [
                        "response.output_text.delta",
                        "response.output_item.added",
                        "response.output_item.done",
                        "response.function_call_arguments.delta",
                        "response.reasoning_summary_part.added",
                        "response.completed",
                        "response.incomplete",
                        "response.failed",
                        "error",
                    ]
                )
            },
            optional=dict.fromkeys(
                ("delta", "item", "output_index", "item_id", "response", "logprobs"), nonsense
            ),
        ),
        max_size=4,
    )
)
def test_whatever_comes_is_read_or_a_failure(events: list[dict[str, Any]]) -> None:
    reader = StreamReader()
    try:
        data = stream(*events)
    except (OverflowError, UnicodeEncodeError):
        return
    reader.deltas(data)


def test_bytes_may_be_cut_anywhere() -> None:
    data = stream(call_added(), event("function_call_arguments.delta", delta="{}"), COMPLETED)
    whole = StreamReader().deltas(data)
    for place in range(len(data)):
        reader = StreamReader()
        assert [*reader.deltas(data[:place]), *reader.deltas(data[place:])] == whole


def test_an_answer_in_one_piece_says_the_same() -> None:
    items = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "content": [{"type": "output_text", "text": "a"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    ]
    text = msgspec.json.encode({"status": "completed", "output": items, "usage": USAGE})
    answer = ResponseAnswer(text)

    assert answer.text == text
    assert answer.usage == READ
    assert answer.deltas() == [
        ReasoningDelta("hm"),
        TextDelta("a"),
        ToolCallDelta(0, "c", "f"),
        ToolCallDelta(0, arguments="{}"),
        Finished(FinishReason.TOOL_CALLS, READ),
    ]


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"{}",
        b'{"output":null}',
        b'{"error":{"message":"no"},"output":[]}',
        b'{"status":"failed","output":[]}',
    ],
)
def test_what_is_no_answer_is_a_failure(text: bytes) -> None:
    with pytest.raises(AnswerFailed):
        ResponseAnswer(text)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ({"input_tokens": "7", "output_tokens": 1}, None),
        ({"input_tokens": 7, "output_tokens": 1}, TokenUsage(input=7, output=1)),
        (
            {
                "input_tokens": 2,
                "output_tokens": 1,
                "input_tokens_details": {"cached_tokens": 9, "cache_write_tokens": 9},
                "output_tokens_details": {"reasoning_tokens": 9},
            },
            TokenUsage(cache_read=2, reasoning=1),
        ),
        (
            {"input_tokens": 2, "output_tokens": 1, "input_tokens_details": 7},
            TokenUsage(input=2, output=1),
        ),
    ],
)
def test_figures_that_cannot_be_are_cut_to_what_can(
    usage: object, expected: TokenUsage | None
) -> None:
    assert read_usage(usage) == expected


# What only callers of the same API are told

CITATION = {"type": "url_citation", "url": "https://a.example", "title": "A", "end_index": 2}
SEARCH = {"type": "web_search_call", "id": "ws_up", "status": "in_progress"}
SEARCHED = {**SEARCH, "status": "completed", "action": {"type": "search", "query": "x"}}


def added(index: int, **item: Any) -> dict[str, Any]:
    return event("output_item.added", output_index=index, item=item)


@pytest.mark.parametrize(
    ("events", "deltas"),
    [
        # a first message without a phase is as any other dialect's
        ([added(0, type="message", phase=None)], []),
        (
            [added(0, type="message", phase="commentary"), added(0, type="message")],
            [NewMessage(phase="commentary")],
        ),
        ([added(0, type="message"), added(1, type="message", phase=7)], [NewMessage()]),
        (
            [
                item_done(
                    type="message",
                    phase="final_answer",
                    content=[
                        {"type": "output_text", "text": "a", "annotations": [CITATION]},
                        {"type": "output_text", "text": "b"},
                        {"type": "refusal", "refusal": "c"},
                    ],
                )
            ],
            [
                NewMessage(phase="final_answer"),
                TextDelta("a"),
                Annotation(value=CITATION),
                NewPart(),
                TextDelta("b"),
                RefusalDelta("c"),
            ],
        ),
        (
            [
                event("content_part.added", part={"type": "output_text"}),
                event("content_part.added", part={"type": "refusal"}),
                event("content_part.added", part={"type": "refusal"}),
                event("content_part.added", part="x"),
            ],
            [NewPart()],
        ),
    ],
)
def test_messages_and_parts_are_told_apart(events: list[Any], deltas: list[Delta]) -> None:
    assert read(*events) == deltas


def test_an_annotation_is_told_once_wherever_it_stands() -> None:
    other = {**CITATION, "title": "B"}
    part = {"type": "output_text", "text": "ab", "annotations": [CITATION, other]}

    told = read(
        event("output_text.delta", content_index=0, delta="ab"),
        event("output_text.annotation.added", content_index=0, annotation=CITATION),
        event("output_text.annotation.added", content_index=0, annotation="x"),
        event("content_part.done", content_index=0, part=part),
        item_done(type="message", content=[part]),
    )

    assert told == [TextDelta("ab"), Annotation(value=CITATION), Annotation(value=other)]


def test_an_annotation_that_is_too_long_is_left_out() -> None:
    long = {**CITATION, "title": "x" * 8192}

    assert read(event("output_text.annotation.added", annotation=long)) == []


def test_annotations_without_end_are_no_answer() -> None:
    reader = StreamReader()

    reader.deltas(stream(*[event("output_text.annotation.added", annotation={})] * 1_001))

    assert isinstance(reader.failure, MalformedAnswer)


def test_a_custom_tool_is_called_with_text() -> None:
    item = {"type": "custom_tool_call", "call_id": "c", "name": "run", "input": "ls"}

    assert read(
        added(0, **{**item, "input": ""}),
        event("custom_tool_call_input.delta", delta="l"),
        event("custom_tool_call_input.delta", delta="s"),
        item_done(**item),
        COMPLETED,
    ) == [
        ToolCallDelta(0, id="c", name="run", is_custom=True),
        ToolCallDelta(0, arguments="l"),
        ToolCallDelta(0, arguments="s"),
        Finished(FinishReason.TOOL_CALLS, READ),
    ]
    assert ResponseAnswer(msgspec.json.encode({"output": [item]})).deltas()[:2] == [
        ToolCallDelta(0, id="c", name="run", is_custom=True),
        ToolCallDelta(0, arguments="ls"),
    ]


def test_a_tool_of_the_providers_is_told_from_its_beginning_to_its_end() -> None:
    said = read(
        event("web_search_call.searching", output_index=7),  # of nothing that began
        added(0, **SEARCH),
        event("web_search_call.searching", sequence_number=4, item_id="ws_up", more=1),
        item_done(**SEARCHED),
        event("web_search_call.completed"),
    )

    assert said == [
        HostedCall(key=0, item=SEARCH),
        HostedCall(key=0, event={"type": "response.web_search_call.searching", "more": 1}),
        HostedCall(key=0, item=SEARCHED, is_done=True),
    ]


def test_tools_that_find_more_than_an_answer_may_hold_end_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answer_items, "_MOST_HOSTED", 1_000)
    reader = StreamReader()

    for _ in range(2):
        reader.deltas(stream(item_done(type="mcp_call", output="x" * 600)))

    assert isinstance(reader.failure, MalformedAnswer)


def test_a_picture_may_be_larger_than_any_other_event() -> None:
    item = {"type": "image_generation_call", "status": "completed", "result": "x" * 5_000_000}

    (told,) = read(item_done(**item))

    assert told == HostedCall(key=0, item=item, is_done=True)


def completed(*output: Any) -> dict[str, Any]:
    return {"type": "response.completed", "response": {"output": output, "usage": USAGE}}


def message(text: str, **fields: Any) -> dict[str, Any]:
    parts = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "role": "assistant", "content": parts, **fields}


THOUGHT = {"type": "reasoning", "id": "t", "summary": [{"type": "summary_text", "text": "hm"}]}
CALL = {"type": "function_call", "id": "k", "call_id": "c", "name": "f", "arguments": "{}"}
REFUSED = {
    "type": "message",
    "id": "m",
    "role": "assistant",
    "content": [{"type": "refusal", "refusal": "no"}],
}
CALLED = [ToolCallDelta(0, id="c", name="f"), ToolCallDelta(0, arguments="{}")]


@pytest.mark.parametrize(
    ("output", "deltas", "reason"),
    [
        ([message("all", id="m")], [TextDelta("all")], FinishReason.STOP),
        ([REFUSED], [RefusalDelta("no")], FinishReason.STOP),
        (
            [THOUGHT, message("so"), CALL],
            [ReasoningDelta("hm"), TextDelta("so"), *CALLED],
            FinishReason.TOOL_CALLS,
        ),
    ],
)
def test_what_only_the_last_event_holds_is_told(
    output: list[Any], deltas: list[Delta], reason: FinishReason
) -> None:
    assert read(completed(*output)) == [*deltas, Finished(reason, READ)]


@pytest.mark.parametrize(
    "output",
    [
        [{**THOUGHT}, message("so", id="m"), {**CALL}],
        [message("so", id="m"), {**CALL}],  # some leave out what the model thought, and count anew
        [message("so", id="other"), {**CALL, "id": "another"}],  # or make new ids
        [THOUGHT, message("so", id="other"), {**CALL, "id": "another", "call_id": "c"}],
    ],
)
@pytest.mark.parametrize("is_ended", [True, False])
def test_what_was_told_is_not_told_again_at_the_end(output: list[Any], *, is_ended: bool) -> None:
    said = [
        event("reasoning_summary_text.delta", delta="hm", item_id="t"),
        event("output_text.delta", delta="so", item_id="m", output_index=1),
        call_added(2, id="k"),
        event("function_call_arguments.delta", delta="{}", item_id="k", output_index=2),
    ]
    if is_ended:
        items = enumerate([THOUGHT, message("so", id="m"), CALL])
        said += [event("output_item.done", output_index=at, item=item) for at, item in items]

    assert read(*said, completed(*output)) == [
        ReasoningDelta("hm"),
        TextDelta("so"),
        *CALLED,
        Finished(FinishReason.TOOL_CALLS, READ),
    ]


def test_the_last_event_tells_what_is_missing_beside_what_was_told() -> None:
    told = event("output_text.delta", delta="one", item_id="m")
    begun = call_added(1, id="k")

    deltas = read(told, begun, completed(message("one", id="m"), CALL, message("two", id="n")))

    assert deltas == [
        TextDelta("one"),
        *CALLED,
        NewMessage(),
        TextDelta("two"),
        Finished(FinishReason.TOOL_CALLS, READ),
    ]


def test_items_without_a_place_are_told_apart_by_their_ids() -> None:
    calls = [{**CALL, "id": name, "call_id": name} for name in ("a", "b")]
    events = [{"type": "response.output_item.done", "item": item} for item in calls]

    deltas = read(*events, completed(*calls))

    names = [delta.id for delta in deltas if isinstance(delta, ToolCallDelta) and delta.id]
    assert names == ["a", "b"]


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([rb"a\ud83d", rb"\ude00b"], "a\N{GRINNING FACE}b"),
        ([rb"\uD83D", rb"\uDE00\ud83d", rb"\ude00"], "\N{GRINNING FACE}" * 2),
        ([rb"\ud83d\ude00", rb"b"], "\N{GRINNING FACE}b"),
        ([rb"a\ud83d", rb"b"], "ab"),  # the other half never comes
        ([rb"\\ud83d", rb"\\ude00"], r"\ud83d\ude00"),  # what only looks like one
        ([rb"\"delta\":\"\ud83d", rb"\ude00"], '"delta":"\N{GRINNING FACE}'),
    ],
)
def test_an_emoji_that_was_cut_in_two_is_one_again(pieces: list[bytes], text: str) -> None:
    reader = StreamReader()
    event = b'data: {"type":"response.output_text.delta","output_index":0,"delta": "%s"}\n\n'

    deltas = reader.deltas(b"".join(event % piece for piece in pieces) + stream(COMPLETED))

    assert reader.failure is None
    assert "".join(each.text for each in deltas if isinstance(each, TextDelta)) == text


def test_half_an_emoji_alone_does_not_end_the_answer() -> None:
    reader = StreamReader()
    said = b'data: {"type":"response.output_text.delta","output_index":0,"delta":"\\ude00b"}\n\n'

    deltas = reader.deltas(said + stream(COMPLETED))

    assert [type(delta) for delta in deltas] == [TextDelta, Finished]


# Searches, which are billed beside the tokens


def search(number: int, *, action: object = None, status: str = "completed") -> dict[str, Any]:
    item = {"type": "web_search_call", "id": f"ws_{number}", "status": status}
    return item if action is None else {**item, "action": action}


SEARCHES = [
    search(0, action={"type": "search", "query": "a"}),
    search(1, action={"type": "open_page", "url": "https://example.com"}),
    search(2, action={"type": "find_in_page", "pattern": "a"}),
    search(3),
    search(4, action={"type": "search"}, status="failed"),
]


def searched(*items: dict[str, Any]) -> list[dict[str, Any]]:
    return [event("output_item.done", item=each, output_index=n) for n, each in enumerate(items)]


def usage_after(*events: Any) -> TokenUsage | None:
    reader = StreamReader()
    reader.deltas(stream(*events))
    return reader.usage


def test_each_search_is_counted_once_and_what_it_goes_on_with_is_none() -> None:
    told = {"type": "response.completed", "response": {"usage": USAGE, "output": SEARCHES}}
    expected = replace(READ, web_searches=2)

    assert usage_after(*searched(*SEARCHES), told) == expected
    assert usage_after(*searched(*SEARCHES), *searched(*SEARCHES), told) == expected
    assert usage_after(*searched(*SEARCHES), COMPLETED) == expected
    assert usage_after(told) == expected
    whole = ResponseAnswer(msgspec.json.encode(told["response"]))
    assert whole.usage == expected


def test_searches_of_half_an_answer_are_known_though_its_tokens_are_not() -> None:
    assert usage_after(*searched(*SEARCHES)) == TokenUsage(web_searches=2, estimated=True)
    assert usage_after(event("output_text.delta", delta="a")) is None


def test_an_answer_in_one_piece_without_usage_has_none() -> None:
    assert ResponseAnswer(msgspec.json.encode({"output": SEARCHES})).usage is None
