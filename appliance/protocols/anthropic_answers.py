"""Anthropic's Messages API as a provider answers it: an event stream, or one message.

A caller of ours speaks this dialect too, so a stream is passed on as whole
events and looked into only where something may stand that concerns us. New
kinds of events, blocks and deltas may appear at any time: they are passed on,
and skipped where the answer is read into deltas, as the API's versioning
policy asks.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from appliance.model.calls import (
    Delta,
    Finished,
    FinishReason,
    ReasoningDelta,
    ReasoningSeal,
    TextDelta,
    ToolCallDelta,
)
from appliance.model.usage import TokenUsage
from appliance.protocols import sse
from appliance.protocols.answers import (
    AnswerFailed,
    ErrorBody,
    ErrorReported,
    MalformedAnswer,
    count,
    decode_object,
    read_error,
)
from appliance.protocols.openai_answers import text_bytes
from appliance.protocols.text_frames import TextFrame, utf8_size

_BYTES_A_TOKEN = 4
_EVENT_LINE = re.compile(rb"(?:^|[\r\n])event:")
_NAME = re.compile(r"[a-z_]{1,64}", re.ASCII)
_DELTA = b"content_block_delta"
_KINDS = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})
_SAID = frozenset({"text", "thinking", "partial_json"})

_REASONS = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "pause_turn": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}


class StreamReader:
    """Reads ``message_start`` … ``message_stop``.

    Use either :meth:`relay` or :meth:`deltas` on one stream, not both.
    """

    __slots__ = (
        "_blocks",
        "_envelope",
        "_frame",
        "_is_final",
        "_reason",
        "_splitter",
        "_stop",
        "_told",
        "failure",
        "finished",
        "text_bytes",
    )

    def __init__(self) -> None:
        self.finished = False
        self.text_bytes = 0
        self.failure: AnswerFailed | None = None
        self._splitter = sse.EventSplitter()
        self._told: dict[str, Any] = {}  # usage: later figures replace earlier ones
        self._is_final = False
        self._reason = FinishReason.STOP
        self._stop: str | None = None
        self._blocks = _BlockReader()
        self._envelope: int | None = None  # bytes
        self._frame = TextFrame("text")

    @property
    def usage(self) -> TokenUsage | None:
        usage = read_usage(self._told)
        if usage is None or self._is_final:
            return usage
        # The figure at the start is a placeholder; who leaves early used more.
        output = max(usage.output, self.text_bytes // _BYTES_A_TOKEN)
        return replace(usage, output=output, estimated=True)

    def relay(self, data: bytes, *, include_usage: bool) -> bytes:
        """Return the whole events that ``data`` completes, as they came.

        Withheld are ``message_stop`` and errors (see ``failure``). Usage stands
        in the events themselves, whatever ``include_usage`` says.
        """
        if self.finished or self.failure is not None:
            return b""
        try:
            block = self._splitter.feed(data)
        except AnswerFailed as exc:
            self.failure = exc
            return b""
        if not _may_concern_us(block):
            self._estimate(block)
            return block
        passed = []
        for event in sse.split(block):
            named = self._look_at(event) if _may_concern_us(event) else event
            if self.finished or self.failure is not None:
                break
            self._estimate(named)
            passed.append(named)
        return b"".join(passed)

    def deltas(self, data: bytes) -> Sequence[Delta]:
        deltas: list[Delta] = []
        try:
            if not self.finished and self.failure is None:
                for event in sse.split(self._splitter.feed(data)):
                    text = self._frame.text(event)
                    if text is not None:
                        # The hot path: nearly every event of nearly every answer.
                        self.text_bytes += utf8_size(text)
                        deltas.append(TextDelta(text))
                    elif payload := sse.payload(event):
                        for delta in self._learnt(event, self._read(decode_object(payload))):
                            self.text_bytes += text_bytes(delta)
                            deltas.append(delta)
                        if self.finished:
                            break
        except AnswerFailed as exc:
            self.failure = exc
        return deltas

    def _learnt(self, event: bytes, found: Iterable[Delta]) -> Iterable[Delta]:
        if type(found) is tuple and len(found) == 1 and type(found[0]) is TextDelta:
            self._frame.learn(event, found[0].text)
        return found

    def _estimate(self, block: bytes) -> None:
        """Count the answer's bytes without decoding it.

        Events with a delta have nearly the same envelope, so one of them tells
        how many bytes of each are not answer.
        """
        if _DELTA not in block:
            return
        if self._envelope is None:
            self._envelope = _envelope(block)
        if self._envelope is not None:
            deltas = max(1, block.count(_DELTA) // 2)  # each names itself twice
            self.text_bytes += max(0, len(block) - self._envelope * deltas)

    def _look_at(self, event: bytes) -> bytes:
        """Note what concerns us in ``event``; return it as a client can read it."""
        payload = sse.payload(event)
        if not payload:
            return event  # a comment, that is a keep-alive
        try:
            value = decode_object(payload)
            self._note(value)
        except AnswerFailed as exc:
            self.failure = exc
            return b""
        kind = value.get("type")
        if _EVENT_LINE.search(event) or not isinstance(kind, str) or not _NAME.fullmatch(kind):
            return event
        # The official clients drop an event without its name in front.
        return b"event: " + kind.encode() + b"\n" + event

    def _read(self, event: Mapping[str, Any]) -> Iterable[Delta]:
        # Most events by far, and patterns take their time.
        if event.get("type") == "content_block_delta" and type(event.get("delta")) is dict:
            delta = event["delta"]
            if delta.get("type") == "text_delta" and type(delta.get("text")) is str:
                return (TextDelta(delta["text"]),)
        match event:
            case {"type": "content_block_delta", "index": int(index), "delta": dict(delta)}:
                return self._blocks.go_on(index, delta)
            case {"type": "content_block_start", "index": int(index), "content_block": dict(block)}:
                return self._blocks.begin(index, block)
            case {"type": "content_block_stop", "index": int(index)}:
                return self._blocks.end(index)
        self._note(event)
        return (Finished(self._reason, self.usage, self._stop),) if self.finished else ()

    def _note(self, event: Mapping[str, Any]) -> None:
        match event:
            case {"type": "message_start", "message": {"usage": dict(usage)}}:
                self._told |= _known(usage)
            case {"type": "message_delta"}:
                self._note_end(event)
            case {"type": "message_stop"}:
                self.finished = True
            case {"type": "error"}:
                raise ErrorReported(read_error(event) or ErrorBody(type="error"))

    def _note_end(self, event: Mapping[str, Any]) -> None:
        if isinstance(usage := event.get("usage"), dict):
            self._told |= _known(usage)
            self._is_final = True
        if isinstance(ending := event.get("delta"), dict):
            self._reason, self._stop = _ending(ending)


class _BlockReader:
    """Reads the blocks of a stream into deltas."""

    __slots__ = ("_others", "_seals", "_tools")

    def __init__(self) -> None:
        self._others: set[int] = set()  # blocks of kinds that are skipped
        # Block number → our number of the tool call, and whether arguments came.
        self._tools: dict[int, tuple[int, bool]] = {}
        self._seals: dict[int, str] = {}  # block number → signature so far

    def begin(self, index: int, block: Mapping[str, Any]) -> Iterator[Delta]:
        match block:
            case {"type": "text", "text": str(text)} if text:
                yield TextDelta(text)
            case {"type": "thinking", "thinking": str(text)}:
                if text:
                    yield ReasoningDelta(text)
                self._sign(index, block)
            case {"type": "redacted_thinking", "data": str(data)} if data:
                yield ReasoningSeal(hidden=data)
            case {"type": "tool_use", "id": str(id_), "name": str(name)}:
                number = len(self._tools)
                given = block.get("input")
                # Usually empty here, with the arguments to follow in pieces.
                whole = msgspec.json.encode(given).decode() if given else ""
                self._tools[index] = (number, bool(whole))
                yield ToolCallDelta(number, id=id_, name=name, arguments=whole)
            case {"type": str(kind)} if kind not in _KINDS:
                self._others.add(index)

    def go_on(self, index: int, delta: Mapping[str, Any]) -> Iterator[Delta]:
        match delta:
            case {"type": "text_delta", "text": str(text)}:
                yield TextDelta(text)
            case {"type": "thinking_delta", "thinking": str(text)}:
                yield ReasoningDelta(text)
            case {"type": "signature_delta"}:
                self._sign(index, delta)
            case {"type": "input_json_delta", "partial_json": str(text)}:
                yield from self._arguments(index, text)

    def end(self, index: int) -> Iterator[Delta]:
        if signature := self._seals.pop(index, ""):
            yield ReasoningSeal(signature=signature)
        number, has_arguments = self._tools.get(index, (0, True))
        if not has_arguments:
            # A call without arguments has none to send; OpenAI's clients parse the text.
            self._tools[index] = (number, True)
            yield ToolCallDelta(number, arguments="{}")

    def _sign(self, index: int, piece: Mapping[str, Any]) -> None:
        if isinstance(signature := piece.get("signature"), str) and signature:
            self._seals[index] = self._seals.get(index, "") + signature

    def _arguments(self, index: int, text: str) -> Iterator[Delta]:
        if index in self._others:
            return  # of a tool that the provider itself runs
        if index not in self._tools:
            raise MalformedAnswer("it sent arguments for no tool call")
        number, _ = self._tools[index]
        if text:
            self._tools[index] = (number, True)
            yield ToolCallDelta(number, arguments=text)


class MessageAnswer:
    """An answer that came as one piece of JSON; implements ``answers.WholeAnswer``."""

    __slots__ = ("_value", "text", "usage")

    def __init__(self, text: bytes) -> None:
        """Raise :exc:`AnswerFailed` for an error in disguise and for what is no message."""
        self.text = text
        self._value = decode_object(text)
        if self._value.get("type") == "error" or self._value.get("error"):
            raise ErrorReported(read_error(self._value) or ErrorBody(type="error"))
        if not isinstance(self._value.get("content"), list):
            raise MalformedAnswer("the answer holds no content")
        usage = self._value.get("usage")
        self.usage = read_usage(usage) if isinstance(usage, dict) else None

    def deltas(self) -> list[Delta]:
        """The same answer as a stream would have told it."""
        blocks = _BlockReader()
        deltas: list[Delta] = []
        for index, block in enumerate(self._value["content"]):
            if isinstance(block, dict):
                deltas += blocks.begin(index, block)
                deltas += blocks.end(index)
        reason, stop = _ending(self._value)
        return [*deltas, Finished(reason, self.usage, stop)]


def _may_concern_us(block: bytes) -> bool:
    # Searches at memory speed for all events of one read at once; most
    # reads hold nothing but deltas. Quotes inside of a string are escaped, so
    # what is found in a text is looked at and passed on.
    return b'"message_' in block or b'"error"' in block or not block.startswith(b"event:")


def _envelope(block: bytes) -> int | None:
    """How many bytes of an event with a delta in it are not the delta."""
    for event in sse.split(block):
        if _DELTA in event:
            try:
                delta = decode_object(sse.payload(event)).get("delta")
            except MalformedAnswer:
                continue
            said = [v for k, v in delta.items() if k in _SAID] if isinstance(delta, dict) else []
            if said and isinstance(said[0], str) and said[0]:
                return max(0, len(event) - len(said[0].encode("utf-8", "replace")))
    return None


def _ending(ending: Mapping[str, Any]) -> tuple[FinishReason, str | None]:
    """Why an answer ended, and the stop sequence it ended at, if one."""
    given, stop = ending.get("stop_reason"), ending.get("stop_sequence")
    reason = _REASONS.get(given, FinishReason.STOP) if isinstance(given, str) else FinishReason.STOP
    return reason, stop if isinstance(stop, str) and given == "stop_sequence" else None


def _known(usage: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in usage.items() if value is not None}


def read_usage(usage: Mapping[str, Any]) -> TokenUsage | None:
    """Translate Anthropic's ``usage``: its ``input_tokens`` exclude what the cache did."""
    prompt, completion = count(usage.get("input_tokens")), count(usage.get("output_tokens"))
    if prompt is None or completion is None:
        return None
    details = usage.get("output_tokens_details")
    thinking = count(details.get("thinking_tokens")) if isinstance(details, dict) else None
    reasoning = min(completion, thinking or 0)
    written = count(usage.get("cache_creation_input_tokens")) or 0
    kept = usage.get("cache_creation")
    hour = count(kept.get("ephemeral_1h_input_tokens")) if isinstance(kept, dict) else None
    return TokenUsage(
        input=prompt,
        output=completion - reasoning,
        cache_read=count(usage.get("cache_read_input_tokens")) or 0,
        cache_write=written,
        cache_write_hour=min(written, hour or 0),
        reasoning=reasoning,
    )
