"""Anthropic's Messages API as a caller reads it: an answer written from deltas.

Blocks stand one after the other, each with a start, its deltas and a stop.
Every event has an ``event:`` line, without which the official SDKs drop it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from appliance.model.calls import (
    Aside,
    Delta,
    Dialect,
    Finished,
    FinishReason,
    LogprobsDelta,
    ReasoningDelta,
    ReasoningSeal,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from appliance.model.errors import UpstreamFailed
from appliance.model.usage import TokenUsage
from appliance.protocols.answers import estimated
from appliance.protocols.block_order import BlockOrder
from appliance.protocols.openai_answers import text_bytes
from appliance.protocols.text_frames import utf8_size

MESSAGE_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'

_REASONS: Mapping[FinishReason, str] = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
    FinishReason.CONTENT_FILTER: "refusal",
}
_NO_OBJECT = "the model called a tool with arguments that are no JSON object"
_START = (
    b'event: content_block_start\ndata: {"type":"content_block_start",'
    b'"index":%d,"content_block":%s}\n\n'
)
_STOP = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
_DELTA = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta",'
    b'"index":%d,"delta":{"type":"%s","%s":'
)
_AFTER_DELTA = b"}}\n\n"
_EMPTY = {
    "text": b'{"type":"text","text":""}',
    "thinking": b'{"type":"thinking","thinking":"","signature":""}',
}
_DELTAS = {
    "text": (b"text_delta", b"text"),
    "thinking": (b"thinking_delta", b"thinking"),
    "tool_use": (b"input_json_delta", b"partial_json"),
}


class MessagesWriter:
    """Writes an answer as a message; implements ``answers.AnswerWriter``.

    ``prompt_tokens`` is an estimate, told until the provider knows better: the
    event that a stream starts with holds a figure.
    """

    __slots__ = ("_blocks", "_content", "_id", "_order", "_prompt_tokens")

    dialect = Dialect.ANTHROPIC
    include_usage = True

    def __init__(self, *, id: str, prompt_tokens: int = 0) -> None:  # noqa: A002 - its name on the wire
        self._id = id
        self._prompt_tokens = prompt_tokens
        self._order = BlockOrder()
        self._blocks = _Blocks()
        self._content = _Content()

    def start(self, model: str) -> bytes:
        usage = TokenUsage(input=self._prompt_tokens)
        message = self._message(model, usage)
        event = {"type": "message_start", "message": message}
        return b"event: message_start\ndata: " + msgspec.json.encode(event) + b"\n\n"

    def deltas(self, deltas: Sequence[Delta]) -> bytes:
        if len(deltas) == 1 and type(deltas[0]) is TextDelta and not self._order.is_waiting:
            # The hot path: nearly every piece of nearly every answer.
            text = deltas[0].text
            self._blocks.size += utf8_size(text)
            return self._blocks.said("text", text)
        if deltas and isinstance(deltas[-1], Finished):
            self._blocks.is_cut_off = deltas[-1].reason is FinishReason.LENGTH
        return self._blocks.events(self._order.order(deltas))

    def end(self, usage: TokenUsage | None) -> bytes:
        blocks = self._blocks
        if blocks.finished is None:
            raise ValueError("the answer has not finished")
        said = usage or blocks.finished.usage or self._estimate(blocks.size)
        event = {
            "type": "message_delta",
            "delta": _ending(blocks.finished, calls=blocks.has_calls, refused=blocks.refused),
            "usage": usage_object(said),
        }
        return b"event: message_delta\ndata: " + msgspec.json.encode(event) + b"\n\n"

    def tail(self) -> bytes:
        return MESSAGE_STOP

    def collect(self, deltas: Sequence[Delta]) -> None:
        for delta in self._order.order(deltas):
            self._content.add(delta)

    def whole(self, model: str, usage: TokenUsage | None) -> bytes:
        """Raise :exc:`UpstreamFailed` for a tool call whose arguments are no JSON object."""
        content = self._content
        if content.finished is None:
            raise ValueError("the answer has not finished")
        said = usage or content.finished.usage or self._estimate(content.size)
        message = self._message(model, said, content.encoded())
        ending = _ending(content.finished, calls=content.has_calls, refused=content.refused)
        return msgspec.json.encode(message | ending)

    def _estimate(self, size: int) -> TokenUsage:
        return TokenUsage(input=self._prompt_tokens, output=estimated(size))

    def _message(
        self, model: str, usage: TokenUsage, content: Sequence[Mapping[str, Any]] = ()
    ) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_object(usage),
        }


class _Blocks:
    """The blocks of one stream, of which one is open at most."""

    __slots__ = (
        "_arguments",
        "_call",
        "_head",
        "_index",
        "_kind",
        "finished",
        "has_calls",
        "is_cut_off",
        "refused",
        "size",
    )

    def __init__(self) -> None:
        self.finished: Finished | None = None
        self.refused = False
        self.has_calls = False
        self.size = 0  # bytes of what was said
        self.is_cut_off = False  # by the answer's limit, as stop_reason says
        self._arguments: list[str] = []  # of the latest call
        self._index = -1
        self._kind = ""  # of the open block
        self._head = b""  # what stands before the value in each of its deltas
        self._call = -1  # the number of the latest

    def events(self, deltas: Sequence[Delta]) -> bytes:
        """Raise :exc:`UpstreamFailed` for a call whose arguments are no JSON object."""
        events: list[bytes] = []
        for delta in deltas:
            if type(delta) is TextDelta and self._kind == "text" and delta.text:
                # The hot path, where many came at once.
                self.size += utf8_size(delta.text)
                events += (self._head, msgspec.json.encode(delta.text), _AFTER_DELTA)
            else:
                events.append(self._event(delta))
        return b"".join(events)

    def _event(self, delta: Delta) -> bytes:
        self.size += text_bytes(delta)
        match delta:
            case TextDelta(text):
                return self.said("text", text)
            case ReasoningDelta(text):
                return self.said("thinking", text)
            case ToolCallDelta():
                return self._called(delta)
            case RefusalDelta(text):
                self.refused = True
                return self.said("text", text)
            case ReasoningSeal():
                return self._sealed(delta)
            case LogprobsDelta() | Aside():
                return b""  # there is no word for them
            case Finished():
                self.finished = delta
                return self._stop()

    def said(self, kind: str, text: str) -> bytes:
        if not text:
            return b""
        start = b"" if kind == self._kind else self._start(kind, _EMPTY[kind])
        return start + self._delta(text)

    def _called(self, piece: ToolCallDelta) -> bytes:
        start = b""
        if self._kind != "tool_use" or piece.index != self._call:
            self._call = piece.index
            self.has_calls = True
            call = {"type": "tool_use", "id": piece.id, "name": piece.name, "input": {}}
            start = self._start("tool_use", msgspec.json.encode(call))
        if not piece.arguments:
            return start
        self._note_arguments(piece.arguments)
        return start + self._delta(piece.arguments)

    def _note_arguments(self, text: str) -> None:
        """What cannot become an object is not begun: the official clients read each piece."""
        if not self._arguments:
            if not (text := text.lstrip()):
                return
            if not text.startswith("{"):
                raise UpstreamFailed(_NO_OBJECT)
        self._arguments.append(text)

    def _sealed(self, seal: ReasoningSeal) -> bytes:
        events = b""
        if seal.signature:
            if self._kind != "thinking":
                events = self._start("thinking", _EMPTY["thinking"])
            head = _DELTA % (self._index, b"signature_delta", b"signature")
            events += head + msgspec.json.encode(seal.signature) + _AFTER_DELTA + self._stop()
        if seal.hidden:
            block = {"type": "redacted_thinking", "data": seal.hidden}
            events += self._start("redacted_thinking", msgspec.json.encode(block)) + self._stop()
        return events

    def _delta(self, text: str) -> bytes:
        return self._head + msgspec.json.encode(text) + _AFTER_DELTA

    def _start(self, kind: str, block: bytes) -> bytes:
        stop = self._stop()
        self._index += 1
        self._kind = kind
        if kind in _DELTAS:
            self._head = _DELTA % (self._index, *_DELTAS[kind])
        return stop + _START % (self._index, block)

    def _stop(self) -> bytes:
        if not self._kind:
            return b""
        self._kind = ""
        if self._arguments:
            is_whole = self.is_cut_off or _object("".join(self._arguments)) is not None
            if not is_whole:
                raise UpstreamFailed(_NO_OBJECT)
            self._arguments.clear()
        return _STOP % self._index


class _Content:
    """The blocks of an answer in one piece, as far as they have come."""

    __slots__ = ("_blocks", "_call", "_pieces", "finished", "has_calls", "refused", "size")

    def __init__(self) -> None:
        self.finished: Finished | None = None
        self.refused = False
        self.has_calls = False
        self.size = 0
        self._blocks: list[tuple[dict[str, Any], list[str]]] = []  # each with its text
        self._pieces: dict[str, list[str]] = {}  # of the block that is open, by its kind
        self._call = -1

    def add(self, delta: Delta) -> None:
        self.size += text_bytes(delta)
        match delta:
            case TextDelta(text):
                self._say("text", text)
            case ReasoningDelta(text):
                self._say("thinking", text)
            case ToolCallDelta():
                self._add_call(delta)
            case RefusalDelta(text):
                self.refused = True
                self._say("text", text)
            case ReasoningSeal():
                self._seal(delta)
            case Finished():
                self.finished = delta

    def encoded(self) -> list[dict[str, Any]]:
        """Raise :exc:`UpstreamFailed` for a call whose arguments are no object."""
        return [self._encoded(block, "".join(pieces)) for block, pieces in self._blocks]

    def _say(self, kind: str, text: str) -> None:
        if text:
            if kind not in self._pieces:
                self._open(kind)
            self._append(kind, text)

    def _add_call(self, piece: ToolCallDelta) -> None:
        if "tool_use" not in self._pieces or piece.index != self._call:
            self._call = piece.index
            self.has_calls = True
            self._open("tool_use", id=piece.id, name=piece.name)
        self._append("tool_use", piece.arguments)

    def _seal(self, seal: ReasoningSeal) -> None:
        if seal.signature:
            if "thinking" not in self._pieces:
                self._open("thinking")
            self._blocks[-1][0]["signature"] = seal.signature
        if seal.hidden:
            self._open("redacted_thinking", data=seal.hidden)
        self._pieces = {}

    def _open(self, kind: str, **members: str) -> None:
        pieces: list[str] = []
        self._blocks.append(({"type": kind, **members}, pieces))
        self._pieces = {kind: pieces}

    def _append(self, kind: str, text: str) -> None:
        self._pieces[kind].append(text)

    def _encoded(self, block: dict[str, Any], text: str) -> dict[str, Any]:
        match block["type"]:
            case "text":
                return {**block, "text": text}
            case "thinking":
                return {**block, "thinking": text, "signature": block.get("signature", "")}
            case "tool_use":
                return {**block, "input": self._arguments(text)}
        return block

    def _arguments(self, text: str) -> Mapping[str, Any]:
        value = _object(text) if text.strip() else {}
        if value is not None:
            return value
        if self.finished is not None and self.finished.reason is FinishReason.LENGTH:
            return {}  # the answer's limit cut them; stop_reason says so
        raise UpstreamFailed(_NO_OBJECT)


def _object(text: str) -> dict[str, Any] | None:
    """The JSON object that ``text`` is; None if it is none."""
    try:
        value = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _ending(finished: Finished, *, calls: bool, refused: bool) -> dict[str, str | None]:
    reason = finished.reason
    if reason is FinishReason.TOOL_CALLS and not calls:
        reason = FinishReason.STOP  # whoever is told of calls answers them, and there are none
    if reason is FinishReason.STOP:
        if refused:
            reason = FinishReason.CONTENT_FILTER
        elif calls:
            # OpenAI says "stop" where the caller named the tool.
            reason = FinishReason.TOOL_CALLS
        elif finished.stop is not None:
            return {"stop_reason": "stop_sequence", "stop_sequence": finished.stop}
    return {"stop_reason": _REASONS[reason], "stop_sequence": None}


def usage_object(usage: TokenUsage) -> dict[str, Any]:
    """``usage`` as Anthropic counts: the input without the cache, the output with thinking."""
    told: dict[str, Any] = {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write - usage.cache_write_hour,
            "ephemeral_1h_input_tokens": usage.cache_write_hour,
        },
        "output_tokens": usage.completion,
    }
    if usage.reasoning:
        told["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    return told
