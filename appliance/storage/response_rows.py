"""Responses, conversations and their items as values. Everything a client sees is kept as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec

from appliance.model.errors import InvalidRequest
from appliance.model.periods import from_ns

MOST_ITEMS = 100  # of one page
_SHOWN = 64  # characters of a caller's text in a message


class ResponseStatus(StrEnum):
    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        return self not in {ResponseStatus.QUEUED, ResponseStatus.IN_PROGRESS}


# A conversation goes on with what ended so.
ENDS_WELL = frozenset({ResponseStatus.COMPLETED, ResponseStatus.INCOMPLETE})


@dataclass(frozen=True, slots=True)
class Item:
    """Something said, called or thought. ``json`` holds ``id`` as well.

    ``sealed`` is the same as a model reads it, where that differs from what is shown.
    """

    id: str
    json: bytes
    sealed: bytes | None = None

    @property
    def said(self) -> bytes:
        return self.sealed or self.json


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseState:
    """How far a response has come. ``body`` and ``outputs`` are as in :class:`NewResponse`.

    ``events`` are the latest of a run in the background, with their sequence numbers.
    """

    status: ResponseStatus
    body: bytes
    outputs: Sequence[Item] = ()
    events: Sequence[tuple[int, bytes]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewResponse:
    """A response to be kept. ``body`` is its JSON, whose ``output`` may still be empty.

    ``outputs`` are the output items as the next model reads them.
    """

    id: str
    status: ResponseStatus
    model: str
    body: bytes
    inputs: Sequence[Item]
    outputs: Sequence[Item] = ()
    background: bool = False
    previous: str | None = None
    conversation: str | None = None
    session: str = ""  # of the agent that answers

    @property
    def state(self) -> ResponseState:
        return ResponseState(status=self.status, body=self.body, outputs=self.outputs)

    @property
    def size(self) -> int:
        return len(self.body) + sum(len(item.json) for item in self.inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResponse:
    """``has_events`` says whether its events can still be told again."""

    id: str
    status: ResponseStatus
    model: str
    body: bytes
    background: bool
    previous: str | None
    conversation: str | None
    session: str
    created_at: datetime
    has_events: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """``metadata`` is JSON; ``session`` that of the agent that last spoke in it."""

    id: str
    metadata: bytes
    session: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ItemPage:
    items: Sequence[Item]
    has_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOf:
    """Which part of a list is asked for. ``after`` is the id of the item before it."""

    limit: int = 20
    newest_first: bool = True
    after: str | None = None


def unknown_after(after: str) -> InvalidRequest:
    return InvalidRequest.at(
        "after", f"there is no item {after[:_SHOWN]!r} in this list", "give the id of one"
    )


class _Output(msgspec.Struct):
    output: list[msgspec.Raw] = []


class _Identified(msgspec.Struct):
    id: str = ""


_output = msgspec.json.Decoder(_Output)
_identified = msgspec.json.Decoder(_Identified)


def output_of(body: bytes) -> list[Item]:
    """The output items in the JSON of a response."""
    raw = [bytes(item) for item in _output.decode(body).output]
    return [Item(_identified.decode(item).id, item) for item in raw]


COLUMNS = """
r.public_id, r.status, r.model, r.body, r.background, r.previous, r.conversation, r.session,
r.created_ns, r.events
"""


def response_of(row: Sequence[object]) -> StoredResponse:
    match row:
        case (
            str(public_id), str(status), str(model), bytes(body), int(background),
            None | str() as previous, None | str() as conversation, str(session),
            int(created_ns), int(events),
        ):  # fmt: skip
            return StoredResponse(
                id=public_id,
                status=ResponseStatus(status),
                model=model,
                body=body,
                background=bool(background),
                previous=previous,
                conversation=conversation,
                session=session,
                created_at=from_ns(created_ns),
                has_events=events > 0,
            )
    raise TypeError("not a row of responses")


def conversation_of(row: Sequence[object]) -> Conversation:
    match row:
        case (str(public_id), bytes(metadata), str(session), int(created_ns)):
            return Conversation(
                id=public_id, metadata=metadata, session=session, created_at=from_ns(created_ns)
            )
    raise TypeError("not a row of conversations")


def item_of(row: Sequence[object]) -> Item:
    match row:
        case (str(public_id), bytes(item)):
            return Item(public_id, item)
    raise TypeError("not a row of items")
