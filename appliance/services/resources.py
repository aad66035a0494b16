"""What the gateway and its tenants use: now, over the last day, and tenant by tenant."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

import trio

from appliance.model.callers import Caller
from appliance.model.periods import from_ns, month_of, to_ns
from appliance.model.tenants import TenantRecord
from appliance.services.disk_usage import DiskSizes, DiskUsage
from appliance.services.machine import MachineSample
from appliance.services.tenant_results import TenantPage
from appliance.services.usage_reports import UsageTable

log = logging.getLogger(__name__)

EVERY = 30.0  # seconds between samples
MOST_SAMPLES = 2_880  # a day of them
_TABLE_LASTS = timedelta(seconds=30)
_PAGE = 1000


class SortBy(StrEnum):
    TOKENS = "tokensUsed"
    COST = "costCents"
    DISK = "diskUsageBytes"
    SESSIONS = "activeSessions"
    LAST_ACTIVE = "lastActiveAt"


@dataclass(frozen=True, slots=True)
class Activity:
    """What goes on in a tenant that is awake."""

    runs: int = 0
    connections: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    machine: MachineSample
    connections: int
    sandboxes: int = 0

    @property
    def at(self) -> datetime:
        return self.machine.at


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """The mean of the samples taken in a stretch of time that begins at ``at``."""

    at: datetime
    samples: int
    cpu_percent: float
    load: float
    memory_used: int
    memory_percent: float
    disk_used: int
    disk_percent: float
    process_memory: int
    connections: float
    sandboxes: float


@dataclass(frozen=True, slots=True)
class TenantResources:
    """``disk`` is None until it was measured, ``last_active`` if no token was ever used."""

    record: TenantRecord
    tokens: int  # this month, as the costs
    requests: int
    cost_nano: int
    disk: int | None
    activity: Activity
    last_active: datetime | None


@dataclass(frozen=True, slots=True)
class ResourceTable:
    """Every tenant, not a page of them; ``unreadable`` names those whose ledger is damaged."""

    at: datetime
    currency: str
    tenants: tuple[TenantResources, ...]
    unreadable: tuple[str, ...]

    def top(self, sort_by: SortBy, limit: int) -> list[TenantResources]:
        """The ``limit`` tenants that use most; equal ones in order of id."""
        by_id = sorted(self.tenants, key=lambda each: each.record.id)
        return sorted(by_id, key=_ORDER[sort_by], reverse=True)[:limit]


class Machine(Protocol):
    def look(self, now: datetime) -> MachineSample: ...


class Tenants(Protocol):
    async def list(self, caller: Caller, *, limit: int, cursor: str | None) -> TenantPage: ...


class Reports(Protocol):
    async def report(
        self,
        caller: Caller,
        *,
        tenant: str | None,
        start: datetime,
        end: datetime,
        granularity: str,
    ) -> UsageTable: ...


class ResourceMonitor:
    """``activity`` tells what goes on in each tenant that is awake, ``sandboxes`` how many run."""

    def __init__(
        self,
        machine: Machine,
        disk_sizes: DiskSizes,
        *,
        tenants: Tenants,
        usage: Reports,
        activity: Callable[[], Mapping[str, Activity]],
        sandboxes: Callable[[], int] = lambda: 0,
        clock: Callable[[], datetime],
    ) -> None:
        self._machine = machine
        self._disk_sizes = disk_sizes
        self._tenants = tenants
        self._usage = usage
        self._activity = activity
        self._sandboxes = sandboxes
        self._clock = clock
        self._samples: deque[Sample] = deque(maxlen=MOST_SAMPLES)
        self._table: ResourceTable | None = None
        self._making_table = trio.Lock()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Sample, and measure the tenants' directories, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._disk_sizes.run)
            task_status.started()
            while True:
                with suppress(OSError):  # logged; the next look may tell more
                    await self.sample()
                await trio.sleep(EVERY)

    async def sample(self) -> Sample:
        """Look now, and keep it. Raises ``OSError``."""
        try:
            # In a thread, because a file system that hangs holds up statvfs.
            seen = await trio.to_thread.run_sync(self._machine.look, self._clock())
        except OSError:
            log.exception("the machine's figures cannot be read")
            raise
        connections = sum(each.connections for each in self._activity().values())
        sample = Sample(seen, connections, self._sandboxes())
        self._samples.append(sample)
        return sample

    async def now(self) -> Sample:
        """The latest sample, taken now if it is older than a second. Raises ``OSError``."""
        if self._samples and self._clock() - self._samples[-1].at < timedelta(seconds=1):
            return self._samples[-1]
        return await self.sample()

    def history(self, *, span: timedelta, step: timedelta) -> list[HistoryPoint]:
        """The means of each ``step`` of the last ``span``, oldest first; gaps are left out."""
        since = self._clock() - span
        stretches: dict[int, list[Sample]] = {}
        for sample in self._samples:
            if sample.at >= since:
                number = to_ns(sample.at) // (int(step.total_seconds()) * 10**9)
                stretches.setdefault(number, []).append(sample)
        return [_mean(samples) for _, samples in sorted(stretches.items())]

    async def table(self, caller: Caller) -> ResourceTable:
        """All tenants and what they use (admin); at most half a minute old."""
        caller.require_admin()
        async with self._making_table:
            table = self._table
            if table is None or self._clock() - table.at >= _TABLE_LASTS:
                table = self._table = await self._make_table(caller)
        return table

    async def disk(self, tenant: str, *, refresh: bool = False) -> DiskUsage | None:
        """What the tenant's files take; see :meth:`DiskSizes.usage`."""
        return await self._disk_sizes.usage(tenant, refresh=refresh)

    async def _make_table(self, caller: Caller) -> ResourceTable:
        now = self._clock()
        month = month_of(to_ns(now))
        report = await self._usage.report(
            caller,
            tenant=None,
            start=from_ns(month.start_ns),
            end=from_ns(month.end_ns),
            granularity="month",
        )
        sums: dict[str, list[int]] = {}
        for line in report.lines:
            used = sums.setdefault(line.tenant, [0, 0, 0])
            used[0] += line.usage.total
            used[1] += line.requests
            used[2] += line.cost_nano if line.currency == report.currency else 0
        activity, rows = self._activity(), []
        for record in await self._records(caller):
            tokens, requests, cost = sums.get(record.id, (0, 0, 0))
            disk = self._disk_sizes.known(record.id)
            seen = [token.last_used_at for token in record.tokens if token.last_used_at is not None]
            rows.append(
                TenantResources(
                    record,
                    tokens,
                    requests,
                    cost,
                    None if disk is None else disk.total,
                    activity.get(record.id, Activity()),
                    max(seen, default=None),
                )
            )
        return ResourceTable(now, report.currency, tuple(rows), report.unreadable)

    async def _records(self, caller: Caller) -> list[TenantRecord]:
        records: list[TenantRecord] = []
        cursor: str | None = None
        while True:
            page = await self._tenants.list(caller, limit=_PAGE, cursor=cursor)
            records += page.records
            cursor = page.next_cursor
            if cursor is None:
                return records


_ORDER: Mapping[SortBy, Callable[[TenantResources], float]] = {
    SortBy.TOKENS: lambda row: row.tokens,
    SortBy.COST: lambda row: row.cost_nano,
    SortBy.DISK: lambda row: -1 if row.disk is None else row.disk,
    SortBy.SESSIONS: lambda row: row.activity.runs,
    SortBy.LAST_ACTIVE: lambda row: -1 if row.last_active is None else to_ns(row.last_active),
}


def _mean(samples: list[Sample]) -> HistoryPoint:
    machines = [sample.machine for sample in samples]
    return HistoryPoint(
        at=samples[0].at,
        samples=len(samples),
        cpu_percent=_average(each.cpu_percent for each in machines),
        load=_average(each.load[0] for each in machines),
        memory_used=round(_average(each.memory_used for each in machines)),
        memory_percent=_average(percent(each.memory_used, each.memory_total) for each in machines),
        disk_used=round(_average(each.disk_used for each in machines)),
        disk_percent=_average(percent(each.disk_used, each.disk_total) for each in machines),
        process_memory=round(_average(each.process_memory for each in machines)),
        connections=_average(sample.connections for sample in samples),
        sandboxes=_average(sample.sandboxes for sample in samples),
    )


def _average(numbers: Iterable[float]) -> float:
    known = list(numbers)
    return round(sum(known) / len(known), 2)


def percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0
