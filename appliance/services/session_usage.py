"""What a tenant's sessions used: by day, by model, call by call.

The money is what the ledger holds; how it is made up of the token classes is
worked out from the price that was kept with each call.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Protocol

import msgspec

from appliance.model.errors import InvalidRequest
from appliance.model.money import FREE, Price
from appliance.model.periods import SECOND, from_ns, to_ns
from appliance.model.session_keys import SessionKey
from appliance.protocols.transcripts import text_of
from appliance.storage.connection import DatabaseRoot
from appliance.storage.session_rows import Session
from appliance.storage.session_usage import (
    Call,
    Said,
    SessionCalls,
    read_calls,
    read_said,
    read_session_calls,
)
from appliance.storage.sessions import SessionStore

MOST_POINTS = 200
LONGEST_LOG = 2_000  # characters of one line
LONGEST_SPAN = timedelta(days=10 * 366)
_DAY = 86_400
_EPOCH = date(1970, 1, 1)


class TenantWithBooks(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def root(self) -> DatabaseRoot: ...
    async def sessions(self) -> SessionStore: ...


@dataclass(slots=True)
class Sums:
    """Tokens, and money in nano-units by what it was spent on."""

    requests: int = 0
    errors: int = 0
    unpriced: int = 0
    tool_calls: int = 0
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cost: int = 0
    costs: list[int] = field(default_factory=lambda: [0, 0, 0, 0])  # in the order of the tokens

    @property
    def tokens(self) -> int:
        return self.input + self.output + self.cache_read + self.cache_write

    def add(self, calls: SessionCalls) -> None:
        self.requests += calls.requests
        self.errors += calls.errors
        self.unpriced += calls.unpriced
        self.tool_calls += calls.tool_calls
        self.input += calls.input
        self.output += calls.output
        self.cache_read += calls.cache_read
        self.cache_write += calls.cache_write
        self.cost += calls.cost_nano
        for index, part in enumerate(_split(calls)):
            self.costs[index] += part


@dataclass(slots=True)
class Latency:
    """How long calls took that came to an answer."""

    count: int = 0
    total_ns: int = 0
    fastest_ns: int | None = None
    slowest_ns: int | None = None

    def add(self, calls: SessionCalls) -> None:
        if not calls.timed or calls.latency_ns is None:
            return
        self.count += calls.timed
        self.total_ns += calls.latency_ns
        known = (self.fastest_ns, calls.fastest_ns)
        self.fastest_ns = min((value for value in known if value is not None), default=None)
        known = (self.slowest_ns, calls.slowest_ns)
        self.slowest_ns = max((value for value in known if value is not None), default=None)


@dataclass(slots=True)
class Use:
    """What one group used; ``models`` and ``days`` hold the same, taken apart."""

    sums: Sums = field(default_factory=Sums)
    latency: Latency = field(default_factory=Latency)
    said: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # by role
    models: dict[tuple[str, str], Sums] = field(default_factory=lambda: defaultdict(Sums))
    days: dict[date, "Use"] = field(default_factory=dict)
    first_ns: int | None = None
    last_ns: int | None = None

    def add(self, calls: SessionCalls) -> None:
        self.sums.add(calls)
        self.latency.add(calls)
        self.models[calls.provider, calls.model].add(calls)
        self.first_ns = min(calls.first_ns, self.first_ns or calls.first_ns)
        self.last_ns = max(calls.last_ns, self.last_ns or calls.last_ns)

    def day(self, number: int) -> "Use":
        return self.days.setdefault(_EPOCH + timedelta(days=number), Use())


@dataclass(frozen=True, slots=True)
class SessionUse:
    """``session`` is None for one that was deleted: what it used stays in the books."""

    key: SessionKey
    session: Session | None
    channel: str
    use: Use


@dataclass(frozen=True, slots=True)
class UsageOfSessions:
    """``sessions`` may be fewer than there are; ``all`` sums up every one."""

    start: date
    end: date  # the last day
    currency: str
    sessions: tuple[SessionUse, ...]
    all: Use
    by_agent: Mapping[str, Sums]
    by_channel: Mapping[str, Sums]


@dataclass(frozen=True, slots=True)
class Days:
    """Whole days in one time zone: ``shift`` seconds ahead of UTC."""

    start: date
    end: date
    shift: int = 0

    @classmethod
    def of(cls, start: date, end: date, *, shift: int = 0) -> "Days":
        """Raises :exc:`InvalidRequest` for days that do not follow each other."""
        if start > end:
            raise InvalidRequest.at("endDate", "comes before startDate", "ask for a later end")
        if end - start > LONGEST_SPAN:
            raise InvalidRequest.at("startDate", "is more than ten years back", "ask for less")
        return cls(start, end, shift)

    @property
    def start_ns(self) -> int:
        return ((self.start - _EPOCH).days * _DAY - self.shift) * SECOND

    @property
    def end_ns(self) -> int:
        return ((self.end - _EPOCH).days * _DAY + _DAY - self.shift) * SECOND


@dataclass(frozen=True, slots=True)
class Point:
    """A moment, what was used since the point before, and all up to it."""

    at: datetime
    input: int
    output: int
    cache_read: int
    cache_write: int
    cost: int
    all_tokens: int
    all_cost: int

    @property
    def tokens(self) -> int:
        return self.input + self.output + self.cache_read + self.cache_write


@dataclass(frozen=True, slots=True)
class LogLine:
    at: datetime
    role: str
    text: str
    tokens: int | None
    cost: int | None


class SessionUsage:
    def __init__(self, *, currency: Callable[[], str]) -> None:
        self._currency = currency

    async def usage(
        self,
        tenant: TenantWithBooks,
        days: Days,
        *,
        key: SessionKey | None = None,
        agent: str | None = None,
        limit: int = 50,
    ) -> UsageOfSessions:
        """What the tenant's sessions used, those that used most first."""
        store = await tenant.sessions()  # opened first: it may have to be brought up to date
        currency = self._currency()
        rows = await read_session_calls(
            tenant.root,
            days.start_ns,
            days.end_ns,
            currency=currency,
            shift=days.shift,
            session="" if key is None else key.text,
        )
        said = await read_said(tenant.root, days.start_ns, days.end_ns, shift=days.shift)
        prefix = f"tenant:{tenant.id}:"
        wanted = [row for row in rows if _is_wanted(row.session, prefix, agent)]
        groups = _groups(wanted, prefix)
        _count_said(groups, said, agent=agent, only=None if key is None else key.short)
        everything = Use()
        for calls in wanted:
            everything.add(calls)
            everything.day(calls.day).add(calls)
        channels = {row.session.removeprefix(prefix): row.channel for row in wanted}
        ordered = sorted(groups.items(), key=lambda pair: pair[1].last_ns or 0, reverse=True)
        for _, use in ordered:
            _merge_said(everything, use)
        return UsageOfSessions(
            days.start,
            days.end,
            currency,
            tuple(
                _of_session(tenant.id, store, short, use, channels.get(short, ""))
                for short, use in ordered[:limit]
            ),
            everything,
            _sums_by(wanted, lambda row: row.agent),
            _sums_by(wanted, lambda row: row.channel),
        )

    async def timeseries(
        self, tenant: TenantWithBooks, key: SessionKey, session: Session
    ) -> Sequence[Point]:
        """The session's calls since it began, joined into ``MOST_POINTS`` at most."""
        calls = await read_calls(
            tenant.root, key.text, to_ns(session.created_at), currency=self._currency()
        )
        return _points(calls)

    async def logs(
        self, tenant: TenantWithBooks, key: SessionKey, session: Session, *, limit: int
    ) -> Sequence[LogLine]:
        """The newest ``limit`` messages, with what an answer used where that is known."""
        store = await tenant.sessions()
        return [
            LogLine(
                at=message.created_at,
                role=message.role,
                text=text_of(message.message)[:LONGEST_LOG],
                tokens=_tokens(message.meta.get("usage")),
                cost=None,
            )
            for message in store.messages(session.id, limit=limit)
        ]


def today(now: datetime, shift: int) -> date:
    """The day that ``now`` falls on ``shift`` seconds ahead of UTC."""
    return (now.astimezone(UTC) + timedelta(seconds=shift)).date()


def _groups(rows: Iterable[SessionCalls], prefix: str) -> dict[str, Use]:
    groups: dict[str, Use] = defaultdict(Use)
    for calls in rows:
        use = groups[calls.session.removeprefix(prefix)]
        use.add(calls)
        use.day(calls.day).add(calls)
    return groups


def _count_said(
    groups: dict[str, Use], said: Iterable[Said], *, agent: str | None, only: str | None
) -> None:
    for row in said:
        if only not in (None, row.session):
            continue
        if agent is not None and not row.session.startswith(f"agent:{agent}:"):
            continue
        use = groups[row.session]
        use.said[row.role] += row.messages
        use.day(row.day).said[row.role] += row.messages


def _merge_said(everything: Use, use: Use) -> None:
    for role, count in use.said.items():
        everything.said[role] += count
    for day, part in use.days.items():
        whole = everything.days.setdefault(day, Use())
        for role, count in part.said.items():
            whole.said[role] += count


def _is_wanted(session: str, prefix: str, agent: str | None) -> bool:
    # Another tenant's key in this ledger would be a bug; it is not shown for it.
    if not session.startswith(prefix):
        return False
    return agent is None or session.startswith(f"{prefix}agent:{agent}:")


def _of_session(tenant: str, store: SessionStore, short: str, use: Use, channel: str) -> SessionUse:
    key = SessionKey.parse(short, tenant=tenant)
    return SessionUse(key, store.find(key), channel, use)


def _sums_by(rows: Iterable[SessionCalls], name: Callable[[SessionCalls], str]) -> dict[str, Sums]:
    sums: dict[str, Sums] = defaultdict(Sums)
    for row in rows:
        sums[name(row)].add(row)
    return sums


def _split(calls: SessionCalls) -> list[int]:
    """The cost, laid on input, output, cache reads and writes; the parts add up to it."""
    price = _price(calls.price)
    weights = [
        calls.input * price.input,
        calls.output * price.output,
        calls.cache_read * price.cache_read,
        calls.cache_write * price.cache_write,
    ]
    whole = sum(weights)
    if whole <= 0:
        return [calls.cost_nano, 0, 0, 0]
    parts = [calls.cost_nano * weight // whole for weight in weights]
    parts[0] += calls.cost_nano - sum(parts)
    return parts


@lru_cache(maxsize=1024)
def _price(text: str) -> Price:
    return msgspec.json.decode(text, type=Price) if text else FREE


def _points(calls: Sequence[Call]) -> list[Point]:
    points: list[Point] = []
    all_tokens = all_cost = 0
    size = -(-len(calls) // MOST_POINTS) or 1
    for first in range(0, len(calls), size):
        part = calls[first : first + size]
        point = Point(
            at=from_ns(part[-1].ts_ns),
            input=sum(call.input for call in part),
            output=sum(call.output for call in part),
            cache_read=sum(call.cache_read for call in part),
            cache_write=sum(call.cache_write for call in part),
            cost=sum(call.cost_nano for call in part),
            all_tokens=all_tokens,
            all_cost=all_cost,
        )
        all_tokens += point.tokens
        all_cost += point.cost
        points.append(replace(point, all_tokens=all_tokens, all_cost=all_cost))
    return points


def _tokens(usage: object) -> int | None:
    if not isinstance(usage, Mapping):
        return None
    for name in ("totalTokens", "total_tokens", "total"):
        value = usage.get(name)
        if type(value) is int:
            return value
    return None
