"""Nodes: of one tenant, asked once, answered by the connection that was asked."""

from collections.abc import Awaitable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from appliance.model.errors import InvalidRequest, NotFound, RateLimited, Unavailable
from appliance.services.node_commands import (
    LARGEST_PAYLOAD,
    NodeBusy,
    NodeCommand,
    NodeFailed,
    NodeNotConnected,
    NodeTimedOut,
)
from appliance.services.node_invokes import MOST_PENDING, NodeResult
from appliance.services.node_queues import NodeQueues
from appliance.services.nodes import NodeService
from appliance.storage.paired import PairRequest
from tests.fakes.awake import FakeAwake, FakeClient, someone
from tests.services.tenancy import Tenancy

OWNER = someone("acme")


class Bench:
    def __init__(self, tenancy: Tenancy) -> None:
        self.tenancy = tenancy
        self.nodes = NodeService(audit=tenancy.audit, clock=tenancy.clock)

    async def tenant(self, name: str = "acme") -> FakeAwake:
        await self.tenancy.make(name)
        return FakeAwake(self.tenancy.state.tenant_root(name))

    async def asked(self, tenant: FakeAwake, node: str = "phone") -> str:
        request = PairRequest(
            request_id="", kind="node", subject_id=node, ts=0, commands=("camera.snap",)
        )
        return (await self.nodes.ask(tenant, request))[0].request_id

    def invoke(
        self,
        tenant: FakeAwake,
        node: str = "phone",
        *,
        command: str = "camera.snap",
        params: bytes | None = b'{"side":"front"}',
        key: str = "k1",
        timeout: float = 30.0,
    ) -> Awaitable[bytes | None]:
        return self.nodes.commands.invoke(tenant, NodeCommand(node, command, params, timeout, key))

    def answer(self, tenant: FakeAwake, node: FakeClient, **said: Any) -> bool:
        invoke = node.sent[-1][1]
        result = NodeResult(**{"ok": True, "payload": b'{"jpg":1}', **said})
        assert node.node_id is not None
        return self.nodes.commands.answer(
            tenant, node, invoke["id"], node_id=node.node_id, result=result
        )


@pytest.fixture
def bench(tenancy: Tenancy) -> Bench:
    return Bench(tenancy)


async def test_a_node_does_what_it_is_asked(bench: Bench, nursery: trio.Nursery) -> None:
    tenant = await bench.tenant()
    node = tenant.node("phone", "camera.snap")

    async def answer() -> None:
        await wait_all_tasks_blocked()
        assert bench.answer(tenant, node)

    nursery.start_soon(answer)
    assert await bench.invoke(tenant) == b'{"jpg":1}'

    ((name, request),) = node.sent
    assert name == "node.invoke.request"
    assert request | {"id": ""} == {
        "id": "",
        "nodeId": "phone",
        "command": "camera.snap",
        "paramsJSON": '{"side":"front"}',
        "timeoutMs": 30_000,
        "idempotencyKey": "k1",
    }
    assert not bench.answer(tenant, node)  # nobody waits any more


async def test_the_same_key_asks_once_and_answers_twice(
    bench: Bench, nursery: trio.Nursery
) -> None:
    tenant = await bench.tenant()
    node = tenant.node("phone", "camera.snap")
    answers: list[bytes | None] = []

    async def ask(params: bytes) -> None:
        answers.append(await bench.invoke(tenant, params=params))

    nursery.start_soon(ask, b'{"a":1,"b":2}')
    nursery.start_soon(ask, b'{"b": 2, "a": 1}')
    await wait_all_tasks_blocked()
    bench.answer(tenant, node)
    await wait_all_tasks_blocked()
    await ask(b'{"a":1,"b":2}')

    assert answers == [b'{"jpg":1}'] * 3
    assert len(node.sent) == 1
    with pytest.raises(InvalidRequest, match="idempotencyKey"):
        await bench.invoke(tenant, params=b'{"a":2}')


async def test_a_silent_node_is_given_up_at_the_deadline(
    bench: Bench, autojump_clock: MockClock
) -> None:
    tenant = await bench.tenant()
    node = tenant.node("phone", "camera.snap")
    began = trio.current_time()

    with pytest.raises(NodeTimedOut) as late:
        await bench.invoke(tenant, timeout=7)

    assert trio.current_time() == began + 7
    assert late.value.code == "timeout"
    assert not bench.answer(tenant, node)
    assert len(tenant.state.invokes) == 0
    with pytest.raises(NodeTimedOut):
        await bench.invoke(tenant)
    assert len(node.sent) == 1


async def test_a_node_that_goes_away_fails_what_it_was_asked(
    bench: Bench, nursery: trio.Nursery
) -> None:
    tenant = await bench.tenant()
    node = tenant.node("phone", "camera.snap")

    async def leave() -> None:
        await wait_all_tasks_blocked()
        bench.nodes.commands.connection_closed(tenant, node)

    nursery.start_soon(leave)
    with pytest.raises(NodeNotConnected, match="disconnected"):
        await bench.invoke(tenant)


async def test_another_tenants_node_is_an_unknown_one(bench: Bench) -> None:
    acme, other = await bench.tenant(), await bench.tenant("other")
    phone = acme.node("phone", "camera.snap")
    await bench.nodes.approve(acme, OWNER, await bench.asked(acme))
    mallory = someone("other")
    answers = set()

    for node in ("phone", "no-such"):
        for attempt in (
            bench.invoke(other, node),
            bench.nodes.require(other, node),
            bench.nodes.remove(other, mallory, node),
            bench.nodes.rename(other, mallory, node, "mine"),
        ):
            with pytest.raises((NotFound, Unavailable)) as refused:
                await attempt
            answers.add((refused.value.code, refused.value.detail, str(refused.value.facts)))

    assert answers == {
        ("not-connected", "node not connected", "{}"),
        ("not-found", "unknown nodeId", "{}"),
    }
    assert await bench.nodes.list(other) == []
    assert phone.sent == []
    assert phone.dropped is None
    assert [node.id for node in await bench.nodes.list(acme)] == ["phone"]


async def test_only_the_connection_that_was_asked_may_answer(
    bench: Bench, nursery: trio.Nursery
) -> None:
    acme, other = await bench.tenant(), await bench.tenant("other")
    node = acme.node("phone", "camera.snap")
    twin, stranger = acme.node("tablet", "camera.snap"), other.node("phone", "camera.snap")

    async def ask() -> None:
        assert await bench.invoke(acme) == b'{"jpg":1}'

    nursery.start_soon(ask)
    await wait_all_tasks_blocked()
    invoke = node.sent[-1][1]["id"]
    forged = NodeResult(ok=True, payload=b'"forged"')
    commands = bench.nodes.commands

    assert not commands.answer(acme, twin, invoke, node_id="phone", result=forged)
    assert not commands.answer(acme, twin, invoke, node_id="tablet", result=forged)
    assert not commands.answer(other, stranger, invoke, node_id="phone", result=forged)
    assert not commands.answer(acme, node, invoke, node_id="tablet", result=forged)
    assert bench.answer(acme, node)


async def test_a_node_is_asked_only_for_what_it_declared(bench: Bench) -> None:
    tenant = await bench.tenant()
    node = tenant.node("phone", "camera.snap", "system.execApprovals.get")

    for command in ("system.run", "system.execApprovals.get"):
        with pytest.raises(InvalidRequest, match="command"):
            await bench.invoke(tenant, command=command)
    node.is_leaving = True
    with pytest.raises(NodeNotConnected):
        await bench.invoke(tenant)

    node.is_leaving = False
    assert node.sent == []
    assert len(tenant.state.invokes) == 0


async def test_too_many_commands_at_once_are_refused(
    bench: Bench, autojump_clock: MockClock
) -> None:
    tenant = await bench.tenant()
    tenant.node("phone", "camera.snap")

    async def ask(number: int) -> None:
        with pytest.raises(NodeTimedOut):
            await bench.invoke(tenant, key=f"k{number}")

    async with trio.open_nursery() as nursery:
        for number in range(MOST_PENDING):
            nursery.start_soon(ask, number)
        await wait_all_tasks_blocked()
        with pytest.raises(RateLimited):
            await bench.invoke(tenant, key="one more")


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"ok": False, "code": "DENIED", "message": "no"}, NodeFailed),
        ({"ok": False, "code": "TIMEOUT", "message": "so it says"}, NodeFailed),
        ({"payload": b"0" * (LARGEST_PAYLOAD + 1)}, NodeFailed),
    ],
)
async def test_a_failure_on_the_node_is_told_as_the_nodes(
    bench: Bench, nursery: trio.Nursery, said: dict[str, Any], kind: type[Exception]
) -> None:
    tenant = await bench.tenant()
    node = tenant.node("phone", "camera.snap")

    async def answer() -> None:
        await wait_all_tasks_blocked()
        bench.answer(tenant, node, **said)

    nursery.start_soon(answer)
    with pytest.raises(kind):
        await bench.invoke(tenant)


async def test_large_results_are_forgotten_but_not_that_they_were_asked_for(
    bench: Bench, nursery: trio.Nursery
) -> None:
    tenant = await bench.tenant()
    node = tenant.node("phone", "camera.snap")
    for number in range(3):

        async def ask(key: str) -> None:
            await bench.invoke(tenant, key=key)

        nursery.start_soon(ask, f"k{number}")
        await wait_all_tasks_blocked()
        bench.answer(tenant, node, payload=b"0" * LARGEST_PAYLOAD)
        await wait_all_tasks_blocked()

    with pytest.raises(Unavailable, match="no longer kept"):
        await bench.invoke(tenant, key="k0")
    assert len(node.sent) == 3


async def test_a_phone_in_a_pocket_gets_its_command_when_it_asks(
    bench: Bench, nursery: trio.Nursery
) -> None:
    tenant = await bench.tenant()
    node = tenant.node("phone", "camera.snap", platform="iOS 26")

    async def answer() -> None:
        await wait_all_tasks_blocked()
        bench.answer(tenant, node, ok=False, payload=None, code="NODE_BACKGROUND_UNAVAILABLE")

    nursery.start_soon(answer)
    with pytest.raises(NodeBusy):
        await bench.invoke(tenant)

    now_ms = bench.nodes.now_ms()
    (action,) = tenant.state.node_queues.actions("phone", now_ms=now_ms)
    assert (action.command, action.params) == ("camera.snap", b'{"side":"front"}')
    assert tenant.state.node_queues.acknowledge("phone", [action.id], now_ms=now_ms) == 0


async def test_a_node_is_paired_and_its_token_verified(bench: Bench) -> None:
    tenant = await bench.tenant()
    request_id = await bench.asked(tenant)
    assert await bench.asked(tenant) == request_id

    node, token = await bench.nodes.approve(tenant, OWNER, request_id)

    assert token not in bench.tenancy.file("acme", "devices.json").read_text()
    again = tenant.asleep_and_awake()
    assert await bench.nodes.verify(again, "phone", token) == node
    assert await bench.nodes.verify(again, "phone", "guess") is None
    assert await bench.nodes.verify(again, "tablet", token) is None
    assert [event["decision"] for event in tenant.heard("node.pair.resolved")] == ["approved"]
    assert len(tenant.heard("node.pair.requested")) == 1
    assert bench.tenancy.audit.names[-1] == "node.pair"
    with pytest.raises(NotFound, match="unknown requestId"):
        await bench.nodes.reject(tenant, OWNER, request_id)


async def test_a_rejected_node_is_not_paired(bench: Bench) -> None:
    tenant = await bench.tenant()

    await bench.nodes.reject(tenant, OWNER, await bench.asked(tenant))

    assert await bench.nodes.pairings(tenant) == ((), ())


async def test_removing_a_node_ends_its_connections(bench: Bench) -> None:
    tenant = await bench.tenant()
    _, token = await bench.nodes.approve(tenant, OWNER, await bench.asked(tenant))
    phone, tablet = tenant.node("phone"), tenant.node("tablet")

    await bench.nodes.remove(tenant, OWNER, "phone")

    assert (phone.dropped, tablet.dropped) == ((1008, "node removed"), None)
    assert await bench.nodes.verify(tenant.asleep_and_awake(), "phone", token) is None
    with pytest.raises(NotFound):
        await bench.nodes.remove(tenant, OWNER, "tablet")  # connected, but never paired


async def test_nodes_are_listed_connected_ones_first_by_the_names_they_were_given(
    bench: Bench,
) -> None:
    tenant = await bench.tenant()
    for name in ("phone", "tablet"):
        await bench.nodes.approve(tenant, OWNER, await bench.asked(tenant, name))
    await bench.nodes.rename(tenant, OWNER, "phone", "Ann's phone")
    tenant.node("watch")

    listed = await bench.nodes.list(tenant)

    assert [(node.name, node.client is not None) for node in listed] == [
        ("watch", True),
        ("Ann's phone", False),
        (None, False),
    ]


def test_work_waits_for_its_node_the_urgent_first_and_not_for_ever() -> None:
    queues = NodeQueues()
    ask = {"expires_in_ms": 60_000, "now_ms": 0}
    queues.enqueue("phone", "status.request", priority="normal", **ask)
    revision, item = queues.enqueue("phone", "location.request", priority="high", **ask)
    assert queues.enqueue("phone", "location.request", priority="high", **ask) == (revision, item)

    first = queues.drain("phone", most=1, now_ms=1)
    assert ([item.type for item in first.items], first.has_more) == (["location.request"], True)
    assert [item.id for item in queues.drain("phone", most=4, now_ms=60_000).items] == [
        "baseline-status"
    ]
    queues.defer("phone", "camera.snap", None, now_ms=0)
    assert queues.actions("phone", now_ms=10 * 60_000) == []
    queues.forget("phone")
    assert queues.drain("phone", most=1, now_ms=0).revision == 0
