"""What happens in a tenant, told to whoever is connected to it.

Publishing never waits: a subscriber takes an event at once or deals with its
own backlog. The latest events are kept for a while, so that a client whose
connection broke can ask for what it missed.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import msgspec

_MOST_KEPT = 2_048  # events
_MOST_KEPT_BYTES = 2 * 1024 * 1024


class Audience(Enum):
    """Which connections of the tenant an event is for."""

    EVERYONE = "everyone"  # nodes too
    READERS = "readers"  # operators who may read
    PAIRING = "pairing"  # operators who may pair
    APPROVERS = "approvers"  # operators who may approve
    NODES = "nodes"
    TOOL_WATCHERS = "tool-watchers"  # readers whose client has the capability tool-events
    SESSION_LIST = "session-list"  # readers who called sessions.subscribe
    SESSION = "session"  # readers who called sessions.messages.subscribe for event.session


@dataclass(frozen=True, slots=True)
class StateVersion:
    presence: int
    health: int


@dataclass(frozen=True, slots=True)
class Event:
    """``number`` counts the tenant's events from 1; ``payload`` is JSON."""

    number: int
    name: str
    payload: bytes
    audience: Audience
    droppable: bool  # a slow reader may miss it: a later event says more
    session: str | None  # without the tenant prefix
    state_version: StateVersion | None


class Subscriber(Protocol):
    def deliver(self, event: Event) -> None:
        """Take ``event`` or leave it, at once and without raising."""


class TenantEvents:
    """The events of one tenant while it is awake."""

    def __init__(self) -> None:
        self._subscribers: dict[int, Subscriber] = {}
        self._kept: deque[Event] = deque()
        self._kept_bytes = 0
        self._forgotten = 0  # number of the latest event that was kept and is no more
        self.last = 0  # number of the latest event

    def __len__(self) -> int:
        """How many listen."""
        return len(self._subscribers)

    def publish(
        self,
        name: str,
        payload: Mapping[str, object] | msgspec.Struct | bytes,
        *,
        audience: Audience = Audience.READERS,
        droppable: bool = False,
        session: str | None = None,
        state_version: StateVersion | None = None,
        kept: bool = True,
    ) -> Event:
        """Tell everybody in ``audience``. ``bytes`` are JSON already.

        What is not ``kept`` is not sent again to a client that comes back: its
        greeting says the same.
        """
        data = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
        self.last += 1
        event = Event(self.last, name, data, audience, droppable, session, state_version)
        if kept:
            self._keep(event)
        for subscriber in list(self._subscribers.values()):
            subscriber.deliver(event)
        return event

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers[id(subscriber)] = subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.pop(id(subscriber), None)

    @contextmanager
    def subscribed(self, subscriber: Subscriber) -> Iterator[None]:
        self.subscribe(subscriber)
        try:
            yield
        finally:
            self.unsubscribe(subscriber)

    def since(self, number: int) -> list[Event] | None:
        """The events after ``number``, None if some of them are no longer kept."""
        if number > self.last:
            return None  # of another life of this tenant
        if number < self._forgotten:
            return None
        return [event for event in self._kept if event.number > number]

    def _keep(self, event: Event) -> None:
        self._kept.append(event)
        self._kept_bytes += len(event.payload)
        while len(self._kept) > _MOST_KEPT or self._kept_bytes > _MOST_KEPT_BYTES:
            gone = self._kept.popleft()
            self._kept_bytes -= len(gone.payload)
            self._forgotten = gone.number
