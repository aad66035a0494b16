"""Tenants that are awake: woken once, put to sleep, stopped, and kept from each other."""

import gc
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from random import Random

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, trio_test, wait_all_tasks_blocked

from appliance.model.errors import (
    ApplianceError,
    ShuttingDown,
    TenantBroken,
    TenantDisabled,
    TenantUnknown,
    Unavailable,
)
from appliance.tenants import directory
from appliance.tenants.jobs import ClientLeft, Revoked
from appliance.tenants.memory import return_memory
from appliance.tenants.runtime import TenantRuntime
from appliance.tenants.supervision import RestartPolicy
from tests.tenants.conftest import START, House, caller


@dataclass
class FakeService:
    """Runs until it is told to crash."""

    keeps_awake: bool = False
    starts: list[float] = field(default_factory=list)
    crash: trio.Event = field(default_factory=trio.Event)
    running: bool = False

    async def run(self) -> None:
        self.starts.append(trio.current_time())
        self.running = True
        try:
            await self.crash.wait()
            raise ValueError("the service broke")
        finally:
            self.running = False


class Turn:
    """Work that takes its time, or for ever."""

    def __init__(self, seconds: float = float("inf")) -> None:
        self.seconds = seconds
        self.began = trio.Event()
        self.ended = trio.Event()
        self.ended_at: float | None = None
        self.finished = False

    async def __call__(self, _: TenantRuntime | None = None) -> str:
        self.began.set()
        try:
            await trio.sleep(self.seconds)
            self.finished = True
        finally:
            self.ended_at = trio.current_time()
            self.ended.set()
        return "done"


async def hello(runtime: TenantRuntime) -> str:
    await trio.lowlevel.checkpoint()
    return f"hello from {runtime.id}"


@dataclass
class Door:
    """Somebody who waits for a turn; notes how it went."""

    house: House
    tenant: str = "acme"
    credential: str = "tok_1"
    outcome: object = None

    async def __call__(self, turn: Turn) -> None:
        who = caller(self.tenant, self.credential)
        try:
            self.outcome = await self.house.supervisor.perform(self.tenant, turn, caller=who)
        except (ApplianceError, ClientLeft) as error:
            self.outcome = type(error)


# -- waking ------------------------------------------------------------------


async def test_a_tenant_is_woken_on_first_use_and_stays_awake(
    house: House, autojump_clock: MockClock
) -> None:
    assert house.supervisor.awake == []

    first = await house.supervisor.runtime("acme")
    second = await house.supervisor.runtime("acme")

    assert first is second
    assert first.id == "acme"
    assert house.disk.opened == ["acme"]
    assert house.supervisor.awake == ["acme"]
    assert await house.supervisor.perform("acme", hello, caller=caller()) == "hello from acme"


async def test_however_many_ask_at_once_it_is_opened_once(
    house: House, autojump_clock: MockClock
) -> None:
    house.disk.delays["acme"] = 3
    got: list[TenantRuntime] = []

    async def ask() -> None:
        got.append(await house.supervisor.runtime("acme"))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask)

    assert len(got) == 50
    assert len(set(map(id, got))) == 1
    assert house.disk.opened == ["acme"]


async def test_whoever_asked_first_may_leave_without_the_others_losing_it(
    house: House, autojump_clock: MockClock
) -> None:
    house.disk.delays["acme"] = 3
    got: list[str] = []

    async def ask() -> None:
        got.append((await house.supervisor.runtime("acme")).id)

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            nursery.start_soon(ask)
            await house.supervisor.runtime("acme")

    assert got == ["acme"]
    assert trio.current_time() == 3
    assert house.disk.opened == ["acme"]


@pytest.mark.parametrize("failure", [TenantUnknown("who?"), TenantDisabled("off")])
async def test_what_cannot_be_opened_is_told_to_everybody_and_asked_again_next_time(
    house: House, autojump_clock: MockClock, failure: ApplianceError
) -> None:
    house.disk.failures["acme"] = failure
    house.disk.delays["acme"] = 1
    refused = 0

    async def ask() -> None:
        nonlocal refused
        with pytest.raises(type(failure)):
            await house.supervisor.runtime("acme")
        refused += 1

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert refused == 5
    assert house.disk.opened == ["acme"]
    assert house.asleep == []

    del house.disk.failures["acme"]
    assert (await house.supervisor.runtime("acme")).id == "acme"


async def test_a_broken_tenant_is_not_tried_for_every_request(
    house: House, autojump_clock: MockClock
) -> None:
    house.disk.failures["acme"] = TenantBroken("the database is damaged")
    refusals: list[float] = []
    for _ in range(100):
        with pytest.raises(TenantBroken):
            await house.supervisor.runtime("acme")
        refusals.append(trio.current_time())
        await trio.sleep(0.1)

    assert len(house.disk.opened) == 4  # after 0, 1, 3 and 7 seconds
    del house.disk.failures["acme"]
    await trio.sleep(60)
    assert await house.supervisor.perform("acme", hello, caller=caller()) == "hello from acme"


async def test_a_refusal_says_when_to_come_back(house: House, autojump_clock: MockClock) -> None:
    house.disk.failures["acme"] = ValueError("a bug")
    with pytest.raises(TenantBroken):
        await house.supervisor.runtime("acme")
    await trio.sleep(0.25)

    with pytest.raises(TenantBroken) as caught:
        await house.supervisor.runtime("acme")

    assert caught.value.retry_after == pytest.approx(0.75)
    assert "a bug" not in str(caught.value)


async def test_a_tenant_that_hangs_while_opening_hangs_nobody_for_ever(
    house: House, autojump_clock: MockClock
) -> None:
    house.disk.delays["acme"] = float("inf")

    with pytest.raises(Unavailable):
        await house.supervisor.runtime("acme")

    assert trio.current_time() == 30
    assert await house.supervisor.perform("other", hello, caller=caller("other"))
    assert trio.current_time() == 30


# -- revoking, stopping --------------------------------------------------------


async def test_revoking_a_token_ends_what_it_runs_at_once_and_nothing_else(
    house: House, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    turns = [Turn(), Turn(), Turn()]
    doors = [Door(house), Door(house, credential="tok_2"), Door(house, tenant="other")]
    for door, turn in zip(doors, turns, strict=True):
        nursery.start_soon(door, turn)
    for turn in turns:
        await turn.began.wait()

    await house.supervisor.revoke("acme", "tok_1", reason="leaked")

    assert [turn.ended_at for turn in turns] == [0, None, None]
    await wait_all_tasks_blocked()
    assert [door.outcome for door in doors] == [Revoked, None, None]
    await house.supervisor.revoke("nobody", "tok_1", reason="unknown")


async def test_disabling_ends_everything_the_tenant_runs_within_a_second(
    house: House, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    service = FakeService()
    house.disk.services["acme"] = {"cron": service}
    turn, door = Turn(), Door(house)
    other_turn, other = Turn(), Door(house, tenant="other")
    nursery.start_soon(door, turn)
    nursery.start_soon(other, other_turn)
    await turn.began.wait()
    await other_turn.began.wait()

    await house.supervisor.stop("acme", reason="disabled")

    assert trio.current_time() < 1
    assert turn.ended_at is not None
    assert not service.running
    assert house.disk.open.keys() == {"other"}
    assert house.supervisor.awake == ["other"]
    await wait_all_tasks_blocked()
    assert door.outcome is TenantDisabled
    assert other.outcome is None
    await house.supervisor.stop("acme", reason="again")


async def test_a_tenant_stopped_while_it_opens_does_not_come_up(
    house: House, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    house.disk.delays["acme"] = 5
    door = Door(house)
    nursery.start_soon(door, Turn(0))
    await wait_all_tasks_blocked()

    house.disk.failures["acme"] = TenantDisabled("off")
    await house.supervisor.stop("acme", reason="disabled")
    await trio.sleep(10)

    assert door.outcome is TenantDisabled
    assert house.disk.open == {}


async def test_a_tenant_that_will_not_end_does_not_hold_up_the_operator(
    house: House, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    house.disk.closing_delays["acme"] = 1000
    await house.supervisor.runtime("acme")

    await house.supervisor.stop("acme", reason="deleted")

    assert trio.current_time() == 10
    assert "does not come to an end" in caplog.text


async def test_revoked_work_that_will_not_end_does_not_hold_up_the_operator(
    house: House, autojump_clock: MockClock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    began = trio.Event()

    async def stubborn(_: TenantRuntime) -> None:
        with trio.CancelScope(shield=True):
            began.set()
            await trio.sleep(1000)

    who = caller()
    nursery.start_soon(partial(house.supervisor.perform, "acme", stubborn, caller=who))
    await began.wait()

    await house.supervisor.revoke("acme", "tok_1", reason="leaked")

    assert trio.current_time() == 10
    assert "does not come to an end" in caplog.text


async def test_a_token_that_expires_has_nothing_running_a_second_later(
    house: House, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    turn, door = Turn(), Door(house)
    nursery.start_soon(door, turn)
    await trio.sleep(5.5)

    house.dead.add("tok_1")
    await trio.sleep(1.1)

    assert turn.ended_at is not None
    assert turn.ended_at - 5.5 <= 1
    assert door.outcome is Revoked


async def test_a_token_revoked_while_its_tenant_wakes_starts_nothing(
    house: House, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    house.disk.delays["acme"] = 2
    turn, door = Turn(), Door(house)
    nursery.start_soon(door, turn)
    await trio.sleep(1)

    house.dead.add("tok_1")
    await house.supervisor.revoke("acme", "tok_1", reason="leaked")
    await trio.sleep(5)

    assert not turn.began.is_set()
    assert door.outcome is Revoked


# -- sleeping ------------------------------------------------------------------


async def test_an_idle_tenant_falls_asleep_and_a_busy_one_does_not(
    house: House, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    nursery.start_soon(Door(house, tenant="busy"), Turn())
    await house.supervisor.perform("idle", hello, caller=caller("idle"))

    await trio.sleep(299)
    assert set(house.supervisor.awake) == {"busy", "idle"}
    await trio.sleep(60)

    assert house.supervisor.awake == ["busy"]
    assert house.disk.open.keys() == {"busy"}
    assert house.asleep == ["idle"]


async def test_a_service_that_waits_for_somebody_keeps_its_tenant_awake(
    house: House, autojump_clock: MockClock
) -> None:
    service = FakeService(keeps_awake=True)
    house.disk.services["acme"] = {"telegram": service}
    await house.supervisor.runtime("acme")

    await trio.sleep(3600)
    assert house.supervisor.awake == ["acme"]

    service.keeps_awake = False
    await trio.sleep(60)
    assert house.supervisor.awake == []
    assert not service.running


async def test_use_puts_off_sleep(house: House, autojump_clock: MockClock) -> None:
    for _ in range(10):
        await house.supervisor.perform("acme", hello, caller=caller())
        await trio.sleep(250)

    assert house.disk.opened == ["acme"]


async def test_of_a_tenant_that_sleeps_nothing_is_kept_in_memory(
    house: House, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A thread takes real time, in which this clock jumps ahead of the sweep that waits for it.
    monkeypatch.setattr(directory, "return_memory", trio.lowlevel.checkpoint)
    await house.supervisor.perform("acme", hello, caller=caller())
    held = weakref.ref(house.disk.open["acme"])
    await trio.sleep(600)

    assert house.asleep == ["acme"]
    gc.collect()
    assert held() is None


async def test_a_request_that_comes_while_its_tenant_falls_asleep_wakes_it_again(
    house: House, autojump_clock: MockClock
) -> None:
    house.disk.closing_delays["acme"] = 5
    first = await house.supervisor.runtime("acme")
    await trio.sleep_until(302)  # the sweep comes every 30 seconds, closing takes 5
    assert house.supervisor.awake == []
    began = trio.current_time()
    assert house.disk.open

    assert await house.supervisor.perform("acme", hello, caller=caller()) == "hello from acme"

    assert trio.current_time() - began <= 5
    assert house.disk.opened == ["acme", "acme"]
    assert await house.supervisor.runtime("acme") is not first


async def test_who_kept_a_runtime_too_long_is_told_to_come_again(
    house: House, autojump_clock: MockClock
) -> None:
    runtime = await house.supervisor.runtime("acme")
    await trio.sleep(1000)

    with pytest.raises(Unavailable):
        await runtime.perform(partial(hello, runtime), caller=caller())


async def test_beyond_the_limit_whoever_was_idle_longest_makes_room(
    house: House, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    house.limits.awake_tenants = 3
    nursery.start_soon(Door(house, tenant="busy"), Turn())
    await trio.sleep(1)
    for tenant in ("a", "b"):
        await house.supervisor.runtime(tenant)
        await trio.sleep(1)
    await house.supervisor.runtime("a")
    await trio.sleep(10)

    await house.supervisor.runtime("c")
    await wait_all_tasks_blocked()

    assert set(house.supervisor.awake) == {"busy", "a", "c"}


async def test_who_has_done_its_work_makes_room_at_once(
    house: House, autojump_clock: MockClock
) -> None:
    house.limits.awake_tenants = 2

    for number in range(20):
        await house.supervisor.perform(f"t{number}", hello, caller=caller(f"t{number}"))
        assert len(house.disk.open) <= 3

    assert trio.current_time() == 0


async def test_a_tenant_that_was_mended_is_tried_at_once(
    house: House, autojump_clock: MockClock
) -> None:
    house.disk.failures["acme"] = TenantBroken("its record is damaged")
    with pytest.raises(TenantBroken):
        await house.supervisor.runtime("acme")
    del house.disk.failures["acme"]

    house.supervisor.refresh("acme")

    assert await house.supervisor.perform("acme", hello, caller=caller()) == "hello from acme"


async def test_whoever_stops_a_tenant_may_hold_what_falling_asleep_needs(
    house: House, autojump_clock: MockClock
) -> None:
    lock = trio.Lock()
    written: list[str] = []

    async def write(tenant: str) -> None:
        async with lock:
            written.append(tenant)

    house.supervisor._fell_asleep = write
    await house.supervisor.runtime("acme")

    async with lock:
        await house.supervisor.stop("acme", reason="disabled")
        assert trio.current_time() == 0
    await wait_all_tasks_blocked()

    assert written == ["acme"]


async def test_who_was_just_handed_out_is_not_put_to_sleep(
    house: House, autojump_clock: MockClock
) -> None:
    house.limits.awake_tenants = 1
    runtime = await house.supervisor.runtime("a")

    await house.supervisor.runtime("b")
    await trio.sleep(1)

    assert await runtime.perform(partial(hello, runtime), caller=caller()) == "hello from a"


async def test_a_fault_while_noting_the_last_use_does_not_keep_a_tenant_from_sleep(
    house: House, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: str) -> None:
        raise ValueError("no disk")

    house.supervisor._fell_asleep = fail
    await house.supervisor.runtime("acme")

    await trio.sleep(400)

    assert house.supervisor.awake == []
    assert "crashed" in caplog.text
    assert await house.supervisor.perform("acme", hello, caller=caller())


# -- crashes -------------------------------------------------------------------


async def test_a_job_that_crashes_ends_nothing_else(
    house: House, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    turn = Turn()
    nursery.start_soon(Door(house), turn)
    await turn.began.wait()

    async def crash(_: TenantRuntime) -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await house.supervisor.perform("acme", crash, caller=caller())

    await trio.sleep(10)
    assert turn.ended_at is None


async def test_a_service_that_crashes_is_started_again(
    house: House, autojump_clock: MockClock
) -> None:
    service = FakeService(keeps_awake=True)
    house.disk.services["acme"] = {"cron": service}
    await house.supervisor.runtime("acme")
    await trio.sleep(10)

    service.crash.set()
    await trio.lowlevel.checkpoint()
    await trio.sleep(0.5)
    service.crash = trio.Event()
    await trio.sleep(5)

    assert service.starts == [0, 11]
    assert house.supervisor.awake == ["acme"]


async def test_a_service_that_cannot_be_kept_running_ends_its_tenant_and_no_other(
    house: House, autojump_clock: MockClock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    bad = FakeService()
    bad.crash.set()
    house.disk.services["acme"] = {"cron": bad}
    turn, door = Turn(), Door(house)
    other_turn, other = Turn(), Door(house, tenant="other")
    nursery.start_soon(door, turn)
    nursery.start_soon(other, other_turn)

    await turn.ended.wait()
    await wait_all_tasks_blocked()

    assert door.outcome is Unavailable
    assert "the tenant crashed" in caplog.text
    assert other.outcome is None
    assert other_turn.ended_at is None
    assert house.disk.open.keys() == {"other"}

    # It comes back by itself, because it has a service to run.
    bad.crash = trio.Event()
    await trio.sleep(70)
    assert set(house.supervisor.awake) == {"acme", "other"}
    assert bad.running


async def test_while_it_waits_to_start_again_its_callers_are_told_and_others_are_not(
    house: House, autojump_clock: MockClock
) -> None:
    house.disk.failures["acme"] = ValueError("a bug")
    with pytest.raises(TenantBroken):
        await house.supervisor.runtime("acme")

    with pytest.raises(TenantBroken):
        await house.supervisor.runtime("acme")
    assert await house.supervisor.perform("other", hello, caller=caller("other"))

    assert house.disk.opened == ["acme", "other"]


async def test_a_fault_while_closing_is_contained(
    house: House, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    house.disk.closing_failures["acme"] = ValueError("could not close")
    await house.supervisor.runtime("acme")

    await trio.sleep(400)

    assert house.supervisor.awake == []
    assert "the tenant crashed" in caplog.text
    assert await house.supervisor.perform("acme", hello, caller=caller())


async def test_a_fault_in_a_chore_ends_no_tenant(
    house: House, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.supervisor.runtime("acme")

    async def broken() -> None:
        raise ValueError("a bug in the sweep")

    with monkeypatch.context() as patch:
        patch.setattr(house.supervisor, "_sweep", broken)
        await trio.sleep(1000)
        assert house.supervisor.awake == ["acme"]
    await trio.sleep(1000)

    assert house.supervisor.awake == []


async def test_a_job_that_never_yields_to_cancellation_keeps_no_other_tenant_waiting(
    house: House, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def stubborn(_: TenantRuntime) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(10_000)

    async def ask() -> None:
        with suppress(ApplianceError):
            await house.supervisor.perform("acme", stubborn, caller=caller())

    nursery.start_soon(ask)
    await wait_all_tasks_blocked()
    nursery.start_soon(partial(house.supervisor.stop, "acme", reason="disabled"))
    await wait_all_tasks_blocked()

    assert await house.supervisor.perform("other", hello, caller=caller("other"))
    assert trio.current_time() == 0
    with pytest.raises(Unavailable):
        await house.supervisor.perform("acme", hello, caller=caller())


# -- wake-ups, refresh -----------------------------------------------------------


async def test_a_sleeping_tenant_is_woken_when_it_asked_for_it(
    house: House, autojump_clock: MockClock
) -> None:
    house.supervisor.wake_times.register("acme", START + timedelta(seconds=100), service="cron")

    await trio.sleep(99)
    assert house.disk.opened == []
    await trio.sleep(2)

    assert house.supervisor.awake == ["acme"]


async def test_many_tenants_due_at_once_are_all_woken(
    house: House, autojump_clock: MockClock
) -> None:
    house.limits.awake_tenants = 1000
    for number in range(40):
        house.supervisor.wake_times.register(f"t{number}", START + timedelta(seconds=10))
        house.disk.delays[f"t{number}"] = 1

    await trio.sleep(10.5)
    assert len(house.disk.opened) == 8
    await trio.sleep(10)

    assert len(house.supervisor.awake) == 40


async def test_a_tenant_that_cannot_be_woken_does_not_keep_others_asleep(
    house: House, autojump_clock: MockClock
) -> None:
    house.disk.failures["acme"] = TenantUnknown("deleted")
    house.supervisor.wake_times.register("acme", START)
    house.supervisor.wake_times.register("other", START)

    await trio.sleep(1)

    assert house.supervisor.awake == ["other"]


async def test_a_stopped_tenant_is_not_woken_by_what_it_asked_for(
    house: House, autojump_clock: MockClock
) -> None:
    house.supervisor.wake_times.register("acme", START + timedelta(seconds=10))

    await house.supervisor.stop("acme", reason="deleted")
    await trio.sleep(20)

    assert house.disk.opened == []


async def test_an_awake_tenant_reads_its_settings_again_when_told(
    house: House, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    await house.supervisor.runtime("acme")
    await house.supervisor.runtime("other")

    house.supervisor.refresh("acme")
    house.supervisor.refresh("asleep")
    house.disk.open["acme"].refusal = TenantBroken("config.yaml cannot be used")
    house.supervisor.refresh_all()

    assert {tenant: open_.refreshed for tenant, open_ in house.disk.open.items()} == {
        "acme": 2,
        "other": 1,
    }
    assert "keeps its old settings" in caplog.text


# -- the end -----------------------------------------------------------------------


async def test_draining_lets_turns_finish_and_takes_no_new_ones(
    autojump_clock: MockClock,
) -> None:
    house = House()
    short, long = Turn(5), Turn()
    doors = [Door(house), Door(house, tenant="other")]

    async with trio.open_nursery() as nursery:
        await nursery.start(house.supervisor.run)
        nursery.start_soon(doors[0], short)
        nursery.start_soon(doors[1], long)
        await short.began.wait()
        await long.began.wait()
        nursery.start_soon(partial(house.supervisor.drain, grace=20))
        await trio.sleep(1)
        for tenant in ("acme", "other", "third"):
            with pytest.raises(ShuttingDown):
                await house.supervisor.runtime(tenant)

    assert (short.finished, short.ended_at) == (True, 5)
    assert (long.finished, long.ended_at) == (False, 20)
    assert [door.outcome for door in doors] == ["done", ShuttingDown]
    assert house.disk.open == {}
    assert sorted(house.asleep) == ["acme", "other"]
    assert trio.current_time() == 20


async def test_with_nothing_running_draining_takes_no_time(autojump_clock: MockClock) -> None:
    house = House()
    async with trio.open_nursery() as nursery:
        await nursery.start(house.supervisor.run)
        await house.supervisor.runtime("acme")
        await house.supervisor.drain(grace=20)

    assert trio.current_time() == 0
    assert house.disk.open == {}


async def test_a_tenant_that_hangs_does_not_hold_up_the_end(autojump_clock: MockClock) -> None:
    house = House()
    house.disk.delays["opening"] = float("inf")
    house.disk.closing_delays["closing"] = 25
    door = Door(house, tenant="opening")
    async with trio.open_nursery() as nursery:
        await nursery.start(house.supervisor.run)
        await house.supervisor.runtime("closing")
        nursery.start_soon(door, Turn())
        await wait_all_tasks_blocked()
        await house.supervisor.drain(grace=2)
        assert trio.current_time() == 12

    assert door.outcome is ShuttingDown
    assert house.disk.open == {}


async def test_cancelled_outright_it_leaves_nothing_open(autojump_clock: MockClock) -> None:
    house = House()
    turn, door = Turn(), Door(house)
    async with trio.open_nursery() as doors, trio.open_nursery() as nursery:
        await nursery.start(house.supervisor.run)
        doors.start_soon(door, turn)
        await turn.began.wait()
        nursery.cancel_scope.cancel()

    assert turn.ended_at is not None
    assert door.outcome is Unavailable
    assert house.disk.open == {}
    with pytest.raises(ShuttingDown):
        await house.supervisor.runtime("acme")


async def test_memory_can_be_returned() -> None:
    await return_memory()


# -- everything at once --------------------------------------------------------------


@given(seed=st.integers(min_value=0, max_value=10_000))
@settings(max_examples=30)
def test_whatever_happens_in_whatever_order_nothing_is_left_over(seed: int) -> None:
    chance = Random(seed)  # noqa: S311 - a test's dice

    @trio_test
    async def play(autojump_clock: MockClock) -> None:
        await _play(chance)

    play(autojump_clock=MockClock(autojump_threshold=0))


async def _play(chance: Random) -> None:
    """Requests, crashes, hangs, revocations, sleep; the bystander must not notice."""
    house = House(policy=RestartPolicy(ends_in_a_row=2))
    house.limits.hibernate_after = 5
    house.limits.awake_tenants = 2
    names = ["a", "b", "c"]
    for name in names:
        house.disk.delays[name] = chance.choice([0, 0, 1])
        house.disk.closing_delays[name] = chance.choice([0, 0, 2])
        if chance.random() < 0.5:
            house.disk.services[name] = {"cron": FakeService()}
    running = 0

    async def work(seconds: float, *, crash: bool) -> None:
        nonlocal running
        running += 1
        try:
            await trio.sleep(seconds)
            if crash:
                raise ValueError("work")
        finally:
            running -= 1

    async def visit(tenant: str) -> None:
        who = caller(tenant, chance.choice(["tok_1", "tok_2"]))
        seconds, crash = chance.uniform(0, 6), chance.random() < 0.2
        left = partial(trio.sleep, chance.uniform(0, 20)) if chance.random() < 0.5 else None
        await trio.sleep(chance.uniform(0, 30))
        with (
            suppress(ApplianceError, ClientLeft, ValueError),
            trio.move_on_after(chance.uniform(1, 40)),
        ):
            await house.supervisor.perform(
                tenant, lambda _: work(seconds, crash=crash), caller=who, left=left
            )

    async def disturb() -> None:
        for _ in range(10):
            await trio.sleep(chance.uniform(0, 4))
            tenant = chance.choice(names)
            for service in house.disk.services.get(tenant, {}).values():
                if chance.random() < 0.3 and isinstance(service, FakeService):
                    service.crash.set()
                    service.crash = trio.Event()
            acts: list[Callable[[], object]] = [
                partial(house.supervisor.stop, tenant, reason="x"),
                partial(house.supervisor.revoke, tenant, "tok_1", reason="x"),
                partial(trio.sleep, 6),
            ]
            await chance.choice(acts)()  # type: ignore[misc] # each is a coroutine function

    bystander = Door(house, tenant="bystander")
    async with trio.open_nursery() as gateway:
        await gateway.start(house.supervisor.run)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bystander, Turn(25))
            nursery.start_soon(disturb)
            for _ in range(25):
                nursery.start_soon(visit, chance.choice(names))
        assert running == 0
        assert bystander.outcome == "done"
        with trio.fail_after(1000):
            await house.supervisor.drain(grace=5)

    assert house.disk.open == {}
    assert house.supervisor.awake == []
