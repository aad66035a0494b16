"""Items and the messages of a ``Prompt`` that mean the same.

A turn of a model is several items here (what it thought, what it said, the
tools it called) and one message there; so are the results of its calls.
"""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from appliance.model.calls import Dialect
from appliance.model.errors import InvalidRequest
from appliance.model.prompts import (
    CANNOT,
    Attachment,
    Block,
    Call,
    Message,
    Refusal,
    Result,
    Role,
    Text,
    Thinking,
)
from appliance.protocols import request_members
from appliance.protocols.responses import seals
from appliance.protocols.responses.items import BREAKPOINT, MARKED, OF_THIS_API, TOOL_CALL, Item

_AUDIO_TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg"}
_AUDIO_FORMATS = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}
_DOCUMENT = "document"  # a file whose name nobody gave; providers want one
_EXTENSIONS = {"application/pdf": "pdf", "text/plain": "txt"}
SUMMARY = "The conversation so far, in short:\n\n"


def read_messages(items: Sequence[Item]) -> tuple[Message, ...]:
    """Raises :exc:`InvalidRequest` for what only the provider of an item could read."""
    turns: list[_Turn] = []
    for number, item in enumerate(items):
        for message in _read(item, f"input[{number}]"):
            if not turns or not turns[-1].goes_on_with(message):
                turns.append(_Turn(message))
            else:
                turns[-1].add(message)
    return tuple(turn.message() for turn in turns)


class _Turn:
    """Neighbours that become one message. Each is looked at once, however many there are."""

    __slots__ = ("_blocks", "_calls", "_first", "_phase", "_says")

    def __init__(self, first: Message) -> None:
        self._first = first
        self._blocks: list[Block] = []
        self._phase = ""
        self._says = False
        self._calls = False
        self.add(first)

    def goes_on_with(self, message: Message) -> bool:
        """Whether ``message`` is of this turn: nothing but a call is followed by more of it."""
        role = self._first.role
        if role is not message.role or role not in (Role.ASSISTANT, Role.TOOL):
            return False
        if role is Role.TOOL or any(isinstance(block, Call) for block in message.blocks):
            return True
        return not self._says or self._calls

    def add(self, message: Message) -> None:
        blocks = message.blocks
        self._blocks += blocks
        self._phase = message.phase or self._phase
        self._says = self._says or any(isinstance(block, Text | Refusal) for block in blocks)
        self._calls = self._calls or any(isinstance(block, Call) for block in blocks)

    def message(self) -> Message:
        return replace(self._first, blocks=tuple(self._blocks), phase=self._phase)


def _read(item: Item, at: str) -> Iterator[Message]:
    match item["type"]:
        case "message":
            role = Role(item["role"])
            parts = enumerate(item["content"])
            blocks = tuple(_read_part(part, f"{at}.content[{number}]") for number, part in parts)
            yield Message(role=role, blocks=blocks, phase=item.get("phase", ""), at=at)
        case "function_call":
            yield _message(Role.ASSISTANT, _read_call(item, at), at)
        case "custom_tool_call":
            yield _message(Role.ASSISTANT, _read_custom_call(item, at), at)
        case "function_call_output" | "custom_tool_call_output":
            yield _message(Role.TOOL, _read_result(item, at), at)
        case "reasoning":
            if thinking := _read_thinking(item, at):
                yield _message(Role.ASSISTANT, thinking, at)
        case "compaction":
            summary = seals.summary_of(item["encrypted_content"])
            if summary is None:
                raise InvalidRequest.at(
                    at,
                    "can only be read by who compacted the conversation",
                    "send the conversation itself, or use the provider it is from",
                )
            yield _message(Role.USER, Text(text=SUMMARY + summary, at=at), at)
        case other if other == TOOL_CALL:
            yield _message(Role.ASSISTANT, _read_call(item, at), at)
            yield _message(Role.TOOL, _read_result(item, at), at)
        case kind if kind in OF_THIS_API:
            raise InvalidRequest.at(
                f"{at}.type", f"{kind} {CANNOT}", "leave it out, or use another model"
            )
        case _:
            raise InvalidRequest.at(at, "refers to an item that is not here", "send the item")


def _message(role: Role, block: Block, at: str) -> Message:
    return Message(role=role, blocks=(block,), at=at)


def _read_call(item: Item, at: str) -> Call:
    arguments = request_members.arguments(item["arguments"], f"{at}.arguments")
    return Call(id=item["call_id"], name=item["name"], arguments=arguments, at=at)


def _read_custom_call(item: Item, at: str) -> Call:
    return Call(
        id=item["call_id"], name=item["name"], arguments=item["input"], is_custom=True, at=at
    )


def _read_result(item: Item, at: str) -> Result:
    output = item["output"]
    parts: list[Text | Attachment] = []
    if isinstance(output, str):
        parts = [Text(text=output, at=f"{at}.output")] if output else []
    else:
        for number, part in enumerate(output):
            block = _read_part(part, f"{at}.output[{number}]")
            if isinstance(block, Text | Attachment):
                parts.append(block)
    return Result(
        call_id=item["call_id"], parts=tuple(parts), is_error=item.get("is_error", False), at=at
    )


def _read_thinking(item: Item, at: str) -> Thinking | None:
    """None where nothing of it is left that could be sent back."""
    said = item["summary"] or item.get("content", ())
    text = "\n\n".join(part["text"] for part in said)
    sealed = item.get("encrypted_content", "")
    thinking = Thinking(text=text, id=item["id"], at=at)
    if not seals.is_ours(sealed):
        if sealed:
            return replace(thinking, hidden=sealed, dialect=Dialect.RESPONSES)
        return thinking if text else None
    match seals.unseal(sealed):
        case {"thinking": str(text), "signature": str(signature)}:
            return replace(thinking, text=text, signature=signature, dialect=Dialect.ANTHROPIC)
        case {"hidden": str(hidden), "dialect": str(dialect)} if dialect in set(Dialect):
            return replace(thinking, hidden=hidden, dialect=Dialect(dialect))
    raise InvalidRequest.at(f"{at}.encrypted_content", "is damaged", "leave the item out")


def _read_part(part: Item, at: str) -> Text | Refusal | Attachment:
    block = _read_unmarked(part, at)
    mark = part.get(BREAKPOINT)
    return block if mark is None or isinstance(block, Refusal) else replace(block, breakpoint=mark)


def _read_unmarked(part: Item, at: str) -> Text | Refusal | Attachment:
    match part["type"]:
        case "refusal":
            return Refusal(text=part["refusal"], at=at)
        case "input_image":
            detail = "" if part["detail"] == "auto" else part["detail"]
            return replace(_read_image(part, at), detail=detail)
        case "input_file":
            return replace(_read_file(part, at), name=part.get("filename", ""))
        case "input_audio":
            audio = part["input_audio"]
            kind = _AUDIO_TYPES[audio["format"]]
            return Attachment(kind="audio", media_type=kind, data=audio["data"], at=at)
        case _:
            return Text(text=part["text"], at=at)


def _read_image(part: Item, at: str) -> Attachment:
    if part.get("file_id"):
        return Attachment(kind="image", file_id=part["file_id"], at=at)
    image = request_members.attachment("image", part["image_url"], f"{at}.image_url")
    if (image.data and not image.media_type.startswith("image/")) or image.text:
        raise InvalidRequest.at(f"{at}.image_url", "is no picture")
    return image


def _read_file(part: Item, at: str) -> Attachment:
    if "file_id" in part:
        return Attachment(kind="file", file_id=part["file_id"], at=at)
    if "file_data" in part:
        return request_members.attachment("file", part["file_data"], f"{at}.file_data")
    if not part["file_url"].startswith(("https://", "http://")):
        raise InvalidRequest.at(f"{at}.file_url", "is no web address")
    return Attachment(kind="file", url=part["file_url"], at=at)


def write_items(messages: Sequence[Message]) -> list[Item]:
    """Raises :exc:`InvalidRequest` for what this API has no item for."""
    custom: set[str] = set()
    return [item for message in messages for item in _write(message, custom)]


def _write(message: Message, custom: set[str]) -> Iterator[Item]:
    """Neighbours that are parts of a message become one.

    ``custom`` are the calls of custom tools so far, whose results are items of another kind.
    """
    content: list[Item] = []
    for block in message.blocks:
        match block:
            case Text() | Refusal() | Attachment():
                content.append(_write_part(block, message))
                continue
            case _:
                if content:
                    yield _write_message(message, content)
                    content = []
        match block:
            case Call(is_custom=True):
                custom.add(block.id)
                yield {
                    "type": "custom_tool_call",
                    "call_id": block.id,
                    "name": block.name,
                    "input": block.arguments,
                }
            case Call():
                custom.discard(block.id)  # some models number the calls of each turn anew
                yield {
                    "type": "function_call",
                    "call_id": block.id,
                    "name": block.name,
                    "arguments": block.arguments,
                }
            case Result():
                is_custom = block.call_id in custom
                yield {
                    "type": "custom_tool_call_output" if is_custom else "function_call_output",
                    "call_id": block.call_id,
                    "output": _write_output(block, message),
                }
            case Thinking():
                yield _write_thinking(block)
    if content or not message.blocks:
        yield _write_message(message, content)


def _write_message(message: Message, content: list[Item]) -> Item:
    item: Item = {"type": "message", "role": message.role.value, "content": content}
    return {**item, "phase": message.phase} if message.phase else item


def _write_thinking(thinking: Thinking) -> Item:
    summary = [{"type": "summary_text", "text": thinking.text}] if thinking.text else []
    item: Item = {"type": "reasoning", "summary": summary}
    if thinking.hidden:
        return {**item, "encrypted_content": _write_hidden(thinking)}
    if thinking.signature:
        sealed = seals.seal_thinking(thinking.text, thinking.signature)
        return {**item, "encrypted_content": sealed}
    return item


def _write_hidden(thinking: Thinking) -> str:
    """As the provider made it where it is one of this API, else sealed."""
    own = seals.hidden_of(thinking.hidden, Dialect.RESPONSES)
    if own is not None:
        return own
    if thinking.dialect is None or thinking.dialect is Dialect.RESPONSES:
        return thinking.hidden
    return seals.seal_hidden(thinking.hidden, thinking.dialect)


def _write_output(result: Result, message: Message) -> str | list[Item]:
    match result.parts:
        case ():
            return "error" if result.is_error else ""  # there is no other word for it
        case (Text(text=text, breakpoint=None),) if text:
            return text
        case parts:
            return [_write_part(part, message) for part in parts]


def _write_part(block: Text | Refusal | Attachment, message: Message) -> Item:
    of_assistant = message.role is Role.ASSISTANT
    match block:
        case Text(text=text):
            kind = "output_text" if of_assistant else "input_text"
            return _marked(block, {"type": kind, "text": text})
        case Refusal(text=text) if of_assistant:
            return {"type": "refusal", "refusal": text}
        case Attachment() if message.role in (Role.USER, Role.TOOL):
            return _marked(block, _write_attachment(block))
    raise InvalidRequest.at(
        block.at or message.at or "messages",
        f"cannot stand in a message of role {message.role} for this model's provider",
    )


def _marked(block: Text | Attachment, part: Item) -> Item:
    """With the end of what is to be cached, where a part of that kind may say so."""
    if block.breakpoint is None or part["type"] not in MARKED:
        return part
    return {**part, BREAKPOINT: block.breakpoint}


def _write_attachment(block: Attachment) -> Item:
    match block.kind:
        case "image":
            where: dict[str, Any] = {"detail": block.detail or "auto"}
            if block.file_id:
                return {"type": "input_image", "file_id": block.file_id, **where}
            return {"type": "input_image", "image_url": _url(block), **where}
        case "audio":
            form = _AUDIO_FORMATS.get(block.media_type)
            if form is None or not block.data:
                raise InvalidRequest.at(block.at, "is no sound that can be sent", "send wav or mp3")
            return {"type": "input_audio", "input_audio": {"data": block.data, "format": form}}
        case _:
            return _write_file(block)


def _write_file(block: Attachment) -> Item:
    item: Item = {"type": "input_file"}
    if block.name:
        item["filename"] = block.name
    if block.file_id:
        return {**item, "file_id": block.file_id}
    if block.url:
        return {**item, "file_url": block.url}
    extension = _EXTENSIONS.get("text/plain" if block.text else block.media_type, "bin")
    item.setdefault("filename", f"{_DOCUMENT}.{extension}")
    if block.text:
        data = base64.b64encode(block.text.encode()).decode()
        return {**item, "file_data": f"data:text/plain;base64,{data}"}
    return {**item, "file_data": _url(block)}


def _url(block: Attachment) -> str:
    return block.url or f"data:{block.media_type};base64,{block.data}"
