"""What strangers say of their tools is bounded and brought into form."""

import json
from typing import Any

import pytest

from appliance.model.mcp_tools import (
    LONGEST_NAME,
    MOST_DESCRIPTION,
    MOST_TOOLS,
    checked_schema,
    offered_name,
    read_tools,
)


def test_names_are_what_models_take() -> None:
    assert offered_name("github", "create_issue") == "github__create_issue"
    assert offered_name("github", "créate issue/x") == "github__cr_ate_issue_x"
    assert offered_name("github", "\u202e") == "github__tool"
    assert len(offered_name("s" * 32, "n" * 200)) == LONGEST_NAME


def test_names_that_clash_are_numbered() -> None:
    listed = [{"name": name} for name in ("a.b", "a b", "a/b", "n" * 100, "n" * 101)]
    names = [tool.offered_as for tool in read_tools("s", listed)]
    assert names[:3] == ["s__a_b", "s__a_b_2", "s__a_b_3"]
    assert len(set(names)) == 5
    assert max(map(len, names)) == LONGEST_NAME


def test_entries_that_are_no_tools_are_left_out() -> None:
    listed: list[object] = [None, 7, "x", {}, {"name": 7}, {"name": ""}, {"name": "n" * 300}]
    assert read_tools("s", [*listed, {"name": "good"}, {"name": "good"}])[0].name == "good"
    assert len(read_tools("s", [*listed, {"name": "good"}, {"name": "good"}])) == 1


def test_there_are_only_so_many() -> None:
    assert len(read_tools("s", ({"name": f"t{n}"} for n in range(10_000)))) == MOST_TOOLS


def test_descriptions_are_cut() -> None:
    (tool,) = read_tools("s", [{"name": "t", "description": "é" * 5000, "title": 3}])
    assert len(tool.description.encode()) == MOST_DESCRIPTION
    assert tool.title == "t"
    (tool,) = read_tools("s", [{"name": "t", "description": "\ud800"}])
    assert tool.description == "?"


ANYTHING = {"type": "object"}


def nested(depth: int) -> Any:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"x": schema}}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        None,
        [],
        "object",
        {"type": "string"},
        {"type": ["object", "null"]},
        {"properties": []},
        {"description": "x" * 20_000},
        {"properties": {"x": {"$ref": "https://evil.example/schema.json"}}},
        {"properties": {"x": {"$ref": "file:///etc/passwd"}}},
        {"default": float("nan")},
        nested(100),
    ],
)
def test_a_schema_that_will_not_do_is_that_of_any_object(schema: object) -> None:
    assert checked_schema(schema) == ANYTHING


def test_a_good_schema_stays_as_it_is() -> None:
    schema = {
        "type": "object",
        "properties": {"$ref": {"type": "string"}, "of": {"$ref": "#/$defs/x"}},
        "$defs": {"x": {"type": "integer"}},
    }
    assert checked_schema(schema) == schema
    assert json.dumps(checked_schema({})) == '{"type": "object"}'
