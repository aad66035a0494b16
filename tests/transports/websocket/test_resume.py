"""A client whose connection broke gets what it missed, or is told that it cannot."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from appliance.services.events import Audience
from tests.transports.websocket.bench import DoorBench, FakeSocket


@pytest.fixture
async def bench() -> AsyncIterator[DoorBench]:
    async with DoorBench().running() as bench:
        yield bench


async def lost(bench: DoorBench, nursery: trio.Nursery) -> tuple[str, int]:
    """A connection that had two events and broke; two more came since."""
    socket = await bench.connected(nursery)
    conn_id = socket.answers("hello")[0]["payload"]["connId"]
    for number in range(2):
        bench.publish(payload={"n": number})
    seq = socket.sent[-1]["seq"]
    socket.leave(1006)
    await trio.sleep(1)
    for number in range(2, 4):
        bench.publish(payload={"n": number})
    return conn_id, seq


def heard(socket: FakeSocket) -> list[Any]:
    return [each["payload"]["n"] for each in socket.events("chat")]


async def test_who_comes_back_gets_what_it_missed_and_nothing_twice(
    bench: DoorBench, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    conn_id, seq = await lost(bench, nursery)
    back = await bench.connected(nursery, resume={"connId": conn_id, "seq": seq})
    assert heard(back) == [2, 3]
    used_up = await again(bench, nursery, {"connId": conn_id, "seq": seq})
    assert used_up["connId"] == conn_id

    back.leave(1006)  # before any of it was read
    await trio.sleep(1)
    greeted = back.answers("hello")[0]["payload"]["connId"]
    once_more = await bench.connected(nursery, resume={"connId": greeted, "seq": 0})
    assert heard(once_more) == [2, 3]


async def again(bench: DoorBench, nursery: trio.Nursery, resume: dict[str, Any]) -> Any:
    """The gap that ``resume`` is answered with."""
    back = await bench.connected(nursery, resume=resume)
    assert heard(back) == []
    (gap,) = back.events("events.gap")
    return gap["payload"]


async def test_what_was_seen_before_it_broke_counts_from_there(
    bench: DoorBench, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    conn_id, seq = await lost(bench, nursery)
    back = await bench.connected(nursery, resume={"connId": conn_id, "seq": seq - 1})
    assert heard(back) == [1, 2, 3]


async def test_who_saw_nothing_yet_gets_everything(
    bench: DoorBench, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    conn_id, _ = await lost(bench, nursery)
    back = await bench.connected(nursery, resume={"connId": conn_id, "seq": 0})
    assert heard(back) == [0, 1, 2, 3]


async def test_subscriptions_are_kept_over_the_break(
    bench: DoorBench, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    socket = await bench.connected(nursery)
    for connection in bench.door.connections:
        connection.watches_sessions = True
        connection.watched_sessions.add("main")
    socket.leave(1006)
    await trio.sleep(1)
    bench.publish(payload={"n": 1}, audience=Audience.SESSION, session="main")
    bench.publish(payload={"n": 2}, audience=Audience.SESSION_LIST)
    conn_id = socket.answers("hello")[0]["payload"]["connId"]
    back = await bench.connected(nursery, resume={"connId": conn_id, "seq": 0})
    assert heard(back) == [1, 2]


async def test_too_long_away_is_a_gap(
    bench: DoorBench, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    conn_id, seq = await lost(bench, nursery)
    await trio.sleep(301)
    gap = await again(bench, nursery, {"connId": conn_id, "seq": seq})
    assert (gap["connId"], gap["seq"]) == (conn_id, seq)
    await again(bench, nursery, {"connId": "never there", "seq": 0})


async def test_another_life_of_the_tenant_is_a_gap(
    bench: DoorBench, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    conn_id, seq = await lost(bench, nursery)
    await bench.supervisor.stop("acme", reason="test")
    await again(bench, nursery, {"connId": conn_id, "seq": seq})


async def test_another_credential_gets_nothing_and_takes_nothing_away(
    bench: DoorBench, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    conn_id, seq = await lost(bench, nursery)
    thief = await bench.connected(nursery, "two", resume={"connId": conn_id, "seq": seq})
    assert heard(thief) == []
    assert len(thief.events("events.gap")) == 1
    back = await bench.connected(nursery, resume={"connId": conn_id, "seq": seq})
    assert heard(back) == [2, 3]


@pytest.mark.parametrize(("seen", "missed"), [(1, [0, 1]), (2, [1]), (3, [])])
async def test_a_connection_that_only_looks_alive_makes_way(
    bench: DoorBench, autojump_clock: MockClock, nursery: trio.Nursery, seen: int, missed: list[int]
) -> None:
    old = await bench.connected(nursery)
    (connection,) = bench.door.connections
    connection.send_event("alone", {})  # seq 1
    for number in range(2):
        bench.publish(payload={"n": number})
    resume = {"connId": connection.id, "seq": seen}
    if seen == 1:
        stranger = await bench.connected(nursery, "two", resume=resume)
        assert len(stranger.events("events.gap")) == 1
        assert old.goodbyes == []

    new = await bench.connected(nursery, resume=resume)
    assert heard(new) == missed
    assert new.events("events.gap") == []
    assert await old.closed() == (1012, "replaced by a new connection")
