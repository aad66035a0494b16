"""The overlay's keys as JSON Schema, for clients that draw a form from it."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal, get_args, get_origin

import msgspec

from appliance.config.checking import Kind, default_of, is_section, keys_of, kind_of
from appliance.config.overlay import ADMIN_ONLY
from appliance.config.schema import GatewayConfig

_TYPES: Mapping[Any, str] = {int: "integer", float: "number", str: "string", bool: "boolean"}
_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "min_length": "minLength",
    "max_length": "maxLength",
    "pattern": "pattern",
}


@cache
def overlay_schema() -> dict[str, Any]:
    """What a tenant may set. Shared by everybody who asks: treat it as a value."""
    schema = _schema(kind_of(GatewayConfig), "")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of a tenant",
        "description": "Every key is optional. Null takes the gateway's value away.",
        **schema,
    }


@cache
def ui_hints() -> dict[str, dict[str, Any]]:
    """How a form may call each key, by its path."""
    return dict(_hints(overlay_schema(), "", ""))


def find_schema(path: str) -> tuple[str, dict[str, Any]] | None:
    """The schema at a dotted path (``defaults.agents.*.name``) and the path of its hint.

    Any name stands for one of a mapping's; None if there is no such key.
    """
    schema, hint = overlay_schema(), ""
    for part in path.split(".") if path not in {"", "."} else []:
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        if part in properties:
            schema, hint = properties[part], _joined(hint, part)
        elif isinstance(others, dict):
            schema, hint = others, _joined(hint, "*")
        elif "items" in schema and (part.isdigit() or part in {"*", "[]"}):
            schema, hint = schema["items"], _joined(hint, "*")
        else:
            return None
    return hint, schema


def _schema(kind: Kind, path: str) -> dict[str, Any]:
    base = kind.base
    if is_section(base):
        return _section(base, path)
    if get_origin(base) is dict:
        below = _schema(kind_of(get_args(base)[1]), _joined(path, "*"))
        return {"type": "object", "additionalProperties": below} | _sizes(kind, "Properties")
    if get_origin(base) is list:
        items = _schema(kind_of(get_args(base)[0]), _joined(path, "*"))
        return {"type": "array", "items": items} | _sizes(kind, "Items")
    if get_origin(base) is Literal:
        return {"type": "string", "enum": list(get_args(base))}
    return ({"type": _TYPES[base]} if base in _TYPES else {}) | _bounds(kind)


def _section(section: type[msgspec.Struct], path: str) -> dict[str, Any]:
    properties = {}
    for key, info in keys_of(section).items():
        below = _joined(path, key)
        if below in ADMIN_ONLY:
            continue
        kind = kind_of(info.type)
        schema = _schema(kind, below)
        if schema.get("properties") == {} and keys_of(kind.base):
            continue  # all of it is the operator's
        default = default_of(info)
        if isinstance(default, bool | int | float | str):
            schema["default"] = default
        properties[key] = schema
    found = {"type": "object", "properties": properties, "additionalProperties": False}
    required = [key for key, info in keys_of(section).items() if info.required]
    return found | ({"required": required} if required else {})


def _bounds(kind: Kind) -> dict[str, Any]:
    metas = getattr(kind.leaf, "__metadata__", ())
    return {
        theirs: value
        for meta in metas
        for ours, theirs in _BOUNDS.items()
        if (value := getattr(meta, ours, None)) is not None
    }


def _sizes(kind: Kind, of: str) -> dict[str, Any]:
    sizes = {f"min{of}": kind.fewest, f"max{of}": kind.most}
    return {name: size for name, size in sizes.items() if size is not None}


def _hints(schema: dict[str, Any], path: str, group: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, below in schema.get("properties", {}).items():
        here = _joined(path, key)
        yield here, {"label": key.replace("_", " ").capitalize(), "group": group or key}
        yield from _hints(below, here, group or key)
    for inner in (schema.get("additionalProperties"), schema.get("items")):
        if isinstance(inner, dict):
            yield from _hints(inner, _joined(path, "*"), group)


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
