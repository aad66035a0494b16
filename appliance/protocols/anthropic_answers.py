"""Anthropic's Messages API: the event stream of an answer, read into deltas.

New kinds of events, blocks and deltas may appear at any time and are skipped,
as the API's versioning policy asks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from appliance.model.calls import (
    Delta,
    Finished,
    FinishReason,
    ReasoningDelta,
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

_BYTES_A_TOKEN = 4

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
    """Reads ``message_start`` … ``message_stop``."""

    __slots__ = (
        "_is_final",
        "_reason",
        "_splitter",
        "_told",
        "_tools",
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
        # Block number → our number of the tool call, and whether arguments came.
        self._tools: dict[int, tuple[int, bool]] = {}

    @property
    def usage(self) -> TokenUsage | None:
        usage = read_usage(self._told)
        if usage is None or self._is_final:
            return usage
        # The figure at the start is a placeholder; who leaves early used more.
        output = max(usage.output, self.text_bytes // _BYTES_A_TOKEN)
        return replace(usage, output=output, estimated=True)

    def deltas(self, data: bytes) -> Sequence[Delta]:
        deltas: list[Delta] = []
        try:
            if not self.finished and self.failure is None:
                for payload in sse.payloads(self._splitter.feed(data)):
                    deltas += self._read(decode_object(payload))
                    if self.finished:
                        break
        except AnswerFailed as exc:
            self.failure = exc
        self.text_bytes += sum(map(text_bytes, deltas))
        return deltas

    def _read(self, event: Mapping[str, Any]) -> Iterator[Delta]:
        match event:
            case {"type": "message_start", "message": {"usage": dict(usage)}}:
                self._told |= _known(usage)
            case {"type": "content_block_start", "index": int(index), "content_block": dict(block)}:
                yield from self._begin(index, block)
            case {"type": "content_block_delta", "index": int(index), "delta": dict(delta)}:
                yield from self._continue(index, delta)
            case {"type": "content_block_stop", "index": int(index)}:
                yield from self._end(index)
            case {"type": "message_delta"}:
                self._note_end(event)
            case {"type": "message_stop"}:
                self.finished = True
                yield Finished(self._reason, self.usage)
            case {"type": "error"}:
                raise ErrorReported(read_error(event) or ErrorBody(type="error"))

    def _begin(self, index: int, block: Mapping[str, Any]) -> Iterator[Delta]:
        match block:
            case {"type": "text", "text": str(text)} if text:
                yield TextDelta(text)
            case {"type": "thinking", "thinking": str(text)} if text:
                yield ReasoningDelta(text)
            case {"type": "tool_use", "id": str(id_), "name": str(name)}:
                number = len(self._tools)
                given = block.get("input")
                # Usually empty here, with the arguments to follow in pieces.
                whole = msgspec.json.encode(given).decode() if given else ""
                self._tools[index] = (number, bool(whole))
                yield ToolCallDelta(number, id=id_, name=name, arguments=whole)

    def _continue(self, index: int, delta: Mapping[str, Any]) -> Iterator[Delta]:
        match delta:
            case {"type": "text_delta", "text": str(text)}:
                yield TextDelta(text)
            case {"type": "thinking_delta", "thinking": str(text)}:
                yield ReasoningDelta(text)
            case {"type": "input_json_delta", "partial_json": str(text)}:
                yield from self._arguments(index, text)

    def _arguments(self, index: int, text: str) -> Iterator[Delta]:
        if index not in self._tools:
            raise MalformedAnswer("it sent arguments for no tool call")
        number, _ = self._tools[index]
        if text:
            self._tools[index] = (number, True)
            yield ToolCallDelta(number, arguments=text)

    def _end(self, index: int) -> Iterator[Delta]:
        number, has_arguments = self._tools.get(index, (0, True))
        if not has_arguments:
            # A call without arguments has none to send; OpenAI's clients parse the text.
            self._tools[index] = (number, True)
            yield ToolCallDelta(number, arguments="{}")

    def _note_end(self, event: Mapping[str, Any]) -> None:
        if isinstance(usage := event.get("usage"), dict):
            self._told |= _known(usage)
            self._is_final = True
        match event:
            case {"delta": {"stop_reason": str(reason)}}:
                self._reason = _REASONS.get(reason, FinishReason.STOP)


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
    return TokenUsage(
        input=prompt,
        output=completion - reasoning,
        cache_read=count(usage.get("cache_read_input_tokens")) or 0,
        cache_write=count(usage.get("cache_creation_input_tokens")) or 0,
        reasoning=reasoning,
    )
