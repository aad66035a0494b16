"""Work that runs in a tenant: who gets what, and who ends it."""

from collections.abc import AsyncIterator
from contextlib import suppress
from time import perf_counter

import pytest
import trio
from trio.testing import MockClock, Sequencer, wait_all_tasks_blocked

from appliance.model.errors import ShuttingDown, TenantDisabled, Unavailable
from appliance.tenants.jobs import ClientLeft, Jobs, Revoked
from tests.tenants.conftest import caller


@pytest.fixture
def dead() -> set[str]:
    return set()


@pytest.fixture
async def jobs(dead: set[str], nursery: trio.Nursery) -> AsyncIterator[Jobs]:
    jobs = Jobs("acme", is_live=lambda caller: caller.credential not in dead)
    await nursery.start(jobs.run)
    yield jobs
    jobs.close(lambda: ShuttingDown("over"))


async def value() -> str:
    await trio.lowlevel.checkpoint()
    return "done"


class Work:
    """Work that goes on until it is cancelled, and says so."""

    def __init__(self, *, clean_up: float = 0) -> None:
        self.began = trio.Event()
        self.ended = False
        self._clean_up = clean_up

    async def __call__(self) -> None:
        self.began.set()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(self._clean_up)
            self.ended = True


async def never() -> None:
    await trio.sleep_forever()


async def test_the_result_comes_back(jobs: Jobs) -> None:
    assert await jobs.perform(value, caller=caller()) == "done"
    assert await jobs.perform(value, caller=caller(), left=never) == "done"
    assert len(jobs) == 0


async def test_a_failure_is_raised_as_it_was_and_ends_nothing_else(jobs: Jobs) -> None:
    error = ValueError("mine")

    async def fail() -> None:
        raise error

    with pytest.raises(ValueError, match="mine") as caught:
        await jobs.perform(fail, caller=caller())

    assert caught.value is error
    assert await jobs.perform(value, caller=caller()) == "done"


async def test_a_group_of_failures_stays_a_group(jobs: Jobs) -> None:
    async def fail() -> None:
        async with trio.open_nursery():
            raise ValueError("inside a nursery")

    with pytest.RaisesGroup(ValueError):
        await jobs.perform(fail, caller=caller())


async def test_the_work_runs_in_the_tenant_and_not_in_the_task_that_asked(jobs: Jobs) -> None:
    asking = trio.lowlevel.current_task()

    async def work() -> None:
        assert trio.lowlevel.current_task() is not asking

    await jobs.perform(work, caller=caller())


async def test_a_client_that_leaves_ends_the_work_before_its_door_goes_on(
    jobs: Jobs, autojump_clock: MockClock
) -> None:
    work = Work(clean_up=2)

    async def left() -> None:
        await trio.sleep(3)

    with pytest.raises(ClientLeft):
        await jobs.perform(work, caller=caller(), left=left)

    assert work.ended
    assert trio.current_time() == 5


async def test_nobody_watches_the_client_once_the_work_is_done(jobs: Jobs) -> None:
    watching = True

    async def left() -> None:
        nonlocal watching
        try:
            await trio.sleep_forever()
        finally:
            watching = False

    await jobs.perform(value, caller=caller(), left=left)

    assert not watching


async def test_a_failure_while_watching_the_client_ends_the_work(jobs: Jobs) -> None:
    work = Work()

    async def left() -> None:
        await work.began.wait()
        raise OSError("the socket is broken")

    with pytest.raises(OSError, match="broken"):
        await jobs.perform(work, caller=caller(), left=left)

    assert work.ended


async def test_a_cancelled_door_ends_the_work_and_waits_for_its_clean_up(
    jobs: Jobs, autojump_clock: MockClock
) -> None:
    work = Work(clean_up=2)

    with trio.move_on_after(1):
        await jobs.perform(work, caller=caller())

    assert work.ended
    assert trio.current_time() == 3


async def test_a_revoked_token_ends_what_it_runs_and_nothing_else(
    jobs: Jobs, nursery: trio.Nursery
) -> None:
    mine, other = Work(), Work()
    refused: list[str] = []

    async def door(work: Work, credential: str) -> None:
        try:
            await jobs.perform(work, caller=caller(credential=credential), left=never)
        except (Revoked, TenantDisabled) as error:
            refused.append(f"{credential} {error.code}")

    nursery.start_soon(door, mine, "tok_1")
    nursery.start_soon(door, mine, "tok_1")
    nursery.start_soon(door, other, "tok_2")
    await wait_all_tasks_blocked()

    await jobs.revoke("tok_1")

    assert mine.ended
    assert not other.ended
    assert len(jobs) == 1
    jobs.end_all(lambda: TenantDisabled("off"))
    await wait_all_tasks_blocked()
    assert refused == ["tok_1 token-revoked"] * 2 + ["tok_2 tenant-disabled"]


async def test_a_token_revoked_between_the_door_and_the_tenant_starts_nothing(
    jobs: Jobs, dead: set[str]
) -> None:
    work = Work()
    dead.add("tok_1")

    with pytest.raises(Revoked):
        await jobs.perform(work, caller=caller())

    assert not work.began.is_set()


async def test_a_token_that_expires_while_it_runs_something_ends_it(
    jobs: Jobs, dead: set[str], nursery: trio.Nursery
) -> None:
    work = Work()

    async def door() -> None:
        with pytest.raises(Revoked):
            await jobs.perform(work, caller=caller())

    nursery.start_soon(door)
    await wait_all_tasks_blocked()
    jobs.recheck()
    await wait_all_tasks_blocked()
    assert not work.ended

    dead.add("tok_1")
    jobs.recheck()
    await wait_all_tasks_blocked()

    assert work.ended


async def test_the_first_reason_to_end_counts(jobs: Jobs, nursery: trio.Nursery) -> None:
    async def door() -> None:
        with pytest.raises(Revoked):
            await jobs.perform(Work(), caller=caller())

    nursery.start_soon(door)
    await wait_all_tasks_blocked()

    await jobs.revoke("tok_1")
    jobs.end_all(lambda: ShuttingDown("too late"))


async def test_work_that_was_done_when_it_was_ended_counts_as_done(
    jobs: Jobs, nursery: trio.Nursery
) -> None:
    go = trio.Event()

    async def stubborn() -> str:
        with trio.CancelScope(shield=True):
            await go.wait()
        return "done"

    async def door() -> None:
        assert await jobs.perform(stubborn, caller=caller()) == "done"

    nursery.start_soon(door)
    await wait_all_tasks_blocked()
    jobs.end_all(lambda: ShuttingDown("soon"))
    go.set()


async def test_a_failure_in_clean_up_is_logged_and_the_reason_is_raised(
    jobs: Jobs, caplog: pytest.LogCaptureFixture, nursery: trio.Nursery
) -> None:
    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in clean-up")

    async def door() -> None:
        with pytest.raises(Revoked):
            await jobs.perform(work, caller=caller())

    nursery.start_soon(door)
    await wait_all_tasks_blocked()
    await jobs.revoke("tok_1")
    await wait_all_tasks_blocked()

    assert "in clean-up" in caplog.text


async def test_a_failure_in_clean_up_is_logged_if_its_door_is_gone_too(
    jobs: Jobs, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in clean-up")

    with trio.move_on_after(1):
        await jobs.perform(work, caller=caller())

    assert "in clean-up" in caplog.text


async def test_closing_takes_no_new_work_and_lets_the_old_finish() -> None:
    jobs = Jobs("acme", is_live=lambda _: True)
    order = Sequencer()

    async def work() -> str:
        async with order(0):
            pass
        async with order(2):
            return "finished"

    async def door() -> None:
        assert await jobs.perform(work, caller=caller()) == "finished"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(jobs.run)
        await wait_all_tasks_blocked()
        nursery.start_soon(door)
        async with order(1):
            jobs.close(lambda: ShuttingDown("closing"))
            with pytest.raises(ShuttingDown):
                await jobs.perform(value, caller=caller())


async def test_before_and_after_its_life_a_tenant_takes_no_work() -> None:
    jobs = Jobs("acme", is_live=lambda _: True)
    with pytest.raises(Unavailable):
        await jobs.perform(value, caller=caller())

    async with trio.open_nursery() as nursery:
        await nursery.start(jobs.run)
        jobs.close(lambda: ShuttingDown("over"))

    with pytest.raises(ShuttingDown):
        await jobs.perform(value, caller=caller())


async def test_whoever_waits_is_told_when_the_tenant_itself_ends() -> None:
    jobs = Jobs("acme", is_live=lambda _: True)
    work = Work()

    async def door() -> None:
        with pytest.raises(Unavailable):
            await jobs.perform(work, caller=caller())

    async with trio.open_nursery() as doors, trio.open_nursery() as tenant:
        await tenant.start(jobs.run)
        doors.start_soon(door)
        await work.began.wait()
        tenant.cancel_scope.cancel()

    assert work.ended


async def test_a_failure_in_clean_up_reaches_its_door_when_the_tenant_itself_ends() -> None:
    jobs = Jobs("acme", is_live=lambda _: True)
    began = trio.Event()

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(never)
            try:
                began.set()
                await trio.sleep_forever()
            finally:
                raise ValueError("in clean-up")

    async def door() -> None:
        with pytest.RaisesGroup(ValueError):
            await jobs.perform(work, caller=caller())

    async with trio.open_nursery() as doors, trio.open_nursery() as tenant:
        await tenant.start(jobs.run)
        doors.start_soon(door)
        await began.wait()
        tenant.cancel_scope.cancel()


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope at the nth step that any task takes from now on."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self._scope = scope
        self._left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._left == 0:
            self._scope.cancel()
        self._left -= 1

    @property
    def was_reached(self) -> bool:
        return self._left < 0


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("victim", ["door", "work", "tenant"])
async def test_cancelled_at_whatever_step_it_leaves_no_job_and_no_trace(
    victim: str, *, watched: bool
) -> None:
    step = 0
    while await _cancelled_at(step, victim=victim, watched=watched):
        step += 1
    assert step >= 7


async def _cancelled_at(step: int, *, victim: str, watched: bool) -> bool:
    """Run a job, cancelling ``victim`` at ``step``; whether it took that many."""
    scopes = {name: trio.CancelScope() for name in ("door", "work", "tenant")}
    jobs = Jobs("acme", is_live=lambda _: True)
    running = 0

    async def work() -> None:
        nonlocal running
        running += 1
        try:
            with scopes["work"]:
                for _ in range(4):
                    await trio.lowlevel.checkpoint()
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            running -= 1

    async def door() -> None:
        with scopes["door"], suppress(Unavailable):
            await jobs.perform(work, caller=caller(), left=never if watched else None)
        assert running == 0

    async def tenant(*, task_status: trio.TaskStatus[None]) -> None:
        with scopes["tenant"]:
            await jobs.run(task_status=task_status)
        assert running == 0

    async with trio.open_nursery() as nursery:
        await nursery.start(tenant)
        probe = CancelAtStep(scopes[victim], step)
        trio.lowlevel.add_instrument(probe)
        await door()
        trio.lowlevel.remove_instrument(probe)
        jobs.close(lambda: ShuttingDown("over"))

    assert len(jobs) == 0
    return probe.was_reached


async def test_a_job_costs_microseconds(jobs: Jobs) -> None:
    """A gross slip would show here; the exact number is the benchmark's business."""

    async def work() -> None:
        pass

    async def many() -> float:
        began = perf_counter()
        for _ in range(300):
            await jobs.perform(work, caller=caller(), left=never)
        return (perf_counter() - began) / 300

    best = min([await many() for _ in range(5)])

    assert best < 0.001
