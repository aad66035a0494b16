"""Anthropic's Messages API as a provider answers it: an event stream, or one message.

A caller of ours speaks this dialect too, so a stream is passed on as whole
events and looked into only where something may stand that concerns us: usage,
without which the official clients crash, and why the answer ended, which is
held back until the provider says that this was all. New kinds of events and
deltas may appear at any time: they are passed on, and skipped where the answer
is read into deltas, as the API's versioning policy asks.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from appliance.model.calls import (
    Delta,
    Finished,
    FinishReason,
    TextDelta,
)
from appliance.model.usage import TokenUsage
from appliance.protocols import sse
from appliance.protocols.answers import (
    FOUND_TOKENS,
    AnswerFailed,
    ErrorBody,
    ErrorReported,
    MalformedAnswer,
    count,
    decode_object,
    estimated,
    read_error,
)
from appliance.protocols.anthropic_blocks import BlockReader
from appliance.protocols.anthropic_writer import usage_object
from appliance.protocols.openai_answers import text_bytes
from appliance.protocols.text_frames import TextFrame, utf8_size

_MOST_HELD = 4 * 1024 * 1024  # bytes
_EVENT_LINE = re.compile(rb"(?:^|[\r\n])event:")
_NAME = re.compile(r"[a-z_]{1,64}", re.ASCII)
_DELTA = b"content_block_delta"
_SAID = frozenset({"text", "thinking", "partial_json"})

_NO_USAGE = {"input_tokens": 0, "output_tokens": 0}

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
        "_endings",
        "_envelope",
        "_frame",
        "_held_bytes",
        "_is_final",
        "_prompt_bytes",
        "_reason",
        "_searches",
        "_splitter",
        "_stop",
        "_told",
        "failure",
        "finished",
        "text_bytes",
    )

    def __init__(self, *, prompt_bytes: int | None = None) -> None:
        """``prompt_bytes`` is the size of what was asked, for a provider that tells no usage."""
        self.finished = False
        self.text_bytes = 0
        self.failure: AnswerFailed | None = None
        self._prompt_bytes = prompt_bytes
        self._endings: list[tuple[bytes, dict[str, Any]]] = []  # message_delta, held back
        self._held_bytes = 0
        self._splitter = sse.EventSplitter()
        self._told: dict[str, Any] = {}  # usage: later figures replace earlier ones
        self._is_final = False
        self._searches = 0  # that were begun
        self._reason = FinishReason.STOP
        self._stop: str | None = None
        self._blocks = BlockReader()
        self._envelope: int | None = None  # bytes
        self._frame = TextFrame("text")

    @property
    def usage(self) -> TokenUsage | None:
        if not self._told:
            return None
        usage = read_usage(_NO_USAGE | self._told, searches=self._searches)
        if usage is None or self._is_final:
            return usage
        # The figures at the start are placeholders; who leaves early used more.
        return replace(
            usage,
            input=usage.input + self._searches * FOUND_TOKENS,
            output=max(usage.output, estimated(self.text_bytes)),
            web_searches=self._searches,
            estimated=True,
        )

    @property
    def last_word(self) -> bytes:
        """Nothing: who speaks this dialect says so when an answer is complete."""
        return b""

    def relay(self, data: bytes, *, include_usage: bool) -> bytes:
        """Return the whole events that ``data`` completes, as they came.

        Withheld are ``message_stop``, errors (see ``failure``) and what
        :meth:`ending` returns. Usage stands in the events themselves, whatever
        ``include_usage`` says.
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

    def ending(self, usage: TokenUsage | None, *, include_usage: bool) -> bytes:
        """The events of a finished answer that were held back.

        ``usage`` is what the call is taken to have used.
        """
        return b"".join(self._ended(event, value, usage) for event, value in self._endings)

    def deltas(self, data: bytes) -> Sequence[Delta]:
        deltas: list[Delta] = []
        try:
            if not self.finished and self.failure is None:
                for found in self._frame.read(self._splitter.feed(data)):
                    if isinstance(found, list):
                        # The hot path: nearly every event of nearly every answer.
                        self.text_bytes += utf8_size("".join(found))
                        deltas += map(TextDelta, found)
                    elif payload := sse.payload(found):
                        for delta in self._learnt(found, self._read(decode_object(payload))):
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
            kind = value.get("type")
            if kind == "message_start":
                return self._started(event, value)
            named = _named(event, kind)
            if kind == "message_delta":
                self._hold(named, value)
                return b""
        except AnswerFailed as exc:
            self.failure = exc
            return b""
        return named

    def _started(self, event: bytes, value: dict[str, Any]) -> bytes:
        message = value.get("message")
        usage = message.get("usage") if isinstance(message, dict) else {}
        if not isinstance(message, dict) or _tells(usage, *_NO_USAGE):
            return _named(event, "message_start")
        told = _known(usage) if isinstance(usage, dict) else {}
        guess = {"input_tokens": estimated(self._prompt_bytes or 0), "output_tokens": 0}
        counts = {name: told[name] if _tells(told, name) else guess[name] for name in guess}
        return _event({**value, "message": {**message, "usage": {**told, **counts}}})

    def _hold(self, event: bytes, value: dict[str, Any]) -> None:
        self._held_bytes += len(event)
        if self._held_bytes > _MOST_HELD:
            raise MalformedAnswer("it went on and on after the end of its answer")
        self._endings.append((event, value))

    def _ended(self, event: bytes, value: dict[str, Any], usage: TokenUsage | None) -> bytes:
        told = value.get("usage")
        if _tells(told, "output_tokens") and not (usage is not None and usage.estimated):
            return event
        figures = {"output_tokens": estimated(self.text_bytes)}
        if usage is not None:
            figures = usage_object(usage)
        return _event({**value, "usage": {**(told if isinstance(told, dict) else {}), **figures}})

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
                self._note(event)
                return self._blocks.begin(index, block)
            case {"type": "content_block_stop", "index": int(index)}:
                return self._blocks.end(index)
        self._note(event)
        return (Finished(self._reason, self.usage, self._stop),) if self.finished else ()

    def _note(self, event: Mapping[str, Any]) -> None:
        match event:
            case {"type": "message_start", "message": {"usage": dict(usage)}}:
                self._told |= _known(usage)
            case {"type": "content_block_start", "content_block": block} if _is_search(block):
                self._searches += 1
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


class MessageAnswer:
    """An answer that came as one piece of JSON; implements ``answers.RelayedAnswer``."""

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
        searches = sum(map(_is_search, self._value["content"]))
        self.usage = read_usage(usage, searches=searches) if isinstance(usage, dict) else None

    def relayed(self, usage: TokenUsage | None) -> bytes:
        """The answer as it came, but for usage that is estimated."""
        if usage is None or not usage.estimated:
            return self.text
        told = self._value.get("usage")
        figures = {**(told if isinstance(told, dict) else {}), **usage_object(usage)}
        return msgspec.json.encode({**self._value, "usage": figures})

    def deltas(self) -> list[Delta]:
        """The same answer as a stream would have told it."""
        blocks = BlockReader()
        deltas: list[Delta] = []
        for index, block in enumerate(self._value["content"]):
            if isinstance(block, dict):
                deltas += blocks.begin(index, block)
                deltas += blocks.end(index)
        reason, stop = _ending(self._value)
        return [*deltas, Finished(reason, self.usage, stop)]


def _named(event: bytes, kind: object) -> bytes:
    """The official clients drop an event without its name in front."""
    if _EVENT_LINE.search(event) or not isinstance(kind, str) or not _NAME.fullmatch(kind):
        return event
    return b"event: " + kind.encode() + b"\n" + event


def _event(value: Mapping[str, Any]) -> bytes:
    kind = str(value["type"]).encode()
    return b"event: " + kind + b"\ndata: " + msgspec.json.encode(value) + b"\n\n"


def _tells(usage: object, *names: str) -> bool:
    """Whether ``usage`` holds a count under each of ``names``."""
    return isinstance(usage, dict) and all(count(usage.get(name)) is not None for name in names)


def _may_concern_us(block: bytes) -> bool:
    # Searches at memory speed for all events of one read at once; most
    # reads hold nothing but deltas. Quotes inside of a string are escaped, so
    # what is found in a text is looked at and passed on.
    return (
        b'"message_' in block
        or b'"error"' in block
        or b'"server_tool_use"' in block
        or not block.startswith(b"event:")
    )


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


def _is_search(block: object) -> bool:
    match block:
        case {"type": "server_tool_use", "name": "web_search"}:
            return True
    return False


def read_usage(usage: Mapping[str, Any], *, searches: int = 0) -> TokenUsage | None:
    """Translate Anthropic's ``usage``: its ``input_tokens`` exclude what the cache did.

    ``searches`` were seen in the answer, where it does not tell how many there were.
    """
    prompt, completion = count(usage.get("input_tokens")), count(usage.get("output_tokens"))
    if prompt is None or completion is None:
        return None
    details = usage.get("output_tokens_details")
    thinking = count(details.get("thinking_tokens")) if isinstance(details, dict) else None
    reasoning = min(completion, thinking or 0)
    written = count(usage.get("cache_creation_input_tokens")) or 0
    kept = usage.get("cache_creation")
    hour = count(kept.get("ephemeral_1h_input_tokens")) if isinstance(kept, dict) else None
    tools = usage.get("server_tool_use")
    searched = count(tools.get("web_search_requests")) if isinstance(tools, dict) else None
    return TokenUsage(
        input=prompt,
        output=completion - reasoning,
        cache_read=count(usage.get("cache_read_input_tokens")) or 0,
        cache_write=written,
        cache_write_hour=min(written, hour or 0),
        reasoning=reasoning,
        web_searches=searches if searched is None else searched,
    )
