from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from appliance.model.errors import InvalidRequest, TenantUnknown
from appliance.model.quotas import Quotas
from appliance.model.spending import QuotaStanding
from appliance.model.usage import TokenUsage
from appliance.services.meter import Meter
from appliance.storage.ledger import LedgerStore
from appliance.transports.rpc import tenant_usage
from appliance.transports.rpc.quota_names import cents, in_original_names, in_our_names
from tests.books import outcome, spend
from tests.services.tenancy import ADMIN, Tenancy
from tests.storage.talks import store_in_memory, turn
from tests.transports.rpc.operator_bench import OperatorBench


@pytest.fixture
def bench(tenancy: Tenancy) -> OperatorBench:
    return OperatorBench(tenancy, tenant_usage.METHODS)


async def use(
    bench: OperatorBench,
    tenant: str = "acme",
    *,
    tokens: int = 1_000_000,
    estimated: bool = False,
) -> None:
    """One call of so many input tokens, a dollar a million."""
    with bench.tenancy.state.tenant_root(tenant) as root:
        ledger = await LedgerStore.open(root)
        meter = await Meter.open(
            ledger, limits=Quotas(), clock=bench.tenancy.clock, currency="USD", assumed_output=1
        )
        held = meter.reserve(spend())
        meter.settle(held, outcome(TokenUsage(input=tokens, estimated=estimated)))
        await ledger.close()


async def test_what_was_used_this_month(bench: OperatorBench) -> None:
    caller = await bench.caller("acme")
    await use(bench)
    bench.quotas = (QuotaStanding("requests_per_minute", 600, None, 4, 0, None),)
    used = await bench.call("tenants.usage", {"tenantId": "acme"}, caller=caller)

    assert (used["period"], used["tenantId"]) == ("2026-11", "acme")
    assert (used["totalTokens"], used["inputTokens"], used["outputTokens"]) == (1_000_000,) * 2 + (
        0,
    )
    assert (used["totalCostCents"], used["totalCost"], used["currency"]) == (100, "1.00", "USD")
    assert used["totalRequests"] == 1
    assert used["requestsThisMinute"] == 4
    assert used["quotaResetAt"] == int(datetime(2026, 12, 1, tzinfo=UTC).timestamp() * 1000)
    assert used["diskUsageBytes"] > 0
    assert "totalSessions" not in used  # nobody's own connection


async def test_requests_that_nobody_has_counted_are_told_apart(bench: OperatorBench) -> None:
    caller = await bench.caller("acme")
    await use(bench)
    await use(bench, estimated=True)

    used = await bench.call("tenants.usage", {"tenantId": "acme"}, caller=caller)

    assert (used["totalRequests"], used["estimatedRequests"]) == (2, 1)


async def test_a_tenant_is_told_how_many_sessions_it_has(bench: OperatorBench) -> None:
    caller = await bench.caller("acme")
    store = store_in_memory()
    turn(store, "hi", "hello")

    async def sessions() -> Any:
        return store

    awake = SimpleNamespace(id="acme", sessions=sessions)
    used = await bench.call("tenants.usage", {"tenantId": "acme"}, caller=caller, tenant=awake)
    assert used["totalSessions"] == 1


async def test_the_disk_is_measured_anew_when_asked(bench: OperatorBench) -> None:
    await bench.tenancy.make("acme")
    before = await bench.call("tenants.usage", {"tenantId": "acme"})
    folder = bench.tenancy.state.path / "tenants/acme/workspace"
    folder.mkdir()
    (folder / "a").write_bytes(b"x" * 500)
    bench.tenancy.clock.go_on(minutes=1)

    kept = await bench.call("tenants.usage", {"tenantId": "acme"})
    anew = await bench.call("tenants.usage", {"tenantId": "acme", "refreshDisk": True})
    assert kept["diskUsageBytes"] == before["diskUsageBytes"]
    assert anew["workspaceBytes"] >= 500
    assert anew["diskUsageBytes"] == before["diskUsageBytes"] + anew["workspaceBytes"]


async def test_a_disabled_tenant_has_used_what_it_has_used(bench: OperatorBench) -> None:
    await bench.tenancy.make("acme")
    await use(bench)
    await bench.tenancy.tenants.update(ADMIN, "acme", disabled=True)
    used = await bench.call("tenants.usage", {"tenantId": "acme"})

    assert used["totalTokens"] == 1_000_000
    assert "requestsThisMinute" not in used


async def test_history_goes_back_month_by_month(bench: OperatorBench) -> None:
    await bench.tenancy.make("acme")
    await use(bench, tokens=7)
    bench.tenancy.clock.go_on(days=31)
    await use(bench, tokens=9)
    found = await bench.call("tenants.usage.history", {"tenantId": "acme", "months": 3})

    assert [each["period"] for each in found["history"]] == ["2026-12", "2026-11", "2026-10"]
    assert [each["totalTokens"] for each in found["history"]] == [9, 7, 0]
    usual = await bench.call("tenants.usage.history", {"tenantId": "acme"})
    assert len(usual["history"]) == 6


async def test_where_a_tenant_stands_in_both_vocabularies(bench: OperatorBench) -> None:
    await bench.tenancy.make("acme", quotas={"tokens_per_month": 100, "cost_per_month": "2.00"})
    bench.quotas = (
        QuotaStanding("tokens_per_month", 100, None, 50, 0, bench.tenancy.clock()),
        QuotaStanding(
            "cost_per_month", 2_000_000_000, None, 2_000_000_000, 0, bench.tenancy.clock()
        ),
    )
    status = await bench.call("tenants.quota.status", {"tenantId": "acme"})

    assert status["quotas"]["monthlyTokenLimit"] == 100
    assert status["quotas"]["monthlyCostLimitCents"] == 200
    assert status["quotas"]["requestsPerMinute"] == 600  # the gateway's default
    assert status["limits"]["cost_per_month"] == "2.00"
    assert status["limits"]["tokens_per_day"] is None
    assert (status["tokenUsagePercent"], status["costUsagePercent"]) == (50.0, 100.0)
    flags = {name: status[name] for name in status if name.startswith("is")}
    assert flags == {
        "isOverTokenLimit": False,
        "isOverCostLimit": True,
        "isOverDiskLimit": False,
        "isAtSoftLimit": False,
        "isBlocked": True,
    }


async def test_a_budget_of_the_day_blocks_too(bench: OperatorBench) -> None:
    await bench.tenancy.make("acme")
    bench.quotas = (QuotaStanding("tokens_per_day", 5, None, 5, 0, bench.tenancy.clock()),)

    assert (await bench.call("tenants.quota.status", {"tenantId": "acme"}))["isBlocked"]


async def test_a_quota_is_changed_by_either_name_and_the_others_stay(bench: OperatorBench) -> None:
    await bench.tenancy.make("acme", quotas={"tokens_per_day": 5, "cost_per_day": "1.50"})
    await bench.call(
        "tenants.quota.update",
        {"tenantId": "acme", "quotas": {"monthlyCostLimitCents": 250, "terminals": 2}},
    )
    changed = await bench.call(
        "tenants.quota.update", {"tenantId": "acme", "quotas": {"tokens_per_day": None}}
    )

    assert changed["updated"] is True
    limits = changed["limits"]
    assert (limits["cost_per_month"], limits["terminals"]) == ("2.50", 2)
    assert (limits["tokens_per_day"], limits["cost_per_day"]) == (None, "1.50")
    assert changed["quotas"]["monthlyCostLimitCents"] == 250


@pytest.mark.parametrize(
    ("quotas", "field"),
    [
        ({"monthlyCostLimitCents": 1.5}, "quotas.monthlyCostLimitCents"),
        ({"monthlyCostLimitCents": True}, "quotas.monthlyCostLimitCents"),
        ({"monthlyTokenLimit": 1, "tokens_per_month": 2}, "quotas.tokens_per_month"),
        ({"tokens_per_days": 1}, "quotas.tokens_per_days"),
        ({"monthlyTokenLimit": -1}, "quotas.tokens_per_month"),
    ],
)
async def test_a_quota_that_cannot_be_is_named(
    bench: OperatorBench, quotas: dict[str, Any], field: str
) -> None:
    await bench.tenancy.make("acme")
    with pytest.raises(InvalidRequest) as refused:
        await bench.call("tenants.quota.update", {"tenantId": "acme", "quotas": quotas})

    assert [error.field for error in refused.value.fields] == [field]


@pytest.mark.parametrize("name", ["tenants.usage", "tenants.usage.history", "tenants.quota.status"])
async def test_an_unknown_tenant_is_not_found(bench: OperatorBench, name: str) -> None:
    with pytest.raises(TenantUnknown):
        await bench.call(name, {"tenantId": "nobody"})


def test_names_of_the_original_translate_both_ways() -> None:
    ours = in_our_names({"monthlyCostLimitCents": 5, "requestsPerHour": None, "channels": 1})

    assert ours == {"cost_per_month": "0.05", "requests_per_hour": None, "channels": 1}
    assert in_original_names(Quotas(cost_per_month=50_000_000, disk_bytes=0)) == {
        "monthlyCostLimitCents": 5,
        "diskSpaceLimitBytes": 0,
    }
    assert [cents(nano) for nano in (0, 4_999_999, 5_000_000, 10_000_000)] == [0, 0, 1, 1]
