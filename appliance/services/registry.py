"""Every tenant of this gateway: the record on disk, and what memory knows of it.

The file is the truth and is read anew for every change, so an edit by hand is
never overwritten unseen. Memory holds the least that a request needs (which
secret grants what) and what a list needs (ids and names).
"""

from bisect import bisect_right, insort
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol
from weakref import WeakValueDictionary

import trio

from appliance.model.errors import AlreadyExists, TenantBroken, TenantUnknown
from appliance.model.tenants import TenantRecord
from appliance.services.token_index import TokenIndex, later
from appliance.storage.tenant_records import BrokenRecord


class Records(Protocol):
    """``storage.tenant_records``; every method blocks."""

    def read(self, tenant: str) -> TenantRecord: ...
    def write(self, record: TenantRecord) -> None: ...
    def create(self, record: TenantRecord, files: Mapping[str, bytes]) -> None: ...
    def remove(self, tenant: str) -> str: ...
    def erase(self, removed: str) -> None: ...
    def tenants(self) -> list[str]: ...
    def scan(self) -> Iterator[TenantRecord | BrokenRecord]: ...


class TenantRegistry:
    def __init__(self, records: Records, index: TokenIndex) -> None:
        self.index = index
        self._records = records
        self._ids: list[str] = []  # sorted; the broken ones too
        self._names: dict[str, str] = {}  # of those that can be read
        self._broken: dict[str, str] = {}
        # A lock exists as long as somebody holds it or waits for it.
        self._locks: WeakValueDictionary[str, trio.Lock] = WeakValueDictionary()

    def load(self) -> None:
        """Read every tenant: 25 µs each. Called once, before anybody may ask."""
        for found in self._records.scan():
            if isinstance(found, BrokenRecord):
                self._note_broken(found.tenant, found.reason)
            else:
                self._note(found)

    def __contains__(self, tenant: str) -> bool:
        """Whether this gateway holds ``tenant``, in whatever state it is."""
        return tenant in self._names or tenant in self._broken

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def disabled_count(self) -> int:
        return len(self._names) - self.index.tenant_count

    @property
    def broken(self) -> Mapping[str, str]:
        return dict(self._broken)

    def require(self, tenant: str) -> TenantRecord:
        """Read a record, with each token's last use as known now.

        Raises ``TenantUnknown`` or ``TenantBroken``. What is broken stays so
        until :meth:`reload`: a tenant must not come and go with each reading.
        """
        self.require_held(tenant)
        if tenant in self._broken:
            raise TenantBroken(f"the record of {tenant!r} cannot be used: {self._broken[tenant]}")
        return self._with_last_use(self._records.read(tenant))

    def require_held(self, tenant: str) -> None:
        """Raise ``TenantUnknown`` unless ``tenant`` is here, in whatever state."""
        if tenant not in self:
            raise TenantUnknown("there is no such tenant")

    def find_record(self, tenant: str) -> TenantRecord | None:
        """The record for a list: None for what was removed or broken meanwhile."""
        try:
            return self.require(tenant)
        except (TenantUnknown, TenantBroken):
            return None

    def tenants(self) -> frozenset[str]:
        return frozenset(self._ids)

    def find(self, *, query: str, after: str, limit: int) -> list[str]:
        """Ids behind ``after`` that can be read, in order, whose id or name holds ``query``."""
        wanted = query.casefold()
        found: list[str] = []
        for tenant in self._ids[bisect_right(self._ids, after) :]:
            name = self._names.get(tenant)
            if name is None or (wanted not in tenant and wanted not in name.casefold()):
                continue
            found.append(tenant)
            if len(found) == limit:
                break
        return found

    @asynccontextmanager
    async def changing(self, tenant: str) -> AsyncIterator[TenantRecord]:
        """Read a record that nobody else changes until the block ends."""
        async with self.locked(tenant):
            yield self.require(tenant)

    @asynccontextmanager
    async def locked(self, tenant: str) -> AsyncIterator[None]:
        """One change of a tenant at a time: its record, its config, its life and death."""
        lock = self._locks.get(tenant)
        if lock is None:
            lock = self._locks[tenant] = trio.Lock()
        async with lock:
            yield

    async def write(self, record: TenantRecord) -> TenantRecord:
        """Make ``record`` the tenant's, on disk and then in memory. Hold the tenant's lock."""
        record = replace(self._with_last_use(record), version=record.version + 1)
        self.index.forget_use(record.id)
        await trio.to_thread.run_sync(self._records.write, record)
        self._note(record)
        return record

    async def create(self, record: TenantRecord, files: Mapping[str, bytes]) -> None:
        """Add a tenant. Raises ``AlreadyExists``, also for the id of a broken one."""
        self.require_free(record.id)
        await trio.to_thread.run_sync(partial(self._records.create, record, files))
        self._note(record)

    def require_free(self, tenant: str) -> None:
        if tenant in self:
            raise AlreadyExists(f"there is a tenant {tenant!r} already")

    def hide(self, tenant: str) -> None:
        """Have nobody find ``tenant`` while it is being removed."""
        self._forget(tenant)

    async def remove(self, tenant: str) -> str:
        """Take a tenant's directory away; return what :meth:`erase` takes.

        If that fails, the tenant is as it was.
        """
        try:
            return await trio.to_thread.run_sync(self._records.remove, tenant)
        except BaseException:
            self.read_again(tenant)
            raise

    async def erase(self, removed: str) -> None:
        await trio.to_thread.run_sync(self._records.erase, removed)

    async def tenants_on_disk(self) -> list[str]:
        return await trio.to_thread.run_sync(self._records.tenants)

    def read_again(self, tenant: str) -> TenantRecord | None:
        """Believe what is on disk now; None if that cannot be used or is gone.

        Hold the tenant's lock.
        """
        try:
            record = self._records.read(tenant)
        except TenantUnknown:
            self._forget(tenant)
            return None
        except TenantBroken as error:
            self._note_broken(tenant, error.detail)
            return None
        self._note(record)
        return record

    def _with_last_use(self, record: TenantRecord) -> TenantRecord:
        used = {grant.token_id: grant.last_used_at for grant in self.index.grants(record.id)}
        if not used:
            return record
        tokens = tuple(
            replace(token, last_used_at=later(token.last_used_at, used.get(token.id)))
            for token in record.tokens
        )
        return replace(record, tokens=tokens)

    def _note(self, record: TenantRecord) -> None:
        self._add(record.id)
        self._broken.pop(record.id, None)
        self._names[record.id] = record.name
        self.index.put(record)

    def _note_broken(self, tenant: str, reason: str) -> None:
        self._add(tenant)
        self._names.pop(tenant, None)
        self.index.drop(tenant)
        self._broken[tenant] = reason

    def _add(self, tenant: str) -> None:
        if tenant in self:
            return
        # While loading they come in order, so this is an append.
        insort(self._ids, tenant)

    def _forget(self, tenant: str) -> None:
        if tenant in self:
            self._ids.remove(tenant)
        self._names.pop(tenant, None)
        self._broken.pop(tenant, None)
        self.index.drop(tenant)
        self.index.forget_use(tenant)
