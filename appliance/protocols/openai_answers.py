"""OpenAI chat completions as a provider answers them.

A caller of ours speaks this dialect too, so a stream is passed on as whole
events. Nearly all of them say one more piece of text and nothing else, which
their frame tells; the others are read, and put right where it takes that (see
:mod:`appliance.protocols.openai_relay`). Everything is read defensively: what
calls itself compatible sends usage that is text and errors with a good status.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from appliance.model.calls import (
    Aside,
    Delta,
    Finished,
    FinishReason,
    LogprobsDelta,
    ReasoningDelta,
    ReasoningSeal,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from appliance.model.usage import TokenUsage
from appliance.protocols import sse
from appliance.protocols.answers import (
    AnswerFailed,
    ErrorReported,
    MalformedAnswer,
    count,
    decode_object,
    read_error,
)
from appliance.protocols.openai_chat import usage_object
from appliance.protocols.openai_choices import ChoiceReader, finish_reason, first_choice
from appliance.protocols.openai_relay import ChunkRelay, put_right
from appliance.protocols.text_frames import TextFrame, utf8_size

DONE = b"data: [DONE]\n\n"


class StreamReader:
    """Reads a stream of ``chat.completion.chunk`` events.

    Use either :meth:`relay` or :meth:`deltas` on one stream, not both.
    """

    __slots__ = (
        "_choice",
        "_frame",
        "_reason",
        "_relay",
        "_splitter",
        "failure",
        "finished",
        "text_bytes",
        "usage",
    )

    def __init__(self) -> None:
        self.usage: TokenUsage | None = None
        self.finished = False
        self.text_bytes = 0
        self.failure: AnswerFailed | None = None
        self._splitter = sse.EventSplitter()
        self._reason: FinishReason | None = None
        self._choice = ChoiceReader()
        self._relay = ChunkRelay()
        self._frame = TextFrame("content")

    @property
    def last_word(self) -> bytes:
        """``[DONE]``, where every choice has said why it ended: some servers leave it at that."""
        has_ended = self._reason is not None or self._relay.has_ended
        is_whole = has_ended and self.failure is None and not self._splitter.rest.strip()
        return DONE if is_whole else b""

    def relay(self, data: bytes, *, include_usage: bool) -> bytes:
        """Return the whole events that ``data`` completes, as they may be passed on now.

        Withheld are errors (see ``failure``), without ``include_usage`` chunks
        without choices (many clients index ``choices[0]``), and what
        :meth:`ending` returns.
        """
        block = self._whole_events(data)
        text = self._frame.text(block)
        if text is not None:
            # The hot path: nearly every read is one such event.
            self.text_bytes += utf8_size(text)
            return block
        texts = self._frame.texts(block)
        if texts is not None:
            self.text_bytes += utf8_size("".join(texts))
            return block
        passed = []
        for event in sse.split(block):
            passed.append(self._looked_at(event, include_usage=include_usage))
            if self.finished or self.failure is not None:
                break
        return b"".join(passed)

    def ending(self, usage: TokenUsage | None, *, include_usage: bool) -> bytes:
        """The events that a finished answer ends with; ``[DONE]`` is not among them.

        ``usage`` is what the call is taken to have used.
        """
        return self._relay.ending(usage, include_usage=include_usage)

    def deltas(self, data: bytes) -> Sequence[Delta]:
        """Return what ``data`` adds to the answer, decoded; only the first choice counts."""
        deltas: list[Delta] = []
        for found in self._frame.read(self._whole_events(data)):
            if isinstance(found, list):
                # The hot path: nearly every event of nearly every answer.
                self.text_bytes += utf8_size("".join(found))
                deltas += map(TextDelta, filter(None, found))
                continue
            deltas += self._said(found)
            if self.finished or self.failure is not None:
                break
        return deltas

    def _said(self, event: bytes) -> Sequence[Delta]:
        """What an event that does not fit the frame adds to the answer."""
        payload = sse.payload(event)
        if not payload:
            return ()
        if payload.strip() == b"[DONE]":
            self.finished = True
            return (Finished(self._reason or self._choice.usual_reason, self.usage),)
        if (chunk := self._read(payload)) is None:
            return ()
        found = self._choice.deltas(chunk)
        self.text_bytes += sum(map(text_bytes, found))
        if (ended := self._ended(chunk)) is not None:
            self._reason = ended
        elif len(found) == 1 and type(found[0]) is TextDelta and not chunk.get("usage"):
            self._frame.learn(event, found[0].text)
        return found

    def _whole_events(self, data: bytes) -> bytes:
        if self.finished or self.failure is not None:
            return b""  # nothing counts after the end
        try:
            block = self._splitter.feed(data)
        except MalformedAnswer as exc:
            self.failure = exc
            return b""
        if not block and self._splitter.rest.strip() in {b"data: [DONE]", b"data:[DONE]"}:
            # Some servers close right after the word, without the blank line.
            return DONE
        return block

    def _looked_at(self, event: bytes, *, include_usage: bool) -> bytes:
        """Note what concerns us in ``event``; return what of it may be passed on now."""
        text = self._frame.text(event)
        if text is not None:
            self.text_bytes += utf8_size(text)
            return event
        payload = sse.payload(event)
        if not payload:
            return event  # a comment, that is a keep-alive
        if payload.strip() == b"[DONE]":
            self.finished = True
            return b""
        if (chunk := self._read(payload)) is None:
            return b""
        try:
            passed, piece = self._relay.passed(event, chunk)
        except AnswerFailed as exc:
            self.failure = exc
            return b""
        self.text_bytes += piece.size
        if not piece.name or self._frame.key != piece.name:
            # Of another call the arguments may stand in the same frame, to be put right.
            self._frame = TextFrame(piece.name or "content")
        if piece.text and not chunk.get("usage"):
            self._frame.learn(event, piece.text)
        return passed if chunk["choices"] or include_usage else b""

    def _ended(self, chunk: Mapping[str, Any]) -> FinishReason | None:
        try:
            return finish_reason(first_choice(chunk), usual=self._choice.usual_reason)
        except AnswerFailed as exc:
            self.failure = exc
            return None

    def _read(self, payload: bytes) -> dict[str, Any] | None:
        try:
            chunk = decode_object(payload)
        except MalformedAnswer as exc:
            self.failure = exc
            return None
        if error := read_error(chunk):
            self.failure = ErrorReported(error)
            return None
        self.usage = read_usage(chunk.get("usage")) or self.usage
        return chunk


def text_bytes(delta: Delta) -> int:
    match delta:
        case TextDelta(text) | ReasoningDelta(text) | RefusalDelta(text):
            return len(text.encode("utf-8", "replace"))
        case ToolCallDelta():
            return len(delta.name) + len(delta.arguments)
        case Finished() | ReasoningSeal() | LogprobsDelta() | Aside():
            return 0


class Completion:
    """An answer that came as one piece of JSON; implements ``answers.RelayedAnswer``."""

    __slots__ = ("_is_right", "_value", "text", "usage")

    def __init__(self, text: bytes) -> None:
        """Raise :exc:`AnswerFailed` for an error in disguise and for what is no completion."""
        self.text = text
        self._value = decode_object(text)
        if error := read_error(self._value):
            raise ErrorReported(error)
        choices = self._value.get("choices")
        if not isinstance(choices, list) or not choices:
            raise MalformedAnswer("the answer holds no choices")
        self._is_right = put_right(self._value)
        self.usage = read_usage(self._value.get("usage"))

    def relayed(self, usage: TokenUsage | None) -> bytes:
        """The answer as it came, but for what no client could read and for an estimate."""
        if usage is not None and usage.estimated:
            return msgspec.json.encode({**self._value, "usage": usage_object(usage)})
        return self.text if self._is_right else msgspec.json.encode(self._value)

    def deltas(self) -> list[Delta]:
        """The same answer as a stream would have told it."""
        choice = ChoiceReader()
        deltas = choice.deltas(self._value)
        usual = choice.usual_reason
        reason = finish_reason(first_choice(self._value), usual=usual) or usual
        return [*deltas, Finished(reason, self.usage)]


def read_usage(usage: object) -> TokenUsage | None:
    """Translate OpenAI's ``usage``; None if it does not hold the two main figures.

    ``prompt_tokens`` include what the cache gave. ``completion_tokens`` include
    the reasoning, except where the total shows that they do not (as with xAI).
    Both include sound, of which nobody tells whether the cache gave it: it is
    taken for what the cache did not give.
    """
    if not isinstance(usage, dict):
        return None
    prompt, completion = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
    if prompt is None or completion is None:
        return None
    asked = usage.get("prompt_tokens_details")
    asked = asked if isinstance(asked, dict) else {}
    said = usage.get("completion_tokens_details")
    said = said if isinstance(said, dict) else {}
    cached = count(asked.get("cached_tokens")) or count(usage.get("prompt_cache_hit_tokens")) or 0
    cache_read = min(prompt, cached)
    cache_write = min(prompt - cache_read, count(asked.get("cache_write_tokens")) or 0)
    reasoning = count(said.get("reasoning_tokens")) or 0
    if count(usage.get("total_tokens")) != prompt + completion + reasoning:
        reasoning = min(completion, reasoning)
        completion -= reasoning
    uncached = prompt - cache_read - cache_write
    return TokenUsage(
        input=uncached,
        output=completion,
        cache_read=cache_read,
        cache_write=cache_write,
        reasoning=reasoning,
        input_audio=min(uncached, count(asked.get("audio_tokens")) or 0),
        output_audio=min(completion, count(said.get("audio_tokens")) or 0),
    )
