"""Which sandboxes run, and how many may be started at once."""

import os
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import trio

from appliance.model.errors import RateLimited, Unavailable
from appliance.services.sandboxes.running import RunningSandbox

MOST_OF_A_TENANT = 250  # running at once
STARTING_AT_ONCE = 2 * (os.cpu_count() or 1) + 2
_STARTING_OF_A_TENANT = 4  # one that starts a thousand must not make the others wait
_PATIENCE = 60.0  # seconds in the queue


@dataclass(slots=True, eq=False)
class _Place:
    """One tenant's."""

    running: dict[str, RunningSandbox] = field(default_factory=dict)
    present: int = 0  # that run, start or wait to be started
    starting: trio.Semaphore = field(default_factory=lambda: trio.Semaphore(_STARTING_OF_A_TENANT))
    handover: trio.Lock = field(default_factory=trio.Lock)


class SandboxStarts:
    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}
        self._starting = trio.Semaphore(STARTING_AT_ONCE)

    def of(self, tenant: str) -> Collection[RunningSandbox]:
        """Those of one tenant, oldest first."""
        place = self._places.get(tenant)
        return () if place is None else tuple(place.running.values())

    def all(self) -> list[RunningSandbox]:
        return [each for place in self._places.values() for each in place.running.values()]

    def __len__(self) -> int:
        return sum(len(place.running) for place in self._places.values())

    @contextmanager
    def taken(self, tenant: str) -> Iterator[None]:
        """Keep a place for one more; raise ``RateLimited`` if there are too many."""
        place = self._places.setdefault(tenant, _Place())
        if place.present >= MOST_OF_A_TENANT:
            raise RateLimited(
                f"{MOST_OF_A_TENANT} sandboxes of this tenant run already; end some first"
            )
        place.present += 1
        try:
            yield
        finally:
            place.present -= 1
            if not place.present:
                del self._places[tenant]

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncIterator[None]:
        """Wait for the turn to start one, which is over when this is left."""
        place = self._places[tenant]
        with trio.move_on_after(_PATIENCE) as patience:
            await place.starting.acquire()
            try:
                await self._starting.acquire()
            except BaseException:
                place.starting.release()
                raise
        if patience.cancelled_caught:
            raise Unavailable("too many sandboxes are being started; try again", retry_after=5)
        try:
            yield
        finally:
            self._starting.release()
            place.starting.release()

    def handover(self, tenant: str) -> trio.Lock:
        return self._places[tenant].handover

    @contextmanager
    def noted(self, sandbox: RunningSandbox) -> Iterator[None]:
        """It runs meanwhile."""
        running = self._places[sandbox.tenant].running
        running[sandbox.id] = sandbox
        try:
            yield
        finally:
            del running[sandbox.id]
