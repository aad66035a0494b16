"""Whatever comes in whatever order: no limit is passed, and the books balance."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.model.errors import ApplianceError, QuotaExceeded, RateLimited
from appliance.model.money import FREE
from appliance.model.periods import day_of, month_of, to_ns
from appliance.model.quotas import Quotas
from appliance.model.spending import Outcome, OutcomeStatus, Reservation
from appliance.model.usage import TokenUsage
from appliance.services.meter import Meter
from appliance.storage.database import Database
from appliance.storage.ledger import FILE, LedgerStore
from appliance.storage.ledger_schema import SCHEMA
from tests.books import PRICE, HandClock, directory, outcome, spend

BUDGETS = ("tokens_per_day", "tokens_per_month", "cost_per_day", "cost_per_month")


@dataclass(frozen=True)
class Reserve:
    prompt: int
    output: int | None
    free: bool


@dataclass(frozen=True)
class Settle:
    which: int
    share: float  # of what was reserved
    status: OutcomeStatus


@dataclass(frozen=True)
class Wait:
    seconds: float


@dataclass(frozen=True)
class Crash:
    """The process dies; nothing is closed, settled or said."""


Step = Reserve | Settle | Wait | Crash

reserves = st.builds(
    Reserve,
    prompt=st.integers(8, 60),
    output=st.none() | st.integers(0, 80),
    free=st.booleans(),
)
settles = st.builds(
    Settle,
    which=st.integers(0, 5),
    share=st.floats(0, 1),
    status=st.sampled_from([OutcomeStatus.OK, OutcomeStatus.CANCELLED, OutcomeStatus.FAILED]),
)
waits = st.builds(Wait, seconds=st.sampled_from([0.01, 0.5, 1.0, 29.0, 61.0, 3_600.0, 40_000.0]))
# Mostly calls: what goes wrong takes a few of them to show.
calls = st.tuples(st.integers(0, 9), reserves, settles, waits).map(
    lambda drawn: drawn[1] if drawn[0] < 5 else drawn[2] if drawn[0] < 9 else drawn[3]
)
steps = st.lists(st.lists(calls, max_size=30), max_size=3).map(
    lambda lives: [step for life in lives for step in (*life, Crash())]
)


# One or two limits at a time: with all of them, one hides the others.
MOST = {
    "tokens_per_day": 400,
    "tokens_per_month": 600,
    "cost_per_day": 400_000,
    "cost_per_month": 600_000,
    "requests_per_minute": 6,
    "requests_per_hour": 12,
    "tokens_per_minute": 300,
    "concurrent_requests": 4,
}
quotas = (
    st.sets(st.sampled_from(sorted(MOST)), max_size=2)
    .flatmap(lambda keys: st.fixed_dictionaries({key: st.integers(0, MOST[key]) for key in keys}))
    .map(lambda limits: Quotas(**limits))
)


class World:
    """A meter, the truth about what it admitted, and the checks between the two."""

    def __init__(self, limits: Quotas, path: Path) -> None:
        self.limits = limits
        self.clock = HandClock()
        self.open: list[Reservation] = []
        self.admitted_ns: list[int] = []
        self.minute_tokens: dict[int, tuple[int, int]] = {}  # id → when, how many
        self._path = path
        self._databases: list[Database] = []

    async def start(self) -> None:
        """Open the meter on the files as they are, whoever else had them open."""
        database = await Database.open(directory(self._path), FILE, SCHEMA)
        self._databases.append(database)
        self.meter = await Meter.open(
            LedgerStore(database),
            limits=self.limits,
            clock=self.clock,
            currency="USD",
            assumed_output=50,
        )

    async def stop(self) -> None:
        for database in self._databases:
            await database.close()

    async def take(self, step: Step) -> None:
        match step:
            case Reserve():
                self.reserve(step)
            case Settle():
                self.settle(step)
            case Wait(seconds):
                self.clock.advance(seconds)
            case Crash():
                for lost in self.open:
                    self._count(lost, TokenUsage(input=lost.estimate_input))
                self.open.clear()
                await self.start()
        self.check()

    def reserve(self, step: Reserve) -> None:
        request = spend(
            prompt_tokens=step.prompt,
            output_limit=step.output,
            price=FREE if step.free else PRICE,
        )
        try:
            reservation = self.meter.reserve(request)
        except (RateLimited, QuotaExceeded):
            return
        self.open.append(reservation)
        now = to_ns(self.clock())
        self.admitted_ns.append(now)
        tokens = reservation.estimate_input + reservation.estimate_output
        self.minute_tokens[reservation.id] = (now, tokens)

    def settle(self, step: Settle) -> None:
        if not self.open:
            return
        reservation = self.open.pop(step.which % len(self.open))
        usage = TokenUsage(
            input=int(reservation.estimate_input * step.share),
            output=int(reservation.estimate_output * step.share),
        )
        result = outcome(usage, status=step.status, price=reservation.request.price)
        self.meter.settle(reservation, result)
        assert self.meter.settle(reservation, result) is reservation.settlement
        self._count(reservation, usage)

    def check(self) -> None:
        standing = self.meter.standing()
        now = to_ns(self.clock())
        for key in BUDGETS:
            quota = standing.find(key)
            assert quota is not None
            if quota.limit is not None:
                assert quota.used + quota.reserved <= quota.limit
            assert quota.used == self._booked(key, now)
        concurrent = standing.find("concurrent_requests")
        assert concurrent is not None
        assert concurrent.used == len(self.open)
        for seconds, most in (
            (60, self.limits.requests_per_minute),
            (3_600, self.limits.requests_per_hour),
        ):
            recent = [t for t in self.admitted_ns if t > now - seconds * 10**9]
            assert most is None or len(recent) <= most
        tokens = sum(n for t, n in self.minute_tokens.values() if t > now - 60 * 10**9)
        most_tokens = self.limits.tokens_per_minute
        assert most_tokens is None or tokens <= most_tokens

    def settle_all(self) -> None:
        while self.open:
            self.settle(Settle(0, 0.5, OutcomeStatus.CANCELLED))
        self.check()
        for quota in self.meter.standing().quotas:
            assert quota.reserved == 0

    def left_open(self) -> int:
        return len(LedgerStore(self._databases[-1]).left_open())

    def entries(self) -> int:
        return int(self._sum("count(*)", 0, 2**62))

    def _booked(self, key: str, now: int) -> int:
        """The sum of the entries themselves, which the counters must agree with."""
        period = day_of(now) if "day" in key else month_of(now)
        column = "cost_nano" if "cost" in key else "tokens"
        return self._sum(f"coalesce(sum({column}), 0)", period.start_ns, period.end_ns)

    def _sum(self, what: str, start: int, end: int) -> int:
        query = f"SELECT {what} FROM entries WHERE ts_ns >= ? AND ts_ns < ?"  # noqa: S608 - names of columns
        ((number,),) = self._databases[-1].read(
            lambda tx: tx.execute(query, (start, end)).fetchall()
        )
        assert isinstance(number, int)
        return number

    def _count(self, reservation: Reservation, usage: TokenUsage) -> None:
        when, _ = self.minute_tokens[reservation.id]
        self.minute_tokens[reservation.id] = (when, usage.total)


@pytest.fixture(scope="module", autouse=True)
def fold_often() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("appliance.storage.ledger.FOLD_EVERY", 3)
        yield


@contextmanager
def world(limits: Quotas) -> Iterator[World]:
    with tempfile.TemporaryDirectory() as path:
        yield World(limits, Path(path))


@settings(max_examples=150)
@given(limits=quotas, steps=steps)
def test_no_limit_is_passed_and_the_books_balance(limits: Quotas, steps: list[Step]) -> None:
    async def play(world: World) -> None:
        await world.start()
        for step in steps:
            await world.take(step)
        world.settle_all()
        assert world.left_open() == 0
        assert world.entries() == len(world.admitted_ns)
        await world.stop()

    with world(limits) as it:
        trio.run(play, it)


@dataclass(frozen=True)
class Client:
    prompt: int
    output: int
    starts: int  # checkpoints before it asks
    lasts: int  # checkpoints of the call
    cancelled_after: int  # checkpoints of the whole


clients = st.builds(
    Client,
    prompt=st.integers(8, 40),
    output=st.integers(0, 40),
    starts=st.integers(0, 3),
    lasts=st.integers(0, 4),
    cancelled_after=st.integers(0, 12),
)


@settings(max_examples=60)
@given(limits=quotas, clients=st.lists(clients, max_size=25))
def test_calls_that_run_together_and_are_cancelled_anywhere_leave_nothing_behind(
    limits: Quotas, clients: list[Client]
) -> None:
    async def one(world: World, client: Client) -> None:
        for _ in range(client.starts):
            await trio.lowlevel.checkpoint()
        try:
            reservation = world.meter.reserve(
                spend(prompt_tokens=client.prompt, output_limit=client.output)
            )
        except ApplianceError:
            return
        world.open.append(reservation)
        now = to_ns(world.clock())
        world.admitted_ns.append(now)
        tokens = reservation.estimate_input + reservation.estimate_output
        world.minute_tokens[reservation.id] = (now, tokens)
        world.check()
        result: Outcome = outcome(TokenUsage(input=1), status=OutcomeStatus.CANCELLED)
        try:
            for _ in range(client.lasts):
                await trio.lowlevel.checkpoint()
            result = outcome(TokenUsage(input=client.prompt, output=reservation.estimate_output))
        finally:
            settlement = world.meter.settle(reservation, result)
            world.open.remove(reservation)
            world.minute_tokens[reservation.id] = (now, settlement.usage.total)
            world.check()
        await world.meter.durable()

    async def cancellable(world: World, client: Client) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, world, client)
            for _ in range(client.cancelled_after):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    async def play(world: World) -> None:
        await world.start()
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(cancellable, world, client)
        assert world.open == []
        world.settle_all()
        assert world.left_open() == 0
        assert world.entries() == len(world.admitted_ns)
        await world.stop()

    with world(limits) as it:
        trio.run(play, it)
