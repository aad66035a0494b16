"""Which of the tenant's events a connection was sent, for a client that comes back.

A client counts what it gets on its connection (``seq``); the tenant counts its
events. "I saw up to seq 17 of connection X" becomes a number of the tenant's
here, and what came after it is sent again on the new connection.
"""

from array import array
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass

from appliance.services.events import Event, TenantEvents

_MOST_NOTED = 1_024  # deliveries of one connection
_MOST_LEFT = 1_000  # connections that are gone
_KEPT_SECONDS = 300.0


class Delivered:
    """Pairs of (seq, event number), both growing; the latest thousand."""

    __slots__ = ("_numbers", "_seqs", "forgot")

    def __init__(self) -> None:
        self.forgot = False  # whether the oldest pairs are gone
        self._seqs = array("Q")
        self._numbers = array("Q")

    def note(self, seq: int, number: int) -> None:
        if len(self._seqs) >= _MOST_NOTED:
            self.forgot = True
            del self._seqs[: _MOST_NOTED // 2]
            del self._numbers[: _MOST_NOTED // 2]
        self._seqs.append(seq)
        self._numbers.append(number)

    def number_at(self, seq: int) -> int | None:
        """The last event that was sent by ``seq``; None if ``seq`` is before all noted."""
        place = bisect_right(self._seqs, seq)
        return self._numbers[place - 1] if place else None


@dataclass(frozen=True, slots=True)
class LeftConnection:
    """What is kept of a connection that ended."""

    credential: str
    events: TenantEvents  # of the life of the tenant it was in
    first: int  # the tenant's latest event when it connected
    delivered: Delivered | None
    watches_sessions: bool
    watched_sessions: frozenset[str]
    until: float

    def missed_since(self, seq: int) -> list[Event] | None:
        """What it was not sent after ``seq``; None if that cannot be told any more."""
        number: int | None = self.first
        if self.delivered is not None:
            number = self.delivered.number_at(seq)
            if number is None and not self.delivered.forgot:
                number = self.first
        return None if number is None else self.events.since(number)


class LeftConnections:
    """The connections that ended lately, by tenant and id."""

    def __init__(self) -> None:
        self._left: OrderedDict[tuple[str, str], LeftConnection] = OrderedDict()

    def note(self, tenant: str, conn_id: str, left: LeftConnection) -> None:
        self._left[tenant, conn_id] = left
        while len(self._left) > _MOST_LEFT:
            self._left.popitem(last=False)

    def take(self, tenant: str, conn_id: str, *, credential: str) -> LeftConnection | None:
        """Whoever has another credential gets nothing, and takes nothing away."""
        left = self._left.get((tenant, conn_id))
        if left is None or left.credential != credential:
            return None
        return self._left.pop((tenant, conn_id))

    def sweep(self, now: float) -> None:
        while self._left:
            key = next(iter(self._left))
            if self._left[key].until > now:
                return
            del self._left[key]

    @staticmethod
    def expiry(now: float) -> float:
        return now + _KEPT_SECONDS
