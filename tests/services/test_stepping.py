"""Long work in small steps."""

import threading
from collections.abc import Generator

import pytest
import trio

from appliance.services import stepping
from appliance.services.stepping import step_through


async def test_everything_is_done_outside_of_the_loops_thread() -> None:
    seen: list[bool] = []

    def work() -> Generator[int, None, None]:
        for number in range(5):
            seen.append(threading.current_thread() is threading.main_thread())
            yield number

    assert await step_through(work()) >= 0
    assert seen == [False] * 5


async def test_others_run_between_two_steps_and_may_end_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stepping, "_STEP", 0.0)
    events: list[str] = []
    going = trio.Event()

    def endless() -> Generator[int, None, None]:
        try:
            while True:
                events.append("step")
                if len(events) == 5:
                    trio.from_thread.run_sync(going.set)
                yield 1
        finally:
            events.append("closed")

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(step_through, endless())
            await going.wait()
            nursery.cancel_scope.cancel()
    assert events[-1] == "closed"


async def test_a_failure_comes_out() -> None:
    def fails() -> Generator[int, None, None]:
        yield 1
        raise OSError("the disk is on fire")

    with pytest.raises(OSError, match="on fire"):
        await step_through(fails())
