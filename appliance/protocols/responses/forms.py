"""A request as ``application/x-www-form-urlencoded``: the same members, written flat.

Text fields are text; all others hold JSON. ``name[key]=value`` is a member of
an object, ``name[]=value`` an element of a list.
"""

import re
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from appliance.model.errors import InvalidRequest, TooLarge
from appliance.protocols import json_body

# A form is text in three times its size, taken apart sign by sign; a long one is sent as JSON.
LONGEST = 1024 * 1024
_MOST_FIELDS = 1000
_NESTED = re.compile(r"([^\[\]]+)\[([^\[\]]*)\]")
_TEXTS = frozenset(
    {
        "instructions",
        "model",
        "previous_response_id",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "truncation",
        "user",
    }
)
# Either: JSON where it is that, else the text itself.
_TEXTS_OR_MORE = frozenset({"conversation", "input", "tool_choice"})
_OBJECTS_OF_TEXT = frozenset({"metadata"})


def form_members(data: bytes, *, limit_bytes: int) -> dict[str, bytes]:
    """Return the members as JSON text; raise :exc:`InvalidRequest` or :exc:`TooLarge`."""
    limit_bytes = min(limit_bytes, LONGEST)
    if len(data) > limit_bytes:
        raise TooLarge(
            f"the form has {len(data)} bytes; the limit is {limit_bytes}; send JSON",
            limit=limit_bytes,
        )
    found: dict[str, Any] = {}
    for name, value in _fields(data):
        nested = _NESTED.fullmatch(name)
        if nested is None:
            if name in found:
                raise InvalidRequest.at(name[:80], "the field appears twice", "send it once")
            found[name] = _value(name, value)
        else:
            _put(found, nested[1], nested[2], value)
    return {name: msgspec.json.encode(value) for name, value in found.items()}


def _fields(data: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            data.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except UnicodeDecodeError:
        raise InvalidRequest.at("", "the form is not UTF-8, percent-encoded") from None
    except ValueError:
        raise InvalidRequest.at("", f"the form has more than {_MOST_FIELDS} fields") from None


def _value(name: str, value: str) -> object:
    if name in _TEXTS:
        return value
    if name in _TEXTS_OR_MORE and not value.startswith(("[", "{")):
        return value
    try:
        return json_body.decode(value.encode())
    except InvalidRequest as exc:
        if name in _TEXTS_OR_MORE:
            return value
        raise InvalidRequest.at(name[:80], f"must be JSON: {exc}") from None


def _put(found: dict[str, Any], name: str, key: str, value: str) -> None:
    if not key:
        into = found.setdefault(name, [])
        if not isinstance(into, list):
            raise InvalidRequest.at(name[:80], "is given in two forms", "send it in one")
        into.append(value)
        return
    into = found.setdefault(name, {})
    if not isinstance(into, dict) or key in into:
        raise InvalidRequest.at(name[:80], "is given twice, or in two forms", "send it once")
    into[key] = value if name in _OBJECTS_OF_TEXT else _json_or_text(value)


def _json_or_text(value: str) -> object:
    try:
        return json_body.decode(value.encode())
    except InvalidRequest:
        return value
