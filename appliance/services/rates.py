"""How fast a tenant may go: sliding windows over the last minute and hour."""

from collections import deque
from dataclasses import dataclass
from math import ceil

from appliance.model.errors import RateLimited
from appliance.model.periods import HOUR, MINUTE, SECOND
from appliance.model.quotas import Quotas
from appliance.model.spending import QuotaStanding, RateStanding


@dataclass(slots=True, eq=False)
class Burst:
    """What was added within one step of a window; it leaves the window as a whole."""

    first_ns: int
    last_ns: int
    amount: int
    gone: bool = False


class SlidingWindow:
    """How much was added during the last ``span_ns``.

    What is added within ``step_ns`` shares a burst, which leaves when its
    youngest part does: a window may count a little too long, by one step at
    most, never too short. So it holds at most ``span / step`` bursts however
    many calls come.
    """

    def __init__(self, span_ns: int, *, step_ns: int) -> None:
        self._span_ns = span_ns
        self._step_ns = step_ns
        self._bursts: deque[Burst] = deque()
        self._total = 0

    def total(self, now_ns: int) -> int:
        bursts = self._bursts
        while bursts and self._has_left(bursts[0], now_ns):
            burst = bursts.popleft()
            burst.gone = True
            self._total -= burst.amount
        return self._total

    def add(self, now_ns: int, amount: int) -> Burst:
        """Count ``amount``; :meth:`adjust` takes the burst it became part of."""
        if self._bursts and now_ns - self._bursts[-1].first_ns < self._step_ns:
            burst = self._bursts[-1]
            burst.last_ns = max(burst.last_ns, now_ns)
            burst.amount += amount
            self._total += amount
            return burst
        self.total(now_ns)  # a window without a limit is never asked, and would only grow
        return self.load(now_ns, now_ns, amount)

    def load(self, first_ns: int, last_ns: int, amount: int) -> Burst:
        """Count what happened between two moments, as one burst."""
        burst = Burst(first_ns, last_ns, amount)
        self._bursts.append(burst)
        self._total += amount
        return burst

    def adjust(self, burst: Burst, change: int) -> None:
        """Correct what was counted before, unless it has left the window."""
        if not burst.gone:
            burst.amount += change
            self._total += change

    def wait_for(self, now_ns: int, amount: int, *, limit: int) -> float | None:
        """Seconds until ``amount`` fits below ``limit``; None if it never will."""
        if amount > limit:
            return None
        excess = self.total(now_ns) + amount - limit
        free_ns = now_ns
        for burst in self._bursts:
            if excess <= 0:
                break
            excess -= burst.amount
            free_ns = burst.last_ns + self._span_ns
        return (free_ns - now_ns) / SECOND

    def standing(self, now_ns: int, limit: int) -> RateStanding:
        used = self.total(now_ns)
        empty_ns = self._bursts[-1].last_ns + self._span_ns if used else now_ns
        return RateStanding(limit, max(0, limit - used), (empty_ns - now_ns) / SECOND)

    def _has_left(self, burst: Burst, now_ns: int) -> bool:
        # More than a span ahead: the clock was set back. Keeping the burst
        # would close the window until that moment comes again.
        return not now_ns - self._span_ns < burst.last_ns <= now_ns + self._span_ns


class Rates:
    """The windows of one tenant, and the limits that they are held against."""

    def __init__(self) -> None:
        self._minute_calls = SlidingWindow(MINUTE, step_ns=SECOND // 20)
        self._minute_tokens = SlidingWindow(MINUTE, step_ns=SECOND // 20)
        self._hour_calls = SlidingWindow(HOUR, step_ns=SECOND)

    def load(self, first_ns: int, last_ns: int, *, calls: int, tokens: int) -> None:
        """Count calls of the past, oldest first."""
        self._hour_calls.load(first_ns, last_ns, calls)
        self._minute_calls.load(first_ns, last_ns, calls)
        self._minute_tokens.load(first_ns, last_ns, tokens)

    def add(self, now_ns: int, *, tokens: int) -> Burst:
        """Count a call; its tokens can be put right with :meth:`adjust`."""
        self._minute_calls.add(now_ns, 1)
        self._hour_calls.add(now_ns, 1)
        return self._minute_tokens.add(now_ns, tokens)

    def adjust(self, burst: Burst, tokens: int) -> None:
        self._minute_tokens.adjust(burst, tokens)

    def check_call(self, now_ns: int, limits: Quotas) -> None:
        """Raise :exc:`RateLimited` unless one more call may be made now."""
        limit = limits.requests_per_minute
        if limit is not None and self._minute_calls.total(now_ns) >= limit:
            wait = self._minute_calls.wait_for(now_ns, 1, limit=limit)
            raise rate_limited("requests_per_minute", limit, wait)
        limit = limits.requests_per_hour
        if limit is not None and self._hour_calls.total(now_ns) >= limit:
            wait = self._hour_calls.wait_for(now_ns, 1, limit=limit)
            raise rate_limited("requests_per_hour", limit, wait)

    def room_for_output(self, now_ns: int, limit: int, *, tokens_in: int, needed: int) -> int:
        """How many output tokens fit into this minute beside the input.

        Raises :exc:`RateLimited` if those are fewer than ``needed``.
        """
        room = limit - self._minute_tokens.total(now_ns) - tokens_in
        if room < needed:
            wait = self._minute_tokens.wait_for(now_ns, tokens_in + needed, limit=limit)
            raise rate_limited("tokens_per_minute", limit, wait)
        return room

    def standings(self, now_ns: int, limits: Quotas) -> list[QuotaStanding]:
        used = (
            ("requests_per_minute", self._minute_calls),
            ("requests_per_hour", self._hour_calls),
            ("tokens_per_minute", self._minute_tokens),
        )
        return [
            QuotaStanding(key, getattr(limits, key), None, window.total(now_ns), 0, None)
            for key, window in used
        ]

    def requests(self, now_ns: int, limits: Quotas) -> RateStanding | None:
        """The request limit that leaves least, None if none is set."""
        standings = [
            window.standing(now_ns, limit)
            for window, limit in (
                (self._minute_calls, limits.requests_per_minute),
                (self._hour_calls, limits.requests_per_hour),
            )
            if limit is not None
        ]
        return min(standings, key=lambda standing: standing.remaining, default=None)

    def tokens(self, now_ns: int, limits: Quotas) -> RateStanding | None:
        limit = limits.tokens_per_minute
        return None if limit is None else self._minute_tokens.standing(now_ns, limit)


def rate_limited(key: str, limit: int, retry_after: float | None) -> RateLimited:
    if limit == 0:
        detail = f"{key} is 0: this tenant may make no calls"
    elif retry_after is None:
        detail = f"{key} is limited to {limit}, and this call alone needs more"
    else:
        detail = f"{key} is limited to {limit}; try again in {ceil(retry_after)} s"
    return RateLimited(detail, retry_after=retry_after, quota=key, limit=limit)
