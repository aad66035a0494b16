"""One connection: requests in, answers and events out, and a backlog that ends it."""

from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import InvalidRequest
from appliance.model.operator_scopes import EVERYTHING, OperatorScope, Role
from appliance.model.tokens import Scope
from appliance.services.clients import ClientInfo
from appliance.services.events import Audience, TenantEvents
from appliance.transports.rpc.method import MethodCall, Params, Who
from appliance.transports.websocket.connection import TOOL_EVENTS, Connection, Goodbye
from appliance.transports.websocket.dialects import JsonRpcDialect, Request
from appliance.transports.websocket.socket import BinaryRefused
from tests.fakes.cancelling import each_cancellation
from tests.transports.websocket.bench import (
    ConnectionBench,
    FakeSocket,
    method,
    served,
    someone,
)


class Gate:
    """A method that waits until it is let through."""

    def __init__(self) -> None:
        self.open = trio.Event()
        self.began = 0

    async def handler(self, call: MethodCall[Any]) -> dict[str, Any]:
        self.began += 1
        await self.open.wait()
        return {"open": True}


class Named(Params, frozen=True):
    name: str


async def slow(call: MethodCall[Any]) -> dict[str, Any]:
    await trio.sleep(5)
    return {"waited": trio.current_time()}


def quick(call: MethodCall[Any]) -> dict[str, Any]:
    return {"at": trio.current_time()}


def broken(call: MethodCall[Any]) -> dict[str, Any]:
    raise ValueError("a secret of ours")


async def refusing(call: MethodCall[Any]) -> dict[str, Any]:
    raise InvalidRequest("not like this")


BENCH = ConnectionBench(
    (
        method("slow", slow),
        method("quick", inline=quick),
        method("broken", inline=broken),
        method("refusing", refusing),
        method("named", refusing, params=Named),
        method("for.admins", slow, who=Who.ADMIN),
        method("for.nodes", slow, who=Who.NODE, scope=None),
        method("next.year"),
    )
)


# -- requests --------------------------------------------------------------


async def test_what_needs_no_waiting_overtakes_what_does(autojump_clock: MockClock) -> None:
    async with served(BENCH) as (socket, _):
        socket.ask("slow", "r1")
        socket.ask("quick", "r2")
        assert (await socket.answer("r2"))["payload"] == {"at": 0}
        assert (await socket.answer("r1"))["payload"] == {"waited": 5}


async def test_one_more_than_may_be_under_way_is_refused_and_the_others_go_on() -> None:
    gate = Gate()
    bench = ConnectionBench((method("gate", gate.handler), method("quick", inline=quick)))
    async with served(bench) as (socket, _):
        for number in range(3):
            socket.ask("gate", f"g{number}")
        error = (await socket.answer("g2"))["error"]
        assert (error["code"], error["retryable"]) == ("UNAVAILABLE", True)
        assert error["details"] == {"code": "TOO_MANY_IN_FLIGHT", "limit": 2}
        socket.ask("quick", "q")  # takes no place
        assert (await socket.answer("q"))["ok"]

        gate.open.set()
        await socket.answer("g0")
        await socket.answer("g1")
        socket.ask("gate", "again")
        assert (await socket.answer("again"))["ok"]
    assert gate.began == 3


@pytest.mark.parametrize(
    ("name", "code", "details"),
    [
        ("no.such", "INVALID_REQUEST", "UNKNOWN_METHOD"),
        ("constructor", "INVALID_REQUEST", "UNKNOWN_METHOD"),
        ("next.year", "UNAVAILABLE", "METHOD_UNAVAILABLE"),
        ("for.admins", "FORBIDDEN", "ADMIN_ONLY"),
        ("for.nodes", "FORBIDDEN", "ROLE"),
        ("refusing", "INVALID_REQUEST", "INVALID_REQUEST"),
        ("named", "INVALID_REQUEST", "INVALID_REQUEST"),
        ("broken", "UNAVAILABLE", "INTERNAL"),
    ],
)
async def test_what_cannot_be_done_is_an_answer_and_ends_nothing(
    name: str, code: str, details: str
) -> None:
    async with served(BENCH) as (socket, _):
        socket.ask(name)
        answer = await socket.answer()
        assert answer["ok"] is False
        assert (answer["error"]["code"], answer["error"]["details"]["code"]) == (code, details)
        assert "secret" not in answer["error"]["message"]
        socket.ask("quick", "after")
        assert (await socket.answer("after"))["ok"]


async def test_what_is_no_json_is_answered_and_ends_the_connection() -> None:
    async with served(BENCH) as (socket, connection):
        socket.say(b'{"type":"req"')
        answer = await socket.answer("invalid")
        assert answer["error"]["code"] == "INVALID_REQUEST"
        await wait_all_tasks_blocked()
        assert connection.goodbye == Goodbye(1008, "invalid request frame")


async def test_a_frame_with_a_mistake_is_answered_and_ends_nothing() -> None:
    async with served(BENCH) as (socket, _):
        socket.say({"type": "req", "id": "x", "method": 7})
        assert "at /method: must be string" in (await socket.answer("x"))["error"]["message"]
        socket.say({"type": "res", "id": "never asked", "ok": True})
        socket.say({"type": "event", "event": "tick"})
        socket.ask("quick")
        await socket.answer()
    assert len(socket.sent) == 2


async def test_binary_messages_end_the_connection() -> None:
    async with served(BENCH) as (socket, connection):
        socket.say(BinaryRefused())
        await wait_all_tasks_blocked()
    assert connection.goodbye.code == 1003


async def test_what_runs_ends_with_the_connection(autojump_clock: MockClock) -> None:
    async with served(BENCH) as (socket, connection):
        socket.ask("slow")
        await trio.sleep(1)
        socket.leave(4001)
        await trio.sleep(10)
    assert socket.sent == []
    assert connection.goodbye.code == 4001
    assert BENCH.log.lines[-1]["outcome"] == "cancelled"


async def test_requests_of_the_greeting_are_answered_first() -> None:
    socket = FakeSocket()
    async with trio.open_nursery() as nursery:
        connection = BENCH.connection(socket, nursery, dialect=JsonRpcDialect())
        early = connection._dialect.read(b'{"jsonrpc":"2.0","id":1,"method":"quick"}')
        nursery.start_soon(connection.serve, None, early)
        await socket.answer(1)  # type: ignore[arg-type]  # ids of JSON-RPC may be numbers
        nursery.cancel_scope.cancel()


async def test_an_answer_before_the_last_one_is_sent_at_once(autojump_clock: MockClock) -> None:
    async def accepted_then_done(call: MethodCall[Any]) -> dict[str, Any]:
        call.respond({"status": "accepted"})
        await trio.sleep(3)
        return {"status": "ok"}

    bench = ConnectionBench((method("agent", accepted_then_done, replies_twice=True),))
    async with served(bench) as (socket, _):
        socket.ask("agent")
        assert (await socket.answer())["payload"] == {"status": "accepted"}
        await trio.sleep(4)
        assert [each["payload"]["status"] for each in socket.answers()] == ["accepted", "ok"]


async def test_wherever_serving_is_cancelled_nothing_runs_on() -> None:
    running = 0

    async def counted(call: MethodCall[Any]) -> dict[str, Any]:
        nonlocal running
        running += 1
        try:
            await trio.sleep_forever()
        finally:
            running -= 1
        return {}

    bench = ConnectionBench((method("counted", counted),))

    async def serve() -> None:
        socket = FakeSocket()
        async with trio.open_nursery() as errands:
            connection = bench.connection(socket, errands)
            for number in range(3):
                socket.ask("counted", str(number))
            socket.leave()
            await connection.serve(None)

    async for _ in each_cancellation(serve):
        assert running == 0


# -- events ----------------------------------------------------------------


def with_scopes(*scopes: OperatorScope, **more: Any) -> dict[str, Any]:
    return {"scopes": frozenset(scopes), **more}


@pytest.mark.parametrize(
    ("admitted", "heard"),
    [
        (with_scopes(*EVERYTHING), {"everyone", "readers", "pairing", "approvers"}),
        (with_scopes(OperatorScope.READ), {"everyone", "readers"}),
        (with_scopes(OperatorScope.WRITE), {"everyone", "readers"}),
        (with_scopes(OperatorScope.PAIRING), {"everyone", "pairing"}),
        (with_scopes(role=Role.NODE, node_id="phone"), {"everyone", "nodes"}),
        (
            with_scopes(
                OperatorScope.READ,
                info=ClientInfo(id="cli", mode="cli", caps=frozenset({TOOL_EVENTS})),
            ),
            {"everyone", "readers", "tool-watchers"},
        ),
    ],
)
async def test_each_hears_what_is_for_it(admitted: dict[str, Any], heard: set[str]) -> None:
    events = TenantEvents()
    async with served(BENCH, **admitted) as (socket, connection):
        with events.subscribed(connection):
            for audience in Audience:
                events.publish(audience.value, {}, audience=audience, session="main")
    assert {each["event"] for each in socket.sent} == heard
    assert [each["seq"] for each in socket.sent] == list(range(1, len(heard) + 1))


@pytest.mark.parametrize(
    "admitted", [with_scopes(*EVERYTHING), with_scopes(role=Role.NODE, node_id="phone")]
)
async def test_what_is_subscribed_to_is_heard(admitted: dict[str, Any]) -> None:
    events = TenantEvents()
    async with served(BENCH, **admitted) as (socket, connection):
        with events.subscribed(connection):
            events.publish("nobody asked", {}, audience=Audience.SESSION_LIST)
            events.publish("nobody asked", {}, audience=Audience.SESSION, session="main")
            connection.watches_sessions = True
            connection.watched_sessions.add("main")
            events.publish("list", {}, audience=Audience.SESSION_LIST)
            events.publish("mine", {}, audience=Audience.SESSION, session="main")
            events.publish("not mine", {}, audience=Audience.SESSION, session="other")
    assert [frame["event"] for frame in socket.sent] == ["list", "mine"]


def crowded(bench: ConnectionBench, socket: FakeSocket, share: float) -> None:
    """The client stopped reading, and this much of what may wait for it does."""
    socket.reads = False
    socket.buffered = round(bench.limits.max_buffered_bytes * share)


async def test_a_slow_reader_misses_what_may_be_missed_and_is_told_so() -> None:
    events = TenantEvents()
    async with served(BENCH) as (socket, connection):
        with events.subscribed(connection):
            events.publish("delta", {}, droppable=True)
            crowded(BENCH, socket, 0.6)
            for _ in range(3):
                events.publish("delta", {}, droppable=True)
            events.publish("final", {})
            events.publish("final", {})
    assert [(each["event"], each["seq"]) for each in socket.sent] == [
        ("delta", 1),
        ("events.lag", 5),  # 2, 3 and 4 never come
        ("final", 6),
        ("final", 7),
    ]
    assert socket.sent[1]["payload"] == {"lost": 3, "bufferedBytes": 600}


async def test_every_number_is_given_once_and_they_only_grow() -> None:
    events = TenantEvents()
    async with served(BENCH) as (socket, connection):
        with events.subscribed(connection):
            for share in (0, 0.6, 0.1, 0.6, 0):
                socket.buffered = round(share * 1_000)
                events.publish("delta", {}, droppable=True)
                events.publish("final", {})
                connection.send_event("alone", {})
                connection.tick(b"{}")
    numbers = [each["seq"] for each in socket.sent]
    assert numbers == sorted(set(numbers))


async def test_who_does_not_read_at_all_is_told_and_left() -> None:
    events = TenantEvents()
    async with served(BENCH) as (socket, connection):
        with events.subscribed(connection):
            crowded(BENCH, socket, 0.99)
            events.publish("final", {"text": "x" * 50})
            events.publish("final", {"text": "x" * 50})
        assert connection.goodbye == Goodbye(1008, "slow consumer")
        assert connection.send_event("more", {}) is False
    assert [each["event"] for each in socket.sent] == ["final", "events.lag"]
    assert socket.sent[-1]["payload"]["lost"] == 1


async def test_an_answer_that_nobody_takes_counts_too() -> None:
    async with served(BENCH) as (socket, connection):
        crowded(BENCH, socket, 1)
        socket.ask("quick")
        await socket.answer()
        await wait_all_tasks_blocked()
    assert connection.goodbye.reason == "slow consumer"


async def test_no_tick_is_sent_into_a_backlog() -> None:
    async with served(BENCH) as (socket, connection):
        connection.tick(b'{"ts":1}')
        socket.buffered = 1
        connection.tick(b'{"ts":2}')
        socket.buffered = 0
        connection.leave(Goodbye(1012, ""))
        connection.tick(b'{"ts":3}')
    assert [each["payload"]["ts"] for each in socket.sent] == [1]


async def test_the_first_reason_to_leave_counts() -> None:
    async with served(BENCH) as (_, connection):
        connection.drop(4000, "enough")
        connection.leave_slow()
        connection.leave(Goodbye(1012, "restart"))
    assert connection.goodbye == Goodbye(4000, "enough")


# -- outside the tenant ----------------------------------------------------


async def test_who_ends_its_own_connection_gets_the_answer_first(autojump_clock: MockClock) -> None:
    connections: list[Connection] = []

    async def ending(call: MethodCall[Any]) -> dict[str, Any]:
        connections[0].leave(Goodbye(1008, "token revoked"))
        await trio.sleep(2)
        return {"token": "the new one"}

    bench = ConnectionBench((method("rotate", ending, outside=True),))
    socket = FakeSocket()
    async with trio.open_nursery() as errands:
        connections.append(bench.connection(socket, errands))
        socket.ask("rotate")
        with trio.fail_after(1):
            await connections[0].serve(None)
    assert socket.answers()[0]["payload"] == {"token": "the new one"}
    assert bench.log.lines[0]["outcome"] == "ok"


async def test_requests_that_come_when_it_is_over_are_not_begun() -> None:
    gate = Gate()
    bench = ConnectionBench((method("gate", gate.handler),))
    async with trio.open_nursery() as errands:
        connection = bench.connection(FakeSocket(), errands)
        connection.begin(Request("gate", None, "r1"))
        with trio.move_on_after(0):
            await connection.serve(None)
        connection.begin(Request("gate", None, "r1"))
    assert gate.began == 0


async def test_it_tells_who_is_there() -> None:
    admin = Caller(ActorKind.ADMIN, "ops", None)
    async with served(BENCH, caller=admin, device_id="d", node_id="n") as (_, connection):
        assert (connection.id, connection.protocol, connection.caller) == ("conn-1", 4, admin)
        assert (connection.device_id, connection.node_id) == ("d", "n")
        assert "for.admins" in connection.methods
    async with served(BENCH, caller=someone(None)) as (_, connection):
        assert set(connection.methods) == set()
    reader = Caller(ActorKind.TENANT, "tok", "acme", frozenset({Scope.READ}))
    publish = partial(BENCH.connection, FakeSocket())
    async with trio.open_nursery() as errands:
        assert "slow" in publish(errands, caller=reader).methods
