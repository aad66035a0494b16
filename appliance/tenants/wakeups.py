"""When which tenant has to be awake again: one heap for the whole gateway.

A tenant that sleeps has no task that could watch the clock. What it wants to
be woken for is registered here: the next cron job, the next poll of a channel.
"""

import heapq
from collections.abc import Callable
from datetime import datetime

import trio

# The heap is ordered by the wall clock and trio sleeps by another one. After a
# suspend or a corrected clock the two disagree, so no sleep is longer than this.
_LONGEST_SLEEP = 60.0  # seconds


class WakeTimes:
    """The next moment each tenant asked for, and each of its services by itself."""

    def __init__(self, *, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._wanted: dict[str, dict[str, datetime]] = {}  # tenant -> service -> moment
        # What is in here but not in _wanted has been changed since; it is
        # skipped when its time comes.
        self._heap: list[tuple[datetime, str, str]] = []
        self._discard_at = 16  # entries
        self._changed = trio.Event()

    def __len__(self) -> int:
        return sum(map(len, self._wanted.values()))

    def register(self, tenant: str, at: datetime | None, *, service: str = "") -> None:
        """Wake ``tenant`` at ``at``, None: not at all; replaces what ``service`` wanted before."""
        if at is None:
            self._take(tenant, service)
            return
        services = self._wanted.setdefault(tenant, {})
        if services.get(service) == at:
            return
        services[service] = at
        heapq.heappush(self._heap, (at, tenant, service))
        self._discard_stale()
        if self._heap[0][0] == at:
            self._changed.set()

    def forget(self, tenant: str) -> None:
        """Never wake ``tenant`` again."""
        self._wanted.pop(tenant, None)

    def next_at(self) -> datetime | None:
        self._drop_changed()
        return self._heap[0][0] if self._heap else None

    def due_nowait(self) -> list[str]:
        """Take the tenants whose time has come, each once, in order of their time."""
        now = self._clock()
        due: dict[str, None] = {}
        while self._drop_changed() and self._heap[0][0] <= now:
            _, tenant, service = heapq.heappop(self._heap)
            self._take(tenant, service)
            due[tenant] = None
        return list(due)

    async def wait_due(self) -> list[str]:
        """Wait until at least one tenant's time has come, and take those."""
        while True:
            self._changed = trio.Event()
            due = self.due_nowait()
            if due:
                await trio.lowlevel.checkpoint()
                return due
            with trio.move_on_after(self._wait()):
                await self._changed.wait()

    def _wait(self) -> float:
        if not self._heap:
            return _LONGEST_SLEEP
        seconds = (self._heap[0][0] - self._clock()).total_seconds()
        return min(max(seconds, 0), _LONGEST_SLEEP)

    def _drop_changed(self) -> bool:
        """Bring an entry that still holds to the top; False if there is none."""
        while self._heap:
            at, tenant, service = self._heap[0]
            if self._wanted.get(tenant, {}).get(service) == at:
                return True
            heapq.heappop(self._heap)
        return False

    # Somebody who moves one time again and again must not grow the heap.
    def _discard_stale(self) -> None:
        if len(self._heap) < self._discard_at:
            return
        self._heap = [
            (at, tenant, service)
            for tenant, services in self._wanted.items()
            for service, at in services.items()
        ]
        heapq.heapify(self._heap)
        self._discard_at = 2 * len(self._heap) + 16

    def _take(self, tenant: str, service: str) -> None:
        services = self._wanted.get(tenant, {})
        services.pop(service, None)
        if not services:
            self._wanted.pop(tenant, None)
