"""The messages of a chat completion, read and written (OpenAI's API reference, "Messages").

Beside OpenAI's own words these understand what several clients and providers
add: ``cache_control`` on parts and messages, ``reasoning_content`` and
``thinking_blocks`` on the assistant's. Anything else is refused by name.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
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
from appliance.protocols.openai_calls import read_calls, read_result, written_call

_ROLES = {role.value: role for role in Role} | {"function": Role.TOOL}
_SOUNDS = {"mp3": "audio/mpeg"}  # formats that are not called as their media type
_FORMATS = {media_type: name for name, media_type in _SOUNDS.items()}
_FILE_TYPES = {"pdf": "application/pdf", "txt": "text/plain"}
_EXTENSIONS = {media_type: extension for extension, media_type in _FILE_TYPES.items()}
_BREAKPOINT = "prompt_cache_breakpoint"

# The members of each thing that are read or say nothing. To the latter belongs
# what providers and clients tell about an earlier answer beside the answer.
_SAID = frozenset({"cache_control", "content", "name", "role"})
_ANSWERED = frozenset(
    {
        "annotations",
        "audio",
        "function_call",
        "parsed",
        "provider_specific_fields",
        "reasoning",
        "reasoning_content",
        "reasoning_details",
        "refusal",
        "thinking_blocks",
        "tool_calls",
    }
)
_MEMBERS = {Role.ASSISTANT: _SAID | _ANSWERED, Role.TOOL: _SAID | {"tool_call_id"}}
_PART = frozenset(
    {"cache_control", "file", "image_url", "input_audio", "text", "type", _BREAKPOINT}
)
_IMAGE = frozenset({"detail", "url"})
_SOUND = frozenset({"data", "format"})
_FILE = frozenset({"file_data", "file_id", "filename"})
_THOUGHT = frozenset({"cache_control", "data", "index", "signature", "thinking", "type"})


def read_messages(value: object) -> tuple[Message, ...]:
    """Read ``messages``; raise :exc:`InvalidRequest` naming what cannot be understood.

    The results of one round of calls become one message.
    """
    if not isinstance(value, list) or not value:
        raise InvalidRequest.at("messages", "is not a list of messages", "send at least one")
    names: dict[str, str] = {}
    read = [_message(f"messages[{i}]", message, names) for i, message in enumerate(value)]
    messages: list[Message] = []
    for is_round, group in groupby(read, key=lambda message: message.role is Role.TOOL):
        if not is_round:
            messages += group
            continue
        first, *others = group
        results = [*first.blocks, *(block for each in others for block in each.blocks)]
        messages.append(replace(first, blocks=tuple(results)))
    return tuple(messages)


def _message(at: str, message: object, functions: dict[str, str]) -> Message:
    """``functions`` are the ids that calls of the older kind were given, by function."""
    if not isinstance(message, dict):
        raise InvalidRequest.at(at, "is not a message")
    given = message.get("role")
    role = _ROLES.get(given) if isinstance(given, str) else None
    if role is None:
        raise InvalidRequest.at(
            f"{at}.role", "is not a role", "use system, developer, user, assistant or tool"
        )
    require_known(message, at, _MEMBERS.get(role, _SAID))
    blocks: list[Block] = list(_content(f"{at}.content", message.get("content")))
    if role is Role.TOOL:
        return Message(role=role, blocks=(read_result(at, message, blocks, functions),), at=at)
    if role is Role.ASSISTANT:
        if message.get("audio") is not None:
            raise InvalidRequest.at(f"{at}.audio", "is kept by another provider")
        if refusal := members.optional_text(message.get("refusal"), f"{at}.refusal"):
            blocks.append(Refusal(text=refusal, at=f"{at}.refusal"))
        blocks = [*_thoughts(at, message), *blocks, *read_calls(at, message, functions)]
    name = members.optional_text(message.get("name"), f"{at}.name") or ""
    if (cache := members.cache_control(message, at)) is not None:
        _mark(blocks, cache)
    return Message(role=role, blocks=tuple(blocks), name=name, at=at)


def _mark(blocks: list[Block], cache: Json) -> None:
    """A mark on a message is one on its last text."""
    for i in range(len(blocks) - 1, -1, -1):
        block = blocks[i]
        if isinstance(block, Text):
            blocks[i] = replace(block, cache=cache)
            return


def _content(at: str, content: object) -> Iterator[Text | Refusal | Attachment]:
    if content is None or content == "":
        return
    if isinstance(content, str):
        yield Text(text=content, at=at)
        return
    if not isinstance(content, list):
        raise InvalidRequest.at(at, "is neither text nor a list of parts")
    for i, part in enumerate(content):
        yield _part(f"{at}[{i}]", part)


def _part(at: str, part: object) -> Text | Refusal | Attachment:
    if not isinstance(part, dict):
        raise InvalidRequest.at(at, "is not a content part", "give it a type")
    if part.get("type") == "refusal":
        require_known(part, at, {"refusal", "type"})
        return Refusal(text=members.text(part.get("refusal"), f"{at}.refusal"), at=at)
    block = _seen(at, part)
    require_known(part, at, _PART)
    mark = members.optional_object(part.get(_BREAKPOINT), f"{at}.{_BREAKPOINT}")
    return replace(block, cache=members.cache_control(part, at), breakpoint=mark)


def _seen(at: str, part: Json) -> Text | Attachment:
    """What a part holds, without its marks."""
    match part:
        case {"type": "text", "text": str(text)}:
            return Text(text=text, at=at)
        case {"type": "image_url", "image_url": {"url": str(url), **rest}}:
            require_known(rest, f"{at}.image_url", _IMAGE)
            detail = members.optional_text(rest.get("detail"), f"{at}.image_url.detail") or ""
            return members.attachment("image", url, f"{at}.image_url.url", detail=detail)
        case {
            "type": "input_audio",
            "input_audio": {"data": str(data), "format": str(sound), **rest},
        }:
            require_known(rest, f"{at}.input_audio", _SOUND)
            media_type = _SOUNDS.get(sound, f"audio/{sound}")
            return Attachment(kind="audio", media_type=media_type, data=data, at=at)
        case {"type": "file", "file": dict(file)}:
            require_known(file, f"{at}.file", _FILE)
            return _file(f"{at}.file", file)
        case {"type": str(kind)}:
            raise InvalidRequest.at(at, f"a part of type {kind[:40]!r} cannot be read here")
    raise InvalidRequest.at(at, "is not a content part", "give it a type")


def _file(at: str, file: Mapping[str, Any]) -> Attachment:
    name = members.optional_text(file.get("filename"), f"{at}.filename") or ""
    match file:
        case {"file_id": str(file_id)} if file_id:
            return Attachment(kind="file", file_id=file_id, name=name, at=at)
        case {"file_data": str(data)}:
            media_type = _FILE_TYPES.get(name.rpartition(".")[2].lower())
            if media_type is not None and ":" not in data:  # base64 as it is, without a URL
                return members.data_of("file", media_type, data, name=name, at=f"{at}.file_data")
            return members.attachment("file", data, f"{at}.file_data", name=name)
    raise InvalidRequest.at(at, "holds neither file_data nor file_id")


def _thoughts(at: str, message: Mapping[str, Any]) -> Iterator[Thinking]:
    blocks = members.items(message.get("thinking_blocks"), f"{at}.thinking_blocks")
    for i, block in enumerate(blocks):
        where = f"{at}.thinking_blocks[{i}]"
        if isinstance(block, dict):
            require_known(block, where, _THOUGHT)
        match block:
            case {"type": "thinking", "thinking": str(text), **rest}:
                signature = members.optional_text(rest.get("signature"), f"{where}.signature")
                yield Thinking(
                    text=text, signature=signature or "", dialect=Dialect.ANTHROPIC, at=where
                )
            case {"type": "redacted_thinking", "data": str(data)}:
                yield Thinking(hidden=data, dialect=Dialect.ANTHROPIC, at=where)
            case _:
                raise InvalidRequest.at(where, "is no thinking block")
    if blocks:
        return  # the text beside it is the same
    for name in ("reasoning_content", "reasoning"):
        if thought := members.optional_text(message.get(name), f"{at}.{name}"):
            yield Thinking(text=thought, at=f"{at}.{name}")
            return


def write_messages(prompt: Prompt) -> list[dict[str, Any]]:
    """The messages of any prompt.

    Left out, because OpenAI's API and others refuse the field: Anthropic's
    marks for a cache and thinking that another provider sealed, unless the
    caller used these words. Unsealed thinking comes from providers who want it back.
    A tool's pictures follow its result in a message of the user's, since a
    result is text here.
    """
    own = prompt.dialect is Dialect.OPENAI
    written: list[dict[str, Any]] = []
    for message in _joined(prompt.messages):
        if message.role is Role.TOOL:
            written += _written_results(message, own=own)
        elif message.role is Role.ASSISTANT:
            written.append(_written_answer(message, own=own))
        else:
            content = _written_content(message, message.blocks, own=own)
            written.append(_named(message, {"role": message.role.value, "content": content}))
    return written


def _joined(messages: Iterable[Message]) -> Iterator[Message]:
    """Neighbouring answers as one where they belong to one turn: calls, or thoughts alone.

    The results of calls must follow the one message that holds all of them.
    """
    turn: list[Message] = []
    calls = speaks = False  # what the turn holds so far
    for message in messages:
        is_answer = message.role is Role.ASSISTANT
        words = any(isinstance(block, Text | Refusal | Attachment) for block in message.blocks)
        if turn and not (is_answer and (calls or not words or not speaks)):
            yield _one(turn)
            turn, calls, speaks = [], False, False
        if is_answer:
            turn.append(message)
            calls = calls or any(isinstance(block, Call) for block in message.blocks)
            speaks = speaks or words
        else:
            yield message
    if turn:
        yield _one(turn)


def _one(turn: Sequence[Message]) -> Message:
    blocks = tuple(block for message in turn for block in message.blocks)
    return turn[0] if len(turn) == 1 else replace(turn[0], blocks=blocks)


def _named(message: Message, written: dict[str, Any]) -> dict[str, Any]:
    if message.name:
        written["name"] = message.name
    return written


def _written_answer(message: Message, *, own: bool) -> dict[str, Any]:
    spoken = [block for block in message.blocks if isinstance(block, Text | Refusal | Attachment)]
    calls = [block for block in message.blocks if isinstance(block, Call)]
    written: dict[str, Any] = {"role": "assistant", "content": None}
    refusals = [block for block in spoken if isinstance(block, Refusal)]
    if len(refusals) == 1 and spoken[-1] is refusals[0]:
        written["refusal"] = refusals[0].text
        spoken.pop()
    if spoken or not (calls or refusals):
        written["content"] = _written_content(message, spoken, own=own)
    _write_thoughts(written, message, own=own)
    if calls:
        written["tool_calls"] = [_marked(call.cache, written_call(call), own=own) for call in calls]
    return _named(message, written)


def _write_thoughts(written: dict[str, Any], message: Message, *, own: bool) -> None:
    thoughts = [block for block in message.blocks if isinstance(block, Thinking)]
    sealed = any(thought.signature or thought.hidden for thought in thoughts)
    if sealed and not own:
        thoughts = [each for each in thoughts if not (each.signature or each.hidden)]
    if text := "".join(thought.text for thought in thoughts):
        written["reasoning_content"] = text
    if own and (sealed or len(thoughts) > 1):
        written["thinking_blocks"] = [_written_thought(thought) for thought in thoughts]


def _written_thought(thought: Thinking) -> dict[str, Any]:
    if thought.hidden:
        return {"type": "redacted_thinking", "data": thought.hidden}
    return {"type": "thinking", "thinking": thought.text, "signature": thought.signature}


def _marked(cache: Json | None, written: dict[str, Any], *, own: bool) -> dict[str, Any]:
    if own and cache is not None:
        written["cache_control"] = cache
    return written


def _broken(block: Text | Attachment, written: dict[str, Any]) -> dict[str, Any]:
    return written if block.breakpoint is None else {**written, _BREAKPOINT: block.breakpoint}


def _written_results(message: Message, *, own: bool) -> Iterator[dict[str, Any]]:
    pictures: list[dict[str, Any]] = []
    for result in message.blocks:
        if not isinstance(result, Result):
            raise InvalidRequest.at(message.at, "holds more than the results of tools")
        parts = [part for part in result.parts if own or isinstance(part, Text)]
        seen = [part for part in result.parts if not own and isinstance(part, Attachment)]
        if seen:
            label = f"From the result of {result.call_id}:"
            pictures.append({"type": "text", "text": label})
            pictures += [_written_part(message, part, own=own) for part in seen]
        content = _written_content(message, parts, own=own)
        if not result.parts and result.is_error:
            content = "error"  # there is no other word for it
        written = {"role": "tool", "tool_call_id": result.call_id, "content": content}
        yield _marked(result.cache, written, own=own)
    if pictures:
        yield {"role": "user", "content": pictures}


def _written_content(message: Message, blocks: Sequence[Block], *, own: bool) -> Any:
    match blocks:
        case []:
            return ""
        case [Text(text=text, cache=cache, breakpoint=None)] if text and not (
            own and cache is not None
        ):
            return text
    return [_written_part(message, block, own=own) for block in blocks]


def _written_part(message: Message, block: Block, *, own: bool) -> dict[str, Any]:
    match block:
        case Text(text=text):
            return _broken(block, _marked(block.cache, {"type": "text", "text": text}, own=own))
        case Refusal() if message.role is Role.ASSISTANT:
            return {"type": "refusal", "refusal": block.text}
        case Attachment() if message.role in {Role.USER, Role.TOOL}:
            return _broken(block, _marked(block.cache, _written_attachment(block), own=own))
    raise InvalidRequest.at(
        block.at or message.at, f"cannot stand in a message of the {message.role.value} there"
    )


def _written_attachment(block: Attachment) -> dict[str, Any]:
    match block:
        case Attachment(kind="audio", media_type=media_type, data=data) if data:
            sound = _FORMATS.get(media_type, media_type.removeprefix("audio/"))
            return {"type": "input_audio", "input_audio": {"data": data, "format": sound}}
        case Attachment(kind="image", url=url) if url:
            return _image(block, url)
        case Attachment(kind="image", data=data) if data:
            return _image(block, f"data:{block.media_type};base64,{data}")
        case Attachment(kind="file") if not block.url:
            return {"type": "file", "file": _written_file(block)}
    how = "by its address" if block.url else "by the id that its provider gave it"
    raise InvalidRequest.at(
        block.at, f"this model's provider takes no {block.kind} {how}", "send its data"
    )


def _image(block: Attachment, url: str) -> dict[str, Any]:
    image = {"url": url, "detail": block.detail} if block.detail else {"url": url}
    return {"type": "image_url", "image_url": image}


def _written_file(block: Attachment) -> dict[str, Any]:
    if block.file_id:
        return {"file_id": block.file_id} | ({"filename": block.name} if block.name else {})
    media_type, data = block.media_type, block.data
    if block.text:
        media_type, data = "text/plain", base64.b64encode(block.text.encode()).decode()
    # OpenAI takes no data without a name, which the other APIs do not ask for.
    name = block.name or f"document.{_EXTENSIONS.get(media_type, 'bin')}"
    return {"file_data": f"data:{media_type};base64,{data}", "filename": name}
