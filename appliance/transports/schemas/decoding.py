"""Text becomes a request struct: every field that is wrong is named, not just the first."""

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from appliance.model.errors import FieldError, InvalidRequest
from appliance.model.spelling import nearest
from appliance.transports.schemas.base import Body, Query

S = TypeVar("S", Body, Query)

_MOST_PARAMETERS = 50
_MOST_UNKNOWN = 20  # fields that are named in an answer
_PLACE = re.compile(r"^(?P<reason>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)


def read_struct(kind: type[S], raw: object, *, from_text: bool = False) -> S:
    """Convert decoded JSON (or the strings of a query) to ``kind``.

    Each field is converted on its own, so that one answer lists all mistakes.
    Raises :exc:`InvalidRequest`.
    """
    if not isinstance(raw, Mapping):
        raise InvalidRequest.at("", "the body must be a JSON object", 'such as {"name": "…"}')
    values: dict[str, Any] = {}
    errors = field_errors(kind, raw, from_text=from_text, values=values)
    if errors:
        raise InvalidRequest(_summary(errors), fields=errors)
    return kind(**values)


def field_errors(
    kind: type[msgspec.Struct],
    raw: Mapping[Any, object],
    *,
    from_text: bool = False,
    values: dict[str, Any] | None = None,
) -> list[FieldError]:
    """All that is wrong with ``raw`` as a ``kind``; what is right goes into ``values``."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    # Each costs a search for what was meant, and a stranger may send 100,000.
    unknown = islice((key for key in raw if key not in fields), _MOST_UNKNOWN)
    errors = [_unknown(str(key), fields) for key in unknown]
    for name, field in fields.items():
        if name not in raw:
            if field.required:
                errors.append(FieldError(name, "is missing", "add it"))
            continue
        try:
            value = msgspec.convert(raw[name], field.type, strict=not from_text)
        except msgspec.ValidationError as exc:
            errors.append(_wrong(name, exc))
        else:
            if values is not None:
                values[field.name] = value
    return errors


def read_query(kind: type[Query], query_string: bytes) -> Query:
    """Read a query string; a parameter given twice has no one meaning and is refused."""
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MOST_PARAMETERS,
        )
    except ValueError as exc:
        raise InvalidRequest.at("", "the query string cannot be read") from exc
    raw: dict[str, str] = {}
    for name, value in pairs:
        if name in raw:
            raise InvalidRequest.at(name[:80], "given twice", "name one value")
        raw[name] = value
    return read_struct(kind, raw, from_text=True)


def _unknown(name: str, known: Mapping[str, object]) -> FieldError:
    near = nearest(name, known)
    if near is not None:
        remedy = f"did you mean {near!r}?"
    elif known:
        remedy = f"valid fields: {', '.join(known)}"
    else:
        remedy = "leave it out"
    return FieldError(name[:80], "unknown field", remedy)


def _wrong(name: str, error: msgspec.ValidationError) -> FieldError:
    match = _PLACE.match(str(error))
    reason, path = (match["reason"], match["path"] or "") if match else (str(error), "")
    return FieldError(name + path, reason.replace("`", ""))


def _summary(errors: list[FieldError]) -> str:
    return "; ".join(
        f"{error.field}: {error.reason}" + (f" ({error.remedy})" if error.remedy else "")
        for error in errors
    )
