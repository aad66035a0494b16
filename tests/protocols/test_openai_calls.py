"""Calls of tools, and what came of them, as the messages of a chat completion have them."""

from typing import Any

import pytest

from appliance.model.errors import InvalidRequest
from appliance.model.prompts import Attachment, Call, Refusal, Result, Text
from appliance.protocols.openai_calls import read_calls, read_result, written_call
from tests.protocols.prompting import field_of

FUNCTION = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
CUSTOM = {"id": "d", "type": "custom", "custom": {"name": "run", "input": "not { JSON"}}


def read(message: dict[str, Any], functions: dict[str, str] | None = None) -> list[Call]:
    return list(read_calls("messages[1]", message, {} if functions is None else functions))


def test_functions_and_custom_tools_are_called_side_by_side() -> None:
    calls = read({"tool_calls": [FUNCTION, CUSTOM]})

    assert calls == [
        Call(id="c", name="f", arguments='{"x":1}'),
        Call(id="d", name="run", arguments="not { JSON", is_custom=True),
    ]
    assert [call.at for call in calls] == ["messages[1].tool_calls[0]", "messages[1].tool_calls[1]"]
    assert [written_call(call) for call in calls] == [FUNCTION, CUSTOM]


def test_a_call_from_before_there_were_tools_is_given_an_id_that_its_result_finds() -> None:
    functions: dict[str, str] = {}

    (call,) = read({"function_call": {"name": "f", "arguments": "{}"}}, functions)
    result = read_result(
        "messages[2]", {"role": "function", "name": "f"}, [Text(text="42")], functions
    )

    assert call.arguments == "{}"
    assert result == Result(call_id=call.id, parts=(Text(text="42"),))


@pytest.mark.parametrize(
    ("call", "field"),
    [
        ("c", "messages[1].tool_calls[0]"),
        ({**FUNCTION, "id": 5}, "messages[1].tool_calls[0]"),
        ({"id": "d", "type": "custom", "custom": {"name": "run"}}, "messages[1].tool_calls[0]"),
        (
            {"id": "d", "type": "custom", "custom": {"name": "run", "input": "", "more": 1}},
            "messages[1].tool_calls[0].custom.more",
        ),
        ({**FUNCTION, "more": 1}, "messages[1].tool_calls[0].more"),
    ],
)
def test_what_is_no_call_is_refused_naming_where(call: object, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read({"tool_calls": [call]})

    assert field_of(refused.value) == field


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "tool"}, "messages[2].tool_call_id"),
        ({"role": "function", "name": "g"}, "messages[2].name"),
    ],
)
def test_a_result_says_what_it_is_the_result_of(message: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_result("messages[2]", message, [Text(text="42")], {"f": "call_0"})

    assert field_of(refused.value) == field


def test_a_result_may_hold_pictures_and_is_no_refusal() -> None:
    picture = Attachment(kind="image", url="https://example.org/x")
    told = {"role": "tool", "tool_call_id": "c"}

    assert read_result("messages[2]", told, [picture], {}).parts == (picture,)
    with pytest.raises(InvalidRequest, match="a tool refuses nothing"):
        read_result("messages[2]", told, [Refusal(text="No.")], {})
