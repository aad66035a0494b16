"""The messages of a chat-completions request, read for those who must translate them.

A provider of OpenAI's dialect gets them as they came; the others need to know
what they hold.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from appliance.model.errors import InvalidRequest

_DATA_URL = re.compile(r"data:([A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+)(?:;[a-z0-9-]+=[^;,]*)*;base64,")


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """An image or a document: base64 ``data`` of a ``media_type``, or a ``url`` to fetch."""

    kind: str  # "image" or "file"
    media_type: str = ""
    data: str = ""
    url: str = ""
    name: str = ""


Part = Text | Attachment


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One message; ``field`` is where it stands in the request, for complaints."""

    field: str
    role: str  # system, user, assistant or tool
    parts: tuple[Part, ...]
    calls: tuple[ToolCall, ...] = ()
    answers: str = ""  # the id of the call that a tool's message answers

    @property
    def text(self) -> str:
        return "\n\n".join(part.text for part in self.parts if isinstance(part, Text))


def read_messages(body: Mapping[str, bytes]) -> list[Message]:
    """Read ``messages``; raise :exc:`InvalidRequest` naming what cannot be understood."""
    messages = read_member(body, "messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest.at("messages", "is not a list of messages", "send at least one")
    return [_read_message(f"messages[{i}]", message) for i, message in enumerate(messages)]


def read_member(body: Mapping[str, bytes], name: str) -> Any:
    """The decoded value of one top-level key, None if it is missing or null."""
    return msgspec.json.decode(body[name]) if name in body else None


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
        reason = "cannot be expressed to this model's provider"
        raise InvalidRequest.at(name, reason, "leave it out, or use another model")


def read_stops(body: Mapping[str, bytes]) -> list[str]:
    """``stop`` as a list."""
    stop = read_member(body, "stop")
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(each, str) for each in stops):
        raise InvalidRequest.at("stop", "is not text or a list of texts")
    return stops


def read_tools(body: Mapping[str, bytes]) -> list[Mapping[str, Any]]:
    """The ``function`` of each of ``tools``."""
    tools = read_member(body, "tools") or []
    if not isinstance(tools, list):
        raise InvalidRequest.at("tools", "is not a list of tools")
    functions: list[Mapping[str, Any]] = []
    for i, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise InvalidRequest.at(f"tools[{i}]", "is not a function tool", "give it a name")
        functions.append(function)
    return functions


def _read_message(field: str, message: object) -> Message:
    if not isinstance(message, dict):
        raise InvalidRequest.at(field, "is not a message")
    role = message.get("role")
    if role == "developer":
        role = "system"
    if not isinstance(role, str) or role not in {"system", "user", "assistant", "tool"}:
        raise InvalidRequest.at(
            f"{field}.role", "is not a role", "use system, developer, user, assistant or tool"
        )
    answers = message.get("tool_call_id") if role == "tool" else ""
    if not isinstance(answers, str):
        raise InvalidRequest.at(f"{field}.tool_call_id", "is missing", "name the call it answers")
    return Message(
        field=field,
        role=role,
        parts=tuple(_read_content(f"{field}.content", message.get("content"))),
        calls=tuple(_read_calls(f"{field}.tool_calls", message.get("tool_calls"))),
        answers=answers,
    )


def _read_content(field: str, content: object) -> Iterator[Part]:
    if content is None:
        return
    if isinstance(content, str):
        if content:
            yield Text(content)
        return
    if not isinstance(content, list):
        raise InvalidRequest.at(field, "is neither text nor a list of parts")
    for i, part in enumerate(content):
        yield _read_part(f"{field}[{i}]", part)


def _read_part(field: str, part: object) -> Part:
    match part:
        case {"type": "text", "text": str(text)}:
            return Text(text)
        case {"type": "refusal", "refusal": str(text)}:
            return Text(text)
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return _read_url(f"{field}.image_url.url", "image", url)
        case {"type": "file", "file": {"file_data": str(url), **rest}}:
            name = rest.get("filename")
            return _read_url(f"{field}.file.file_data", "file", url, str(name or ""))
        case {"type": str(kind)}:
            raise InvalidRequest.at(field, f"a part of type {kind[:40]} cannot be read here")
    raise InvalidRequest.at(field, "is not a content part", "give it a type")


def _read_url(field: str, kind: str, url: str, name: str = "") -> Attachment:
    if match := _DATA_URL.match(url):
        return Attachment(kind, media_type=match[1].lower(), data=url[match.end() :], name=name)
    if kind == "image" and url.startswith(("https://", "http://")):
        return Attachment(kind, url=url, name=name)
    raise InvalidRequest.at(
        field, "is no base64 data URL" + (" and no web address" if kind == "image" else "")
    )


def _read_calls(field: str, calls: object) -> Iterator[ToolCall]:
    for i, call in enumerate(calls if isinstance(calls, list) else ()):
        match call:
            case {"id": str(id_), "function": {"name": str(name), "arguments": str(arguments)}}:
                yield ToolCall(id_, name, _read_arguments(f"{field}[{i}]", arguments))
            case _:
                raise InvalidRequest.at(f"{field}[{i}]", "is not a tool call")


def _read_arguments(field: str, text: str) -> Mapping[str, Any]:
    try:
        arguments = msgspec.json.decode(text) if text.strip() else {}
    except (msgspec.DecodeError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidRequest.at(f"{field}.function.arguments", "is not the text of a JSON object")
    return arguments
