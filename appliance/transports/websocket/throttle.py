"""Slows down whoever tries tokens, without a way to lock anybody else out.

Many people share one address: behind a proxy, a NAT, an office. So a good
token is let in whatever its neighbours do, and only what would be refused
anyway is refused sooner, with a word about when to come back. Guessing a
secret of 256 bits is hopeless with or without this; it spares the log, and
tells a misconfigured client to stop hammering.
"""

from collections import OrderedDict
from collections.abc import Callable

_MOST_ADDRESSES = 10_000
_WINDOW = 60.0  # seconds


class LoginThrottle:
    """Failed logins by address; times are seconds of any steady clock."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def note_failure(self, address: str, *, most: int, lockout: float) -> float | None:
        """Count one failed login; return the seconds to stay away, None if it need not.

        ``most`` failures a minute are free; ``lockout`` 0 turns this off.
        """
        if not lockout:
            return None
        now = self._clock()
        seen = self._failures.get(address)
        if seen is None or now >= seen.forget_at:
            seen = self._failures[address] = _Failures(now)
            if len(self._failures) > _MOST_ADDRESSES:
                self._failures.popitem(last=False)
        self._failures.move_to_end(address)
        if now < seen.locked_until:
            return seen.locked_until - now
        if now - seen.since >= _WINDOW:
            seen.since, seen.count = now, 0
        seen.count += 1
        seen.forget_at = now + _WINDOW
        if seen.count <= most:
            return None
        seen.locked_until = now + lockout
        seen.forget_at = seen.locked_until
        return lockout


class _Failures:
    __slots__ = ("count", "forget_at", "locked_until", "since")

    def __init__(self, now: float) -> None:
        self.since = now
        self.count = 0
        self.locked_until = 0.0
        self.forget_at = now
