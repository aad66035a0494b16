from datetime import timedelta
from types import SimpleNamespace

import msgspec
import pytest

from appliance.model.errors import InvalidRequest
from appliance.transports.rpc import logs
from tests.books import NOON
from tests.services.tenancy import Tenancy
from tests.transports.rpc.operator_bench import OperatorBench

ACME = SimpleNamespace(id="acme", record=SimpleNamespace(created_at=NOON))


@pytest.fixture
def bench(tenancy: Tenancy) -> OperatorBench:
    bench = OperatorBench(tenancy, logs.METHODS)
    for number, tenant in enumerate(("acme", "globex", None)):
        ts = f"{NOON + timedelta(seconds=number):%Y-%m-%dT%H:%M:%S}.000Z"
        record = {"ts": ts, "event": f"line {number}", "tenant": tenant}
        bench.logs.take(record, msgspec.json.encode(record) + b"\n")
    return bench


async def test_a_tenant_reads_its_own_log(bench: OperatorBench) -> None:
    tail = await bench.call("logs.tail", tenant=ACME)

    assert tail["file"] == "tenant:acme.log"
    assert [msgspec.json.decode(line)["event"] for line in tail["lines"]] == ["line 0"]
    assert (tail["truncated"], tail["reset"]) == (False, False)
    again = await bench.call("logs.tail", {"cursor": tail["cursor"]}, tenant=ACME)
    assert again["lines"] == []


async def test_what_was_logged_before_the_tenant_was_made_is_not_its_own(
    bench: OperatorBench,
) -> None:
    later = SimpleNamespace(id="acme", record=SimpleNamespace(created_at=NOON + timedelta(days=1)))
    assert (await bench.call("logs.tail", tenant=later))["lines"] == []


async def test_an_admin_at_large_reads_the_gateways(bench: OperatorBench) -> None:
    tail = await bench.call("logs.tail", {"limit": 2, "maxBytes": 1_000_000})

    assert tail["file"] == "gateway.log"
    assert [msgspec.json.decode(line)["event"] for line in tail["lines"]] == ["line 1", "line 2"]
    assert tail["truncated"]


@pytest.mark.parametrize(
    "params",
    [{"limit": 0}, {"limit": 5001}, {"maxBytes": 0}, {"maxBytes": 1_000_001}, {"cursor": -1}],
)
async def test_limits_are_kept(bench: OperatorBench, params: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest, match=r"invalid logs\.tail params"):
        await bench.call("logs.tail", params)
