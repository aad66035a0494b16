"""Output items while they are being said, and the response that they belong to."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from appliance.model.calls import Dialect
from appliance.model.usage import TokenUsage
from appliance.protocols.responses import seals
from appliance.protocols.responses.items import PREFIXES, TOOL_CALL, Item, new_id
from appliance.protocols.responses.request import ResponsesRequest

_PADDED_TO = 32  # characters
COMPLETED, INCOMPLETE, IN_PROGRESS = "completed", "incomplete", "in_progress"


class Part:
    """A part of an item, which grows: text, a refusal or the summary of a thought."""

    __slots__ = ("annotations", "index", "kind", "logprobs", "pieces")

    def __init__(self, kind: str, index: int) -> None:
        self.kind = kind
        self.index = index
        self.pieces: list[str] = []
        self.annotations: list[Mapping[str, Any]] = []
        self.logprobs: list[Item] = []

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def value(self) -> Item:
        match self.kind:
            case "output_text":
                return {
                    "type": self.kind,
                    "text": self.text,
                    "annotations": self.annotations,
                    "logprobs": self.logprobs,
                }
            case "refusal":
                return {"type": self.kind, "refusal": self.text}
            case _:
                return {"type": self.kind, "text": self.text}


class Said:
    """An item. ``index`` is its place among those that are shown, None for a hidden one."""

    kind = ""

    def __init__(self, index: int | None) -> None:
        self.id = new_id(PREFIXES[self.kind])
        self.index = index
        self.status = IN_PROGRESS

    def value(self) -> Item:
        """As the caller sees it."""
        return {"type": self.kind, "id": self.id, "status": self.status}

    def kept(self) -> Item | None:
        """As the next request to the model needs it; None: it would be of no use there."""
        return self.value()


class MessageItem(Said):
    """``phase`` is empty where the model did not say."""

    kind = "message"

    def __init__(self, index: int, *, phase: str = "") -> None:
        super().__init__(index)
        self.parts: list[Part] = []
        self._phase = phase

    def value(self) -> Item:
        content = [part.value() for part in self.parts]
        item = {**super().value(), "role": "assistant", "content": content}
        return {**item, "phase": self._phase} if self._phase else item


class ReasoningItem(Said):
    """``sealed`` is shown only to those who asked for it, and kept in any case."""

    kind = "reasoning"

    def __init__(self, index: int, *, shows_seal: bool) -> None:
        super().__init__(index)
        self.summary: Part | None = None
        self.sealed = ""
        self._shows_seal = shows_seal

    def seal(self, *, signature: str, hidden: str) -> None:
        if not hidden:
            text = self.summary.text if self.summary is not None else ""
            self.sealed = seals.seal_thinking(text, signature)
        elif seals.is_ours(hidden):
            # What a provider of this API made opaque goes out as it came.
            self.sealed = seals.hidden_of(hidden, Dialect.RESPONSES) or hidden
        else:
            self.sealed = seals.seal_hidden(hidden, Dialect.ANTHROPIC)

    def value(self) -> Item:
        item = {
            **super().value(),
            "summary": [] if self.summary is None else [self.summary.value()],
        }
        if self._shows_seal and self.sealed:
            item["encrypted_content"] = self.sealed
        return item

    def kept(self) -> Item:
        item = self.value()
        return {**item, "encrypted_content": self.sealed} if self.sealed else item


class CallItem(Said):
    """A call of a tool of the caller's."""

    kind = "function_call"
    events = "response.function_call_arguments"
    empty = "{}"  # what a call without arguments says: clients parse the text
    _text = "arguments"

    def __init__(self, index: int, *, call_id: str, name: str) -> None:
        super().__init__(index)
        self.call_id = call_id
        self.name = name
        self.pieces: list[str] = []

    def value(self) -> Item:
        return {**super().value(), "call_id": self.call_id, "name": self.name, **self._said()}

    def told(self) -> Item:
        """What the event says that ends its text."""
        return {"name": self.name, **self._said()}

    def kept(self) -> Item | None:
        # Half a call can neither be made nor be answered.
        return self.value() if self.status == COMPLETED else None

    def _said(self) -> Item:
        return {self._text: "".join(self.pieces)}


class CustomCallItem(CallItem):
    """A call with text of any form."""

    kind = "custom_tool_call"
    events = "response.custom_tool_call_input"
    empty = ""
    _text = "input"

    def told(self) -> Item:
        return self._said()


class RelayedItem(Said):
    """What a tool did that the provider runs: as it says, but for the id."""

    def __init__(self, index: int, item: Mapping[str, Any]) -> None:
        self.kind = item["type"]
        super().__init__(index)
        self._item: Mapping[str, Any] = {}
        self.update(item)

    def update(self, item: Mapping[str, Any]) -> None:
        # The request that it names there has another id here.
        self._item = {name: item[name] for name in item if name != "approval_request_id"}

    def value(self) -> Item:
        item = {**self._item, "type": self.kind, "id": self.id}
        # Broken off; what is whole has a status that its provider gave it.
        return {**item, "status": "failed"} if self._is_broken and "status" in item else item

    def kept(self) -> Item | None:
        return self.value() if self.status == COMPLETED else None

    @property
    def _is_broken(self) -> bool:
        return self.status == INCOMPLETE


class HostedItem(Said):
    """What an agent's own tool did."""

    kind = TOOL_CALL

    def __init__(self, index: int | None, *, call_id: str, name: str, arguments: str) -> None:
        super().__init__(index)
        self.call_id = call_id
        self.name = name
        self.arguments = arguments
        self.output: str | None = None
        self.is_error = False

    def value(self) -> Item:
        item = {
            **super().value(),
            "call_id": self.call_id,
            "name": self.name,
            "arguments": self.arguments,
            "output": self.output,
        }
        return {**item, "is_error": True} if self.is_error else item

    def kept(self) -> Item | None:
        return self.value() if self.status == COMPLETED else None


class CompactionItem(Said):
    """What stands for the conversation before this response. ``item`` is whole."""

    kind = "compaction"

    def __init__(self, index: int, item: Item) -> None:
        super().__init__(index)
        self.id = item["id"]
        self._item = item

    def value(self) -> Item:
        return self._item


def padding(text: str) -> str:
    """Hides from who sees only lengths how long ``text`` is."""
    length = -len(text) % _PADDED_TO or _PADDED_TO
    return secrets.token_urlsafe(length)[:length]


def usage_object(usage: TokenUsage) -> Item:
    """``usage`` as this API writes it: the input with the cache, the output with reasoning."""
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write,
        },
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total,
    }


def response_object(
    request: ResponsesRequest,
    *,
    id: str,  # noqa: A002 - its name on the wire
    created_at: int,
    model: str,
    status: str,
    output: Sequence[Item],
    completed_at: int | None = None,
    incomplete_reason: str | None = None,
    error: Mapping[str, str] | None = None,
    usage: TokenUsage | None = None,
) -> dict[str, Any]:
    """The Response. Clients want what may be null to be there, and the optional to be absent."""
    response = {
        "id": id,
        "object": "response",
        "created_at": created_at,
        "completed_at": completed_at,
        "status": status,
        "incomplete_details": None if incomplete_reason is None else {"reason": incomplete_reason},
        "model": model,
        "previous_response_id": request.previous_response_id,
        "instructions": request.instructions,
        "output": output,
        "error": error,
        "tools": request.tools,
        "tool_choice": request.tool_choice,
        "truncation": request.truncation,
        "parallel_tool_calls": request.parallel_tool_calls,
        "text": request.text,
        "top_p": _or(request.top_p, 1.0),
        "presence_penalty": _or(request.presence_penalty, 0.0),
        "frequency_penalty": _or(request.frequency_penalty, 0.0),
        "top_logprobs": request.top_logprobs or 0,
        "temperature": _or(request.temperature, 1.0),
        "reasoning": request.reasoning or {"effort": None, "summary": None},
        "usage": None if usage is None else usage_object(usage),
        "max_output_tokens": request.output_limit,
        "max_tool_calls": request.max_tool_calls,
        "store": request.store,
        "background": request.background,
        "service_tier": request.service_tier or "default",
        "metadata": request.metadata,
        "safety_identifier": request.safety_identifier,
        "prompt_cache_key": request.prompt_cache_key,
    }
    if request.conversation is not None:
        response["conversation"] = {"id": request.conversation}
    if request.user is not None:
        response["user"] = request.user
    if request.members.get("prompt", b"null") != b"null":
        response["prompt"] = msgspec.json.decode(request.members["prompt"])
    return response


def _or(given: float | None, usual: float) -> float:
    return usual if given is None else given
