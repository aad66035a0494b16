"""A provider's answer in the Responses API, read into deltas.

Events that are not known are skipped. Some servers send few: what they leave
out is read from what they end with (see :mod:`.answer_items`).
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from appliance.model.calls import (
    Delta,
    Finished,
    FinishReason,
    LogprobsDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
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
from appliance.protocols.responses.answer_items import AnswerItems, objects_in, text_in
from appliance.protocols.responses.asides import PROGRESS

_Event = Mapping[str, Any]
_REASONS = {
    "max_output_tokens": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}
# What may follow a search: OpenAI bills the actions that search, and what is read as tokens.
_NOT_BILLED = frozenset({"find_in_page", "open_page"})
# An emoji may be cut in two, each half an escape at an end of what an event says.
_FIRST_HALF = re.compile(
    rb'("delta"\s*:\s*"(?:[^"\\]|\\.)*?)(\\u[dD][89abAB][0-9a-fA-F]{2})"', re.DOTALL
)
_SECOND_HALF = re.compile(rb'("delta"\s*:\s*")(?=\\u[dD][c-fC-F])')
_LONGEST_EVENT = 32 * 1024 * 1024  # bytes; it may hold pictures


class StreamReader:
    """Reads ``response.created`` … ``response.completed``; implements ``AnswerReader``."""

    __slots__ = (
        "_answer",
        "_half",
        "_readers",
        "_searches",
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
        self._splitter = sse.EventSplitter(limit_bytes=_LONGEST_EVENT)
        self._answer = AnswerItems()
        self._half = b""  # of an emoji, to go before what is said next
        self._searches: set[object] = set()  # items that are searches
        thought = self._thought
        self._readers: Mapping[str, Callable[[_Event], Iterator[Delta]]] = {
            "response.output_text.delta": self._said,
            "response.refusal.delta": self._refused,
            "response.reasoning_summary_text.delta": thought,
            "response.reasoning_text.delta": thought,
            "response.reasoning.delta": thought,
            "response.reasoning_summary_part.added": self._next_thought,
            "response.content_part.added": self._next_part,
            "response.content_part.done": self._part_ended,
            "response.output_text.annotation.added": self._annotated,
            "response.function_call_arguments.delta": self._argued,
            "response.custom_tool_call_input.delta": self._argued,
            "response.output_item.added": self._added,
            "response.output_item.done": self._done,
            "response.completed": self._ended,
            "response.incomplete": self._ended,
            "response.failed": self._failed,
            "response.cancelled": self._failed,
            "error": self._failed,
        }

    def deltas(self, data: bytes) -> Sequence[Delta]:
        deltas: list[Delta] = []
        try:
            if not self.finished and self.failure is None:
                for payload in sse.payloads(self._splitter.feed(data)):
                    if payload.strip() == b"[DONE]":
                        continue  # the event before it ended the answer, or nothing did
                    if self._half or b"\\u" in payload:
                        payload = self._joined(payload)
                    event = decode_object(payload)
                    if (said := self._plainly_said(event)) is not None:
                        deltas.append(said)
                        continue
                    deltas += self._read(event)
                    if self.finished:
                        break
        except AnswerFailed as exc:
            self.failure = exc
        self.text_bytes += sum(map(text_bytes, deltas))
        return deltas

    def _joined(self, payload: bytes) -> bytes:
        """``payload`` with the half before it, and without one that the next goes on with."""
        if self._half:
            half, self._half = self._half, b""
            payload = _SECOND_HALF.sub(lambda found: found[1] + half, payload, count=1)
        found = _FIRST_HALF.search(payload)
        if found is None:
            return payload
        self._half = found[2]
        return payload[: found.start(2)] + payload[found.end(2) :]

    def _plainly_said(self, event: _Event) -> Delta | None:
        """The text of an event that holds nothing else; that is nearly every one."""
        text = event.get("delta")
        if event.get("type") != "response.output_text.delta" or event.get("logprobs"):
            return None
        if type(text) is not str or not text:
            return None
        self._answer.note(_key(event), "message", event)
        return TextDelta(text)

    def _read(self, event: _Event) -> Iterator[Delta]:
        kind = event.get("type")
        read = self._readers.get(kind) if isinstance(kind, str) else None
        if read is not None:
            yield from read(event)
        elif isinstance(kind, str) and kind.startswith(PROGRESS):
            yield from self._answer.progress(_key(event), event)
        elif kind is None and (error := read_error(event)):
            raise ErrorReported(error)

    def _said(self, event: _Event) -> Iterator[Delta]:
        if text := text_in(event.get("delta")):
            self._answer.note(_key(event), "message", event)
            yield TextDelta(text)
        if tokens := objects_in(event.get("logprobs")):
            yield LogprobsDelta(tokens)

    def _refused(self, event: _Event) -> Iterator[Delta]:
        if text := text_in(event.get("delta")):
            self._answer.note(_key(event), "message", event)
            yield RefusalDelta(text)

    def _thought(self, event: _Event) -> Iterator[Delta]:
        if text := text_in(event.get("delta")):
            self._answer.note(_key(event), "reasoning", event)
            yield ReasoningDelta(text)

    def _next_thought(self, event: _Event) -> Iterator[Delta]:
        if count(event.get("summary_index")):
            yield ReasoningDelta("\n\n")

    def _argued(self, event: _Event) -> Iterator[Delta]:
        yield from self._answer.argue(_key(event), text_in(event.get("delta")))

    def _added(self, event: _Event) -> Iterator[Delta]:
        if isinstance(item := event.get("item"), dict):
            yield from self._answer.begin_item(_key(event, item), item)

    def _next_part(self, event: _Event) -> Iterator[Delta]:
        if isinstance(part := event.get("part"), dict):
            yield from self._answer.begin_part(_key(event), part)

    def _part_ended(self, event: _Event) -> Iterator[Delta]:
        if isinstance(part := event.get("part"), dict):
            number = count(event.get("content_index")) or 0
            yield from self._answer.annotate(_key(event), number, part.get("annotations"))

    def _annotated(self, event: _Event) -> Iterator[Delta]:
        if isinstance(annotation := event.get("annotation"), dict):
            number = count(event.get("content_index")) or 0
            yield from self._answer.add_annotation(_key(event), number, annotation)

    def _done(self, event: _Event) -> Iterator[Delta]:
        if isinstance(item := event.get("item"), dict):
            self._note_search(event, item)
            yield from self._answer.end_item(_key(event, item), item)

    def _note_search(self, event: _Event, item: _Event) -> None:
        if _is_search(item):
            self._searches.add(_key(event, item))
            self.usage = TokenUsage(web_searches=len(self._searches), estimated=True)

    def _note_usage(self, response: _Event) -> None:
        usage = read_usage(response.get("usage"))
        if usage is not None:
            listed = sum(map(_is_search, objects_in(response.get("output"))))
            self.usage = replace(usage, web_searches=max(listed, len(self._searches)))

    def _ended(self, event: _Event) -> Iterator[Delta]:
        response = event.get("response")
        response = response if isinstance(response, dict) else {}
        self._note_usage(response)
        self.finished = True
        yield from self._answer.rest(objects_in(response.get("output")))
        is_cut = event["type"] == "response.incomplete"
        yield Finished(_reason(response, self._answer, is_cut=is_cut), self.usage)

    def _failed(self, event: _Event) -> Iterator[Delta]:
        response = event.get("response")
        response = response if isinstance(response, dict) else {}
        self._note_usage(response)
        raise ErrorReported(_error(event, response))


def _key(event: _Event, item: _Event | None = None) -> object:
    """What tells the items of an answer apart."""
    index = count(event.get("output_index"))
    if index is not None:
        return index
    return text_in(event.get("item_id")) or text_in((item or {}).get("id"))


def _reason(response: _Event, answer: AnswerItems, *, is_cut: bool) -> FinishReason:
    if is_cut:
        details = response.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        known = _REASONS.get(reason) if isinstance(reason, str) else None
        return known or FinishReason.LENGTH
    return FinishReason.TOOL_CALLS if answer.has_calls else FinishReason.STOP


def _error(event: _Event, response: _Event) -> ErrorBody:
    """Some put the error's members into the event itself."""
    if error := read_error(event) or read_error(response):
        return error
    flat = read_error({"error": {name: event.get(name) for name in ("message", "code", "param")}})
    return flat or ErrorBody(type="error")


class ResponseAnswer:
    """An answer that came as one piece of JSON; implements ``WholeAnswer``."""

    __slots__ = ("_value", "text", "usage")

    def __init__(self, text: bytes) -> None:
        """Raise :exc:`AnswerFailed` for an error in disguise and for what is no answer."""
        self.text = text
        self._value = decode_object(text)
        if error := read_error(self._value):
            raise ErrorReported(error)
        if self._value.get("status") in ("failed", "cancelled"):
            raise ErrorReported(ErrorBody(type="error"))
        if not isinstance(self._value.get("output"), list):
            raise MalformedAnswer("the answer holds no output")
        usage = read_usage(self._value.get("usage"))
        searches = sum(map(_is_search, objects_in(self._value["output"])))
        self.usage = usage and replace(usage, web_searches=searches)

    def deltas(self) -> list[Delta]:
        """The same answer as a stream would have told it."""
        answer = AnswerItems()
        deltas: list[Delta] = []
        for number, item in enumerate(objects_in(self._value["output"])):
            deltas += answer.end_item(number, item)
        is_cut = self._value.get("status") == "incomplete"
        reason = _reason(self._value, answer, is_cut=is_cut)
        return [*deltas, Finished(reason, self.usage)]


def _is_search(item: _Event) -> bool:
    """Whether an item was billed as a search: opening a page that was found is not."""
    if item.get("type") != "web_search_call" or item.get("status") == "failed":
        return False
    action = item.get("action")
    return not isinstance(action, dict) or action.get("type") not in _NOT_BILLED


def read_usage(usage: object) -> TokenUsage | None:
    """Translate ``usage``; None if it does not hold the two main figures.

    ``input_tokens`` include what the cache gave, ``output_tokens`` the reasoning.
    """
    if not isinstance(usage, dict):
        return None
    asked, said = count(usage.get("input_tokens")), count(usage.get("output_tokens"))
    if asked is None or said is None:
        return None
    of_input, of_output = usage.get("input_tokens_details"), usage.get("output_tokens_details")
    of_input = of_input if isinstance(of_input, dict) else {}
    of_output = of_output if isinstance(of_output, dict) else {}
    cache_read = min(asked, count(of_input.get("cached_tokens")) or 0)
    cache_write = min(asked - cache_read, count(of_input.get("cache_write_tokens")) or 0)
    reasoning = min(said, count(of_output.get("reasoning_tokens")) or 0)
    return TokenUsage(
        input=asked - cache_read - cache_write,
        output=said - reasoning,
        cache_read=cache_read,
        cache_write=cache_write,
        reasoning=reasoning,
    )
