"""A request's ``params`` become a struct, or an error that names every mistake.

The words are those of OpenClaw's validator (``invalid NAME params: at /limit:
must be >= 1; at root: unexpected property 'zzz'``), which its clients look for;
``details.fields`` has the same for programs.
"""

import re
from typing import TypeVar

import msgspec

from appliance.model.errors import FieldError, InvalidRequest
from appliance.transports.rpc.method import NoParams, Params
from appliance.transports.schemas.decoding import field_errors

P = TypeVar("P", bound=Params)

_NOTHING = NoParams()
_EXPECTED = re.compile(r"^Expected (?P<kinds>\w+(?: ?\| ?\w+)*)(?: (?P<rule>.+?))?(?:, got .+)?$")
_JSON_NAMES = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "object": "object",
    "array": "array",
    "null": "null",
}


def read_params(kind: type[P], raw: object, *, method: str) -> P:
    """Raises :exc:`InvalidRequest` with all that is wrong."""
    if raw is None:
        raw = {}
    elif type(raw) is not dict:
        raise InvalidRequest(f"invalid {method} params: at root: must be object")
    if not raw and kind is NoParams:
        return _NOTHING  # type: ignore[return-value]  # P is NoParams here
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as exc:
        errors = field_errors(kind, raw)
        raise _invalid(method, errors or [FieldError("", str(exc))]) from None


def _invalid(method: str, errors: list[FieldError]) -> InvalidRequest:
    text = "; ".join(_sentence(error) for error in errors[:20])
    return InvalidRequest(f"invalid {method} params: {text}", fields=errors)


def _sentence(error: FieldError) -> str:
    if error.reason == "unknown field":
        return f"at root: unexpected property '{error.field}'"
    if error.reason == "is missing":
        return f"at root: must have required property '{error.field}'"
    path = "/" + re.sub(r"\.|\[", "/", error.field).replace("]", "")
    return f"at {path}: {_rule(error.reason)}"


def _rule(reason: str) -> str:
    """``Expected int >= 1`` as JSON Schema validators put it."""
    match = _EXPECTED.match(reason)
    if match is None:
        return reason
    names = [kind.strip() for kind in match["kinds"].split("|")]
    kinds = " or ".join(_JSON_NAMES.get(name, name) for name in names)
    rule = match["rule"]
    if rule is None:
        return f"must be {kinds}"
    if rule.startswith("of length"):
        return f"must have {rule.removeprefix('of ')}"
    return f"must be {rule}" if rule[0] in "<>" else f"must be {kinds} {rule}"
