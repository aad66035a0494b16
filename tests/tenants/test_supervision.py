"""What a crash means: contained, logged, started again, and at last given up."""

from random import Random

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from appliance.tenants.supervision import GaveUp, RestartPolicy, keep_running, run_contained

CHANCE = Random(1)  # noqa: S311 - jitter, not a secret
EXACT = RestartPolicy(first_delay=1, longest_delay=60, healthy_after=300, ends_in_a_row=5, jitter=0)


async def crash() -> None:
    raise ValueError("mine")


async def test_a_crash_is_logged_with_its_traceback_and_goes_no_further(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await run_contained("acme/cron", crash)

    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].__dict__["task"] == "acme/cron"


async def test_cancellation_passes_through() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await run_contained("x", trio.sleep_forever)

    assert scope.cancelled_caught


async def test_what_ends_is_started_again_later_and_later_and_then_given_up(
    autojump_clock: MockClock,
) -> None:
    starts: list[float] = []

    async def task() -> None:
        starts.append(trio.current_time())
        raise ValueError("mine")

    with pytest.raises(GaveUp, match="acme/cron ended 5 times"):
        await keep_running("acme/cron", task, EXACT, CHANCE)

    assert starts == [0, 1, 3, 7, 15]


async def test_what_returns_is_started_again_too(autojump_clock: MockClock) -> None:
    starts = 0

    async def task() -> None:
        nonlocal starts
        starts += 1

    with pytest.raises(GaveUp):
        await keep_running("x", task, EXACT, CHANCE)

    assert starts == 5


async def test_a_long_good_run_clears_the_record(autojump_clock: MockClock) -> None:
    starts: list[float] = []

    async def task() -> None:
        starts.append(trio.current_time())
        await trio.sleep(300)

    with trio.move_on_after(3500):
        await keep_running("x", task, EXACT, CHANCE)

    assert len(starts) == 12
    assert starts[:3] == [0, 301, 602]


@given(
    ends=st.integers(min_value=1, max_value=10_000),
    jitter=st.floats(min_value=0, max_value=1),
    seed=st.integers(),
)
def test_a_delay_is_bounded_however_often_it_failed(ends: int, jitter: float, seed: int) -> None:
    policy = RestartPolicy(jitter=jitter)

    delay = policy.delay(ends, Random(seed))  # noqa: S311 - jitter

    full = min(60.0, 2.0 ** min(ends - 1, 64))
    assert full * (1 - jitter) <= delay <= full


def test_the_same_seed_gives_the_same_delays() -> None:
    def delays() -> list[float]:
        chance = Random(7)  # noqa: S311 - jitter
        return [RestartPolicy().delay(ends, chance) for ends in range(1, 6)]

    assert delays() == delays()
    assert len(set(delays())) == 5
