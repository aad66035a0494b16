from typing import Any, cast

import msgspec
import pytest

from appliance.services.routing import Router
from appliance.services.snapshots import Snapshots
from appliance.transports.rpc import health
from appliance.transports.rpc.method import MethodCall, Raw
from appliance.transports.rpc.reading import read_params
from tests.books import HandClock
from tests.services.tenancy import ADMIN, Tenancy
from tests.services.test_snapshots import FakeFacts, FakeTenant
from tests.storage.talks import store_in_memory, turn
from tests.transports.rpc.operator_bench import OperatorBench


@pytest.fixture
def bench(tenancy: Tenancy) -> OperatorBench:
    bench = OperatorBench(tenancy, health.METHODS)
    clock = HandClock()
    bench.services.snapshots = Snapshots(
        router=Router(dict, clock=clock), facts=FakeFacts, clock=clock, version="1.2"
    )
    return bench


@pytest.fixture
def tenant() -> FakeTenant:
    store = store_in_memory()
    turn(store, "hi", "hello")
    return FakeTenant(store)


def at_once(bench: OperatorBench, tenant: FakeTenant | None) -> Any:
    method = bench.methods["health"]
    params = read_params(method.params, None, method="health")
    call = MethodCall(
        method,
        params,
        ADMIN,
        cast("Any", None),
        cast("Any", tenant),
        cast("Any", bench.services),
        cast("Any", None),
    )
    assert method.inline is not None
    answer = method.inline(call)
    assert isinstance(answer, Raw)
    return msgspec.json.decode(answer.json)


async def test_health_is_answered_at_once_after_the_first_time(
    bench: OperatorBench, tenant: FakeTenant
) -> None:
    first = await bench.call("health", {"probe": True}, tenant=tenant)

    assert first["sessions"]["count"] == 1
    assert at_once(bench, tenant) == first
    assert at_once(bench, None)["gateway"]["tenants"] == 3


async def test_status_has_what_clients_read_unasked(
    bench: OperatorBench, tenant: FakeTenant
) -> None:
    of_tenant = await bench.call("status", {"includeChannelSummary": False}, tenant=tenant)
    of_gateway = await bench.call("status", {"includeCliProjection": True})

    for status in (of_tenant, of_gateway):
        assert status["channelSummary"] == []
        assert {"paths", "count", "defaults", "recent", "byAgent"} == {*status["sessions"]}
    assert "gateway" not in of_tenant
    assert of_gateway["cliProjection"]["agents"]["rows"] == []


async def test_a_tenant_is_told_nothing_of_the_host(
    bench: OperatorBench, tenant: FakeTenant
) -> None:
    shown = msgspec.json.encode(
        [
            await bench.call("health", tenant=tenant),
            await bench.call("status", {"includeCliProjection": True}, tenant=tenant),
        ]
    ).decode()

    assert "/" not in shown
    assert "gateway" not in shown
    assert "providers" not in shown
