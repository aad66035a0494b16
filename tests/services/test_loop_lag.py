from trio.testing import MockClock

from appliance.services.loop_lag import SLOW_MS, LoopLag


async def test_without_a_probe_there_is_no_lag() -> None:
    assert LoopLag().p99_ms == 0.0


async def test_the_percentile_ignores_one_outlier_in_many() -> None:
    lag = LoopLag(interval=0.1, window=20)
    for _ in range(199):
        lag.note(0.001)
    lag.note(5.0)

    assert lag.p99_ms == 1.0
    assert not lag.is_slow


async def test_a_loop_that_is_always_late_is_slow() -> None:
    lag = LoopLag()
    for _ in range(50):
        lag.note(SLOW_MS / 1000 * 2)

    assert lag.is_slow


async def test_old_samples_leave_the_window() -> None:
    lag = LoopLag(interval=1, window=10)
    lag.note(9.0)
    for _ in range(10):
        lag.note(0.0)

    assert lag.p99_ms == 0.0


async def test_a_clock_that_jumps_back_counts_as_no_lag(autojump_clock: MockClock) -> None:
    lag = LoopLag()
    lag.note(-1.0)

    assert lag.p99_ms == 0.0
