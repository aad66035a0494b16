"""Long work on files, in threads, in steps that leave room for everybody else."""

import time
from collections.abc import Generator
from typing import Any

import trio

# Seconds in a thread at a time. Through very many short system calls a thread keeps the
# interpreter's lock, but for moments that the event loop is too slow to use: what it waits is
# up to 15 ms with steps of 20, and 5 to 8 ms with these.
_STEP = 0.005


async def step_through(
    steps: Generator[Any, None, None], *, limiter: trio.CapacityLimiter | None = None
) -> float:
    """Exhaust ``steps``, which block, resting as long as each bout took; return its seconds.

    Cancelled between two steps, it closes the generator; what that has done
    stays done. Raises what the generator raises.
    """
    total = 0.0
    try:
        while True:
            took, is_done = await trio.to_thread.run_sync(_advance, steps, limiter=limiter)
            total += took
            if is_done:
                return total
            await trio.sleep(took)
    finally:
        steps.close()


def _advance(steps: Generator[Any, None, None]) -> tuple[float, bool]:
    began = time.perf_counter()
    for _ in steps:
        took = time.perf_counter() - began
        if took >= _STEP:
            return took, False
    return time.perf_counter() - began, True
