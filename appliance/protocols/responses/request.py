"""A request of the Responses API: what the gateway reads of it, every field checked."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from appliance.model.errors import Fault, InvalidRequest
from appliance.protocols.json_body import parse_object
from appliance.protocols.prompt_links import linked_size
from appliance.protocols.request_members import encoded
from appliance.protocols.responses import options
from appliance.protocols.responses.fields import Members
from appliance.protocols.responses.forms import form_members
from appliance.protocols.responses.items import (
    PREFIXES,
    Item,
    check_calls,
    input_items,
    new_id,
)
from appliance.protocols.responses.tools import is_hosted, read_tool_choice, read_tools

LONGEST_MODEL = 256  # characters
MOST_ITEMS = 10_000  # of the input; each is a row on the disk, as many as a conversation holds
_LONGEST_ID = 512
_MOST_TOKENS = 10_000_000
_SHORTEST_OUTPUT = 16  # tokens; as the specification has it
_TIERS = frozenset({"auto", "default", "fast", "flex", "priority", "scale", "ultrafast"})

# What is ours to do: no provider is told of it.
_OURS = frozenset(
    {
        "background",
        "context_management",
        "conversation",
        "input",
        "previous_response_id",
        "store",
        "stream",
        "stream_options",
        "type",
    }
)
_HINTS = frozenset(
    {
        "metadata",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "user",
    }
)
_READ = frozenset(
    {
        "frequency_penalty",
        "include",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "model",
        "parallel_tool_calls",
        "presence_penalty",
        "reasoning",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
    }
)
# Only a provider of this API knows what they mean; others refuse them by name.
PASSED_ON = frozenset({"moderation", "prompt"})
_KNOWN = (_OURS | _HINTS | _READ | PASSED_ON) - {"type"}
_OF_COMPACTION = _HINTS | {"model", "input", "instructions", "previous_response_id"}
_NOT_IN_A_FRAME = ("stream", "stream_options", "background")

# The base64 of a picture says nothing about its tokens; a document may cost what it is long.
_PICTURE = re.compile(
    rb'"(?:image_url|file_data)"\s*:\s*"(data:image\\?/[^",]{1,512}?;base64,[^"]*+)', re.IGNORECASE
)
_READ_BY_THE_MODEL = ("input", "instructions", "tools", "text", "prompt")
_PICTURE_TOKENS = 1_600  # what providers charge at most for one in the usual detail
_BYTES_A_TOKEN = 3  # as the meter counts a prompt


class ReadBody(dict[str, bytes]):
    """The members of a request, and its input as it was read from them."""

    __slots__ = ("items_read",)

    def __init__(self, members: Mapping[str, bytes], items_read: tuple[Item, ...]) -> None:
        super().__init__(members)
        self.items_read = items_read


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsesRequest:
    """``members`` are the top-level ones as they came, each as JSON text.

    ``input`` are whole items, each with a type and an id; ``tools``,
    ``tool_choice``, ``text`` and ``reasoning`` are in the form that a response
    shows. ``prompt_bytes`` is what the prompt's cost is estimated from, without
    the context before it (see :func:`prompt_size` for a request with it).
    """

    members: Mapping[str, bytes]
    model: str
    input: tuple[Item, ...]
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: str | None = None  # its id
    stream: bool = False
    include_obfuscation: bool = False  # of stream_options
    store: bool = True
    background: bool = False
    include: frozenset[str] = frozenset()
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str | Mapping[str, Any] = "auto"
    parallel_tool_calls: bool = True
    max_tool_calls: int | None = None
    output_limit: int | None = None  # tokens
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    text: Mapping[str, Any] = field(default_factory=lambda: options.read_text(None))
    reasoning: Mapping[str, Any] | None = None
    truncation: str = "disabled"
    compact_threshold: int | None = None  # tokens; of context_management
    metadata: Mapping[str, str] = field(default_factory=dict)
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prewarm: bool = False  # of prompt_cache_options: nothing is to be said
    user: str | None = None
    prompt_bytes: int = 0
    input_read: tuple[Item, ...] = ()  # while nothing was put in its place, the very same

    @classmethod
    def parse(cls, data: bytes, *, limit_bytes: int) -> "ResponsesRequest":
        """Read a JSON body; raise :exc:`InvalidRequest` naming the field, or :exc:`TooLarge`."""
        return cls.of(parse_object(data, limit_bytes=limit_bytes))

    @classmethod
    def parse_form(cls, data: bytes, *, limit_bytes: int) -> "ResponsesRequest":
        """Read an ``application/x-www-form-urlencoded`` body; raises like :meth:`parse`."""
        return cls.of(form_members(data, limit_bytes=limit_bytes))

    @classmethod
    def of(cls, members: Mapping[str, bytes]) -> "ResponsesRequest":
        """Read a request from its top-level members; raises :exc:`InvalidRequest`."""
        _refuse_unknown(members, _KNOWN)
        request = _read(members)
        if request.background and not request.store:
            raise InvalidRequest.at(
                "background", "needs the response to be stored", "leave store out"
            )
        return request

    @classmethod
    def of_frame(cls, members: Mapping[str, bytes]) -> "ResponsesRequest":
        """Read a WebSocket frame ``response.create``; its answer is always streamed."""
        if Members(members).get("type") != "response.create":
            raise InvalidRequest.at("type", "must be response.create")
        for name in _NOT_IN_A_FRAME:
            if members.get(name, b"null") != b"null":
                raise InvalidRequest.at(name, "has no place on a WebSocket", "leave it out")
        rest = {name: value for name, value in members.items() if name != "type"}
        return replace(cls.of(rest), stream=True)

    @classmethod
    def of_count(cls, members: Mapping[str, bytes]) -> "ResponsesRequest":
        """Read the body of ``/responses/input_tokens``; its model may be empty."""
        _refuse_unknown(members, _KNOWN)
        return _read(members, needs_model=False)

    @classmethod
    def of_compaction(cls, members: Mapping[str, bytes]) -> "ResponsesRequest":
        """Read the body of ``/responses/compact``."""
        _refuse_unknown(members, _OF_COMPACTION)
        request = _read(members)
        if request.prewarm:
            raise InvalidRequest.at(
                "prompt_cache_options.prewarm", "leaves no summary to be written", "leave it out"
            )
        return request

    @property
    def has_hosted_tools(self) -> bool:
        """Whether there are tools that the provider runs."""
        return any(map(is_hosted, self.tools))

    @property
    def may_have_hosted_tools(self) -> bool:
        """The same where nobody knows: a prompt that the provider keeps may bring some."""
        return self.has_hosted_tools or self.members.get("prompt", b"null") != b"null"

    @property
    def references(self) -> tuple[str, ...]:
        """The ids of the stored items that the input refers to."""
        return tuple(item["id"] for item in self.input if item["type"] == "item_reference")

    def with_references(self, found: Mapping[str, Item]) -> "ResponsesRequest":
        """The same with those items in place; raise :exc:`InvalidRequest` for one not found."""
        items = list(self.input)
        for number, item in enumerate(items):
            if item["type"] != "item_reference":
                continue
            if item["id"] not in found:
                raise _unresolved(number, item)
            items[number] = found[item["id"]]
        return replace(self, input=tuple(items))

    def upstream(self, context: Sequence[Item] = ()) -> dict[str, bytes]:
        """The members of a :class:`ModelCall` of this dialect: ``context``, then the own input.

        Without what is ours to do (state, background, streaming). Raises
        :exc:`InvalidRequest` for a reference that was not resolved and for an
        output without its call.
        """
        for number, item in enumerate(self.input):
            if item["type"] == "item_reference":
                raise _unresolved(number, item)
        items = [*context, *self.input]
        check_calls(items)
        body = {name: value for name, value in self.members.items() if name not in _OURS}
        if "include" in body:
            included = sorted(self.include - {options.TOOL_CALLS})
            body["include"] = encoded("include", included)
        body["input"] = encoded("input", items)
        as_it_came = not context and self.input is self.input_read
        return ReadBody(body, self.input) if as_it_came else body


def _unresolved(number: int, item: Item) -> InvalidRequest:
    return InvalidRequest.at(
        f"input[{number}].id",
        f"no item {item['id'][:80]!r} was found",
        "send the item itself; only what was stored can be referred to",
    )


def _refuse_unknown(members: Mapping[str, bytes], known: frozenset[str]) -> None:
    for name in members:
        if name not in known:
            raise InvalidRequest.at(
                name[:80],
                "is not a parameter of this request",
                "leave it out",
                fault=Fault.UNSUPPORTED,
            )


def _read(members: Mapping[str, bytes], *, needs_model: bool = True) -> ResponsesRequest:
    at = Members(members)
    previous = at.text("previous_response_id", longest=_LONGEST_ID, shortest=1)
    conversation = options.read_conversation(at.get("conversation"))
    if previous is not None and conversation is not None:
        raise InvalidRequest.at(
            "previous_response_id", "cannot be combined with conversation", "send one of them"
        )
    tools = read_tools(at.get("tools"))
    continues = previous is not None or conversation is not None
    items = _input(at, needed=not continues and at.get("prompt") is None)
    return ResponsesRequest(
        members=members,
        model=_model(at, needed=needs_model),
        input=items,
        input_read=items,
        instructions=at.text("instructions"),
        previous_response_id=previous,
        conversation=conversation,
        stream=at.flag("stream", default=False),
        include_obfuscation=options.read_stream_options(at.get("stream_options")),
        store=at.flag("store", default=True),
        background=at.flag("background", default=False),
        include=options.read_include(at.get("include")),
        tools=tools,
        tool_choice=read_tool_choice(at.get("tool_choice"), tools),
        parallel_tool_calls=at.flag("parallel_tool_calls", default=True),
        max_tool_calls=at.integer("max_tool_calls", least=1, most=_MOST_TOKENS),
        output_limit=at.integer("max_output_tokens", least=_SHORTEST_OUTPUT, most=_MOST_TOKENS),
        temperature=at.number("temperature", least=0, most=2),
        top_p=at.number("top_p", least=0, most=1),
        top_logprobs=at.integer("top_logprobs", least=0, most=20),
        presence_penalty=at.number("presence_penalty", least=-2, most=2),
        frequency_penalty=at.number("frequency_penalty", least=-2, most=2),
        text=options.read_text(at.get("text")),
        reasoning=options.read_reasoning(at.get("reasoning")),
        truncation=at.word("truncation", ("auto", "disabled")) or "disabled",
        compact_threshold=options.read_compact_threshold(at.get("context_management")),
        metadata=options.read_metadata(at.get("metadata")),
        service_tier=at.word("service_tier", _TIERS),
        safety_identifier=at.text("safety_identifier", longest=_LONGEST_ID),
        prompt_cache_key=at.text("prompt_cache_key", longest=_LONGEST_ID),
        prewarm=options.read_prewarm(at.get("prompt_cache_options")),
        user=at.text("user", longest=_LONGEST_ID),
        prompt_bytes=prompt_size(members),
    )


def _model(at: Members, *, needed: bool) -> str:
    model = at.text("model")
    if model is None and not needed:
        return ""
    if model is None:
        raise InvalidRequest.at("model", "is missing", "GET /v1/models lists them")
    if not model or len(model) > LONGEST_MODEL or not model.isprintable():
        raise InvalidRequest.at(
            "model",
            f"must be 1 to {LONGEST_MODEL} printable characters",
            "GET /v1/models lists them",
        )
    return model


def _input(at: Members, *, needed: bool) -> tuple[Item, ...]:
    raw = at.get("input")
    if isinstance(raw, list) and len(raw) > MOST_ITEMS:
        raise InvalidRequest.at(
            "input", f"has {len(raw)} items; the limit is {MOST_ITEMS}", "continue a response"
        )
    items = () if raw is None else _told_apart(input_items(raw, "input"))
    if not items and needed:
        reason = "is missing" if raw is None else "must not be empty"
        raise InvalidRequest.at("input", reason, "send a string or a list of items")
    return items


def _told_apart(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """The items, of which no two have one id: lists of them are read page by page, by ids."""
    seen: set[str] = set()
    for item in items:
        if item["id"] in seen and item["type"] in PREFIXES:
            item["id"] = new_id(PREFIXES[item["type"]])
        seen.add(item["id"])
    return items


def prompt_size(members: Mapping[str, bytes]) -> int:
    """The bytes that the prompt's tokens are estimated from; pictures count as what they cost."""
    size = sum(len(members.get(name, b"")) for name in _READ_BY_THE_MODEL)
    said = members.get("input", b"")
    if b"data:" in said:
        pictures = _PICTURE.findall(said)
        size -= sum(map(len, pictures))
        size += len(pictures) * _PICTURE_TOKENS * _BYTES_A_TOKEN
    return size + linked_size(said)
