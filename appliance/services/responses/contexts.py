"""What a request continues: found, put before its own input, and made shorter where that helps."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec
import trio

from appliance.model.errors import InvalidRequest, NotFound
from appliance.protocols.responses import seals
from appliance.protocols.responses.items import Item, answers, asks
from appliance.protocols.responses.request import ResponsesRequest
from appliance.services.responses.chains import ChainMemory
from appliance.services.responses.runs import PreviousResponseNotFound
from appliance.storage.response_rows import Item as StoredItem
from appliance.storage.responses import ResponseStore

IN_LOOP = 256 * 1024  # bytes of JSON
_MOST_REFERENCES = 1_000
_MOST_CUTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Continued:
    """``request`` has what it refers to in place; ``context`` is what was before it.

    ``session`` is that of the agent that answered last, '' where none did, and ``last``
    the response it gave: what was said in that session since is not part of this.
    """

    request: ResponsesRequest
    context: Sequence[Item]
    session: str = ""
    last: str = ""


async def continued(
    store: ResponseStore,
    request: ResponsesRequest,
    *,
    now: datetime,
    memory: ChainMemory | None = None,
) -> Continued:
    """Raises :exc:`PreviousResponseNotFound`, :exc:`NotFound` (of a conversation),
    :exc:`InvalidRequest` (of a reference) and :exc:`TooLarge`."""
    request = await _with_references(store, request, now=now)
    last = ""
    if request.previous_response_id is not None:
        last = request.previous_response_id
        context, session = await _chain(store, last, now, memory)
    elif request.conversation is not None:
        context, session, last = await _conversation(store, request.conversation, now)
    else:
        context, session = (), ""
    return Continued(request=request, context=context, session=session, last=last)


async def _chain(
    store: ResponseStore, response_id: str, now: datetime, memory: ChainMemory | None
) -> tuple[Sequence[Item], str]:
    remembered = None if memory is None else memory.find(response_id)
    if remembered is not None:
        return remembered, ""
    previous = store.find(response_id, now=now)
    if previous is None or not previous.status.is_over:
        raise PreviousResponseNotFound
    items = await store.context(response_id, now=now)
    if items is None:
        raise PreviousResponseNotFound
    session = previous.session
    if previous.conversation is not None:
        talk = store.conversations.find(previous.conversation, now=now)
        session = session if talk is not None and talk.session else ""
    return await _decoded(items), session


async def _conversation(
    store: ResponseStore, conversation_id: str, now: datetime
) -> tuple[Sequence[Item], str, str]:
    conversation = store.conversations.find(conversation_id, now=now)
    last = store.conversations.last_response(conversation_id, now=now)
    items = await store.conversations.context(conversation_id, now=now)
    if conversation is None or items is None:
        raise no_conversation(conversation_id)
    session = "" if last is None else conversation.session
    return await _decoded(items), session, last or ""


def no_conversation(conversation_id: str) -> NotFound:
    return NotFound(f"Conversation with id {conversation_id[:80]!r} not found.")


def no_response(response_id: str) -> NotFound:
    return NotFound(f"Response with id {response_id[:80]!r} not found.")


async def _with_references(
    store: ResponseStore, request: ResponsesRequest, *, now: datetime
) -> ResponsesRequest:
    references = request.references
    if not references:
        return request
    if len(references) > _MOST_REFERENCES:
        raise InvalidRequest.at("input", f"refers to more than {_MOST_REFERENCES} items")
    if len(set(references)) < len(references):
        # A reference is a few bytes, what it stands for may be megabytes.
        raise InvalidRequest.at("input", "refers to an item twice", "refer to each item once")
    found = await store.find_items(references, now=now)
    return request.with_references({name: _decode(text) for name, text in found.items()})


def _decode(text: bytes) -> Item:
    return msgspec.json.decode(text, type=dict)


async def _decoded(items: Sequence[StoredItem]) -> list[Item]:
    """The items. A conversation that is full loses its oldest, maybe a call without its result."""

    def decode() -> list[Item]:
        return with_their_calls([_decode(item.json) for item in items])

    if sum(len(item.json) for item in items) <= IN_LOOP:
        return decode()
    return await trio.to_thread.run_sync(decode)


async def upstream_body(request: ResponsesRequest, context: Sequence[Item]) -> dict[str, bytes]:
    """The request as it goes out; of a long conversation it is written beside the loop.

    What a compaction stands for is left out.
    """
    items = [*context, *request.input]
    left = since_compaction(items)
    if len(left) < len(items):
        request, context = replace(request, input=tuple(left)), ()
    if len(context) < 100 and request.prompt_bytes <= IN_LOOP:
        return request.upstream(context)
    return await trio.to_thread.run_sync(request.upstream, context)


def since_compaction(items: Sequence[Item]) -> Sequence[Item]:
    """The items without what the latest compaction of ours stands for.

    What the system says stays, and a call whose result came later.
    """
    last = len(items) - 1
    while last >= 0 and not _is_compaction(items[last]):
        last -= 1
    if last <= 0:
        return items
    rest = items[last:]
    answered = set(map(answers, rest)) - {None}
    kept = [item for item in items[:last] if is_system(item) or asks(item) in answered]
    return [*kept, *rest]


def last_step(items: Sequence[Item]) -> int:
    """Where what a model answers to begins: the user's last words, or results and their calls.

    0 if nothing but what the system says is before that.
    """
    start = _back(items, len(items), _is_said_to_model)
    if any(answers(item) is not None for item in items[start:]):
        start = _back(items, start, lambda item: not _is_said_to_model(item))
    return start if any(not is_system(item) for item in items[:start]) else 0


def _back(items: Sequence[Item], end: int, is_one: Callable[[Item], bool]) -> int:
    while end > 0 and is_one(items[end - 1]):
        end -= 1
    return end


def _is_said_to_model(item: Item) -> bool:
    is_message = item["type"] == "message" and item.get("role") != "assistant"
    return is_message or answers(item) is not None


def is_system(item: Item) -> bool:
    """Whether it says how to behave, and so is never left out."""
    return item["type"] == "message" and item.get("role") in {"system", "developer"}


def _is_compaction(item: Item) -> bool:
    """Of ours: what a provider made opaque, only it can read."""
    return item["type"] == "compaction" and (
        seals.summary_of(item["encrypted_content"]) is not None
    )


def shorter(
    request: ResponsesRequest, context: Sequence[Item]
) -> Iterator[tuple[ResponsesRequest, Sequence[Item]]]:
    """The same with fewer and fewer of the oldest items, for ``truncation: auto``.

    Half of the bytes go each time. What the system says and the last item stay,
    and no result of a call without its call.
    """
    items = list(since_compaction([*context, *request.input]))
    for _ in range(_MOST_CUTS):
        left = _halved(items)
        if len(left) == len(items):
            return
        items = left
        yield replace(request, input=tuple(items)), ()


def _halved(items: Sequence[Item]) -> list[Item]:
    sizes = [len(msgspec.json.encode(item)) for item in items]
    fixed = _fixed(items)
    loose = [number for number in range(len(items)) if number not in fixed]
    wanted = sum(sizes[number] for number in loose) // 2
    gone: set[int] = set()
    for number in loose:
        if gone and wanted <= 0:
            break
        gone.add(number)
        wanted -= sizes[number]
    return with_their_calls([item for number, item in enumerate(items) if number not in gone])


def with_their_calls(items: Sequence[Item]) -> list[Item]:
    """The items but for results of calls that are not among those before them."""
    kept: list[Item] = []
    asked: set[str | None] = {None}
    for item in items:
        if answers(item) in asked:
            asked.add(asks(item))
            kept.append(item)
    return kept


def _fixed(items: Sequence[Item]) -> set[int]:
    """The numbers of what has to stay: the last item, or the last results and their calls."""
    last = len(items) - 1
    fixed = {last}
    answered: set[str] = set()
    while last >= 0 and (answered_id := answers(items[last])) is not None:
        fixed.add(last)
        answered.add(answered_id)
        last -= 1
    for number, item in enumerate(items):
        if is_system(item) or asks(item) in answered:
            fixed.add(number)
    return fixed
