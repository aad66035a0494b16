"""Tools of a request, and which of them is to be called."""

from typing import Any

import pytest

from appliance.model.errors import InvalidRequest
from appliance.protocols.responses.tools import is_hosted, read_tool_choice, read_tools

TOOL = {
    "type": "function",
    "name": "look",
    "description": None,
    "parameters": None,
    "strict": None,
}
CUSTOM = {"type": "custom", "name": "run", "format": {"type": "text"}}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: /a+/"}
MCP = {"type": "mcp", "server_label": "wiki", "server_url": "https://wiki.example"}
TOOLS: list[dict[str, Any]] = [TOOL, CUSTOM, {"type": "web_search"}, MCP]


def test_a_function_has_all_its_keys() -> None:
    assert read_tools(None) == ()
    assert read_tools([{"type": "function", "name": "look", "colour": 1}]) == (TOOL,)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"type": "custom", "name": "run"}, CUSTOM),
        ({**CUSTOM, "description": "runs"}, {**CUSTOM, "description": "runs"}),
        ({**CUSTOM, "format": {**GRAMMAR, "x": 1}}, {**CUSTOM, "format": GRAMMAR}),
    ],
)
def test_a_custom_tool_takes_text_of_some_form(given: Any, shown: Any) -> None:
    assert read_tools([given]) == (shown,)
    assert not is_hosted(shown)


def test_a_tool_of_the_providers_is_shown_as_it_came() -> None:
    tool = {"type": "file_search", "vector_store_ids": ["vs_1"], "filters": None, "new": {"a": 1}}

    assert read_tools([tool]) == (tool,)
    assert is_hosted(tool)


def test_what_lets_in_with_an_mcp_server_is_not_shown() -> None:
    (shown,) = read_tools(
        [
            {
                **MCP,
                "server_url": "https://me:secret@wiki.example:8443/secret?key=secret#secret",
                "authorization": "secret",
                "headers": {"X-Key": "secret"},
                "require_approval": "never",
            }
        ]
    )

    assert shown == {
        "type": "mcp",
        "server_label": "wiki",
        "server_url": "https://wiki.example:8443",
        "require_approval": "never",
    }


@pytest.mark.parametrize(
    ("tool", "field"),
    [
        ({"type": "computer"}, "tools[0].type"),
        ({"type": ["custom"]}, "tools[0].type"),
        ({"type": "custom"}, "tools[0].name"),
        ({**CUSTOM, "description": 7}, "tools[0].description"),
        ({**CUSTOM, "format": "text"}, "tools[0].format"),
        ({**CUSTOM, "format": {"type": "json"}}, "tools[0].format.type"),
        ({**CUSTOM, "format": {**GRAMMAR, "syntax": "ebnf"}}, "tools[0].format.syntax"),
        ({**CUSTOM, "format": {**GRAMMAR, "definition": ""}}, "tools[0].format.definition"),
        ({"type": "mcp"}, "tools[0].server_label"),
        ({**MCP, "server_url": 7}, "tools[0].server_url"),
        ({**MCP, "server_url": "https://[x"}, "tools[0].server_url"),
    ],
)
def test_what_is_no_tool_is_refused_at_its_place(tool: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_tools([tool])

    assert refused.value.fields[0].field == field


def test_a_name_stands_for_one_tool_only() -> None:
    with pytest.raises(InvalidRequest):
        read_tools([TOOL, {**CUSTOM, "name": "look"}])
    assert len(read_tools([{"type": "web_search"}, {"type": "web_search"}])) == 2


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (None, "auto"),
        ("none", "none"),
        ("required", "required"),
        ({"type": "function", "name": "look"}, {"type": "function", "name": "look"}),
        ({"type": "custom", "name": "run", "x": 1}, {"type": "custom", "name": "run"}),
        ({"type": "web_search"}, {"type": "web_search"}),
        ({"type": "mcp", "server_label": "wiki"}, {"type": "mcp", "server_label": "wiki"}),
        (
            {"type": "mcp", "server_label": "wiki", "name": "ask"},
            {"type": "mcp", "server_label": "wiki", "name": "ask"},
        ),
        (
            {"type": "allowed_tools", "tools": [{"type": "function", "name": "look"}]},
            {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "look"}],
            },
        ),
    ],
)
def test_what_to_call_is_among_the_tools(raw: object, expected: object) -> None:
    assert read_tool_choice(raw, TOOLS) == expected


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ("never", "tool_choice"),
        ({"name": "look"}, "tool_choice.type"),
        ({"type": "custom", "name": "look"}, "tool_choice.name"),
        ({"type": "function"}, "tool_choice.name"),
        ({"type": "file_search"}, "tool_choice.type"),
        ({"type": "mcp", "server_label": "other"}, "tool_choice.server_label"),
        ({"type": "mcp", "server_label": "wiki", "name": 7}, "tool_choice.name"),
        ({"type": "allowed_tools", "tools": []}, "tool_choice.tools"),
        ({"type": "allowed_tools", "tools": ["look"]}, "tool_choice.tools[0]"),
        ({"type": "allowed_tools", "mode": "all", "tools": [TOOL]}, "tool_choice.mode"),
        (
            {"type": "allowed_tools", "tools": [{"type": "mcp"}]},
            "tool_choice.tools[0].server_label",
        ),
    ],
)
def test_what_is_not_among_them_is_refused_at_its_place(raw: object, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_tool_choice(raw, TOOLS)

    assert refused.value.fields[0].field == field


def test_nothing_can_be_required_of_no_tools() -> None:
    with pytest.raises(InvalidRequest):
        read_tool_choice("required", [])
