"""The least JSON value that fits a JSON Schema, as far as clients' schemas go."""

from collections.abc import Mapping
from typing import Any

_FORMATS = {
    "date": "2026-11-22",
    "time": "12:00:00Z",
    "date-time": "2026-11-22T12:00:00Z",
    "email": "ada@example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "https://example.com/",
}
_DEPTH = 12


def instance(schema: Any, *, root: Mapping[str, Any] | None = None, depth: int = 0) -> Any:
    """A value of ``schema``; optional members are left out below a few levels only."""
    if not isinstance(schema, Mapping) or not schema or depth > _DEPTH:
        return {} if root is None else None
    root = schema if root is None else root
    if "$ref" in schema:
        return instance(_target(schema["$ref"], root), root=root, depth=depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for union in ("anyOf", "oneOf"):
        if schema.get(union):
            return instance(schema[union][0], root=root, depth=depth + 1)
    if schema.get("allOf"):
        merged: dict[str, Any] = {}
        for part in schema["allOf"]:
            merged |= _target(part["$ref"], root) if "$ref" in part else part
        return instance(merged, root=root, depth=depth + 1)
    return _typed(schema, root, depth)


def _typed(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            return {
                name: instance(member, root=root, depth=depth + 1)
                for name, member in (schema.get("properties") or {}).items()
                if depth < _DEPTH // 2 or name in schema.get("required", ())
            }
        case "array":
            number = max(1, int(schema.get("minItems", 1))) if depth < _DEPTH else 0
            return [
                instance(schema.get("items") or {"type": "string"}, root=root, depth=depth + 1)
            ] * number
        case "string":
            text = _FORMATS.get(schema.get("format", ""), "some text")
            return text.ljust(int(schema.get("minLength", 0)), "x")[: schema.get("maxLength")]
        case "integer" | "number":
            least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
            return int(least) + ("exclusiveMinimum" in schema) if kind == "integer" else least + 0.5
        case "boolean":
            return True
    return None


def _target(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = root
    for name in reference.removeprefix("#/").split("/"):
        found = found[name]
    return dict(found)
