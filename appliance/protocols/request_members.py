"""What the readers of requests share: members as JSON text, and values of the kind they must be.

Whoever translates a request looks at every value in it. A value of the wrong
kind is refused naming where it stands (``at``), in the caller's words.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from appliance.model.errors import InvalidRequest
from appliance.model.prompts import CANNOT, Attachment, Call, Json, Prompt, Reasoning
from appliance.protocols import json_body, long_json

# Bounded: what does not match is given up after a few characters, not after megabytes.
_DATA_URL = re.compile(
    r"data:([A-Za-z0-9.+-]{1,127}/[A-Za-z0-9.+-]{1,127})"
    r"(?:;[A-Za-z0-9-]{1,64}=[^;,]{0,256}){0,8};base64,"
)
_MOST = 2**53 - 1  # what every reader of JSON holds exactly
_WHOLE_NAME = re.compile(r"\w+")
_ARGUMENTS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NO_PARAMETERS: Json = {"type": "object", "properties": {}}


def read_member(body: Mapping[str, bytes], name: str) -> Any:
    """The decoded value of one top-level key, None if it is missing or null."""
    if name not in body:
        return None
    try:
        return long_json.decode(body[name])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest.at(name, "is not JSON") from None


def read_members(body: Mapping[str, bytes], *, but: frozenset[str]) -> dict[str, Any]:
    """All members decoded, without the nulls and without those named in ``but``."""
    members = {name: read_member(body, name) for name in body if name not in but}
    return {name: value for name, value in members.items() if value is not None}


def write_members(members: Mapping[str, Any]) -> dict[str, bytes]:
    """Members as JSON text, without those that are None."""
    return {name: encoded(name, value) for name, value in members.items() if value is not None}


def encoded(name: str, value: object) -> bytes:
    """``value`` as JSON text; ``name`` is where it stands."""
    try:
        return long_json.encode(value)
    except (OverflowError, ValueError, RecursionError):
        # Only what never went through json_body.parse_object is as deep or as large.
        raise InvalidRequest.at(name, "holds a value that JSON cannot carry") from None


def refuse_unknown(
    body: Mapping[str, bytes], *, known: frozenset[str], harmless: Mapping[str, frozenset[bytes]]
) -> None:
    """Refuse by name what the other side has no word for.

    What is dropped silently changes the answer without anybody knowing why.
    ``harmless`` are values that ask for nothing beyond the usual.
    """
    for name, value in body.items():
        if name in known or value == b"null" or value in harmless.get(name, ()):
            continue
        raise InvalidRequest.at(name, CANNOT, "leave it out, or use another model")


def own_members(prompt: Prompt) -> dict[str, Any]:
    """The hints and the others of a prompt that is written in the dialect it was read in.

    Raises :exc:`InvalidRequest` for what stands deeper than the top level.
    """
    for name in prompt.others:
        if not _WHOLE_NAME.fullmatch(name):
            raise InvalidRequest.at(name, CANNOT, "leave it out, or use another model")
    return {**prompt.hints, **prompt.others}


def text(value: object, at: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequest.at(at, "is not text")
    return value


def optional_text(value: object, at: str) -> str | None:
    return None if value is None else text(value, at)


def optional_number(value: object, at: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _MOST:
        raise InvalidRequest.at(at, "is not a number of a usual size")
    return value


def optional_whole(value: object, at: str, *, least: int = 0, most: int = _MOST) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidRequest.at(at, f"is not a whole number between {least} and {most}")
    return value


def optional_flag(value: object, at: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise InvalidRequest.at(at, "is neither true nor false")
    return value


def optional_object(value: object, at: str) -> dict[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise InvalidRequest.at(at, "is not an object")
    return value


def items(value: object, at: str) -> list[Any]:
    """``value`` as a list; None is an empty one."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidRequest.at(at, "is not a list")
    return value


def texts(value: object, at: str) -> tuple[str, ...]:
    return tuple(text(each, f"{at}[{i}]") for i, each in enumerate(items(value, at)))


def cache_control(holder: Mapping[str, Any], at: str) -> dict[str, Any] | None:
    """Anthropic's mark that the prompt is to be kept up to here."""
    return optional_object(holder.get("cache_control"), f"{at}.cache_control")


def parameters(value: object, at: str) -> Json | None:
    """The schema of a tool's arguments; None for one that takes none, in either spelling."""
    schema = optional_object(value, at)
    return None if schema in (None, {}, _NO_PARAMETERS) else schema


def schema_of(parameters: Json | None) -> Json:
    """A schema for those who insist on one."""
    if parameters is None:
        return _NO_PARAMETERS
    return parameters if "type" in parameters else {"type": "object", **parameters}


def arguments(value: object, at: str) -> str:
    """A call's arguments: the text of one JSON object, checked as strictly as a body is."""
    words = text(value, at)
    if not words.strip():
        return "{}"
    try:
        found = json_body.decode(words.encode())
    except InvalidRequest:
        found = None
    if not isinstance(found, dict):
        raise InvalidRequest.at(at, "is not the text of a JSON object")
    return words


def raw_arguments(call: Call) -> msgspec.Raw:
    """A call's arguments for those who take them as an object: unchanged, but surely one."""
    text = call.arguments.encode()
    try:
        _ARGUMENTS.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest.at(call.at, "has arguments that are no JSON object") from None
    return msgspec.Raw(text)


def attachment(
    kind: Literal["image", "file"], url: str, at: str, *, name: str = "", **more: Any
) -> Attachment:
    """What a URL holds, if it is one of data, or where it leads; raises for any other."""
    if match := _DATA_URL.match(url):
        return data_of(kind, match[1].lower(), url[match.end() :], name=name, at=at, **more)
    if kind == "image" and url.startswith(("https://", "http://")):
        return Attachment(kind=kind, url=url, name=name, at=at, **more)
    raise InvalidRequest.at(
        at, "is no base64 data URL" + (" and no web address" if kind == "image" else "")
    )


def data_of(kind: Literal["image", "file"], media_type: str, data: str, **more: Any) -> Attachment:
    """An attachment of base64 ``data``; a file's plain text is taken out of it."""
    if kind == "file" and media_type == "text/plain" and (words := plain_text(data)):
        return Attachment(kind=kind, text=words, **more)
    return Attachment(kind=kind, media_type=media_type, data=data, **more)


def plain_text(data: str) -> str | None:
    """The text in base64 ``data``, None if there is none."""
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, ValueError):
        return None


def thinking(value: object, at: str) -> Reasoning | None:
    """Anthropic's ``thinking``, which some send in chat completions too; None if not known."""
    given = optional_object(value, at) or {}
    mode = given.get("type")
    if mode not in ("enabled", "adaptive", "disabled"):
        return None
    return Reasoning(
        mode=mode,
        budget=optional_whole(given.get("budget_tokens"), f"{at}.budget_tokens"),
        display=optional_text(given.get("display"), f"{at}.display"),
    )


def written_thinking(reasoning: Reasoning) -> dict[str, Any] | None:
    """The same, written."""
    if reasoning.mode is None:
        return None
    written: dict[str, Any] = {"type": reasoning.mode}
    if reasoning.budget is not None:
        written["budget_tokens"] = reasoning.budget
    if reasoning.display is not None:
        written["display"] = reasoning.display
    return written
