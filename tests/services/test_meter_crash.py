"""What a tenant owes after the gateway died in the middle of its calls."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.model.errors import QuotaExceeded, RateLimited
from appliance.model.money import PriceStep
from appliance.model.quotas import Quotas
from appliance.model.usage import TokenUsage
from appliance.services.meter import Meter
from appliance.storage.connection import Connection
from appliance.storage.database import Database
from appliance.storage.ledger import FILE, LedgerStore
from appliance.storage.ledger_schema import SCHEMA
from tests.books import PRICE, HandClock, directory, outcome, spend

USED = outcome(TokenUsage(input=10, output=5))


class Gateway:
    """One tenant's books, which can be torn out of a running process."""

    def __init__(self, path: Path) -> None:
        self.clock = HandClock()
        self._path = path
        self._life = 0
        self._databases: list[Database] = []

    async def start(self, limits: Quotas) -> Meter:
        """Start on what the disk holds; whoever ran before was not asked to finish."""
        before, self._life = self._path / str(self._life), self._life + 1
        now = self._path / str(self._life)
        if before.exists():
            shutil.copytree(before, now)
        self.database = await Database.open(directory(now), FILE, SCHEMA)
        self._databases.append(self.database)
        return await Meter.open(
            LedgerStore(self.database), limits=limits, clock=self.clock, currency="USD"
        )

    def entries(self, columns: str) -> list[tuple[object, ...]]:
        def query(tx: Connection) -> list[tuple[object, ...]]:
            return list(tx.execute(f"SELECT {columns} FROM entries ORDER BY id").fetchall())  # noqa: S608 - names of columns

        return self.database.read(query)

    async def stop(self) -> None:
        for database in self._databases:
            await database.close()


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    gateway = Gateway(tmp_path)
    yield gateway
    await gateway.stop()


async def test_calls_that_were_under_way_are_settled_at_their_input(gateway: Gateway) -> None:
    meter = await gateway.start(Quotas())
    meter.settle(meter.reserve(spend(request_id="done")), USED)
    meter.reserve(spend(request_id="lost", prompt_tokens=30, session="agent:main:x"))
    meter.reserve(spend(request_id="unpriced", price=None))
    gateway.clock.advance(90)
    await gateway.start(Quotas())
    columns = "request_id, outcome, input_tokens, output_tokens, cost_nano, estimated, session"
    assert gateway.entries(columns) == [
        ("done", "ok", 10, 5, 20_000, 0, None),
        ("lost", "crashed", 30, 0, 30_000, 1, "agent:main:x"),
        ("unpriced", "crashed", 10, 0, None, 1, None),
    ]
    lasted = gateway.entries("settled_ns - ts_ns")
    assert lasted == [(0,), (90 * 10**9,), (90 * 10**9,)]


async def test_they_are_settled_once_however_often_it_dies(gateway: Gateway) -> None:
    meter = await gateway.start(Quotas())
    meter.reserve(spend())
    for _ in range(3):
        await gateway.start(Quotas())
        assert gateway.entries("outcome") == [("crashed",)]


async def test_what_was_reserved_is_free_again_and_what_was_used_is_not(
    gateway: Gateway,
) -> None:
    limits = Quotas(tokens_per_day=100, concurrent_requests=2)
    meter = await gateway.start(limits)
    meter.settle(meter.reserve(spend()), USED)
    meter.reserve(spend(output_limit=60))
    meter = await gateway.start(limits)
    day = meter.standing().find("tokens_per_day")
    assert day is not None
    assert (day.used, day.reserved) == (15 + 10, 0)
    assert meter.reserve(spend(output_limit=100)).output_limit == 65
    with pytest.raises(QuotaExceeded):
        meter.reserve(spend())


async def test_dying_and_starting_again_opens_no_window(gateway: Gateway) -> None:
    limits = Quotas(requests_per_minute=3)
    for _ in range(3):
        meter = await gateway.start(limits)
        meter.reserve(spend())
        gateway.clock.advance(5)
    meter = await gateway.start(limits)
    with pytest.raises(RateLimited):
        meter.reserve(spend())
    gateway.clock.advance(45)
    meter.reserve(spend())


async def test_the_crash_of_last_month_is_charged_to_last_month(gateway: Gateway) -> None:
    meter = await gateway.start(Quotas())
    meter.reserve(spend())
    gateway.clock.advance(30 * 86_400)
    meter = await gateway.start(Quotas())
    month = meter.standing().find("cost_per_month")
    assert month is not None
    assert month.used == 0
    assert gateway.entries("cost_nano") == [(10_000,)]


async def test_a_price_with_steps_holds_for_a_crashed_call(gateway: Gateway) -> None:
    double = replace(PRICE, input=2 * PRICE.input)
    meter = await gateway.start(Quotas())
    meter.reserve(spend(prompt_tokens=50, price=replace(PRICE, steps=(PriceStep(40, double),))))
    await gateway.start(Quotas())
    assert gateway.entries("cost_nano") == [(100_000,)]
