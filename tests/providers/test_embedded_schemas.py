"""Schemas that an embedded model keeps to, and those that would hold up everybody."""

from typing import Any

import pytest

from appliance.model.errors import Fault, InvalidRequest
from appliance.providers.embedded_schemas import MOST_PLACES, require_bounded, require_possible

PERSON: dict[str, Any] = {
    "$defs": {"Address": {"type": "object", "properties": {"city": {"type": "string"}}}},
    "type": "object",
    "title": "Person",
    "properties": {
        "name": {"type": "string", "maxLength": 80, "description": "in full"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "born": {"type": "string", "format": "date"},
        "role": {"enum": ["a", "b"], "type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
        "home": {"$ref": "#/$defs/Address", "description": "where"},
        "other": {"anyOf": [{"$ref": "#/$defs/Address"}, {"type": "null"}], "default": None},
        "pair": {"type": "array", "prefixItems": [{"type": "integer"}, {"const": 7}]},
        "anything": True,
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def test_what_clients_make_of_their_types_is_taken() -> None:
    require_possible(PERSON, field="response_format")
    require_bounded(PERSON, field="tools[0]")


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "string", "pattern": "^a$"}, "schema.pattern"),
        ({"type": "string", "format": "email"}, "schema.format"),
        ({"type": "string", "format": ["date"]}, "schema.format"),
        ({"type": "number", "minimum": 5}, "schema.minimum"),
        ({"type": "integer", "multipleOf": 7}, "schema.multipleOf"),
        ({"type": "array", "uniqueItems": True}, "schema.uniqueItems"),
        ({"type": "object", "properties": {"a": {"not": {}}}}, "schema.properties.a.not"),
        ({"allOf": [{"type": "string"}, {"minLength": 3}]}, "schema.allOf"),
        ({"type": "object", "anyOf": [{"required": ["a"]}]}, "schema.type"),
        ({"enum": [1, 2], "minimum": 2, "type": "integer"}, "schema.minimum"),
        ({"type": "object", "required": ["a"]}, "schema.required"),
        ({"items": {"type": "string"}, "prefixItems": [True]}, "schema.items"),
        ({"anyOf": [{}, {"frobnicate": 1}]}, "schema.anyOf[1].frobnicate"),
        ({"items": [{}]}, "schema.items"),
    ],
    ids=str,
)
def test_what_a_grammar_would_pass_over_is_refused_by_its_place(
    schema: dict[str, Any], place: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        require_possible(schema, field="text.format")

    assert refused.value.fields[0].field == "text.format"
    assert refused.value.fields[0].fault is Fault.UNSUPPORTED
    assert refused.value.fields[0].reason.startswith(f"{place} ")


def doubled(levels: int) -> dict[str, Any]:
    """Few words of which each level doubles the alternatives."""
    definitions: dict[str, Any] = {
        f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)
    }
    definitions[f"d{levels}"] = {"type": "string"}
    return {"$defs": definitions, "$ref": "#/$defs/d0"}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (doubled(30), "too large"),
        ({"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}, "itself"),
        ({"$ref": "#/$defs/a"}, "refers to nothing"),
        ({"$ref": "https://example.com/schema"}, "of the same schema"),
        (nested(65), "deeper than 64"),
        ({"enum": list(range(MOST_PLACES))}, "too large"),
        ({"type": "string", "minLength": 2001}, "between 0 and 2000"),
        ({"type": "array", "minItems": -1}, "between 0 and 2000"),
        ({"type": "integer", "minimum": 10**18}, "usual size"),
        ({"type": "integer", "maximum": 1e300}, "usual size"),
        (
            {"properties": {str(n): {"minLength": 2000} for n in range(6)}, "type": "object"},
            "too large",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_would_hold_up_everybody_is_refused_of_answers_and_tools(
    schema: dict[str, Any], reason: str
) -> None:
    for check in (require_possible, require_bounded):
        with pytest.raises(InvalidRequest, match=reason):
            check(schema, field="x")


def test_what_stays_small_is_taken() -> None:
    require_possible(doubled(6), field="x")
    require_possible(nested(64), field="x")
    require_possible({"type": "string", "minLength": 2000}, field="x")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^a+$", "format": "email"},
        {"type": "string", "maxLength": 100_000},
        {"type": "number", "minimum": 0.5},
        {"type": "object", "required": ["a"], "not": {"required": ["b"]}},
        {"type": "array", "uniqueItems": True, "maxItems": "many"},
    ],
    ids=str,
)
def test_a_tool_may_ask_for_what_only_it_can_check(schema: dict[str, Any]) -> None:
    require_bounded(schema, field="x")


@pytest.mark.parametrize("pattern", ["((a{0,100}){0,100})", "a" * 101, 5], ids=lambda v: str(v)[:9])
def test_but_not_for_what_takes_minutes_to_understand(pattern: object) -> None:
    with pytest.raises(InvalidRequest, match=r"tools\[0\]: schema.pattern"):
        require_bounded({"type": "string", "pattern": pattern}, field="tools[0]")
