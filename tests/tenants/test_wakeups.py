"""When which tenant has to be awake: one heap, in the right order, without leaks."""

from datetime import datetime, timedelta

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from appliance.tenants.wakeups import WakeTimes
from tests.tenants.conftest import START, clock_from


class Clock:
    now = START

    def __call__(self) -> datetime:
        return self.now


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def times(clock: Clock) -> WakeTimes:
    return WakeTimes(clock=clock)


def test_who_is_due_is_taken_once_in_order(times: WakeTimes, clock: Clock) -> None:
    times.register("late", at(30))
    times.register("soon", at(10))
    times.register("next", at(20))
    assert times.next_at() == at(10)

    clock.now = at(20)

    assert times.due_nowait() == ["soon", "next"]
    assert times.due_nowait() == []
    assert times.next_at() == at(30)


def test_the_last_word_counts(times: WakeTimes, clock: Clock) -> None:
    times.register("acme", at(10))
    times.register("acme", at(30))
    clock.now = at(20)
    assert times.due_nowait() == []

    times.register("acme", at(15))
    assert times.due_nowait() == ["acme"]

    times.register("acme", at(16))
    times.register("acme", None)
    assert times.due_nowait() == []
    assert len(times) == 0


def test_services_of_a_tenant_do_not_forget_for_each_other(times: WakeTimes, clock: Clock) -> None:
    times.register("acme", at(10), service="cron")
    times.register("acme", at(20), service="mail")
    times.register("acme", None, service="mail")
    clock.now = at(60)

    assert times.due_nowait() == ["acme"]


def test_a_tenant_due_for_two_reasons_is_woken_once(times: WakeTimes, clock: Clock) -> None:
    times.register("acme", at(10), service="cron")
    times.register("acme", at(20), service="mail")
    clock.now = at(60)

    assert times.due_nowait() == ["acme"]


def test_a_forgotten_tenant_is_never_due(times: WakeTimes, clock: Clock) -> None:
    times.register("acme", at(10), service="cron")
    times.register("acme2", at(10))
    times.forget("acme")
    clock.now = at(60)

    assert times.due_nowait() == ["acme2"]
    assert times.next_at() is None


def test_who_changes_its_mind_all_the_time_does_not_grow_the_heap(times: WakeTimes) -> None:
    for number in range(10_000):
        times.register("acme", at(number))

    assert len(times._heap) < 50


steps = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["", "x"]), st.none() | st.integers(0, 100)),
    max_size=40,
)


@given(steps, st.integers(0, 100))
def test_it_agrees_with_a_plain_dictionary(
    steps: list[tuple[str, str, int | None]], until: int
) -> None:
    clock = Clock()
    times = WakeTimes(clock=clock)
    model: dict[tuple[str, str], int] = {}
    for tenant, service, second in steps:
        times.register(tenant, None if second is None else at(second), service=service)
        if second is None:
            model.pop((tenant, service), None)
        else:
            model[tenant, service] = second
    assert len(times) == len(model)
    assert times.next_at() == (at(min(model.values())) if model else None)

    clock.now = at(until)

    assert set(times.due_nowait()) == {key[0] for key, second in model.items() if second <= until}
    assert len(times) == sum(second > until for second in model.values())


@pytest.fixture
def running() -> WakeTimes:
    return WakeTimes(clock=clock_from(START))


async def test_waiting_ends_when_the_first_is_due(
    running: WakeTimes, autojump_clock: MockClock
) -> None:
    running.register("acme", at(100))
    running.register("other", at(500))

    assert await running.wait_due() == ["acme"]
    assert trio.current_time() == pytest.approx(100)


async def test_an_earlier_time_shortens_a_wait_that_is_under_way(
    running: WakeTimes, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    running.register("late", at(50))
    due: list[tuple[float, list[str]]] = []

    async def wait() -> None:
        due.append((trio.current_time(), await running.wait_due()))
        due.append((trio.current_time(), []))

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    running.register("soon", at(5))
    await trio.sleep(6)

    assert due == [(0, ["soon"]), (5, [])]


async def test_an_empty_heap_waits_for_the_first(
    running: WakeTimes, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    due: list[str] = []

    async def wait() -> None:
        due.extend(await running.wait_due())

    nursery.start_soon(wait)
    await trio.sleep(1000)
    running.register("acme", at(1001))
    await trio.sleep(2)

    assert due == ["acme"]


async def test_what_is_overdue_is_due_at_once(
    running: WakeTimes, autojump_clock: MockClock
) -> None:
    running.register("acme", START - timedelta(days=1))

    assert await running.wait_due() == ["acme"]
    assert trio.current_time() == 0


async def test_a_wall_clock_that_jumps_is_noticed_within_a_minute(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    shift = timedelta()
    base = clock_from(START)

    def clock() -> datetime:
        return base() + shift

    times = WakeTimes(clock=clock)
    times.register("acme", at(7200))
    woken: list[float] = []

    async def wait() -> None:
        await times.wait_due()
        woken.append(trio.current_time())

    nursery.start_soon(wait)
    await trio.sleep(10)
    shift = timedelta(hours=3)
    await trio.sleep(100)

    assert woken
    assert woken[0] <= 70
