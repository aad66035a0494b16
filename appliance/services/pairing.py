"""``devices.json`` of a tenant that is awake: read once, changed by one at a time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from appliance.services.clients import ConnectedClients
from appliance.services.events import TenantEvents
from appliance.services.tenant_state import TenantState
from appliance.storage.paired import Files, Paired, PairedStore, PairRequest

REQUEST_LIFE_MS = 5 * 60 * 1000
MOST_REQUESTS = 50  # of each kind; beyond, the oldest is forgotten


class TenantWithPairings(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def root(self) -> Files: ...
    @property
    def state(self) -> TenantState: ...
    @property
    def clients(self) -> ConnectedClients: ...
    @property
    def events(self) -> TenantEvents: ...


class PairingFile:
    """What :func:`changing` hands out: the content, and the right to replace it."""

    def __init__(self, state: TenantState, store: PairedStore, current: Paired) -> None:
        self._state = state
        self._store = store
        self.current = current

    async def save(self, paired: Paired) -> None:
        """Make ``paired`` the content; it is on disk when this returns, and all see it."""
        # Should saving fail half-way, the disk says what holds.
        self._state.paired = None
        await trio.to_thread.run_sync(self._store.save, paired)
        self._state.paired = self.current = paired


async def read(tenant: TenantWithPairings) -> Paired:
    """What is paired with ``tenant``. Raises ``TenantBroken`` for a damaged file.

    The file is read when it is asked for first; from then on this answers
    without waiting.
    """
    known = tenant.state.paired
    if known is not None:
        return known
    async with changing(tenant) as file:
        return file.current


@asynccontextmanager
async def changing(tenant: TenantWithPairings) -> AsyncIterator[PairingFile]:
    """Be the only one who changes what is paired with ``tenant``."""
    state = tenant.state
    async with state.pairing:
        store = PairedStore(tenant.root)
        if state.paired is None:
            state.paired = await trio.to_thread.run_sync(store.load)
        yield PairingFile(state, store, state.paired)


def live_requests(paired: Paired, kind: str, now_ms: int) -> tuple[PairRequest, ...]:
    """Of what waits for a decision, what is not too old for one."""
    return tuple(
        request
        for request in paired.requests
        if request.kind == kind and request.ts + REQUEST_LIFE_MS > now_ms
    )


def with_request(paired: Paired, request: PairRequest, now_ms: int) -> tuple[PairRequest, ...]:
    """The requests with ``request`` in the place of the one its subject made before."""
    other = "node" if request.kind == "device" else "device"
    alike = [
        old
        for old in live_requests(paired, request.kind, now_ms)
        if (old.subject_id, old.role) != (request.subject_id, request.role)
    ]
    kept = alike[len(alike) + 1 - MOST_REQUESTS :] if len(alike) >= MOST_REQUESTS else alike
    return (*live_requests(paired, other, now_ms), *kept, request)


def without_request(paired: Paired, request_id: str) -> tuple[PairRequest, ...]:
    return tuple(old for old in paired.requests if old.request_id != request_id)
