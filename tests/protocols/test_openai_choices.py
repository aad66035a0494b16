"""What the choices of a chat completion say, however a provider writes it."""

from typing import Any

import pytest

from appliance.model.calls import (
    Annotation,
    Delta,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from appliance.protocols.answers import ErrorReported
from appliance.protocols.openai_chat import AnswerBuilder, ChatWriter, nested
from appliance.protocols.openai_choices import ChoiceReader, ToolIndexes, finish_reason

CITED = {
    "type": "url_citation",
    "url_citation": {"start_index": 0, "end_index": 2, "url": "https://a.example", "title": "A"},
}
FLAT = {"type": "url_citation", **CITED["url_citation"]}  # type: ignore[dict-item]  # a mapping, as written above


def read(**said: Any) -> list[Delta]:
    return ChoiceReader().deltas({"choices": [{"index": 0, "delta": said}]})


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("END_TURN", FinishReason.STOP),
        ("max_tokens", FinishReason.LENGTH),
        ("tool_use", FinishReason.TOOL_CALLS),
        ("safety", FinishReason.CONTENT_FILTER),
        ("because", FinishReason.LENGTH),  # the usual reason, here
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_why_it_ended_is_told_in_one_of_four_words(
    word: object, reason: FinishReason | None
) -> None:
    assert finish_reason({"finish_reason": word}, usual=FinishReason.LENGTH) is reason


@pytest.mark.parametrize("word", ["error", "abort"])
def test_an_answer_that_was_given_up_has_failed(word: str) -> None:
    with pytest.raises(ErrorReported):
        finish_reason({"finish_reason": word}, usual=FinishReason.STOP)


def test_custom_tools_are_called_with_a_text_of_any_form() -> None:
    calls = ToolIndexes()
    pieces: list[dict[str, Any]] = [
        {"index": 0, "id": "a", "type": "custom", "custom": {"name": "run", "input": ""}},
        {"index": 1, "id": "b", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"index": 0, "custom": {"input": "ls "}},
        {"index": 0, "custom": {"input": "{"}},
        {"index": 0, "id": "c", "type": "custom", "custom": {"name": "run", "input": None}},
        {"index": 2, "id": "d", "type": "custom", "custom": {"name": "run"}, "function": None},
    ]

    assert [calls.read(piece, "answer") for piece in pieces] == [
        ToolCallDelta(0, id="a", name="run", is_custom=True),
        ToolCallDelta(1, id="b", name="f", arguments="{}"),
        ToolCallDelta(0, arguments="ls "),
        ToolCallDelta(0, arguments="{"),
        ToolCallDelta(2, id="c", name="run", is_custom=True),  # numbered 0 like another one
        ToolCallDelta(3, id="d", name="run", is_custom=True),
    ]


def test_a_call_from_before_there_were_tools_is_one_of_its_kind() -> None:
    choice = ChoiceReader()
    pieces: list[dict[str, Any]] = [
        {"role": "assistant", "function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": '{"x":'}},
        {"function_call": {"arguments": "1}"}, "tool_calls": []},
        {"function_call": None},
    ]

    found = [choice.deltas({"id": "a", "choices": [{"delta": piece}]}) for piece in pieces]

    assert found == [
        [ToolCallDelta(0, id="call_a_0", name="f")],
        [ToolCallDelta(0, arguments='{"x":')],
        [ToolCallDelta(0, arguments="1}")],
        [],
    ]
    assert choice.usual_reason is FinishReason.TOOL_CALLS


def test_parts_hold_what_is_said_and_what_is_thought() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}, {"type": "x"}]},
        {"type": "thinking", "thinking": "."},
        {"type": "thinking", "thinking": [[]]},
        {"type": "text", "text": "So"},
        {"text": ""},
        None,
    ]

    assert ChoiceReader().deltas({"choices": [{"delta": {"content": parts}}]}) == [
        ReasoningDelta("Hm"),
        ReasoningDelta("."),
        TextDelta("So"),
    ]


def test_calls_that_share_a_number_are_told_apart_by_id_and_name() -> None:
    calls = ToolIndexes()
    pieces = [
        {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}},
        {"index": 0, "id": "b", "function": {"name": "g", "arguments": {"x": 1}}},
        {"index": 0, "function": {"arguments": ""}},
    ]

    assert [calls.read(piece, "answer") for piece in pieces] == [
        ToolCallDelta(0, id="a", name="f", arguments="{}"),
        ToolCallDelta(1, id="b", name="g", arguments='{"x":1}'),
        ToolCallDelta(1),
    ]
    assert calls.usual_reason is FinishReason.TOOL_CALLS


def test_where_a_text_is_from_is_read_and_written_again() -> None:
    said = read(content="Hi", annotations=[CITED, {"type": "odd"}, "nonsense", {"type": 7}])

    assert said == [TextDelta("Hi"), Annotation(FLAT)]
    assert nested(FLAT) == CITED


def test_a_citation_reaches_callers_of_chat_streamed_and_whole() -> None:
    writer = ChatWriter(id="c", created=1)
    writer.start("m")
    answer = AnswerBuilder()
    answer.add([TextDelta("Hi"), Annotation(FLAT)])

    assert b'"annotations":[{"type":"url_citation","url_citation":{' in writer.deltas(
        [Annotation(FLAT)]
    )
    assert answer._message()["annotations"] == [CITED]


def test_citations_without_end_are_not_kept() -> None:
    long = {"type": "url_citation", "url_citation": {"url": "x" * 10_000}}

    assert read(content=None, annotations=[long]) == []
    assert len(read(content=None, annotations=[CITED] * 2_000)) == 1_000
