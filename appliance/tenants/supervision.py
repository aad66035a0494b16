"""What happens when a task crashes.

Here, in ``jobs`` (one piece of work) and in ``directory`` (a tenant as a whole)
are the only places below the transports that catch every ``Exception``.
Cancellation is not an ``Exception``; it passes through.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import NoReturn

import trio

log = logging.getLogger(__name__)

Task = Callable[[], Awaitable[object]]


class GaveUp(Exception):
    """A task ended too often in a row."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How long to wait before something that ended is started again."""

    first_delay: float = 1.0  # seconds
    longest_delay: float = 60.0
    healthy_after: float = 300.0  # a run this long clears the record
    ends_in_a_row: int = 10
    jitter: float = 0.25  # part of the delay that is left to chance

    def delay(self, ends: int, random: Random) -> float:
        """The wait after the ``ends``-th end in a row.

        It doubles up to a maximum. Chance shortens it, so that tenants which
        failed together (one provider went away) do not come back together.
        """
        # An exponent beyond this would overflow long after the maximum is reached.
        delay = min(self.longest_delay, self.first_delay * 2.0 ** min(ends - 1, 64))
        return delay * (1 - self.jitter * random.random())


class BackOff:
    """Who failed lately, and from when on another attempt makes sense."""

    def __init__(self, policy: RestartPolicy, random: Random) -> None:
        self._policy = policy
        self._random = random
        self._failures: dict[str, tuple[int, float]] = {}  # name -> how many in a row, until

    def note_failure(self, name: str, *, ran: float = 0.0) -> float:
        """Note that ``name`` failed after ``ran`` seconds; return when to try again."""
        before, _ = self._failures.get(name, (0, 0.0))
        in_a_row = 1 if ran >= self._policy.healthy_after else before + 1
        until = trio.current_time() + self._policy.delay(in_a_row, self._random)
        self._failures[name] = (in_a_row, until)
        return until

    def remaining(self, name: str) -> float:
        """The seconds until another attempt; 0 if one may be made now."""
        _, until = self._failures.get(name, (0, 0.0))
        return max(until - trio.current_time(), 0.0)

    def forget(self, name: str) -> None:
        self._failures.pop(name, None)


async def keep_running(name: str, task: Task, policy: RestartPolicy, random: Random) -> NoReturn:
    """Run ``task`` until cancelled, starting it again whenever it ends.

    Raises :exc:`GaveUp` when starting again has stopped helping.
    """
    ends = 0
    while True:
        began = trio.current_time()
        await run_contained(name, task)
        if trio.current_time() - began >= policy.healthy_after:
            ends = 0
        ends += 1
        if ends >= policy.ends_in_a_row:
            raise GaveUp(f"{name} ended {ends} times in a row")
        delay = policy.delay(ends, random)
        log.warning("starting again", extra={"task": name, "delay": round(delay, 1)})
        await trio.sleep(delay)


async def run_contained(name: str, task: Task) -> None:
    """Run ``task`` once; if it crashes, log that and go on without it."""
    try:
        await task()
    except Exception:
        log.exception("crashed", extra={"task": name})
