"""OpenAI chat completions as a provider answers them.

A caller of ours speaks this dialect too, so a stream is passed on as whole
events and looked into only where something may stand that concerns us.
Everything is read defensively: what calls itself compatible sends calls
without an index, usage that is text, and errors with a good status.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from appliance.model.calls import (
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
from appliance.protocols.text_frames import TextFrame, utf8_size

_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\]')
_REASONS = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "end_turn": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "tool_use": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}


class StreamReader:
    """Reads a stream of ``chat.completion.chunk`` events.

    Use either :meth:`relay` or :meth:`deltas` on one stream, not both.
    """

    __slots__ = (
        "_choice",
        "_envelope_bytes",
        "_frame",
        "_reason",
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
        self._envelope_bytes: int | None = None
        self._reason: FinishReason | None = None
        self._choice = ChoiceReader()
        self._frame = TextFrame("content")

    def relay(self, data: bytes, *, include_usage: bool) -> bytes:
        """Return the whole events that ``data`` completes, as they came.

        Withheld are ``[DONE]``, errors (see ``failure``) and, without
        ``include_usage``, chunks without choices: many clients index ``choices[0]``.
        """
        block = self._whole_events(data)
        if not _may_concern_us(block):
            self._estimate(block)
            return block
        start = _first_concern(block)
        passed = [block[:start]]
        for event in sse.split(block[start:]):
            if self._look_at(event, include_usage=include_usage):
                passed.append(event)
            if self.finished or self.failure is not None:
                break
        block = b"".join(passed)
        self._estimate(block)
        return block

    def deltas(self, data: bytes) -> Sequence[Delta]:
        """Return what ``data`` adds to the answer, decoded; only the first choice counts."""
        deltas: list[Delta] = []
        for event in sse.split(self._whole_events(data)):
            text = self._frame.text(event)
            if text is not None:
                # The hot path: nearly every event of nearly every answer.
                if text:
                    self.text_bytes += utf8_size(text)
                    deltas.append(TextDelta(text))
                continue
            payload = sse.payload(event)
            if not payload:
                continue
            if payload.strip() == b"[DONE]":
                self.finished = True
                reason = self._reason or self._choice.usual_reason
                deltas.append(Finished(reason, self.usage))
                break
            if (chunk := self._read(payload)) is None:
                break
            found = self._choice.deltas(chunk)
            self.text_bytes += sum(map(text_bytes, found))
            if (ended := _chunk_reason(chunk)) is not None:
                self._reason = ended
            elif len(found) == 1 and type(found[0]) is TextDelta and not chunk.get("usage"):
                self._frame.learn(event, found[0].text)
            deltas += found
        return deltas

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
            return b"data: [DONE]\n\n"
        return block

    def _look_at(self, event: bytes, *, include_usage: bool) -> bool:
        """Note what concerns us in ``event``; return whether to pass it on."""
        payload = sse.payload(event)
        if not payload:
            return True  # a comment, that is a keep-alive
        if payload.strip() == b"[DONE]":
            self.finished = True
            return False
        chunk = self._read(payload)
        return chunk is not None and (bool(chunk.get("choices")) or include_usage)

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

    def _estimate(self, block: bytes) -> None:
        """Count the answer's bytes without decoding it.

        All chunks of a stream have the same envelope, so one with text in it
        tells how many bytes of each event are not answer.
        """
        if block.startswith(b":") or b"\n:" in block:
            block = b"".join(e for e in sse.split(block) if not e.startswith(b":"))
        if not block:
            return
        if self._envelope_bytes is None:
            self._envelope_bytes = _envelope(block)
            if self._envelope_bytes is None:
                return
        text = len(block) - self._envelope_bytes * block.count(b"data:")
        self.text_bytes += max(0, text)


def _may_concern_us(block: bytes) -> bool:
    # Four searches at memory speed for all events of one read at once; most
    # reads hold nothing but text.
    return (
        b"[DONE]" in block
        or b'"error"' in block
        or (b'"usage"' in block and _USAGE.search(block) is not None)
        or (b"[]" in block and _NO_CHOICES.search(block) is not None)
    )


def _first_concern(block: bytes) -> int:
    """Return where the first event starts that may concern us: mostly near the end."""
    if b"\r" in block:
        return 0  # rare enough to look at each
    places = [block.find(b"[DONE]"), block.find(b'"error"')]
    places += [
        match.start() for match in (_USAGE.search(block), _NO_CHOICES.search(block)) if match
    ]
    first = min(place for place in places if place >= 0)
    before = block.rfind(b"\n\n", 0, first)
    return before + 2 if before >= 0 else 0


def _envelope(block: bytes) -> int | None:
    for event in sse.split(block):
        try:
            found = ChoiceReader().deltas(decode_object(sse.payload(event)))
        except MalformedAnswer:
            continue
        if size := sum(map(text_bytes, found)):
            return max(0, len(event) - size)
    return None


def text_bytes(delta: Delta) -> int:
    match delta:
        case TextDelta(text) | ReasoningDelta(text) | RefusalDelta(text):
            return len(text.encode("utf-8", "replace"))
        case ToolCallDelta():
            return len(delta.name) + len(delta.arguments)
        case Finished() | ReasoningSeal() | LogprobsDelta():
            return 0


class ToolIndexes:
    """Numbers the tool calls of one answer, also where the provider does not.

    Some send no ``index``, some no ``id``, some a whole call in one piece.
    """

    __slots__ = ("_by_id", "_last")

    def __init__(self) -> None:
        self._by_id: dict[str, int] = {}
        self._last = -1

    @property
    def usual_reason(self) -> FinishReason:
        """Why an answer ended that did not say so."""
        return FinishReason.TOOL_CALLS if self._last >= 0 else FinishReason.STOP

    def read(self, piece: Mapping[str, Any], answer_id: str) -> ToolCallDelta:
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        name, arguments = function.get("name"), function.get("arguments")
        given_id = piece.get("id")
        call_id = given_id if isinstance(given_id, str) else ""
        index = self._index(count(piece.get("index")), call_id, starts=bool(name))
        if is_new := index > self._last:
            call_id = call_id or f"call_{answer_id}_{index}"
            self._by_id[call_id] = self._last = index
        return ToolCallDelta(
            index=index,
            id=call_id if is_new else "",
            name=name if is_new and isinstance(name, str) else "",
            arguments=_arguments(arguments),
        )

    def _index(self, given: int | None, call_id: str, *, starts: bool) -> int:
        if given is not None and given <= self._last + 1:
            return given
        if call_id in self._by_id:
            return self._by_id[call_id]
        return self._last + 1 if call_id or starts or self._last < 0 else self._last


def _arguments(value: object) -> str:
    """Arguments as JSON text; some providers send the object itself."""
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode() if isinstance(value, dict) else ""


class ChoiceReader:
    """Reads what the first choice of each chunk (or of a whole completion) says."""

    __slots__ = ("_thinks_aloud", "_tools")

    def __init__(self) -> None:
        self._tools = ToolIndexes()
        self._thinks_aloud = False

    @property
    def usual_reason(self) -> FinishReason:
        return self._tools.usual_reason

    def deltas(self, chunk: Mapping[str, Any]) -> list[Delta]:
        choice = _first_choice(chunk)
        said = choice.get("delta") or choice.get("message")
        deltas: list[Delta] = []
        if isinstance(said, dict):
            text = said.get("content")
            if len(said) == 1 and isinstance(text, str):  # nearly always
                if text:
                    deltas.append(TextDelta(text))
            else:
                deltas += self._thoughts(said)
                deltas += _words(said)
                deltas += self._calls(said.get("tool_calls"), chunk.get("id"))
        if (logprobs := choice.get("logprobs")) is not None:
            deltas += _likely(logprobs)
        return deltas

    def _calls(self, pieces: object, answer_id: object) -> Iterator[Delta]:
        for piece in pieces if isinstance(pieces, list) else []:
            if isinstance(piece, dict):
                yield self._tools.read(piece, answer_id if isinstance(answer_id, str) else "")

    def _thoughts(self, said: Mapping[str, Any]) -> Iterator[Delta]:
        """Thoughts as text, and as blocks with a seal that hold the same text once more."""
        reasoning = said.get("reasoning_content") or said.get("reasoning")
        if isinstance(reasoning, str) and reasoning:
            self._thinks_aloud = True
            yield ReasoningDelta(reasoning)
        blocks = said.get("thinking_blocks") or said.get("reasoning_details")
        for block in blocks if isinstance(blocks, list) else []:
            match block:
                case {"format": str(whose)} if not whose.startswith("anthropic"):
                    continue  # a seal that nobody else reads
                case {"type": "redacted_thinking" | "reasoning.encrypted", "data": str(hidden)}:
                    if hidden:
                        yield ReasoningSeal(hidden=hidden)
                case {"type": "thinking" | "reasoning.text", **rest}:
                    text = rest.get("thinking") or rest.get("text")
                    if isinstance(text, str) and text and not self._thinks_aloud:
                        yield ReasoningDelta(text)
                    signature = rest.get("signature")
                    if isinstance(signature, str) and signature:
                        yield ReasoningSeal(signature=signature)


def _words(said: Mapping[str, Any]) -> Iterator[Delta]:
    content = said.get("content")
    # Some write an answer as parts, like a question.
    for part in content if isinstance(content, list) else [{"text": content}]:
        text = part.get("text") if isinstance(part, dict) else None
        if isinstance(text, str) and text:
            yield TextDelta(text)
    refusal = said.get("refusal")
    if isinstance(refusal, str) and refusal:
        yield RefusalDelta(refusal)


def _likely(logprobs: object) -> Iterator[Delta]:
    match logprobs:
        case {"content": [_, *_] as tokens} if all(isinstance(each, dict) for each in tokens):
            yield LogprobsDelta(tokens)


def _first_choice(chunk: Mapping[str, Any]) -> dict[str, Any]:
    choices = chunk.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        if isinstance(choice, dict) and not choice.get("index"):
            return choice
    return {}


def _chunk_reason(chunk: Mapping[str, Any]) -> FinishReason | None:
    reason = _first_choice(chunk).get("finish_reason")
    if not isinstance(reason, str) or not reason:
        return None
    return _REASONS.get(reason, FinishReason.STOP)


class Completion:
    """An answer that came as one piece of JSON."""

    __slots__ = ("_value", "text", "usage")

    def __init__(self, text: bytes) -> None:
        """Raise :exc:`AnswerFailed` for an error in disguise and for what is no completion."""
        self.text = text
        self._value = decode_object(text)
        if error := read_error(self._value):
            raise ErrorReported(error)
        choices = self._value.get("choices")
        if not isinstance(choices, list) or not choices:
            raise MalformedAnswer("the answer holds no choices")
        self.usage = read_usage(self._value.get("usage"))

    def deltas(self) -> list[Delta]:
        """The same answer as a stream would have told it."""
        choice = ChoiceReader()
        deltas = choice.deltas(self._value)
        reason = _chunk_reason(self._value) or choice.usual_reason
        return [*deltas, Finished(reason, self.usage)]


def read_usage(usage: object) -> TokenUsage | None:
    """Translate OpenAI's ``usage``; None if it does not hold the two main figures.

    ``prompt_tokens`` include what the cache gave. ``completion_tokens`` include
    the reasoning, except where the total shows that they do not (as with xAI).
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
    return TokenUsage(
        input=prompt - cache_read - cache_write,
        output=completion,
        cache_read=cache_read,
        cache_write=cache_write,
        reasoning=reasoning,
    )
