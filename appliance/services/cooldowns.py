"""What failed is left alone for a while: a provider, or one of its keys.

One second, doubled with each failure in a row, or as long as it asked for; at
most five minutes.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

LONGEST_COOLDOWN = timedelta(minutes=5)
_FIRST_COOLDOWN = timedelta(seconds=1)
_MOST_DOUBLINGS = 9  # 512 s: past the longest
_MOST_RECORDS = 10_000


@dataclass(frozen=True, slots=True)
class _Cooldown:
    failures: int
    until: datetime


class Cooldowns(Generic[K]):
    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._cooling: dict[K, _Cooldown] = {}

    def __len__(self) -> int:
        return len(self._cooling)

    def left(self, key: K) -> float | None:
        """Seconds until ``key`` is used in its turn again; None if it is now."""
        cooldown = self._cooling.get(key)
        if cooldown is None:
            return None
        left = cooldown.until - self._clock()
        # More than any cool-down is long: the system's clock was set back.
        if left <= timedelta() or left > LONGEST_COOLDOWN:
            return None
        return left.total_seconds()

    def note_failure(self, key: K, *, asked: float | None) -> None:
        """Leave ``key`` alone from now on; ``asked`` is how many seconds it asked for.

        Calls that fail while it cools down already count as one failure: they
        were all sent at the same time, or by somebody who asks for it.
        """
        already = self.left(key) is not None
        known = self._cooling.pop(key, None)
        failures = 1 if known is None else known.failures + (not already)
        if asked is None:
            wait = _FIRST_COOLDOWN * 2 ** min(failures - 1, _MOST_DOUBLINGS)
        else:
            wait = timedelta(seconds=asked)
        if len(self._cooling) >= _MOST_RECORDS:
            del self._cooling[next(iter(self._cooling))]  # the one least recently failed
        until = self._clock() + min(wait, LONGEST_COOLDOWN)
        if already and known is not None:
            until = max(until, known.until)
        self._cooling[key] = _Cooldown(failures, until)

    def note_success(self, key: K) -> None:
        if self._cooling:
            self._cooling.pop(key, None)
