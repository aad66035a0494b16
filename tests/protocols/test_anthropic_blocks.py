"""The blocks of an answer of Anthropic's, a piece at a time."""

from collections.abc import Mapping
from typing import Any

import pytest

from appliance.model.calls import Delta, ReasoningDelta, ReasoningSeal, TextDelta, ToolCallDelta
from appliance.protocols.answers import MalformedAnswer
from appliance.protocols.anthropic_blocks import BlockReader


def read(block: Mapping[str, Any], *deltas: Mapping[str, Any]) -> list[Delta]:
    reader = BlockReader()
    said = list(reader.begin(0, block))
    for delta in deltas:
        said += reader.go_on(0, delta)
    return [*said, *reader.end(0)]


@pytest.mark.parametrize(
    ("block", "deltas", "said"),
    [
        (
            {"type": "text", "text": ""},
            [{"type": "text_delta", "text": "Hi"}, {"type": "a_new_delta"}],
            [TextDelta("Hi")],
        ),
        (
            {"type": "thinking", "thinking": "hm", "signature": "a"},
            [
                {"type": "thinking_delta", "thinking": "?"},
                {"type": "signature_delta", "signature": "b"},
            ],
            [ReasoningDelta("hm"), ReasoningDelta("?"), ReasoningSeal(signature="ab")],
        ),
        ({"type": "redacted_thinking", "data": "x"}, [], [ReasoningSeal(hidden="x")]),
        (
            {"type": "tool_use", "id": "t", "name": "f", "input": {}},
            [{"type": "input_json_delta", "partial_json": '{"a":1}'}],
            [ToolCallDelta(0, id="t", name="f"), ToolCallDelta(0, arguments='{"a":1}')],
        ),
        (
            {"type": "tool_use", "id": "t", "name": "f", "input": {}},
            [],
            [ToolCallDelta(0, id="t", name="f"), ToolCallDelta(0, arguments="{}")],
        ),
        (
            {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
            [],
            [ToolCallDelta(0, id="t", name="f", arguments='{"a":1}')],
        ),
        (
            {"type": "server_tool_use", "id": "s", "name": "web_search"},
            [{"type": "input_json_delta", "partial_json": "{"}],
            [],
        ),
    ],
)
def test_a_block_says(
    block: Mapping[str, Any], deltas: list[Mapping[str, Any]], said: list[Delta]
) -> None:
    assert read(block, *deltas) == said


def test_arguments_for_no_call_are_a_broken_answer() -> None:
    with pytest.raises(MalformedAnswer, match="no tool call"):
        read({"type": "text", "text": ""}, {"type": "input_json_delta", "partial_json": "{"})
