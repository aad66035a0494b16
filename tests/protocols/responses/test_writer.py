"""A response, written as events and as one object."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.calls import (
    Annotation,
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
from appliance.protocols.responses.answers import ResponseAnswer, StreamReader
from appliance.protocols.responses.asides import HostedCall, NewMessage, NewPart
from appliance.protocols.responses.events import Observe
from appliance.protocols.responses.items import compaction_item, input_items
from appliance.protocols.responses.request import ResponsesRequest
from appliance.protocols.responses.writer import ResponseWriter
from tests.protocols.responses import lifecycle

STOP = Finished(FinishReason.STOP, TokenUsage(input=10, output=5))
USAGE = TokenUsage(input=7, cache_read=3, cache_write=2, output=5, reasoning=4)


def writer(observe: Observe | None = None, **members: Any) -> ResponseWriter:
    body = {"model": "asked", "input": "hello", **members}
    request = ResponsesRequest.parse(msgspec.json.encode(body), limit_bytes=10_000)
    return ResponseWriter(
        request, id="resp_1", created_at=100, clock=lambda: 160.5, observe=observe
    )


def streamed(
    deltas: Sequence[Delta], *, usage: TokenUsage | None = None, **members: Any
) -> list[lifecycle.Event]:
    to = writer(**members)
    stream = to.start("told") + to.deltas(deltas) + to.end(usage) + to.tail()
    return lifecycle.parse(stream)


def kinds(events: Sequence[lifecycle.Event]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_text_goes_through_the_life_of_an_item() -> None:
    events = streamed([TextDelta("Hel"), TextDelta("lo"), STOP])

    final = lifecycle.check(events)
    assert kinds(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    (item,) = final["output"]
    assert item["content"] == [
        {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}
    ]
    assert final["completed_at"] == 160
    assert final["model"] == "told"


def test_usage_counts_the_cache_as_input_and_thinking_as_output() -> None:
    final = streamed([TextDelta("a"), STOP], usage=USAGE)[-1]["response"]

    assert final["usage"] == {
        "input_tokens": 12,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 21,
    }


def test_calls_made_at_once_may_come_mixed() -> None:
    events = streamed(
        [
            TextDelta("let me see"),
            ToolCallDelta(0, "call_a", "look"),
            ToolCallDelta(1, "call_b", "hear", '{"b'),
            ToolCallDelta(0, arguments='{"a":1}'),
            ToolCallDelta(1, arguments='":2}'),
            ToolCallDelta(2, "call_c", "rest"),
            Finished(FinishReason.TOOL_CALLS, None),
        ]
    )

    final = lifecycle.check(events)
    assert [item["type"] for item in final["output"]] == ["message", *["function_call"] * 3]
    calls = [(item["call_id"], item["name"], item["arguments"]) for item in final["output"][1:]]
    assert calls == [
        ("call_a", "look", '{"a":1}'),
        ("call_b", "hear", '{"b":2}'),
        ("call_c", "rest", "{}"),
    ]
    assert final["status"] == "completed"


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        (FinishReason.LENGTH, "max_output_tokens"),
        (FinishReason.CONTENT_FILTER, "content_filter"),
    ],
)
@pytest.mark.parametrize(
    "said",
    [
        [TextDelta("cut")],
        [ToolCallDelta(0, "a", "f", "{}"), ToolCallDelta(1, "b", "g", '{"ha')],
        [ReasoningDelta("hm")],
        [],
    ],
)
def test_what_was_cut_short_is_incomplete_in_its_last_item(
    reason: FinishReason, told: str, said: list[Delta]
) -> None:
    events = streamed([*said, Finished(reason, None)])

    final = lifecycle.check(events)
    assert events[-1]["type"] == "response.incomplete"
    assert final["incomplete_details"] == {"reason": told}
    assert [item["status"] for item in final["output"]][-1:] == ["incomplete"][: len(said)]


def test_half_a_call_is_nothing_to_go_on_from() -> None:
    to = writer()
    to.start("m")
    to.deltas([ToolCallDelta(0, "a", "f", '{"ha'), Finished(FinishReason.LENGTH, None)])
    to.end(None)

    assert len(to.output) == 1
    assert to.context == []


def test_thoughts_are_shown_as_a_summary_and_sealed_for_those_who_ask() -> None:
    said: list[Delta] = [
        ReasoningDelta("hm, "),
        ReasoningDelta("yes"),
        ReasoningSeal(signature="sig"),
    ]
    plain = lifecycle.check(streamed([*said, TextDelta("yes"), STOP]))
    asked: dict[str, Any] = {"include": ["reasoning.encrypted_content"]}
    sealed = lifecycle.check(streamed([*said, TextDelta("yes"), STOP], **asked))

    assert plain["output"][0]["summary"] == [{"type": "summary_text", "text": "hm, yes"}]
    assert "encrypted_content" not in plain["output"][0]
    assert sealed["output"][0]["encrypted_content"].startswith("ocm1.")


def test_the_context_has_the_seal_in_any_case() -> None:
    to = writer()
    to.collect([ReasoningDelta("hm"), ReasoningSeal(signature="s"), TextDelta("a"), STOP])
    to.whole("m", None)

    assert to.context[0]["encrypted_content"].startswith("ocm1.")
    assert input_items(to.context, "input")


def test_likelihoods_are_told_with_their_text_to_those_who_ask() -> None:
    token = {"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": None}
    told = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
    said: list[Delta] = [TextDelta("a"), LogprobsDelta([token]), TextDelta("b"), STOP]

    events = streamed(said, include=["message.output_text.logprobs"])
    final = lifecycle.check(events)
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [event["logprobs"] for event in deltas] == [[told], []]
    assert final["output"][0]["content"][0]["logprobs"] == [told]
    without = lifecycle.check(streamed(said))
    assert without["output"][0]["content"][0]["logprobs"] == []


def test_padding_hides_the_length_of_a_piece() -> None:
    events = streamed(
        [TextDelta("a"), TextDelta("four"), STOP],
        stream_options={"include_obfuscation": True},
    )

    lifecycle.check(events)
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [len(event["delta"] + event["obfuscation"]) for event in deltas] == [32, 32]


def test_a_failure_is_said_in_both_forms_and_leaves_half_a_call_open() -> None:
    to = writer()
    stream = to.start("m") + to.deltas([TextDelta("a"), ToolCallDelta(0, "c", "f", "{")])
    stream += to.failed(code="upstream_failed", message="it broke off")
    events = lifecycle.parse(stream)

    final = lifecycle.check(events)
    error = events[-2]
    assert (error["code"], error["message"], error["param"]) == (
        "upstream_failed",
        "it broke off",
        None,
    )
    assert error["error"] == {
        "type": "server_error",
        "code": "upstream_failed",
        "message": "it broke off",
        "param": None,
    }
    assert final["error"] == {"code": "upstream_failed", "message": "it broke off"}
    assert final["output"][1]["status"] == "incomplete"
    assert to.status == "failed"


def test_work_in_the_background_is_queued_first_and_each_event_is_observed() -> None:
    seen: list[tuple[int, bytes]] = []
    to = writer(lambda number, event: seen.append((number, event)), background=True)
    queued = to.queued()
    assert (to.status, to.response()["status"]) == ("queued", "queued")
    stream = queued + to.start("m") + to.deltas([TextDelta("a"), TextDelta("b"), STOP])
    stream += to.end(None) + to.tail()

    events = lifecycle.parse(stream)
    lifecycle.check(events)
    assert kinds(events)[:3] == ["created", "queued", "in_progress"]
    assert [msgspec.json.decode(event) for _, event in seen] == events
    assert [number for number, _ in seen] == list(range(len(events)))


def test_what_fails_before_it_began_is_a_whole_stream_too() -> None:
    to = writer(background=True)
    events = lifecycle.parse(to.queued() + to.failed(code="server_error", message="no"))
    lifecycle.check(events)

    assert kinds(events) == ["created", "queued", "error", "failed"]
    lifecycle.check(lifecycle.parse(writer().failed(code="server_error", message="no")))


def test_cancelled_is_what_the_response_says_from_then_on() -> None:
    to = writer(background=True)
    to.queued()
    to.start("m")
    to.deltas([TextDelta("half")])
    to.cancelled()

    response = to.response()
    lifecycle.check_response(response)
    assert response["status"] == "cancelled"
    assert response["output"][0]["status"] == "incomplete"


def test_an_agents_own_tools_are_shown_to_those_who_ask_only() -> None:
    shown, hidden = writer(include=["openclaw:tool_calls"]), writer()
    for to in (shown, hidden):
        stream = to.start("m") + to.deltas([TextDelta("let me see")])
        stream += to.hosted_call(call_id="c1", name="exec", arguments='{"a":1}')
        stream += to.hosted_result(call_id="c1", output="done")
        stream += to.hosted_result(call_id="never", output="nothing")
        stream += to.deltas([TextDelta("so"), STOP]) + to.end(None) + to.tail()
        lifecycle.check(lifecycle.parse(stream))

    assert [item["type"] for item in hidden.output] == ["message", "message"]
    call = shown.output[1]
    assert call == {
        "type": "openclaw:tool_call",
        "id": call["id"],
        "status": "completed",
        "call_id": "c1",
        "name": "exec",
        "arguments": '{"a":1}',
        "output": "done",
    }
    for to in (shown, hidden):
        assert [item["type"] for item in to.context] == [
            "message",
            "openclaw:tool_call",
            "message",
        ]


def test_the_response_echoes_its_request() -> None:
    tool = {"type": "function", "name": "look", "parameters": {"type": "object"}}
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}}
    members: dict[str, Any] = {
        "instructions": "be brief",
        "tools": [tool],
        "tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": "look"}]},
        "text": {"format": schema, "verbosity": "low"},
        "reasoning": {"effort": "low"},
        "metadata": {"a": "b"},
        "max_output_tokens": 50,
        "max_tool_calls": 3,
        "temperature": 0,
        "top_p": 0.5,
        "truncation": "auto",
        "store": False,
        "parallel_tool_calls": False,
        "conversation": {"id": "conv_1"},
        "user": "u",
        "service_tier": "flex",
        "prompt": {"id": "pmpt_1"},
    }
    response = writer(**members).response()

    lifecycle.check_response(response)
    told = msgspec.json.decode(msgspec.json.encode(response))
    assert told["tools"] == [{**tool, "description": None, "strict": None}]
    assert told["tool_choice"] == {**members["tool_choice"], "mode": "auto"}
    assert told["text"] == {
        "format": {**schema, "description": None, "strict": False},
        "verbosity": "low",
    }
    assert told["reasoning"] == {"effort": "low", "summary": None}
    assert told["conversation"] == {"id": "conv_1"}
    same = ["metadata", "max_tool_calls", "temperature", "top_p", "truncation", "store"]
    same += ["max_output_tokens", "instructions", "parallel_tool_calls", "user", "service_tier"]
    assert {name: told[name] for name in same} == {name: members[name] for name in same}
    assert told["prompt"] == {"id": "pmpt_1"}


def texts() -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


def deltas() -> st.SearchStrategy[list[Delta]]:
    """Whatever a reader might hand out, in any order."""
    one: st.SearchStrategy[Delta] = st.one_of(
        texts().map(TextDelta),
        texts().map(ReasoningDelta),
        texts().map(RefusalDelta),
        st.builds(ReasoningSeal, signature=texts(), hidden=st.just("")),
        st.builds(ReasoningSeal, signature=st.just(""), hidden=texts()),
        st.just(LogprobsDelta([{"token": "a", "logprob": -1}])),
        st.builds(
            ToolCallDelta,
            st.integers(0, 3),
            id=st.sampled_from(["", "x"]),
            name=st.sampled_from(["look", "hear"]),
            arguments=texts(),
        ),
    )
    return st.lists(one, max_size=12)


_MANY: list[dict[str, Any]] = [
    {},
    {"include": ["reasoning.encrypted_content", "message.output_text.logprobs"]},
    {"stream_options": {"include_obfuscation": True}},
]


@given(deltas(), st.sampled_from(FinishReason), st.sampled_from(_MANY))
def test_any_deltas_make_a_valid_stream_and_the_same_object(
    said: list[Delta], reason: FinishReason, members: dict[str, Any]
) -> None:
    finished = Finished(reason, None)
    final = lifecycle.check(streamed([*said, finished], **members))

    to = writer(**members)
    to.collect([*said, finished])
    whole = msgspec.json.decode(to.whole("told", None))
    lifecycle.check_response(whole)
    assert _without_ids(whole) == _without_ids(final)
    assert input_items(whole["output"], "input")[:1] == tuple(
        {
            **item,
        }
        for item in input_items(whole["output"], "input")[:1]
    )


@given(deltas(), st.sampled_from(FinishReason))
def test_an_answer_that_breaks_off_anywhere_is_a_valid_stream(
    said: list[Delta], reason: FinishReason
) -> None:
    to = writer()
    stream = to.start("m") + to.deltas(said) + to.failed(code="server_error", message="gone")

    lifecycle.check(lifecycle.parse(stream))


@given(deltas(), st.sampled_from(FinishReason))
def test_what_is_written_is_read_again(said: list[Delta], reason: FinishReason) -> None:
    asked: dict[str, Any] = {
        "include": ["reasoning.encrypted_content", "message.output_text.logprobs"]
    }
    to = writer(**asked)
    stream = to.start("m") + to.deltas([*said, Finished(reason, None)])
    stream += to.end(TokenUsage(input=1, output=2)) + to.tail()
    reader = StreamReader()
    read = reader.deltas(stream)

    assert reader.failure is None
    assert reader.finished
    assert reader.usage == TokenUsage(input=1, output=2)
    assert _story(read) == _story(ResponseAnswer(msgspec.json.encode(to.response())).deltas())
    assert _said(read, TextDelta) == _said(said, TextDelta)
    assert _said(read, RefusalDelta) == _said(said, RefusalDelta)
    assert _said(read, ReasoningDelta) == _said(said, ReasoningDelta)


def _said(deltas: Sequence[Delta], kind: type[TextDelta | RefusalDelta | ReasoningDelta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, kind))


def _story(deltas: Sequence[Delta]) -> dict[str, Any]:
    """What a reader learns, without how it was cut up."""
    calls: dict[int, list[str]] = {}
    for delta in deltas:
        if isinstance(delta, ToolCallDelta):
            call = calls.setdefault(delta.index, ["", "", ""])
            for place, text in enumerate((delta.id, delta.name, delta.arguments)):
                call[place] += text
    return {
        "text": _said(deltas, TextDelta),
        "refusal": _said(deltas, RefusalDelta),
        "thought": _said(deltas, ReasoningDelta),
        "seals": [delta for delta in deltas if isinstance(delta, ReasoningSeal)],
        "tokens": [
            token for delta in deltas if isinstance(delta, LogprobsDelta) for token in delta.tokens
        ],
        "calls": calls,
        "end": [delta for delta in deltas if isinstance(delta, Finished)],
    }


def _without_ids(response: dict[str, Any]) -> dict[str, Any]:
    made = {"id": None, "call_id": None}
    output = [{**item, **made} for item in response["output"]]
    return {**response, "output": output}


def test_a_compaction_comes_first_and_whole() -> None:
    item = compaction_item("they met")
    to = writer()
    stream = to.start("m") + to.compacted(item) + to.deltas([TextDelta("so"), STOP])
    stream += to.end(None) + to.tail()

    events = lifecycle.parse(stream)

    assert kinds(events)[2:4] == ["output_item.added", "output_item.done"]
    assert events[2]["item"] == events[3]["item"] == item
    assert [each["type"] for each in events[-1]["response"]["output"]] == ["compaction", "message"]
    assert to.context[0] == item
    assert input_items([item], "input") == (item,)


# What only callers of this API are told

CITATION = {"type": "url_citation", "url": "https://a.example", "start_index": 0, "end_index": 2}
SEARCH = {"type": "web_search_call", "id": "ws_up", "status": "in_progress"}
SEARCHED = {**SEARCH, "status": "completed", "action": {"type": "search", "query": "x"}}
WITH_SEARCH: dict[str, Any] = {"tools": [{"type": "web_search"}]}


def test_where_a_text_is_from_is_told_on_its_way_and_at_its_end() -> None:
    said: list[Delta] = [
        TextDelta("ab"),
        Annotation(value=CITATION),
        Annotation(value={}),
        TextDelta("c"),
        STOP,
    ]
    events = streamed(said)

    final = lifecycle.check(events)
    (item,) = final["output"]
    assert item["content"][0]["annotations"] == [CITATION, {}]
    told = [each for each in events if each["type"].endswith("annotation.added")]
    assert [each["annotation_index"] for each in told] == [0, 1]
    assert {each["item_id"] for each in told} == {item["id"]}


def test_an_annotation_of_nothing_is_left_out() -> None:
    final = lifecycle.check(streamed([Annotation(value=CITATION), TextDelta("a"), STOP]))

    assert final["output"][0]["content"][0]["annotations"] == []


def test_messages_of_several_phases_stay_apart() -> None:
    final = lifecycle.check(
        streamed(
            [
                NewMessage(phase="commentary"),
                TextDelta("I look"),
                NewMessage(phase="final_answer"),
                TextDelta("It is"),
                NewMessage(),
                TextDelta("so"),
                STOP,
            ]
        )
    )

    said = [(item["content"][0]["text"], item.get("phase")) for item in final["output"]]
    assert said == [("I look", "commentary"), ("It is", "final_answer"), ("so", None)]


def test_a_message_that_says_nothing_is_none() -> None:
    final = lifecycle.check(streamed([NewMessage(phase="commentary"), NewMessage(), STOP]))

    assert final["output"] == []


def test_parts_of_a_message_stay_apart() -> None:
    said: list[Delta] = [NewPart(), TextDelta("a"), NewPart(), TextDelta("b"), STOP]
    (item,) = lifecycle.check(streamed(said))["output"]

    assert [part["text"] for part in item["content"]] == ["a", "b"]


@pytest.mark.parametrize("text", ["ls -l", ""])
def test_a_custom_tool_is_called_with_any_text(text: str) -> None:
    tools = [{"type": "custom", "name": "run"}, {"type": "function", "name": "look"}]
    said: list[Delta] = [
        ToolCallDelta(0, id="c", name="run", is_custom=True),
        ToolCallDelta(1, id="d", name="look"),
        ToolCallDelta(0, arguments=text),
        Finished(FinishReason.TOOL_CALLS, None),
    ]

    run, look = lifecycle.check(streamed(said, tools=tools))["output"]

    assert (run["type"], run["input"], run["call_id"]) == ("custom_tool_call", text, "c")
    assert (look["type"], look["arguments"]) == ("function_call", "{}")


def test_tools_of_the_provider_are_told_with_ids_and_numbers_of_ours() -> None:
    events = streamed(
        [
            TextDelta("I look"),
            HostedCall(key=4, item=SEARCH),
            HostedCall(key=4, event={"type": "response.web_search_call.searching", "more": 1}),
            HostedCall(key=4, item=SEARCHED, is_done=True),
            HostedCall(key=4, event={"type": "response.web_search_call.completed"}),
            TextDelta("It is"),
            STOP,
        ],
        **WITH_SEARCH,
    )

    final = lifecycle.check(events)
    assert [item["type"] for item in final["output"]] == ["message", "web_search_call", "message"]
    call = final["output"][1]
    assert call == {**SEARCHED, "id": call["id"]}
    assert call["id"] != "ws_up"
    (searching,) = [each for each in events if each["type"].endswith("searching")]
    assert searching["item_id"] == call["id"]
    assert searching["output_index"] == 1
    assert searching["more"] == 1


def test_a_whole_answer_holds_them_too() -> None:
    to = writer(**WITH_SEARCH)
    to.collect([HostedCall(key=0, item=SEARCHED, is_done=True), TextDelta("a"), STOP])
    whole = msgspec.json.decode(to.whole("m", None))

    lifecycle.check_response(whole)
    assert [item["type"] for item in whole["output"]] == ["web_search_call", "message"]
    assert to.context == whole["output"]


def test_who_did_not_ask_for_such_tools_is_not_told_of_any() -> None:
    said: list[Delta] = [HostedCall(key=0, item=SEARCHED, is_done=True), TextDelta("a"), STOP]

    assert kinds(streamed(said)) == kinds(streamed(said[1:]))


@pytest.mark.parametrize("ends", ["end", "failed"])
def test_a_tool_of_the_providers_that_is_cut_off_has_failed(ends: str) -> None:
    to = writer(**WITH_SEARCH)
    stream = to.start("m") + to.deltas([HostedCall(key=0, item=SEARCH)])
    if ends == "end":
        to.deltas([Finished(FinishReason.LENGTH, None)])
        stream += to.end(None) + to.tail()
    else:
        stream += to.failed(code="server_error", message="gone")

    final = lifecycle.check(lifecycle.parse(stream))

    assert [item["status"] for item in final["output"]] == ["failed"]
    assert to.context == []  # it would be of no use to the next request
