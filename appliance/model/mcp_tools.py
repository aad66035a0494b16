"""What an MCP server says of its tools, made fit to be offered to a model.

All of it is written by strangers. Names are brought into the form that models
take, everything is bounded, and what a server says of the harmlessness of a
tool (its annotations) is not even read: a policy must not be loosened by whom
it is meant to hold.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_TOOLS = 128  # of one server
LONGEST_NAME = 64  # as providers take it, with the server's name before it
MOST_DESCRIPTION = 2048  # bytes
MOST_SCHEMA = 16 * 1024  # bytes, as JSON
_DEEPEST_SCHEMA = 32
_LONGEST_OWN_NAME = 256
_UNFIT = re.compile(r"[^a-zA-Z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteTool:
    """``name`` is the server's, ``offered_as`` what the model calls it by."""

    name: str
    offered_as: str
    title: str
    description: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})


def read_tools(server: str, listed: Iterable[object]) -> list[RemoteTool]:
    """The tools of a listing as it came over the wire; what cannot be used is left out."""
    found: list[RemoteTool] = []
    names: set[str] = set()
    taken: set[str] = set()
    for entry in listed:
        if len(found) >= MOST_TOOLS:
            break
        if not isinstance(entry, Mapping):
            continue
        name = entry.get("name")
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_OWN_NAME or name in names:
            continue
        names.add(name)
        offered_as = offered_name(server, name, taken)
        taken.add(offered_as)
        found.append(
            RemoteTool(
                name=name,
                offered_as=offered_as,
                title=_cut(_text(entry.get("title")) or name, 100),
                description=_cut(_text(entry.get("description")), MOST_DESCRIPTION),
                schema=checked_schema(entry.get("inputSchema")),
            )
        )
    return found


def offered_name(server: str, name: str, taken: Iterable[str] = ()) -> str:
    """``<server>__<name>`` in characters that all models take; numbered if it is ``taken``."""
    wanted = f"{server}__{_UNFIT.sub('_', name).strip('_') or 'tool'}"[:LONGEST_NAME]
    taken = set(taken)
    offered, number = wanted, 2
    while offered in taken:
        suffix = f"_{number}"
        offered = wanted[: LONGEST_NAME - len(suffix)] + suffix
        number += 1
    return offered


def checked_schema(schema: object) -> Mapping[str, Any]:
    """``schema`` if it is the small schema of an object, else that of any object.

    A reference is followed by nobody here, but a provider might fetch one
    that leads out of the schema, so such a schema is not passed on either.
    """
    anything = {"type": "object"}
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        return anything
    if not _is_plain(schema, _DEEPEST_SCHEMA):
        return anything
    try:
        size = len(json.dumps(schema, allow_nan=False).encode())
    except (ValueError, TypeError, RecursionError):
        return anything
    if size > MOST_SCHEMA:
        return anything
    properties = schema.get("properties")
    if properties is not None and not isinstance(properties, Mapping):
        return anything
    return {**schema, "type": "object"}


def _is_plain(value: object, depth: int) -> bool:
    if depth < 0:
        return False
    if isinstance(value, Mapping):
        reference = value.get("$ref", "#")
        is_local = not isinstance(reference, str) or reference.startswith("#")
        return is_local and all(_is_plain(each, depth - 1) for each in value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return all(_is_plain(each, depth - 1) for each in value)
    return True


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _cut(text: str, most: int) -> str:
    """``text`` in at most ``most`` bytes of UTF-8; half surrogates are replaced."""
    return text.encode(errors="replace")[:most].decode(errors="ignore")
