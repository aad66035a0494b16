"""The shapes of ``node.*``, for operators and for nodes."""

from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.model.errors import Forbidden, ForeignSession, InvalidRequest, NotFound
from appliance.model.operator_scopes import OperatorScope
from appliance.services.nodes import NodeService
from appliance.services.presence import Presence
from appliance.transports.rpc.method import Who
from appliance.transports.rpc.node_side import METHODS as NODES_METHODS
from appliance.transports.rpc.nodes import METHODS
from tests.fakes.awake import FakeAwake, FakeClient, someone
from tests.services.tenancy import NOW, Tenancy
from tests.transports.rpc.method_calls import Methods

NOW_MS = int(NOW.timestamp() * 1000)
INVOKE = {"nodeId": "phone", "command": "camera.snap", "idempotencyKey": "k1"}


class Bench:
    def __init__(self, tenancy: Tenancy, tenant: FakeAwake) -> None:
        nodes = NodeService(audit=tenancy.audit, clock=tenancy.clock)
        presence = Presence(version="1", clock=tenancy.clock)
        services = SimpleNamespace(nodes=nodes, presence=presence)
        self.methods = Methods((*METHODS, *NODES_METHODS), services)
        self.tenant = tenant
        self.operator = tenant.connect(FakeClient("c1", someone("acme")))

    async def call(self, name: str, params: object = None, *, by: FakeClient | None = None) -> Any:
        return await self.methods.call(self.tenant, by or self.operator, name, params)


@pytest.fixture
async def bench(tenancy: Tenancy) -> Bench:
    await tenancy.make()
    return Bench(tenancy, FakeAwake(tenancy.state.tenant_root("acme")))


async def test_a_connected_node_is_listed_and_described(bench: Bench) -> None:
    bench.tenant.node("phone", "camera.snap", platform="iOS", permissions={"camera": True})
    row = {
        "nodeId": "phone",
        "caps": [],
        "commands": ["camera.snap"],
        "paired": False,
        "connected": True,
        "displayName": "phone",
        "platform": "iOS",
        "clientId": "node-host",
        "clientMode": "node",
        "remoteIp": "198.51.100.7",
        "permissions": {"camera": True},
        "connectedAtMs": NOW_MS,
        "approvalState": "unapproved",
    }

    assert await bench.call("node.list") == {"ts": NOW_MS, "nodes": [row]}
    assert await bench.call("node.describe", {"nodeId": "phone"}) == {"ts": NOW_MS, **row}
    with pytest.raises(NotFound, match=r"^unknown nodeId$"):
        await bench.call("node.describe", {"nodeId": "tablet"})


async def test_a_node_is_paired_renamed_verified_and_removed(bench: Bench) -> None:
    asked = await bench.call("node.pair.request", {"nodeId": "phone", "commands": ["a"]})
    assert (asked["status"], asked["created"], asked["request"]["nodeId"]) == (
        "pending",
        True,
        "phone",
    )
    request = {"requestId": asked["request"]["requestId"]}
    assert (await bench.call("node.pair.list"))["pending"] == [asked["request"]]

    approved = await bench.call("node.pair.approve", request)
    token = approved["node"]["token"]
    name = {"nodeId": "phone", "displayName": "Ann's"}
    assert await bench.call("node.rename", name) == name

    verified = await bench.call("node.pair.verify", {"nodeId": "phone", "token": token})
    assert verified["ok"]
    assert verified["node"]["displayName"] == "Ann's"
    assert await bench.call("node.pair.verify", {"nodeId": "phone", "token": "x"}) == {"ok": False}
    listed = await bench.call("node.pair.list")
    assert token not in str(listed)
    assert listed["paired"][0]["nodeId"] == "phone"
    assert await bench.call("node.pair.remove", {"nodeId": "phone"}) == {"nodeId": "phone"}


async def test_a_node_is_rejected(bench: Bench) -> None:
    asked = await bench.call("node.pair.request", {"nodeId": "phone"})
    request = {"requestId": asked["request"]["requestId"]}

    assert await bench.call("node.pair.reject", request) == {**request, "nodeId": "phone"}
    with pytest.raises(NotFound, match=r"^unknown requestId$"):
        await bench.call("node.pair.approve", request)


@pytest.mark.parametrize(
    ("said", "payload", "text"),
    [
        ({"payload": {"jpg": [1]}}, {"jpg": [1]}, '{"jpg":[1]}'),
        ({"payloadJSON": '{"jpg": [1]}'}, {"jpg": [1]}, '{"jpg": [1]}'),
        ({}, None, None),
    ],
)
async def test_a_command_and_its_result(
    bench: Bench, nursery: trio.Nursery, said: dict[str, Any], payload: object, text: str | None
) -> None:
    node = bench.tenant.node("phone", "camera.snap")

    async def answer() -> None:
        await wait_all_tasks_blocked()
        result = {"id": node.sent[-1][1]["id"], "nodeId": "phone", "ok": True, **said}
        assert await bench.call("node.invoke.result", result, by=node) == {"ok": True}
        assert await bench.call("node.invoke.result", result, by=node) == {
            "ok": True,
            "ignored": True,
        }

    nursery.start_soon(answer)
    answered = await bench.call("node.invoke", {**INVOKE, "params": {"a": 1}, "timeoutMs": 500})

    assert node.sent[0][1]["paramsJSON"] == '{"a":1}'
    assert node.sent[0][1]["timeoutMs"] == 500
    assert answered == {
        "ok": True,
        "nodeId": "phone",
        "command": "camera.snap",
        "payload": payload,
        "payloadJSON": text,
    }


async def test_a_command_names_no_foreign_session(bench: Bench) -> None:
    bench.tenant.node("phone", "camera.snap")

    with pytest.raises(ForeignSession):
        await bench.call("node.invoke", {**INVOKE, "sessionKey": "tenant:other:agent:main:main"})
    with pytest.raises(InvalidRequest, match="timeoutMs"):
        await bench.call("node.invoke", {**INVOKE, "timeoutMs": 600_001})


async def test_a_nodes_events_are_taken_or_said_to_be_ignored(bench: Bench) -> None:
    node = bench.tenant.node("phone")
    version = bench.tenant.state.presence_version

    async def tell(event: str, **said: object) -> Any:
        return await bench.call("node.event", {"event": event, **said}, by=node)

    assert await tell("node.presence.alive") == {"ok": True}
    assert bench.tenant.state.presence_version == version + 1
    assert await tell("chat.subscribe", payloadJSON='{"sessionKey":"main"}') == {"ok": True}
    assert node.watched_sessions == {"agent:main:main"}
    assert await tell("chat.unsubscribe", payload={"sessionKey": "main"}) == {"ok": True}
    assert node.watched_sessions == set()
    assert await tell("exec.finished", payload={"code": 0}) == {"ok": True}
    assert bench.tenant.state.system_texts[-1].text == 'exec.finished {"code":0}'
    assert await tell("made.up") == {"ok": True, "ignored": True}
    wrongs: tuple[object, ...] = ({"sessionKey": "tenant:other:agent:main:main"}, {}, [])
    for wrong in wrongs:
        with pytest.raises((ForeignSession, InvalidRequest)):
            await tell("chat.subscribe", payload=wrong)
    with pytest.raises(InvalidRequest, match="payloadJSON"):
        await tell("exec.finished", payloadJSON="{")


async def test_work_waits_for_a_node_until_it_drains_it(bench: Bench) -> None:
    node = bench.tenant.node("phone")
    wanted = {"nodeId": "phone", "type": "location.request", "priority": "high"}

    queued = await bench.call("node.pending.enqueue", wanted)
    drained = await bench.call("node.pending.drain", by=node)

    assert (queued["revision"], queued["wakeTriggered"]) == (1, False)
    assert drained["items"][0] == queued["queued"]
    assert [item["type"] for item in drained["items"]] == ["location.request", "status.request"]
    assert not drained["hasMore"]
    with pytest.raises(NotFound, match=r"^unknown nodeId$"):
        await bench.call("node.pending.enqueue", {**wanted, "nodeId": "tablet"})
    with pytest.raises(Forbidden):
        await bench.call("node.pending.drain")


async def test_a_node_pulls_and_acknowledges_its_commands(bench: Bench) -> None:
    node = bench.tenant.node("phone")
    bench.tenant.state.node_queues.defer("phone", "camera.snap", b"{}", now_ms=NOW_MS)

    pulled = await bench.call("node.pending.pull", by=node)
    (action,) = pulled["actions"]
    assert (action["command"], action["paramsJSON"]) == ("camera.snap", "{}")

    acked = await bench.call("node.pending.ack", {"ids": [action["id"]]}, by=node)
    assert acked == {"nodeId": "phone", "ackedIds": [action["id"]], "remainingCount": 0}


def test_methods_of_nodes_are_for_nodes_and_pairing_needs_its_scope() -> None:
    assert {method.who for method in NODES_METHODS} == {Who.NODE}
    assert all(
        method.scope is OperatorScope.PAIRING for method in METHODS if ".pair." in method.name
    )
