from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import Forbidden
from appliance.model.tenants import TenantRecord
from appliance.model.tokens import Scope, TokenRecord
from appliance.model.usage import TokenUsage
from appliance.services.disk_usage import DiskUsage
from appliance.services.machine import MachineSample
from appliance.services.resources import EVERY, Activity, ResourceMonitor, SortBy
from appliance.services.tenant_results import TenantPage
from appliance.services.usage_reports import UsageLine, UsageSums, UsageTable
from appliance.storage.usage import Granularity
from tests.books import NOON, HandClock

ADMIN = Caller(ActorKind.ADMIN, "first", None)
LOOK = MachineSample(
    at=NOON,
    cores=4,
    cpu_percent=10.0,
    load=(1.0, 0.5, 0.1),
    memory_total=1000,
    memory_available=750,
    disk_total=100,
    disk_free=60,
    uptime=5.0,
    process_cpu_percent=1.0,
    process_memory=50,
    process_threads=3,
    process_files=9,
)


class FakeMachine:
    def __init__(self) -> None:
        self.cpu = 10.0
        self.broken = False

    def look(self, now: datetime) -> MachineSample:
        if self.broken:
            raise OSError("no /proc here")
        return replace(LOOK, at=now, cpu_percent=self.cpu)


class FakeDisks:
    sizes: Mapping[str, int] = {"acme": 300, "globex": 100}

    def known(self, tenant: str) -> DiskUsage | None:
        size = self.sizes.get(tenant)
        return None if size is None else DiskUsage({"workspace": size}, NOON)

    async def usage(self, tenant: str, *, refresh: bool = False) -> DiskUsage | None:
        return self.known(tenant)

    async def run(self) -> None:
        await trio.sleep_forever()


class FakeTenants:
    """Pages of two."""

    def __init__(self) -> None:
        self.records = [record("acme", used=5), record("globex"), record("initech", used=9)]

    async def list(self, caller: Caller, *, limit: int, cursor: str | None) -> TenantPage:
        left = [each for each in self.records if cursor is None or each.id > cursor]
        return TenantPage(tuple(left[:2]), left[1].id if len(left) > 2 else None, {})


class FakeReports:
    def __init__(self) -> None:
        self.asked = 0

    async def report(self, caller: Caller, **wanted: Any) -> UsageTable:
        self.asked += 1
        lines = (
            line("acme", tokens=5, cost=100),
            line("acme", tokens=2, cost=7, currency="EUR"),
            line("globex", tokens=50, cost=10),
        )
        total = UsageSums(0, TokenUsage(), 0, 0, 0, 0, 0)
        return UsageTable(
            wanted["start"], wanted["end"], Granularity.MONTH, None, "USD", lines, total, ("torn",)
        )


def record(name: str, *, used: int | None = None) -> TenantRecord:
    seen = None if used is None else NOON + timedelta(minutes=used)
    token = TokenRecord("tok_1", "", b"", frozenset({Scope.FULL}), NOON, last_used_at=seen)
    return TenantRecord(name, "", NOON, tokens=(token,))


def line(tenant: str, *, tokens: int, cost: int, currency: str = "USD") -> UsageLine:
    return UsageLine(3, TokenUsage(input=tokens), 0, 0, cost, 0, 0, NOON, tenant, None, currency)


class Bench:
    def __init__(self) -> None:
        self.clock = HandClock()
        self.machine = FakeMachine()
        self.reports = FakeReports()
        self.activity = {
            "initech": Activity(runs=2, connections=3),
            "acme": Activity(connections=1),
        }
        self.monitor = ResourceMonitor(
            self.machine,
            FakeDisks(),  # type: ignore[arg-type]  # as much of it as is used
            tenants=FakeTenants(),
            usage=self.reports,
            activity=lambda: self.activity,
            clock=self.clock,
        )


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(
    ("sort_by", "order"),
    [
        (SortBy.TOKENS, ["globex", "acme", "initech"]),
        (SortBy.COST, ["acme", "globex", "initech"]),
        (SortBy.DISK, ["acme", "globex", "initech"]),
        (SortBy.SESSIONS, ["initech", "acme", "globex"]),
        (SortBy.LAST_ACTIVE, ["initech", "acme", "globex"]),
    ],
)
async def test_all_tenants_are_in_the_table_and_those_that_use_most_come_first(
    bench: Bench, sort_by: SortBy, order: list[str]
) -> None:
    table = await bench.monitor.table(ADMIN)

    assert [row.record.id for row in table.top(sort_by, 10)] == order
    assert [row.record.id for row in table.top(sort_by, 1)] == order[:1]
    assert table.unreadable == ("torn",)


async def test_money_of_another_currency_is_not_added_up(bench: Bench) -> None:
    acme = (await bench.monitor.table(ADMIN)).top(SortBy.COST, 1)[0]

    assert (acme.tokens, acme.requests, acme.cost_nano, acme.disk) == (7, 6, 100, 300)


async def test_the_table_is_made_at_most_twice_a_minute(bench: Bench) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(bench.monitor.table, ADMIN)
    assert bench.reports.asked == 1
    bench.clock.advance(30)
    await bench.monitor.table(ADMIN)
    assert bench.reports.asked == 2


async def test_the_table_is_the_operators(bench: Bench) -> None:
    tenant = Caller(ActorKind.TENANT, "tok_1", "acme", frozenset({Scope.FULL}))
    with pytest.raises(Forbidden):
        await bench.monitor.table(tenant)


async def test_history_is_means_over_stretches_of_time(bench: Bench) -> None:
    for cpu in (10, 20, 60):
        bench.machine.cpu = cpu
        await bench.monitor.sample()
        bench.clock.advance(30)
    points = bench.monitor.history(span=timedelta(hours=1), step=timedelta(minutes=1))

    assert [(point.cpu_percent, point.samples) for point in points] == [(15.0, 2), (60.0, 1)]
    assert [point.at for point in points] == [NOON, NOON + timedelta(minutes=1)]
    assert points[0].memory_used == 250
    assert points[0].disk_percent == 40.0
    assert points[0].connections == 4
    assert bench.monitor.history(span=timedelta(seconds=40), step=timedelta(minutes=1)) == [
        points[1]
    ]


async def test_the_monitor_looks_twice_a_minute_and_survives_a_look_that_fails(
    bench: Bench, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.05  # a look is a thread's, which the clock does not see
    await nursery.start(bench.monitor.run)
    await trio.sleep(1)
    bench.machine.broken = True
    await trio.sleep(EVERY)
    bench.machine.broken = False
    await trio.sleep(EVERY)

    (point,) = bench.monitor.history(span=timedelta(hours=1), step=timedelta(minutes=1))
    assert point.samples == 2


async def test_now_is_at_most_a_second_old(bench: Bench) -> None:
    first = await bench.monitor.now()
    assert await bench.monitor.now() is first
    bench.clock.advance(1)
    assert await bench.monitor.now() is not first


async def test_a_tenants_disk_can_be_asked_for(bench: Bench) -> None:
    found = await bench.monitor.disk("acme")
    assert found is not None
    assert found.total == 300
