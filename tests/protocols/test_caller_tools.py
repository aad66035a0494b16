"""The tools that come with a chat completion, and what of them is asked."""

from typing import Any

import msgspec
import pytest

from appliance.model.errors import InvalidRequest
from appliance.protocols.caller_tools import MOST, CallerTools

A = {"type": "function", "function": {"name": "a", "parameters": {"type": "object"}}}
B = {"type": "function", "function": {"name": "b"}}


def read(**body: Any) -> CallerTools:
    return CallerTools.read({name: msgspec.json.encode(value) for name, value in body.items()})


def test_without_tools_nothing_is_asked() -> None:
    assert read() == CallerTools()
    assert read(tools=None, tool_choice=None) == CallerTools()
    assert read(tools=[]) == CallerTools()


def test_tools_are_kept_as_they_came() -> None:
    tools = read(tools=[A, B], parallel_tool_calls=False)

    assert tools.definitions == (A, B)
    assert tools.names == {"a", "b"}
    assert not tools.must_call
    assert not tools.is_parallel


def test_none_takes_them_all_away() -> None:
    assert read(tools=[A], tool_choice="none").names == frozenset()


def test_required_means_one_of_them() -> None:
    tools = read(tools=[A], tool_choice="required")

    assert tools.must_call
    assert not tools.only_these
    assert tools.choice == "required"


def test_a_named_one_leaves_no_room_for_others() -> None:
    choice = {"type": "function", "function": {"name": "b"}}

    tools = read(tools=[A, B], tool_choice=choice)

    assert tools.must_call
    assert tools.only_these
    assert tools.choice == choice


@pytest.mark.parametrize(("mode", "must"), [("auto", False), ("required", True)])
def test_allowed_tools_leave_the_others_out(mode: str, must: bool) -> None:  # noqa: FBT001 - a table
    allowed = {"mode": mode, "tools": [{"type": "function", "function": {"name": "a"}}]}

    tools = read(tools=[A, B], tool_choice={"type": "allowed_tools", "allowed_tools": allowed})

    assert tools.names == {"a"}
    assert tools.must_call is must


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"tools": "x"}, "tools"),
        ({"tools": [A] * (MOST + 1)}, "tools"),
        ({"tools": [A, A]}, "tools"),
        ({"tools": [{}]}, "tools[0]"),
        ({"tools": [A, {"type": "function"}]}, "tools[1]"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {"name": "x" * 65}}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools[0]"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [A, {"type": "custom", "custom": {"name": "run"}}]}, "tools[1].type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [A], "tool_choice": "perhaps"}, "tool_choice"),
        ({"tools": [A], "tool_choice": 3}, "tool_choice"),
        (
            {"tools": [A], "tool_choice": {"type": "function", "function": {"name": "z"}}},
            "tool_choice",
        ),
        (
            {
                "tools": [A],
                "tool_choice": {
                    "type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []},
                },
            },
            "tool_choice.allowed_tools",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        read(**body)

    assert refusal.value.fields[0].field == field
