"""Days and months in UTC, as half-open ranges of nanoseconds since 1970.

Budgets start anew at these boundaries everywhere in the world at the same
moment; a local midnight would make the reset, the bill and the clock disagree.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

SECOND = 10**9  # nanoseconds
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Period:
    """The moments ``start_ns <= t < end_ns``."""

    start_ns: int
    end_ns: int

    def __contains__(self, moment_ns: int) -> bool:
        return self.start_ns <= moment_ns < self.end_ns

    @property
    def end(self) -> datetime:
        """When the next one begins."""
        return from_ns(self.end_ns)


def to_ns(moment: datetime) -> int:
    """Nanoseconds since 1970 of an aware ``moment``, exact to its microsecond."""
    return (moment - _EPOCH) // _MICROSECOND * 1_000


def to_ms(moment: datetime) -> int:
    """Milliseconds since 1970, as OpenClaw's clients count."""
    return to_ns(moment) // 1_000_000


def from_ns(moment_ns: int) -> datetime:
    """The opposite of :func:`to_ns`; what is finer than a microsecond is cut off."""
    return _EPOCH + timedelta(microseconds=moment_ns // 1_000)


def day_of(moment_ns: int) -> Period:
    start = moment_ns // DAY * DAY
    return Period(start, start + DAY)


def month_of(moment_ns: int) -> Period:
    first = from_ns(moment_ns).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    # 31 days after the first of any month lies in the next one.
    following = (first + timedelta(days=31)).replace(day=1)
    return Period(to_ns(first), to_ns(following))
