"""The messages of Anthropic's Messages API, read and written.

Reference: "Create a Message", ``messages`` and ``system``. Blocks that only
Anthropic's own tools leave behind are refused, and so is whatever a block has
that is not read: no other provider can take them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from appliance.model.calls import Dialect
from appliance.model.errors import InvalidRequest
from appliance.model.prompts import (
    Attachment,
    Block,
    Call,
    Json,
    Message,
    Prompt,
    Refusal,
    Result,
    Role,
    Text,
    Thinking,
)
from appliance.protocols import request_members as members
from appliance.protocols.known_members import require_known
from appliance.protocols.responses import seals

_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9_-]")
_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_TEXTS = frozenset({"application/json", "application/xml", "application/yaml"})
_ROLES = {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM}
_DIRECT = {"type": "direct"}  # a call that the model made itself, not a program of its own
# What becomes of a picture anyway.
_UNCHANGED: Sequence[Json] = ({}, {"oversized_image": "downsize"})
# The members of each block that are read.
_TEXT = frozenset({"cache_control", "text", "type"})
_BLOCKS: Mapping[str, frozenset[str]] = {
    "text": _TEXT,
    # Where an earlier answer is from is told about it, and says nothing more.
    "answer": _TEXT | {"citations"},
    "image": frozenset({"cache_control", "source", "transformations", "type"}),
    "document": frozenset({"cache_control", "citations", "context", "source", "title", "type"}),
    "thinking": frozenset({"signature", "thinking", "type"}),
    "redacted_thinking": frozenset({"data", "type"}),
    "tool_use": frozenset({"cache_control", "caller", "id", "input", "name", "type"}),
    "tool_result": frozenset({"cache_control", "content", "is_error", "tool_use_id", "type"}),
}
_MESSAGE = frozenset({"content", "role"})
_SOURCE = frozenset({"content", "data", "file_id", "media_type", "type", "url"})
_FOREIGN = "is for Anthropic's own models; this model's provider cannot take it"


def read_system(value: object) -> tuple[Message, ...]:
    """Read ``system``: text, or blocks of text."""
    blocks = tuple(_text_blocks("system", value))
    return (Message(role=Role.SYSTEM, blocks=blocks, at="system"),) if blocks else ()


def _text_blocks(at: str, value: object) -> Iterator[Text]:
    if isinstance(value, str):
        if value:
            yield Text(text=value, at=at)
        return
    for i, block in enumerate(members.items(value, at)):
        match block:
            case {"type": "text", "text": str(text)}:
                where = f"{at}[{i}]"
                require_known(block, where, _TEXT)
                yield Text(text=text, cache=members.cache_control(block, where), at=where)
            case _:
                raise InvalidRequest.at(f"{at}[{i}]", "is no block of text")


def read_messages(value: object) -> tuple[Message, ...]:
    """Read ``messages``; raise :exc:`InvalidRequest` naming what cannot be understood.

    The results in a user's message become one before it.
    """
    if not isinstance(value, list) or not value:
        raise InvalidRequest.at("messages", "is not a list of messages", "send at least one")
    return tuple(
        read for i, message in enumerate(value) for read in _messages(f"messages[{i}]", message)
    )


def _messages(at: str, message: object) -> Iterator[Message]:
    if not isinstance(message, dict):
        raise InvalidRequest.at(at, "is not a message")
    given = message.get("role")
    role = _ROLES.get(given) if isinstance(given, str) else None
    if role is None:
        raise InvalidRequest.at(f"{at}.role", "is not a role", "use user or assistant")
    require_known(message, at, _MESSAGE)
    content = message.get("content")
    if role is Role.SYSTEM:
        yield Message(role=role, blocks=tuple(_text_blocks(f"{at}.content", content)), at=at)
        return
    text = "answer" if role is Role.ASSISTANT else "text"
    blocks = _content(f"{at}.content", content, text=text)
    if role is Role.ASSISTANT:
        yield Message(role=role, blocks=tuple(blocks), at=at)
        return
    results = tuple(block for block in blocks if isinstance(block, Result))
    rest = tuple(block for block in blocks if not isinstance(block, Result))
    if results:
        yield Message(role=Role.TOOL, blocks=results, at=at)
    if rest or not results:
        yield Message(role=role, blocks=rest, at=at)


def _content(at: str, content: object, *, text: str = "text") -> list[Block]:
    """``text`` is what a block of text is called in ``_BLOCKS``."""
    if isinstance(content, str):
        return [Text(text=content, at=at)] if content else []
    if not isinstance(content, list):
        raise InvalidRequest.at(at, "is neither text nor a list of blocks")
    found: list[Block] = []
    for i, block in enumerate(content):
        where = f"{at}[{i}]"
        found += _block(where, block)
        require_known(block, where, _BLOCKS[text if block["type"] == "text" else block["type"]])
    return found


def _block(at: str, block: object) -> Iterator[Block]:
    cache = members.cache_control(block, at) if isinstance(block, dict) else None
    match block:
        case {"type": "text", "text": str(text)}:
            yield Text(text=text, cache=cache, at=at)
        case {"type": "image", "source": dict(source), **rest}:
            if rest.get("transformations") not in (None, *_UNCHANGED):
                raise InvalidRequest.at(f"{at}.transformations", _FOREIGN)
            yield _image(f"{at}.source", source, cache)
        case {"type": "document", "source": dict(source), **rest}:
            yield from _document(at, rest, source, cache)
        case {"type": "thinking", "thinking": str(text), **rest}:
            signature = members.optional_text(rest.get("signature"), f"{at}.signature") or ""
            yield Thinking(text=text, signature=signature, dialect=Dialect.ANTHROPIC, at=at)
        case {"type": "redacted_thinking", "data": str(data)}:
            yield Thinking(hidden=data, dialect=Dialect.ANTHROPIC, at=at)
        case {"type": "tool_use", "id": str(id_), "name": str(name), "input": dict(given), **rest}:
            if rest.get("caller") not in (None, _DIRECT):
                raise InvalidRequest.at(f"{at}.caller", _FOREIGN)
            arguments = members.encoded(f"{at}.input", given).decode()
            yield Call(id=id_, name=name, arguments=arguments, cache=cache, at=at)
        case {"type": "tool_result", "tool_use_id": str(call_id), **rest}:
            yield Result(
                call_id=call_id,
                parts=tuple(_parts(f"{at}.content", rest.get("content"))),
                is_error=members.optional_flag(rest.get("is_error"), f"{at}.is_error") or False,
                cache=cache,
                at=at,
            )
        case _:
            raise _not_read(at, block)


def _not_read(at: str, block: object) -> InvalidRequest:
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(kind, str):
        return InvalidRequest.at(at, "is not a content block", "give it a type")
    return InvalidRequest.at(at, f"a block of type {kind[:40]!r} cannot be read here")


def _parts(at: str, content: object) -> Iterator[Text | Attachment]:
    if content is None:
        return
    for part in _content(at, content):
        if not isinstance(part, Text | Attachment):
            raise InvalidRequest.at(part.at, "cannot stand in the result of a tool")
        yield part


def _image(at: str, source: Mapping[str, Any], cache: Json | None) -> Attachment:
    require_known(source, at, _SOURCE)
    match source:
        case {"type": "base64", "media_type": str(media_type), "data": str(data)}:
            return Attachment(
                kind="image", media_type=media_type, data=data, cache=cache, at=f"{at}.data"
            )
        case {"type": "url", "url": str(url)} if url.startswith(("https://", "http://")):
            return Attachment(kind="image", url=url, cache=cache, at=f"{at}.url")
        case {"type": "file", "file_id": str(file_id)} if file_id:
            return Attachment(kind="image", file_id=file_id, cache=cache, at=f"{at}.file_id")
    raise InvalidRequest.at(at, "is neither base64 data, a web address nor a file")


def _document(
    at: str, block: Mapping[Any, Any], source: Mapping[str, Any], cache: Json | None
) -> Iterator[Text | Attachment]:
    for name in ("citations", "context"):
        if block.get(name) not in (None, "", {}, {"enabled": False}):
            raise InvalidRequest.at(f"{at}.{name}", _FOREIGN)
    title = members.optional_text(block.get("title"), f"{at}.title") or ""
    where = f"{at}.source"
    require_known(source, where, _SOURCE)
    match source:
        case {"type": "base64", "media_type": str(media_type), "data": str(data)}:
            yield members.data_of(
                "file", media_type, data, name=title, cache=cache, at=f"{where}.data"
            )
        case {"type": "text", "data": str(text)} if text:
            yield Attachment(kind="file", text=text, name=title, cache=cache, at=f"{where}.data")
        case {"type": "url", "url": str(url)} if url.startswith(("https://", "http://")):
            yield Attachment(kind="file", url=url, name=title, cache=cache, at=f"{where}.url")
        case {"type": "file", "file_id": str(id_)} if id_:
            yield Attachment(
                kind="file", file_id=id_, name=title, cache=cache, at=f"{where}.file_id"
            )
        case {"type": "content", "content": content}:
            # Its parts are told apart for citations only, which nobody asked for.
            parts = list(_parts(f"{where}.content", content))
            if title:
                parts.insert(0, Text(text=title, at=f"{at}.title"))
            if cache is not None and parts:
                parts[-1] = replace(parts[-1], cache=cache)
            yield from parts
        case _:
            raise InvalidRequest.at(where, "is not the source of a document")


def write_system(prompt: Prompt) -> Any:
    """All that the system and the developer say; None for nothing.

    Here it comes before the conversation, wherever it stood.
    """
    said = [each for each in prompt.messages if each.role in {Role.SYSTEM, Role.DEVELOPER}]
    blocks: list[dict[str, Any]] = []
    for message in said:
        for block in message.blocks:
            if not isinstance(block, Text):
                raise InvalidRequest.at(
                    block.at or message.at, "is no text, which is all the system may say there"
                )
            blocks += _written_text(block.text, block.cache)
    match blocks:
        case []:
            return None
        case [{"text": text, **rest}] if "cache_control" not in rest:
            return text
    return blocks


def write_messages(prompt: Prompt) -> list[dict[str, Any]]:
    """The turns, alternating: neighbours of one role become one message.

    All results of a round of tool calls must stand in one user message, before
    any text in it. Lost are the names of those who speak in one role, and the
    detail in which a picture is looked at.
    """
    writer = _Writer(_Ids())
    turns: list[tuple[str, list[dict[str, Any]]]] = []
    for message in prompt.messages:
        if message.role in {Role.SYSTEM, Role.DEVELOPER}:
            continue
        role = "assistant" if message.role is Role.ASSISTANT else "user"
        blocks = [written for block in message.blocks for written in writer.block(message, block)]
        if not blocks:
            continue  # an empty message is an error there
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        else:
            turns.append((role, blocks))
    if not turns:
        raise InvalidRequest.at(
            "messages", "nobody but the system speaks", "add a message of the user's"
        )
    return [
        {"role": role, "content": _results_first(blocks) if role == "user" else blocks}
        for role, blocks in turns
    ]


def _results_first(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(blocks, key=lambda block: block["type"] != "tool_result")


class _Ids:
    """Other providers' ids may hold what Anthropic's may not; each changes the same way always."""

    def __init__(self) -> None:
        self._written: dict[str, str] = {}
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}  # by what is left of an id, so no number is tried twice

    def __getitem__(self, given: str) -> str:
        if given not in self._written:
            plain = known = _NOT_IN_AN_ID.sub("_", given) or "_"
            while known in self._taken:  # two that differ only in what is replaced
                number = self._next[plain] = self._next.get(plain, 0) + 1
                known = f"{plain}_{number}"
            self._written[given] = known
            self._taken.add(known)
        return self._written[given]


class _Writer:
    def __init__(self, ids: _Ids) -> None:
        self._ids = ids

    def block(self, message: Message, block: Block) -> Iterable[dict[str, Any]]:
        match block:
            case Text():
                return _written_text(block.text, block.cache)
            case Refusal(text=text):
                return _written_text(text, None)
            case Thinking():
                return _written_thought(block)
            case Attachment():
                return [_written_attachment(message, block)]
            case Call():
                return [self._call(block)]
            case Result():
                return [self._result(message, block)]

    def _call(self, call: Call) -> dict[str, Any]:
        written = {
            "type": "tool_use",
            "id": self._ids[call.id],
            "name": call.name,
            "input": members.raw_arguments(call),
        }
        return _marked(call.cache, written)

    def _result(self, message: Message, result: Result) -> dict[str, Any]:
        content = [block for part in result.parts for block in self.block(message, part)]
        written: dict[str, Any] = {
            "type": "tool_result",
            "tool_use_id": self._ids[result.call_id],
        }
        if content:
            written["content"] = content
        if result.is_error:
            written["is_error"] = True
        return _marked(result.cache, written)


def _marked(cache: Json | None, written: dict[str, Any]) -> dict[str, Any]:
    if cache is not None:
        written["cache_control"] = cache
    return written


def _written_text(text: str, cache: Json | None) -> Sequence[dict[str, Any]]:
    # An empty text is an error there.
    return [_marked(cache, {"type": "text", "text": text})] if text else []


def _written_thought(thought: Thinking) -> Sequence[dict[str, Any]]:
    """Only what Anthropic sealed: it refuses all other thinking."""
    if thought.dialect not in {None, Dialect.ANTHROPIC}:
        return []
    if hidden := thought.hidden:
        # Callers carry what another provider hid in a seal of ours.
        if seals.is_ours(hidden):
            hidden = seals.hidden_of(hidden, Dialect.ANTHROPIC) or ""
        return [{"type": "redacted_thinking", "data": hidden}] if hidden else []
    if thought.signature:
        written = {"thinking": thought.text, "signature": thought.signature}
        return [{"type": "thinking", **written}]
    return []


def _written_attachment(message: Message, block: Attachment) -> dict[str, Any]:
    source, is_image = _source(message, block)
    if is_image:
        return _marked(block.cache, {"type": "image", "source": source})
    written: dict[str, Any] = {"type": "document", "source": source}
    if block.name:
        written["title"] = block.name
    return _marked(block.cache, written)


def _source(message: Message, block: Attachment) -> tuple[dict[str, Any], bool]:
    """The source of an attachment, and whether it is a picture."""
    is_image = block.kind == "image"
    if block.kind != "audio":
        if block.url:
            return {"type": "url", "url": block.url}, is_image
        if block.file_id:
            return {"type": "file", "file_id": block.file_id}, is_image
        if block.text:
            return {"type": "text", "media_type": "text/plain", "data": block.text}, False
        media_type, data = block.media_type, block.data
        if media_type in _IMAGES or media_type == "application/pdf":
            source = {"type": "base64", "media_type": media_type, "data": data}
            return source, media_type in _IMAGES
        is_text = media_type.startswith("text/") or media_type in _TEXTS
        if is_text and (text := members.plain_text(data)):
            return {"type": "text", "media_type": "text/plain", "data": text}, False
    raise InvalidRequest.at(
        block.at or message.at,
        f"{block.media_type or block.kind} cannot be read by this model's provider",
        "send JPEG, PNG, GIF, WebP, PDF or text",
    )
