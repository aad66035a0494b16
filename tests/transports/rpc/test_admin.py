import pytest

from appliance.model.errors import InvalidRequest, Unavailable
from appliance.services.resources import Activity
from appliance.transports.rpc import admin
from appliance.transports.rpc.method import Who
from tests.services.tenancy import Tenancy
from tests.transports.rpc.operator_bench import OperatorBench


@pytest.fixture
def bench(tenancy: Tenancy) -> OperatorBench:
    return OperatorBench(tenancy, admin.METHODS)


def test_they_are_the_operators_and_sandboxes_come_later() -> None:
    assert {method.who for method in admin.METHODS} == {Who.ADMIN}
    assert [method.name for method in admin.METHODS if not method.is_available] == [
        "admin.sandboxes.list",
        "admin.sandboxes.kill",
    ]


async def test_the_system_is_shown(bench: OperatorBench) -> None:
    await bench.tenancy.make("acme")
    bench.activity = {"acme": Activity(connections=2)}
    system = await bench.call("admin.resources.system")

    assert system["cpu"] == {"cores": 4, "usagePercent": 10.0, "loadAverage": [1.0, 0.5, 0.1]}
    assert system["memory"] == {
        "totalBytes": 1000,
        "usedBytes": 250,
        "freeBytes": 750,
        "usagePercent": 25.0,
    }
    assert (system["activeConnections"], system["activeSandboxes"]) == (2, 0)
    assert system["tenants"] == {"total": 1, "disabled": 0, "awake": 0, "broken": 0}


async def test_a_machine_that_tells_nothing_is_not_available(bench: OperatorBench) -> None:
    bench.services.resources._machine.broken = True
    with pytest.raises(Unavailable):
        await bench.call("admin.resources.system")


async def test_sums_are_over_all_tenants_however_few_are_shown(bench: OperatorBench) -> None:
    for name in ("acme", "globex", "initech"):
        await bench.tenancy.make(name)
    bench.activity = {"globex": Activity(runs=2, connections=1), "acme": Activity(runs=1)}
    found = await bench.call("admin.resources.tenants", {"sortBy": "activeSessions", "limit": 1})

    assert [row["tenantId"] for row in found["tenants"]] == ["globex"]
    assert found["aggregates"]["tenants"] == 3
    assert found["aggregates"]["activeSessions"] == 3
    assert found["unreadable"] == []


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("admin.resources.tenants", {"sortBy": "name"}),
        ("admin.resources.tenants", {"limit": 0}),
        ("admin.resources.tenants", {"limit": 1001}),
        ("admin.resources.history", {"hours": 0}),
        ("admin.resources.history", {"hours": 25}),
        ("admin.resources.history", {"resolution": "2m"}),
    ],
)
async def test_what_cannot_be_asked_for_is_refused(
    bench: OperatorBench, name: str, params: dict[str, object]
) -> None:
    with pytest.raises(InvalidRequest, match=f"invalid {name} params: at /{next(iter(params))}"):
        await bench.call(name, params)


async def test_history_says_what_it_is_made_of(bench: OperatorBench) -> None:
    await bench.call("admin.resources.system")
    bench.tenancy.clock.go_on(seconds=30)
    await bench.call("admin.resources.system")
    found = await bench.call("admin.resources.history", {"hours": 1, "resolution": "1h"})

    assert (found["sampleCount"], found["resolution"], found["hoursRequested"]) == (2, "1h", 1)
    (point,) = found["history"]
    assert (point["samples"], point["cpuPercent"], point["memoryPercent"]) == (2, 10.0, 25.0)
