"""Keeps what tenants write within their quotas and off the last of the disk.

A quota of the file system's own would be exact; this works on any. While
sandboxes of a tenant run, its directory is walked through, as often as the
walk's cost allows. Who is over has its sandboxes ended and may start no more
and write nothing until there is room again.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

import trio

from appliance.config.schema import GatewayConfig
from appliance.model.errors import ApplianceError, DiskFull
from appliance.services.disk_usage import DiskUsage, Measuring
from appliance.services.meter import Meter
from appliance.services.sandboxes.limits import (
    WORKSPACES,
    DiskStanding,
    disk_limits,
    disk_standing,
)
from appliance.services.stepping import step_through
from appliance.services.workspaces import OTHER_AGENTS
from appliance.storage.paths import FreeSpace, TenantRoot
from appliance.storage.tree_walk import TreeTooLarge
from appliance.storage.unlinked_files import Place, UnlinkedFiles, place_of

log = logging.getLogger(__name__)

MIB = 1024 * 1024
# What must stay free for everybody's books. A fast disk takes half a gigabyte a second.
FLOOR_BYTES = 512 * MIB
FLOOR_FILES = 5_000
TICK = 0.25  # seconds between two looks at the disk while sandboxes run
_IDLE_TICK = 5.0
_SOONEST = 1.0  # seconds between two walks through one tenant's files
_SHARE = 4  # a walk takes at most a fifth of the time
_FIRST_WALK = 5.0  # seconds that a first sandbox waits to know how much room there is
_WALKS_AT_ONCE = 2


class WatchedTenant(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def root(self) -> TenantRoot: ...
    @property
    def config(self) -> GatewayConfig: ...
    @property
    def meter(self) -> Meter: ...


class Endable(Protocol):
    async def end(self, reason: str, *, over_disk: bool = False) -> None: ...


@dataclass(slots=True, eq=False)
class _Account:
    """What is known of a tenant while it is awake."""

    root: TenantRoot
    usage: DiskUsage | None = None
    first_total: int = 0
    free_before: int = 0
    cost: float = 0.0  # seconds of the last walk
    ended_at: float = -1e9
    is_measuring: bool = False
    known: trio.Event = field(default_factory=trio.Event)

    @property
    def growth(self) -> int:
        return 0 if self.usage is None else self.usage.total - self.first_total

    @property
    def due_at(self) -> float:
        return self.ended_at + max(_SOONEST, _SHARE * self.cost)


class DiskWatch:
    """``tenants`` are those that are awake, ``running`` their sandboxes."""

    def __init__(
        self,
        *,
        tenants: Callable[[], Iterable[WatchedTenant]],
        running: Callable[[str], Collection[Endable]],
        free: Callable[[], FreeSpace],
        clock: Callable[[], datetime],
        learn: Callable[[str, DiskUsage], None] = lambda _tenant, _usage: None,
    ) -> None:
        self._tenants = tenants
        self._running = running
        self._free = free
        self._clock = clock
        self._learn = learn
        self._accounts: dict[str, _Account] = {}
        self._walking = trio.CapacityLimiter(_WALKS_AT_ONCE)
        self._woken = trio.Event()
        self._is_running = False

    async def admit(self, tenant: WatchedTenant) -> int | None:
        """How many bytes a new sandbox may write, None for no limit.

        Raises ``QuotaExceeded`` if the tenant is over, ``DiskFull`` if the disk is.
        """
        self._require_floor()
        account = self._account(tenant)
        if account.usage is None and self._is_running:
            self._woken.set()
            with trio.move_on_after(_FIRST_WALK):
                await account.known.wait()
        self._judge(tenant, account)
        tenant.root.room.require()
        return tenant.root.room.left_bytes

    def began(self) -> None:
        """A sandbox has started."""
        self._woken.set()

    async def run(self) -> None:
        """Measure and defend until cancelled."""
        for account in self._accounts.values():
            account.is_measuring = False
        async with trio.open_nursery() as nursery:
            self._is_running = True
            try:
                while True:
                    is_busy = self._look(nursery)
                    await self._wait(TICK if is_busy else _IDLE_TICK, is_busy=is_busy)
            finally:
                self._is_running = False

    async def _wait(self, seconds: float, *, is_busy: bool) -> None:
        # A busy watch looks soon enough; hundreds of short commands are not to
        # make it look hundreds of times.
        if is_busy:
            await trio.sleep(seconds)
        self._woken = trio.Event()
        if not is_busy:
            with trio.move_on_after(seconds):
                await self._woken.wait()

    def _look(self, nursery: trio.Nursery) -> bool:
        """Once at everything; whether sandboxes run or somebody waits for a walk."""
        tenants = {tenant.id: tenant for tenant in self._tenants()}
        self._accounts = {name: each for name, each in self._accounts.items() if name in tenants}
        free = self._free()
        is_busy = False
        for tenant in tenants.values():
            account = self._account(tenant)
            self._judge(tenant, account)
            self._end_if_over(tenant, nursery)
            if self._is_due(tenant, account, free):
                account.is_measuring = True
                nursery.start_soon(self._measure, tenant, account, nursery)
            is_busy = is_busy or bool(self._running(tenant.id)) or account.is_measuring
        if _is_below_floor(free):
            self._defend(tenants, nursery)
        return is_busy

    def _is_due(self, tenant: WatchedTenant, account: _Account, free: FreeSpace) -> bool:
        if account.is_measuring:
            return False
        if not self._running(tenant.id) and not tenant.root.room.is_stale:
            return False
        now = trio.current_time()
        if now >= account.due_at:
            return True
        # Long walks are rare; if the disk fills meanwhile, somebody is to blame.
        left = tenant.root.room.left_bytes
        fell = account.free_before - free.bytes
        is_urgent = fell > left if left is not None else free.bytes < 2 * FLOOR_BYTES
        return is_urgent and now >= account.ended_at + max(TICK, account.cost)

    async def _measure(
        self, tenant: WatchedTenant, account: _Account, nursery: trio.Nursery
    ) -> None:
        began = trio.current_time()
        limits = disk_limits(tenant.config.sandbox.limits, tenant.meter.limits)
        measuring = Measuring(tenant.root, most_entries=limits.files)
        async with self._walking:
            account.free_before = self._free().bytes
            tenant.root.room.is_stale = False
            try:
                await step_through(measuring.steps())
                usage = await self._with_nameless(tenant, measuring.usage(now=self._clock()))
            except (OSError, ValueError) as error:  # ValueError: the tenant fell asleep
                log.warning(
                    "a tenant's disk usage cannot be measured",
                    extra={"tenant": tenant.id, "reason": str(error)},
                )
                tenant.root.room.is_stale = True
            else:
                self._keep(tenant, account, usage)
                self._end_if_over(tenant, nursery)  # at the next look there would be more
        account.ended_at = trio.current_time()
        account.cost = account.ended_at - began
        account.is_measuring = False
        account.known.set()

    async def _with_nameless(self, tenant: WatchedTenant, usage: DiskUsage) -> DiskUsage:
        """``usage`` with the files that were deleted and are still open in a sandbox."""
        if not self._running(tenant.id):
            return usage
        try:
            nameless = UnlinkedFiles(await trio.to_thread.run_sync(_places, tenant.root))
            await step_through(nameless.steps())
        except TreeTooLarge:
            return replace(usage, complete=False)
        return usage.more(WORKSPACES, nameless.bytes)

    def _keep(self, tenant: WatchedTenant, account: _Account, usage: DiskUsage) -> None:
        if account.usage is None:
            account.first_total = usage.total
        account.usage = usage
        self._learn(tenant.id, usage)
        self._judge(tenant, account)
        self._woken.set()

    def _judge(self, tenant: WatchedTenant, account: _Account) -> None:
        """By the limits as they are now, which an operator may just have changed."""
        if account.usage is None:
            return
        limits = disk_limits(tenant.config.sandbox.limits, tenant.meter.limits)
        standing: DiskStanding = disk_standing(account.usage, limits)
        tenant.root.room.told(left=standing.left, refusal=standing.refusal)

    def _end_if_over(self, tenant: WatchedTenant, nursery: trio.Nursery) -> None:
        running = self._running(tenant.id)
        if not running:
            return
        try:
            tenant.root.room.require()
        except ApplianceError as error:
            log.warning(
                "a tenant's sandboxes are ended",
                extra={"tenant": tenant.id, "sandboxes": len(running), "reason": error.detail},
            )
            self._end(running, error.detail, nursery)

    def _defend(self, tenants: dict[str, WatchedTenant], nursery: trio.Nursery) -> None:
        """End the sandboxes of whoever has grown most, and of the next one a moment later."""
        candidates = [name for name in tenants if self._running(name)]
        if not candidates:
            return
        worst = max(candidates, key=lambda name: self._accounts[name].growth)
        log.error("the disk is full: a tenant's sandboxes are ended", extra={"tenant": worst})
        self._end(self._running(worst), _FULL, nursery)

    def _end(self, running: Collection[Endable], reason: str, nursery: trio.Nursery) -> None:
        for sandbox in running:
            nursery.start_soon(_end_over_disk, sandbox, reason)

    def _require_floor(self) -> None:
        if _is_below_floor(self._free()):
            raise DiskFull(_FULL)

    def _account(self, tenant: WatchedTenant) -> _Account:
        account = self._accounts.get(tenant.id)
        if account is None or account.root is not tenant.root:
            account = self._accounts[tenant.id] = _Account(tenant.root)
        return account


_FULL = "there is no space left on the gateway's disk for what sandboxes write"


def _is_below_floor(free: FreeSpace) -> bool:
    return free.bytes < FLOOR_BYTES or (free.files is not None and free.files < FLOOR_FILES)


def _places(root: TenantRoot) -> set[Place]:
    places = set()
    for folder in _workspaces(root):
        with suppress(OSError, ApplianceError):
            places.add(place_of(root.stat(folder)))
    return places


def _workspaces(root: TenantRoot) -> Iterator[str]:
    yield WORKSPACES
    others = f"{WORKSPACES}/{OTHER_AGENTS}"
    with suppress(OSError, ApplianceError):
        for name in root.listdir(others):
            yield f"{others}/{name}"


async def _end_over_disk(sandbox: Endable, reason: str) -> None:
    await sandbox.end(reason, over_disk=True)
