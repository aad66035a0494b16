"""Writes an answer as a response: events of a stream, or one object.

Lifecycle of the events: Open Responses, "Streaming". An item that may still
grow stays open; whatever comes of another kind closes a message or a thought,
but not a call: the pieces of calls made at once may come mixed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from appliance.model.calls import (
    Annotation,
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
from appliance.model.usage import TokenUsage
from appliance.protocols.responses.asides import HostedCall, NewMessage, NewPart
from appliance.protocols.responses.events import EventLog, Observe, OutputItems
from appliance.protocols.responses.items import Item, new_id
from appliance.protocols.responses.likelihoods import Likely, logprob_object, paired
from appliance.protocols.responses.options import ENCRYPTED_REASONING, LOGPROBS, TOOL_CALLS
from appliance.protocols.responses.output import (
    COMPLETED,
    IN_PROGRESS,
    INCOMPLETE,
    CallItem,
    CompactionItem,
    CustomCallItem,
    HostedItem,
    MessageItem,
    Part,
    ReasoningItem,
    RelayedItem,
    padding,
    response_object,
)
from appliance.protocols.responses.request import ResponsesRequest

DONE = b"data: [DONE]\n\n"
_INCOMPLETE_REASONS = {
    FinishReason.LENGTH: "max_output_tokens",
    FinishReason.CONTENT_FILTER: "content_filter",
}
# By kind of a part: the events of its text, and what the whole of it is called there.
_TEXT_EVENTS = {
    "output_text": ("response.output_text", "text"),
    "refusal": ("response.refusal", "refusal"),
    "summary_text": ("response.reasoning_summary_text", "text"),
}


class ResponseWriter:
    """Implements ``answers.AnswerWriter``; always written from deltas.

    ``clock`` is the time in seconds since 1970. ``observe`` is told of each
    event before it is handed out.
    """

    dialect = Dialect.RESPONSES
    include_usage = True

    def __init__(
        self,
        request: ResponsesRequest,
        *,
        id: str,  # noqa: A002 - its name on the wire
        created_at: int,
        clock: Callable[[], float],
        observe: Observe | None = None,
    ) -> None:
        self.id = id
        self.status = IN_PROGRESS  # or queued, completed, incomplete, failed, cancelled
        self._request = request
        self._created_at = created_at
        self._clock = clock
        self._log = EventLog(observe)
        self._model = request.model
        self._is_created = False
        self._items = OutputItems(self._log)
        self._open: MessageItem | ReasoningItem | None = None
        self._part: Part | None = None  # of the open item
        self._plain = b""  # what its deltas begin with; empty: they are not so simple
        self._phase = ""  # of the next message
        self._calls: dict[int, CallItem] = {}
        self._hosted: dict[str, HostedItem] = {}
        self._relayed: dict[object, RelayedItem] = {}
        self._finished: Finished | None = None
        self._usage: TokenUsage | None = None
        self._completed_at: int | None = None
        self._error: dict[str, str] | None = None
        self._shows_logprobs = LOGPROBS in request.include
        self._shows_calls = TOOL_CALLS in request.include
        self._relays = request.may_have_hosted_tools  # others would stumble over their items

    @property
    def output(self) -> list[Item]:
        """The output items as the caller sees them."""
        return self._items.shown

    @property
    def context(self) -> list[Item]:
        """The same for the next request to the model; to be kept, never shown.

        With sealed thoughts and what the agent's own tools did in any case,
        without calls that are not whole.
        """
        return self._items.kept

    def response(self, usage: TokenUsage | None = None) -> dict[str, Any]:
        """The Response object as it is now."""
        finished = self._finished
        is_incomplete = self.status == INCOMPLETE and finished is not None
        return response_object(
            self._request,
            id=self.id,
            created_at=self._created_at,
            model=self._model,
            status=self.status,
            output=self.output,
            completed_at=self._completed_at if self.status == COMPLETED else None,
            incomplete_reason=_INCOMPLETE_REASONS.get(finished.reason)
            if finished is not None and is_incomplete
            else None,
            error=self._error,
            usage=usage or self._usage,
        )

    def queued(self) -> bytes:
        """``response.created`` and ``response.queued``: the work has not begun."""
        self.status = "queued"
        self._log.add("response.queued", response=self._create())
        return self._log.take()

    def start(self, model: str) -> bytes:
        self._model = model
        self.status = IN_PROGRESS
        self._log.add("response.in_progress", response=self._create())
        return self._log.take()

    def deltas(self, deltas: Sequence[Delta]) -> bytes:
        log = self._log
        for delta in paired(deltas) if self._shows_logprobs else deltas:
            if type(delta) is TextDelta and self._plain:
                # The hot path: nearly every delta of nearly every answer.
                text = delta.text
                self._part.pieces.append(text)  # type: ignore[union-attr] # _plain says it is open
                log.add_text(self._plain, text)
            else:
                self._say(delta)
        return self._log.take()

    def compacted(self, item: Item) -> bytes:
        """``item`` stands for what was said before; nothing of the answer came yet."""
        self._items.begin(said := CompactionItem(self._items.next_index(), item))
        self._items.end(said)
        return self._log.take()

    def hosted_call(self, *, call_id: str, name: str, arguments: str) -> bytes:
        """An agent's own tool begins; empty unless the caller asked to see that."""
        self._close()
        index = self._items.next_index() if self._shows_calls else None
        item = HostedItem(index, call_id=call_id, name=name, arguments=arguments)
        self._items.begin(item)
        self._hosted[call_id] = item
        return self._log.take()

    def hosted_result(self, *, call_id: str, output: str, is_error: bool = False) -> bytes:
        """It has ended; nothing is said of a call that was not begun."""
        item = self._hosted.pop(call_id, None)
        if item is not None:
            item.output = output
            item.is_error = is_error
            self._items.end(item)
        return self._log.take()

    def end(self, usage: TokenUsage | None) -> bytes:
        finished = self._finished
        self._usage = usage or (finished.usage if finished is not None else None)
        is_cut = finished is not None and finished.reason in _INCOMPLETE_REASONS
        last = self._items.last
        self._close(INCOMPLETE if is_cut and last is self._open else COMPLETED)
        for call in self._calls.values():
            self._end_call(call, INCOMPLETE if is_cut and last is call else COMPLETED)
        self._calls.clear()
        for hosted in self._hosted.values():
            self._items.end(hosted)
        self._hosted.clear()
        for relayed in self._relayed.values():
            self._items.end(relayed, INCOMPLETE)
        self._relayed.clear()
        return self._log.take()

    def tail(self) -> bytes:
        self.complete()
        self._log.add(f"response.{self.status}", response=self.response())
        return self._log.take() + DONE

    def collect(self, deltas: Sequence[Delta]) -> None:
        self._log.is_silent = True
        for delta in deltas:
            self._say(delta)

    def whole(self, model: str, usage: TokenUsage | None) -> bytes:
        self._log.is_silent = True
        self._model = model
        self.end(usage)
        self.complete()
        return msgspec.json.encode(self.response())

    def failed(
        self,
        *,
        code: str,
        message: str,
        type: str = "server_error",  # noqa: A002 - its name on the wire
        param: str | None = None,
    ) -> bytes:
        """``error``, then ``response.failed``, then the end of the stream."""
        self._create()
        self._break_off("failed")
        self._error = {"code": code, "message": message}
        error = {"type": type, "code": code, "message": message, "param": param}
        # Some clients look for the error's members in the event itself, some below "error".
        self._log.add("error", code=code, message=message, param=param, error=error)
        self._log.add("response.failed", response=self.response())
        return self._log.take() + DONE

    def cancelled(self) -> None:
        """The answer ends here; there is no event for it."""
        self._break_off("cancelled")

    def _say(self, delta: Delta | Likely) -> None:
        match delta:
            case TextDelta(text):
                self._more("output_text", text)
            case ReasoningDelta(text):
                self._more("summary_text", text)
            case ReasoningSeal():
                self._seal(delta)
            case RefusalDelta(text):
                self._more("refusal", text)
            case Likely(text, tokens):
                self._more("output_text", text, tokens)
            case Aside():
                self._note(delta)
            case LogprobsDelta(tokens):
                if self._shows_logprobs:
                    self._more("output_text", "", tokens)
            case ToolCallDelta():
                self._call(delta)
            case Finished():
                self._finished = delta

    def _note(self, aside: Aside) -> None:
        match aside:
            case HostedCall():
                if self._relays:
                    self._relay(aside)
            case NewMessage():
                self._close()
                self._phase = aside.phase
            case NewPart() if isinstance(self._open, MessageItem):
                self._end_part()
            case Annotation() if self._part is not None and self._part.kind == "output_text":
                self._annotate(self._part, aside.value)

    def _annotate(self, part: Part, annotation: Mapping[str, Any]) -> None:
        place = {**self._place(part), "annotation_index": len(part.annotations)}
        part.annotations.append(annotation)
        kind = "response.output_text.annotation.added"
        self._log.add(kind, **place, annotation=annotation)

    def _relay(self, call: HostedCall) -> None:
        """Tell of a tool that the provider runs."""
        item = self._relayed.get(call.key)
        if item is None:
            if call.item is None:
                return
            self._close()
            item = self._relayed[call.key] = RelayedItem(self._items.next_index(), call.item)
            self._items.begin(item)
        elif call.item is not None:
            item.update(call.item)
        if call.event is not None:
            told = {**call.event, "item_id": item.id, "output_index": item.index}
            self._log.add(told.pop("type"), **told)
        if call.is_done:
            del self._relayed[call.key]
            self._items.end(item)

    def _more(self, kind: str, text: str, tokens: Sequence[Mapping[str, Any]] = ()) -> None:
        part = self._part
        if part is None or part.kind != kind:
            if not text:
                return  # nothing to begin an item for
            part = self._begin_part(kind)
        elif not text and not tokens:
            return
        part.pieces.append(text)
        event = {**self._place(part), "delta": text}
        if kind == "output_text":
            event["logprobs"] = likely = [logprob_object(token) for token in tokens]
            part.logprobs += likely
        self._log.add(f"{_TEXT_EVENTS[kind][0]}.delta", **event, **self._padding(text))

    def _begin_part(self, kind: str) -> Part:
        item: MessageItem | ReasoningItem
        if kind == "summary_text":
            item = self._thought()
            part = item.summary = Part(kind, 0)
            added = "response.reasoning_summary_part.added"
        else:
            item = self._message()
            part = Part(kind, len(item.parts))
            item.parts.append(part)
            added = "response.content_part.added"
        self._part = part
        place = self._place(part)
        self._log.add(added, **place, part=part.value())
        if kind == "output_text" and not self._is_special:
            self._plain = EventLog.text_head(place)
        return part

    def _message(self) -> MessageItem:
        """The message that is being said; a part of it that is open ends."""
        if isinstance(self._open, MessageItem):
            self._end_part()
            return self._open
        self._close()
        item = self._open = MessageItem(self._items.next_index(), phase=self._phase)
        self._phase = ""
        self._items.begin(item)
        return item

    def _thought(self) -> ReasoningItem:
        self._close()
        shows_seal = ENCRYPTED_REASONING in self._request.include
        item = self._open = ReasoningItem(self._items.next_index(), shows_seal=shows_seal)
        self._items.begin(item)
        return item

    def _seal(self, seal: ReasoningSeal) -> None:
        item = self._open if isinstance(self._open, ReasoningItem) else self._thought()
        item.seal(signature=seal.signature, hidden=seal.hidden)
        self._close()

    def _call(self, delta: ToolCallDelta) -> None:
        self._close()
        call = self._calls.get(delta.index)
        if call is None:
            call_id = delta.id or new_id("call")
            kind = CustomCallItem if delta.is_custom else CallItem
            call = kind(self._items.next_index(), call_id=call_id, name=delta.name)
            self._calls[delta.index] = call
            self._items.begin(call)
        if delta.arguments:
            self._arguments(call, delta.arguments)

    def _arguments(self, call: CallItem, text: str) -> None:
        call.pieces.append(text)
        event = {"item_id": call.id, "output_index": call.index, "delta": text}
        self._log.add(f"{call.events}.delta", **event, **self._padding(text))

    def _end_call(self, call: CallItem, status: str) -> None:
        if status == COMPLETED and not call.pieces and call.empty:
            self._arguments(call, call.empty)
        place = {"item_id": call.id, "output_index": call.index}
        self._log.add(f"{call.events}.done", **place, **call.told())
        self._items.end(call, status)

    def _close(self, status: str = COMPLETED) -> None:
        """End the message or the thought that is open."""
        item = self._open
        if item is None:
            return
        self._end_part()
        self._open = None
        self._items.end(item, status)

    def _end_part(self) -> None:
        part = self._part
        if part is None:
            return
        self._plain = b""
        events, whole = _TEXT_EVENTS[part.kind]
        place = self._place(part)
        told: dict[str, object] = {whole: part.text}
        if part.kind == "output_text":
            told["logprobs"] = part.logprobs
        self._log.add(f"{events}.done", **place, **told)
        is_summary = part.kind == "summary_text"
        ended = (
            "response.reasoning_summary_part.done" if is_summary else "response.content_part.done"
        )
        self._log.add(ended, **place, part=part.value())
        self._part = None

    def _break_off(self, status: str) -> None:
        """What is open stays so: nobody should take half a call for a whole one."""
        self.status = status
        for item in self._items:
            if item.status == IN_PROGRESS:
                item.status = INCOMPLETE
        self._open = self._part = None
        self._plain = b""
        self._calls.clear()
        self._hosted.clear()
        self._relayed.clear()

    def complete(self) -> None:
        """The response is as its last event will have it; once is enough."""
        if self.status in {COMPLETED, INCOMPLETE}:
            return
        is_cut = self._finished is not None and self._finished.reason in _INCOMPLETE_REASONS
        self.status = INCOMPLETE if is_cut else COMPLETED
        self._completed_at = None if is_cut else int(self._clock())

    def _create(self) -> msgspec.Raw:
        """Tell that the response is there, if nobody knows yet; return it."""
        shown = msgspec.Raw(msgspec.json.encode(self.response()))
        if not self._is_created:
            self._is_created = True
            self._log.add("response.created", response=shown)
        return shown

    def _place(self, part: Part) -> dict[str, Any]:
        item = self._open
        if item is None:
            raise ValueError("a part without an item")
        name = "summary_index" if part.kind == "summary_text" else "content_index"
        return {"item_id": item.id, "output_index": item.index, name: part.index}

    @property
    def _is_special(self) -> bool:
        """Whether the deltas of text hold more than the text."""
        return self._log.is_silent or self._shows_logprobs or self._request.include_obfuscation

    def _padding(self, text: str) -> dict[str, str]:
        return {"obfuscation": padding(text)} if self._request.include_obfuscation else {}
