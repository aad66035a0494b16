"""Cancels work at each of its checkpoints in turn."""

from collections.abc import AsyncIterator, Awaitable, Callable

import trio

_ENOUGH = 500  # checkpoints; work that has more of them does not end


class _Strike(trio.abc.Instrument):
    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, step: int) -> None:
        self._task = task
        self._scope = scope
        self._left = step

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if not self._left:
                self._scope.cancel()


async def cancelled_at(step: int, work: Callable[[], Awaitable[object]]) -> bool:
    """Run ``work``, cancelled when it waits for the ``step``-th time (0: before it begins).

    Returns False if it did not wait that often.
    """
    with trio.CancelScope() as scope:
        strike = _Strike(trio.lowlevel.current_task(), scope, step)
        trio.lowlevel.add_instrument(strike)
        if step == 0:
            scope.cancel()
        try:
            await work()
        finally:
            trio.lowlevel.remove_instrument(strike)
    return scope.cancel_called


async def each_cancellation(work: Callable[[], Awaitable[object]]) -> AsyncIterator[int]:
    """Cancel ``work`` at its first checkpoint, its second, and so on until it runs through.

    Yields after each run, the last one included, how often the run may wait.
    """
    for step in range(_ENOUGH):
        struck = await cancelled_at(step, work)
        yield step
        if not struck:
            return
    raise AssertionError("the work does not come to an end")
