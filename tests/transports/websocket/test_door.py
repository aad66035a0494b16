"""The door: who comes in, what ends a connection, and what a client that comes back is told."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from appliance.transports.rpc.method import MethodCall
from appliance.transports.websocket.socket import BinaryRefused, SocketClosed
from tests.fakes.cancelling import each_cancellation
from tests.transports.websocket.bench import DoorBench, FakeSocket, greet, method, someone


async def slow(call: MethodCall[Any]) -> dict[str, Any]:
    await trio.sleep(5)
    return {"waited": trio.current_time()}


@pytest.fixture
async def bench() -> AsyncIterator[DoorBench]:
    async with DoorBench(method("slow", slow)).running() as bench:
        yield bench


def nobody_is_left(bench: DoorBench) -> None:
    assert len(bench.door) == bench.door.waiting == bench.door._open == 0
    for awake in bench.awake.values():
        assert len(awake.clients) == len(awake.events) == 0
    assert bench.hello.went.count("in") <= bench.hello.went.count("out")


# -- in ----------------------------------------------------------------------


async def test_a_client_is_asked_then_welcomed_then_answered(
    bench: DoorBench, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    socket = await bench.connected(nursery)
    assert [each.get("event") or each["id"] for each in socket.sent] == [
        "connect.challenge",
        "hello",
    ]
    assert socket.sent[1]["payload"]["type"] == "hello-ok"
    socket.ask("slow")
    assert (await socket.answer())["ok"]
    assert len(bench.door) == len(bench.awake["acme"].clients) == 1

    socket.leave()
    await trio.sleep(1)
    nobody_is_left(bench)
    assert bench.outcomes == ["ok"]


async def test_who_says_nothing_is_sent_away_in_time(
    bench: DoorBench, autojump_clock: MockClock
) -> None:
    socket = FakeSocket()
    await bench.visit(socket)
    assert trio.current_time() == bench.config.server.websocket.handshake_timeout
    assert socket.goodbyes == [(1008, "handshake timeout")]
    assert bench.outcomes == ["timeout"]
    nobody_is_left(bench)


@pytest.mark.parametrize(
    ("said", "goodbyes"),
    [
        (BinaryRefused(), [(1003, "text frames only")]),
        (b"{", [(1000, "")]),
        (b"x" * 65_537, [(1009, "the message is too large")]),
        ({"type": "req", "id": "1", "method": "health"}, None),
        ({"type": "hello"}, [(1008, "invalid request frame")]),
        ([], [(1008, "invalid request frame")]),
    ],
    ids=["binary", "no JSON", "too long", "no greeting", "no frame", "no object"],
)
async def test_a_first_message_that_is_no_greeting_is_the_last(
    bench: DoorBench,
    autojump_clock: MockClock,
    said: object,
    goodbyes: list[tuple[int, str]] | None,
) -> None:
    socket = FakeSocket()
    socket.say(said)
    await bench.visit(socket)
    assert socket.goodbyes == (
        goodbyes or [(1008, "invalid handshake: first request must be connect")]
    )
    nobody_is_left(bench)


async def test_who_leaves_before_the_greeting_is_not_talked_after(
    bench: DoorBench, autojump_clock: MockClock
) -> None:
    socket = FakeSocket()
    socket.leave()
    await bench.visit(socket)
    assert socket.goodbyes == []
    nobody_is_left(bench)


async def test_the_limits_grow_with_the_greeting(
    bench: DoorBench, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    limits = bench.config.server.websocket
    socket = FakeSocket()
    nursery.start_soon(bench.visit, socket)
    await wait_all_tasks_blocked()
    assert socket.most_bytes == limits.max_frame_bytes_before_auth
    greet(socket)
    await socket.answer("hello")
    assert socket.most_bytes == limits.max_frame_bytes


async def test_a_tenant_has_only_so_many(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    limits = "{max_connections_per_tenant: 2, max_connections: 3}"
    async with DoorBench(websocket=limits).running() as bench:
        bench.access.callers["other"] = someone("other")
        for _ in range(2):
            await bench.connected(nursery)
        third = FakeSocket()
        greet(third)
        await bench.visit(third)
        error = third.answers("hello")[0]["error"]
        assert (error["code"], error["retryable"]) == ("UNAVAILABLE", True)
        assert third.goodbyes[0][0] == 1013

        elsewhere = await bench.connected(nursery, "other")
        told = await bench.visit(FakeSocket())  # and the gateway has only so many
        assert told[0]["status"] == 503
        elsewhere.leave()
        await trio.sleep(1)
        await bench.connected(nursery, "other")


async def test_the_answer_to_an_upgrade_names_the_request(
    bench: DoorBench, autojump_clock: MockClock
) -> None:
    named = {"x-request-id": "req_mine"}
    silent = FakeSocket()
    silent.leave()

    accepted = (await bench.visit(silent, headers=named))[0]
    refused = (await bench.visit(FakeSocket(), headers=named, path="/nowhere"))[0]
    unnamed = (await bench.visit(FakeSocket(), path="/nowhere"))[0]

    assert (accepted["type"], refused["status"]) == ("websocket.accept", 404)
    assert dict(accepted["headers"])[b"x-request-id"] == b"req_mine"
    assert dict(refused["headers"])[b"x-request-id"] == b"req_mine"
    assert dict(unnamed["headers"])[b"x-request-id"].startswith(b"req_")


async def test_wherever_a_connection_is_cancelled_nobody_is_left(
    autojump_clock: MockClock,
) -> None:
    async with DoorBench(method("slow", slow)).running() as bench:

        async def visit() -> None:
            socket = FakeSocket()
            greet(socket)
            socket.ask("slow")
            socket.leave()
            await bench.visit(socket)

        async for _ in each_cancellation(visit):
            nobody_is_left(bench)


# -- out ---------------------------------------------------------------------


async def test_a_revoked_token_ends_its_connections_and_no_others(
    bench: DoorBench, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    mine, others = await bench.connected(nursery), await bench.connected(nursery, "two")
    mine.ask("slow", "pending")
    await trio.sleep(0.5)
    with trio.fail_after(1):
        await bench.supervisor.revoke("acme", "tok_1", reason="test")
        assert await mine.closed() == (1008, "token revoked")
    assert mine.answers("pending") == []
    assert len(mine.answers("hello")) == 1  # what was answered is not answered again
    assert others.goodbyes == []


async def test_an_expired_token_ends_its_connections_in_two_seconds(
    bench: DoorBench, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    socket = await bench.connected(nursery)
    bench.access.callers["admin"] = someone(None, "ops")
    admin = await bench.connected(nursery, "admin")
    bench.access.dead |= {"tok_1", "ops"}
    with trio.fail_after(2):
        assert await socket.closed() == (1008, "token revoked")
        assert await admin.closed() == (1008, "token revoked")


async def test_a_stopped_tenant_says_why(
    bench: DoorBench, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    socket = await bench.connected(nursery)
    await bench.supervisor.stop("acme", reason="disabled")
    assert await socket.closed() == (1008, "the tenant was stopped: disabled")
    await wait_all_tasks_blocked()
    nobody_is_left(bench)


async def test_what_ends_its_own_token_is_answered_before_the_goodbye(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def rotate(call: MethodCall[Any]) -> dict[str, Any]:
        await house.supervisor.revoke("acme", "tok_1", reason="rotated")
        await trio.sleep(1)
        return {"token": "the new one"}

    async with DoorBench(method("rotate", rotate, outside=True)).running() as house:
        socket = await house.connected(nursery)
        socket.ask("rotate")
        assert await socket.closed() == (1008, "token revoked")
        assert socket.sent[-1]["payload"] == {"token": "the new one"}
        assert socket.closed_after == len(socket.sent)
        assert house.connections.log.lines[-1]["outcome"] == "ok"


async def test_what_hangs_outside_is_given_up(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def hang(call: MethodCall[Any]) -> dict[str, Any]:
        await trio.sleep_forever()
        return {}

    async with DoorBench(method("rotate", hang, outside=True)).running() as bench:
        socket = await bench.connected(nursery)
        socket.ask("rotate")
        await trio.sleep(1)
        socket.leave()
        await trio.sleep(11)
        nobody_is_left(bench)


async def test_a_restart_is_told_and_nobody_else_comes_in(
    bench: DoorBench, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    socket = await bench.connected(nursery)
    late = FakeSocket()
    bench.hello.delay = 3  # it is let in and not yet welcomed
    greet(late)
    nursery.start_soon(bench.visit, late)
    await trio.sleep(1)
    bench.door.shut_down()

    assert await socket.closed() == (1012, "service restart")
    assert socket.sent[-1]["event"] == "shutdown"
    assert await late.closed() == (1012, "service restart")
    assert (await bench.visit(FakeSocket()))[0]["status"] == 503


async def test_a_failure_that_nobody_foresaw_is_logged_once_and_ends_one_connection(
    bench: DoorBench,
    autojump_clock: MockClock,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = await bench.connected(nursery)

    def crash(*_: object) -> None:
        raise ValueError("a bug")

    bench.hello.arrived = crash  # type: ignore[method-assign,assignment]  # for one connection
    socket = FakeSocket()
    greet(socket)
    await bench.visit(socket)
    assert socket.goodbyes == [(1011, "something broke on our side")]
    assert [record.getMessage() for record in caplog.records] == ["a connection failed"]
    assert caplog.records[0].exc_info is not None
    assert other.goodbyes == []
    other.leave()
    await trio.sleep(1)
    assert len(bench.door) == bench.door._open == 0


# -- backlogs ----------------------------------------------------------------


async def test_ticks_come_in_their_interval(
    bench: DoorBench, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    socket = await bench.connected(nursery)
    await trio.sleep(bench.config.server.websocket.tick_interval * 3 + 0.5)
    assert len(socket.events("tick")) == 3


async def test_a_tenants_slowest_reader_makes_room_for_the_others(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async with DoorBench(websocket="{max_buffered_bytes_per_tenant: 100000}").running() as bench:
        bench.access.callers["other"] = someone("other")
        sockets = [await bench.connected(nursery) for _ in range(3)]
        elsewhere = await bench.connected(nursery, "other")
        for socket, size in zip(
            [*sockets, elsewhere], (40_000, 50_000, 30_000, 99_000), strict=True
        ):
            socket.reads = False
            socket.buffered = size
        await trio.sleep(2)
        assert [each.goodbyes for each in (*sockets, elsewhere)] == [
            [],
            [(1008, "slow consumer")],
            [],
            [],
        ]
        assert sockets[1].sent[-1]["event"] == "events.lag"


async def test_presence_is_published_once_for_each_tenant(
    bench: DoorBench, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    for _ in range(3):
        await bench.connected(nursery)
    await trio.sleep(1.5)
    assert bench.hello.presence_due == ["acme"]


# -- at the door itself ------------------------------------------------------


async def test_a_full_waiting_room_aborts_the_one_that_waited_longest(
    bench: DoorBench, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    sockets = [FakeSocket() for _ in range(3)]
    bench.door._room._most = 2
    for socket in sockets:
        nursery.start_soon(partial(bench.visit, socket))
        await wait_all_tasks_blocked()
    assert [socket.aborted for socket in sockets] == [True, False, False]
    assert bench.door.waiting == 2


async def test_what_breaks_while_it_is_served_is_over(
    bench: DoorBench, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    socket = await bench.connected(nursery)
    socket.say(SocketClosed(1009))
    assert (await socket.closed())[0] == 1009
