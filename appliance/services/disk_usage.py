"""How much room the tenants take on the disk.

Nobody waits for a walk through all directories: they are measured one by one
in the background, and a tenant may have its own measured anew. One whose
sandboxes run is measured more often, by ``disk_watch``.
"""

import logging
import os
import stat
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

import trio

from appliance.model.errors import ApplianceError, TenantUnknown
from appliance.services.stepping import step_through
from appliance.storage.paths import ConfinedDirectory, TenantRoot
from appliance.storage.tree_walk import TreeTooLarge, walk

log = logging.getLogger(__name__)

MOST_ENTRIES = 1_000_000  # files and directories of one tenant; some six seconds in a thread
LASTS = timedelta(hours=1)  # until the background looks again
SOONEST = timedelta(seconds=10)  # until a tenant that asks is measured again
_PAUSE = 1.0  # seconds between two tenants
_BLOCK = 512  # bytes; the unit of st_blocks, whatever the file system's own is


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """Bytes on the disk, by the directory they lie in. Not ``complete``: at least so much."""

    by_part: Mapping[str, int]
    measured_at: datetime
    complete: bool = True
    entries: int = 0

    @property
    def total(self) -> int:
        return sum(self.by_part.values())

    def more(self, part: str, size: int) -> "DiskUsage":
        """The same with ``size`` more in ``part``."""
        return replace(self, by_part={**self.by_part, part: self.of(part) + size}) if size else self

    def of(self, part: str) -> int:
        return self.by_part.get(part, 0)


class Measuring:
    """One walk through ``root``, which follows no link. ``steps`` block; ``usage`` does not."""

    def __init__(self, root: ConfinedDirectory, *, most_entries: int | None = None) -> None:
        self._root = root
        self._most = MOST_ENTRIES if most_entries is None else most_entries
        self._sizes: dict[str, int] = {}
        self._entries = 0
        self._complete = True

    def steps(self) -> Generator[int, None, None]:
        """Raises :exc:`OSError`, and :exc:`ValueError` once the root was closed."""
        with self._root.handle() as top, closing(walk(top, self._add)) as walked:
            try:
                for seen in walked:
                    if seen > self._most:
                        self._complete = False
                        return
                    yield seen
            except (TreeTooLarge, PermissionError):
                # The second is a mode that somebody in there changes back as fast as
                # we change it: what cannot be measured is not within any limit.
                self._complete = False

    def usage(self, *, now: datetime) -> DiskUsage:
        return DiskUsage(self._sizes, now, self._complete, self._entries)

    def _add(self, _directory: int, _name: str, top: str, found: os.stat_result) -> None:
        self._entries += 1
        # What is taken, not what it claims to hold: neither a file with holes
        # nor room kept beyond its end deceives. Each of its names takes a share.
        names = 1 if stat.S_ISDIR(found.st_mode) else max(1, found.st_nlink)
        taken = found.st_blocks * _BLOCK // names
        self._sizes[top] = self._sizes.get(top, 0) + taken


def measure(root: ConfinedDirectory, *, now: datetime) -> DiskUsage:
    """Walk through ``root`` at once. Blocks."""
    measuring = Measuring(root)
    for _ in measuring.steps():
        pass
    return measuring.usage(now=now)


class Roots(Protocol):
    """The directories of the tenants; methods block."""

    def tenants(self) -> Sequence[str]: ...
    def tenant_root(self, tenant: str) -> TenantRoot: ...


class DiskSizes:
    """What is known of each tenant's room on the disk."""

    def __init__(self, roots: Roots, *, clock: Callable[[], datetime]) -> None:
        self._roots = roots
        self._clock = clock
        self._known: dict[str, DiskUsage] = {}
        self._one_at_a_time = trio.Lock()

    def known(self, tenant: str) -> DiskUsage | None:
        return self._known.get(tenant)

    async def usage(self, tenant: str, *, refresh: bool = False) -> DiskUsage | None:
        """What was measured last, or now if nothing was; None for a tenant that is gone.

        ``refresh`` measures anew what is older than ten seconds.
        """
        known = self._known.get(tenant)
        longest = SOONEST if refresh else timedelta.max
        if known is not None and self._clock() - known.measured_at < longest:
            return known
        try:
            found = await self._measure(tenant)
        except TenantUnknown:
            self._known.pop(tenant, None)
            return None
        self._known[tenant] = found
        return found

    def learn(self, tenant: str, usage: DiskUsage) -> None:
        """Somebody else has measured it just now."""
        self._known[tenant] = usage

    async def run(self) -> None:
        """Measure every tenant once an hour, one a second, until cancelled."""
        while True:
            tenants = await self._listed()
            self._known = {name: self._known[name] for name in tenants if name in self._known}
            for tenant in tenants:
                known = self._known.get(tenant)
                if known is None or self._clock() - known.measured_at >= LASTS:
                    await self._measure_quietly(tenant)
                    await trio.sleep(_PAUSE)
            await trio.sleep(60)

    async def _listed(self) -> Sequence[str]:
        try:
            return await trio.to_thread.run_sync(self._roots.tenants)
        except OSError:
            log.exception("the tenants' directories cannot be listed")
            return ()

    async def _measure_quietly(self, tenant: str) -> None:
        try:
            await self.usage(tenant, refresh=True)
        except (ApplianceError, OSError) as error:
            log.warning(
                "a tenant's disk usage cannot be measured",
                extra={"tenant": tenant, "reason": str(error)},
            )

    async def _measure(self, tenant: str) -> DiskUsage:
        async with self._one_at_a_time:
            root = await trio.to_thread.run_sync(self._roots.tenant_root, tenant)
            with root:
                measuring = Measuring(root)
                await step_through(measuring.steps())
        return measuring.usage(now=self._clock())
