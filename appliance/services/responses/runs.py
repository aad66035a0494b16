"""One response on its way, and those of a tenant that nobody waits for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from appliance.model.errors import ApplianceError, InvalidRequest, Kind
from appliance.model.session_keys import SessionKey
from appliance.protocols.responses.items import Item
from appliance.protocols.responses.request import ResponsesRequest
from appliance.protocols.responses.writer import ResponseWriter
from appliance.services.model_calls import OpenCall
from appliance.services.responses.chains import ChainMemory
from appliance.services.tools.base import ToolTenant
from appliance.storage.response_rows import Item as StoredItem
from appliance.storage.responses import ResponseStore

_NOT_FOUND = "the response that it continues was not found; it may have expired, or was not stored"


class ResponsesTenant(ToolTenant, Protocol):
    async def responses(self) -> ResponseStore:
        """The tenant's store, opened on first use."""


class ResponseSink(Protocol):
    """Who is told the answer; as ``services.completions.Sink``."""

    async def begin(self, call: OpenCall) -> None: ...
    async def send(self, events: bytes) -> None: ...
    async def finish(self, call: OpenCall, rest: bytes) -> None: ...


class PreviousResponseNotFound(InvalidRequest):
    """One answer for every reason, so that nobody can search for ids."""

    code = "previous-response-not-found"
    title = "There is no response to continue"

    def __init__(self) -> None:
        found = InvalidRequest.at("previous_response_id", _NOT_FOUND)
        super().__init__(found.detail, fields=found.fields)


class Interrupted(ApplianceError):
    """The run ended before its answer did, and not because somebody asked for it."""

    code = "interrupted"
    title = "The run was interrupted"
    kind = Kind.UNAVAILABLE

    def __init__(self) -> None:
        super().__init__("the run ended early: the gateway stops, or the token was revoked")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request, and whom it is for.

    ``agent`` is None for a model of a provider. ``session`` is the one that the
    caller named, None to go on in that of what is continued, or in a new one.
    ``memory`` holds what is not stored, as long as its connection.
    """

    request: ResponsesRequest
    agent: str | None = None
    session: SessionKey | None = None
    memory: ChainMemory | None = None


@dataclass(slots=True)
class ResponseRun:
    """One response. ``events`` were written and are not kept yet."""

    id: str
    asked: Asked
    writer: ResponseWriter
    events: list[tuple[int, bytes]] = field(default_factory=list)
    context: Sequence[Item] = ()  # what the request continues
    request: ResponsesRequest | None = None  # with what it refers to in place
    session: str = ""  # of the agent, where that keeps the history
    has_begun: bool = False  # somebody was told of it
    unsent: bytes = b""  # events that were written and wait until it is kept
    is_kept: bool = False  # it is complete and written down: nothing changes it any more
    failure: bytes = b""  # what to tell a stream that broke off
    told: Mapping[str, str | None] | None = None  # the error in it

    @property
    def is_streamed(self) -> bool:
        request = self.asked.request
        return request.stream or request.background or self.asked.memory is not None

    @property
    def resolved(self) -> ResponsesRequest:
        return self.request or self.asked.request

    def take_events(self) -> list[tuple[int, bytes]]:
        taken = self.events[:]
        self.events.clear()
        return taken


# How a failure is told: message, type, code and param, in OpenAI's words.
Describe = Callable[[BaseException, str], Mapping[str, str | None]]


def stored(item: Item, sealed: Item | None = None) -> StoredItem:
    """An item ready for the database. ``sealed`` is the same as the next model reads it."""
    text = msgspec.json.encode(item)
    return StoredItem(
        str(item["id"]), text, None if sealed is None else msgspec.json.encode(sealed)
    )
