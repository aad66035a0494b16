"""How much room the tenants take on the disk.

Nobody waits for a walk through all directories: they are measured one by one
in the background, and a tenant may have its own measured anew.
"""

import logging
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

import trio

from appliance.model.errors import ApplianceError, TenantUnknown, TooLarge
from appliance.storage.paths import ConfinedDirectory, TenantRoot

log = logging.getLogger(__name__)

MOST_ENTRIES = 200_000  # files and directories of one tenant; some four seconds in a thread
LASTS = timedelta(hours=1)  # until the background looks again
SOONEST = timedelta(seconds=10)  # until a tenant that asks is measured again
_PAUSE = 1.0  # seconds between two tenants


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """Bytes in files, by the directory they lie in. Not ``complete``: at least so much."""

    by_part: Mapping[str, int]
    measured_at: datetime
    complete: bool = True

    @property
    def total(self) -> int:
        return sum(self.by_part.values())

    def of(self, part: str) -> int:
        return self.by_part.get(part, 0)


def measure(root: ConfinedDirectory, *, now: datetime) -> DiskUsage:
    """Walk through ``root``, following no link. Blocks."""
    sizes: dict[str, int] = {}
    folders, left, complete = [""], MOST_ENTRIES, True
    while folders:
        folder = folders.pop()
        try:
            names = root.listdir(folder)
        except TooLarge:
            complete = False
            continue
        except (ApplianceError, OSError):  # removed, or made a link, since it was listed
            continue
        for name in names:
            left -= 1
            if left < 0:
                return DiskUsage(sizes, now, complete=False)
            path = f"{folder}/{name}" if folder else name
            try:
                found = root.stat(path)
            except (ApplianceError, OSError):
                continue
            if stat.S_ISDIR(found.st_mode):
                folders.append(path)
            elif stat.S_ISREG(found.st_mode):
                part = path.partition("/")[0]
                sizes[part] = sizes.get(part, 0) + found.st_size
    return DiskUsage(sizes, now, complete)


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
        self._one_at_a_time = trio.CapacityLimiter(1)

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
            found = await trio.to_thread.run_sync(
                partial(self._measure, tenant), limiter=self._one_at_a_time
            )
        except TenantUnknown:
            self._known.pop(tenant, None)
            return None
        self._known[tenant] = found
        return found

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

    def _measure(self, tenant: str) -> DiskUsage:
        with self._roots.tenant_root(tenant) as root:
            return measure(root, now=self._clock())
