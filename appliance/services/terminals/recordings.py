"""What was recorded of a tenant's terminals, for whoever may see it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

import trio

from appliance.model.callers import Caller
from appliance.model.errors import TooLarge
from appliance.services.audit import AuditTrail
from appliance.storage.paths import TenantRoot
from appliance.storage.recordings import Recording, RecordingStore

T = TypeVar("T")

PIECE = 1024 * 1024  # bytes of a recording that one answer carries; a line is never longer
WHOLE = 64 * 1024 * 1024  # bytes that are handed out at once


class Roots(Protocol):
    """The directories of the tenants; methods block."""

    def tenant_root(self, tenant: str, /) -> TenantRoot: ...


class Recordings:
    """Methods raise ``NotFound`` for what is not there, and ``TenantUnknown``."""

    def __init__(self, *, roots: Roots, audit: AuditTrail) -> None:
        self._roots = roots
        self._audit = audit

    async def list(self, tenant: str) -> Sequence[Recording]:
        """What is kept, the newest first."""
        return await self._with_store(tenant, lambda store: store.list())

    async def get(self, tenant: str, recording_id: str) -> Recording:
        return await self._with_store(tenant, lambda store: store.get(recording_id))

    async def whole(self, tenant: str, recording_id: str) -> bytes:
        """All of it. Raises :exc:`TooLarge` for more than is handed out at once."""
        data = await self._read(tenant, recording_id, 0, WHOLE + 1)
        if len(data) > WHOLE:
            raise TooLarge(
                f"the recording is larger than {WHOLE} bytes;"
                " read it piece by piece with terminal.recordings.get",
                limit=WHOLE,
            )
        return data

    async def piece(self, tenant: str, recording_id: str, offset: int) -> bytes:
        """Whole lines from ``offset`` on, about a megabyte; nothing at the end."""
        data = await self._read(tenant, recording_id, offset, PIECE)
        return data[: data.rfind(b"\n") + 1] if len(data) == PIECE else data

    async def delete(self, caller: Caller, tenant: str, recording_id: str) -> None:
        await self.get(tenant, recording_id)
        async with self._audit.action(
            caller, "terminal.recording.delete", tenant=tenant, target=recording_id
        ):
            await self._with_store(tenant, lambda store: store.delete(recording_id))

    async def _read(self, tenant: str, recording_id: str, offset: int, most: int) -> bytes:
        return await self._with_store(
            tenant, lambda store: store.read(recording_id, offset=offset, most=most)
        )

    async def _with_store(self, tenant: str, use: Callable[[RecordingStore], T]) -> T:
        return await trio.to_thread.run_sync(partial(self._use, tenant, use))

    def _use(self, tenant: str, use: Callable[[RecordingStore], T]) -> T:
        with self._roots.tenant_root(tenant) as root:
            return use(RecordingStore(root))
