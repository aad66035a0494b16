"""A config as people type it into a client: JSON, or JSON5 with its comments and loose commas."""

import math

import msgspec
import pyjson5

from appliance.config.documents import DEEPEST, MOST_VALUES
from appliance.model.errors import ConfigInvalid, InvalidRequest
from appliance.protocols.json_body import decode

LARGEST = 256 * 1024  # bytes
_LARGEST_NUMBER = 2**63


def parse_json_text(text: str) -> object:
    """Return the value that ``text`` spells; raise :exc:`ConfigInvalid` if it spells none.

    What is JSON is read as JSON, with everything refused that readers disagree
    about. JSON5 has only this one reader, and of a key given twice it keeps
    the last.
    """
    data = text.encode()
    if len(data) > LARGEST:
        raise ConfigInvalid.at("raw", f"larger than {LARGEST} bytes", "send a patch")
    try:
        return decode(data, max_depth=DEEPEST)
    except InvalidRequest as refusal:
        if _is_json(data):
            raise ConfigInvalid(refusal.detail, fields=refusal.fields) from None
    value = _decode_json5(text)
    _check_values(value)
    return value


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _decode_json5(text: str) -> object:
    try:
        value: object = pyjson5.decode(text, maxdepth=DEEPEST)
    except pyjson5.Json5DecoderException as exc:
        # Its further arguments are what was read so far, which is nobody's message.
        raise ConfigInvalid.at("raw", f"neither JSON nor JSON5: {_reason(exc)}") from None
    except (ValueError, RecursionError):
        raise ConfigInvalid.at("raw", "a number is out of range") from None
    return value


def _reason(exc: Exception) -> str:
    return str(exc.args[0])[:200] if exc.args else "it cannot be read"


def _check_values(value: object) -> None:
    """Refuse what JSON5 can say and a config cannot hold."""
    waiting, seen = [value], 0
    while waiting:
        each = waiting.pop()
        seen += 1
        if seen > MOST_VALUES:
            raise ConfigInvalid.at("raw", f"more than {MOST_VALUES} values")
        if isinstance(each, dict):
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)
        elif isinstance(each, float) and not math.isfinite(each):
            raise ConfigInvalid.at("raw", "NaN and Infinity are no values of a config")
        elif isinstance(each, int) and abs(each) > _LARGEST_NUMBER:
            raise ConfigInvalid.at("raw", "a number is out of range")
