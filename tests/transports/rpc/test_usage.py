"""``usage.*`` as a tenant's client calls them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from appliance.model.callers import Caller
from appliance.model.errors import InvalidRequest
from appliance.model.spending import QuotaStanding, Standing
from appliance.model.usage import TokenUsage
from appliance.services.usage_reports import UsageLine, UsageTable
from appliance.storage.usage import Granularity
from appliance.transports.rpc.usage import METHODS
from tests.services.tenancy import NOW
from tests.transports.rpc.settings_bench import Bench, open_bench


def line(hour: datetime, *, cost: int = 10**8, group: str | None = None, **more: Any) -> UsageLine:
    settled = {
        "requests": 1,
        "usage": TokenUsage(input=10, output=4, cache_read=3, cache_write=2, reasoning=1),
        "tool_calls": 0,
        "sandbox_ms": 0,
        "cost_nano": cost,
        "unpriced_requests": 0,
        "estimated_requests": 0,
        "currency": "USD",
    }
    return UsageLine(period=hour, tenant="acme", group=group, **{**settled, **more})


class FakeReports:
    """Notes what it was asked for."""

    def __init__(self, *lines: UsageLine) -> None:
        self.lines = lines
        self.asked: dict[str, Any] = {}

    async def report(self, caller: Caller, **asked: Any) -> UsageTable:
        await trio.lowlevel.checkpoint()
        self.asked = asked
        span = (asked["start"], asked["end"])
        lines = tuple(each for each in self.lines if span[0] <= each.period < span[1])
        return UsageTable(
            *span, Granularity.HOUR, None, "USD", lines, lines[0] if lines else line(NOW)
        )


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path, METHODS) as bench:
        yield bench


async def test_a_tenant_that_spent_nothing_has_an_empty_bill(bench: Bench) -> None:
    told = await bench.call("usage.cost")

    assert (told["days"], told["daily"], told["currency"]) == (30, [], "USD")
    assert told["totals"]["totalCost"] == 0


async def test_tokens_and_money_are_summed_by_day(bench: Bench) -> None:
    morning = datetime(2026, 11, 21, 9, tzinfo=UTC)
    bench.services.usage = FakeReports(
        line(morning),
        line(morning.replace(hour=10), unpriced_requests=1, estimated_requests=2, cost=0),
        line(morning.replace(day=20), currency="EUR"),
    )

    told = await bench.call("usage.cost", days=2)

    assert [(day["date"], day["totalTokens"], day["totalCost"]) for day in told["daily"]] == [
        ("2026-11-20", 20, 0),
        ("2026-11-21", 40, 0.1),
    ]
    assert told["totals"]["output"] == 15
    assert told["totals"]["missingCostEntries"] == 1
    assert [day["estimatedEntries"] for day in told["daily"]] == [0, 2]
    assert bench.services.usage.asked["start"] == datetime(2026, 11, 20, tzinfo=UTC)
    assert bench.services.usage.asked["end"] == datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("params", "day"),
    [
        ({"mode": "specific", "utcOffset": "UTC+2"}, "2026-11-21"),
        ({"mode": "specific", "utcOffset": "UTC-1:30"}, "2026-11-20"),
        ({"mode": "utc", "utcOffset": "UTC+2"}, "2026-11-20"),
        ({"timeZone": "Europe/Berlin"}, "2026-11-21"),
    ],
)
async def test_days_are_those_of_whoever_asks(
    bench: Bench, params: dict[str, Any], day: str
) -> None:
    bench.services.usage = FakeReports(line(datetime(2026, 11, 20, 23, tzinfo=UTC)))

    told = await bench.call("usage.cost", **params)

    assert [each["date"] for each in told["daily"]] == [day]


async def test_one_agents_part_may_be_asked_for(bench: Bench) -> None:
    bench.services.usage = FakeReports(line(NOW, group="main"), line(NOW, group="pirate"))

    told = await bench.call("usage.cost", agentId="pirate", range="7d")

    assert told["totals"]["totalTokens"] == 20
    assert bench.services.usage.asked["group_by"] == "agent"
    assert told["days"] == 7


@pytest.mark.parametrize(
    ("params", "days"),
    [
        ({"startDate": "2026-11-01", "endDate": "2026-11-03"}, 3),
        ({"endDate": "2026-11-03"}, 30),
        ({"days": 9_999}, 366),
        ({"range": "all"}, 366),
    ],
)
async def test_a_span_is_counted_in_days(bench: Bench, params: dict[str, Any], days: int) -> None:
    assert (await bench.call("usage.cost", **params))["days"] == days


@pytest.mark.parametrize(
    "params",
    [
        {"startDate": "yesterday"},
        {"startDate": "0001-01-01"},
        {"startDate": "2026-11-03", "endDate": "2026-11-01"},
        {"startDate": "2020-01-01", "endDate": "2026-11-01"},
        {"mode": "specific", "utcOffset": "UTC+99"},
        {"mode": "specific", "utcOffset": "+2"},
        {"timeZone": "../../etc/passwd"},
        {"days": 0},
    ],
)
async def test_what_is_no_span_is_refused(bench: Bench, params: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        await bench.call("usage.cost", **params)


async def test_budgets_are_told_in_percent(bench: Bench) -> None:
    standing = Standing(
        quotas=(
            QuotaStanding("tokens_per_day", 1000, None, 200, 55, NOW),
            QuotaStanding("cost_per_month", 0, None, 0, 0, NOW),
            QuotaStanding("tokens_per_month", None, None, 7, 0, NOW),
            QuotaStanding("concurrent_requests", 5, None, 1, 0, None),
        )
    )
    assert bench.tenant is not None
    bench.tenant.meter = SimpleNamespace(standing=lambda: standing)

    told = await bench.call("usage.status")

    (provider,) = told["providers"]
    assert [(each["label"], each["usedPercent"]) for each in provider["windows"]] == [
        ("tokens per day", 25.5),
        ("cost per month", 100.0),
    ]
    assert provider["windows"][0]["resetAt"] == int(NOW.timestamp() * 1000)


async def test_without_budgets_there_is_nothing_to_tell(bench: Bench) -> None:
    assert bench.tenant is not None
    bench.tenant.meter = SimpleNamespace(standing=lambda: Standing(quotas=()))

    assert (await bench.call("usage.status"))["providers"] == []
