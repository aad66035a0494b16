"""The meter of one tenant: reserve before a call, settle after it, in one ledger.

``reserve`` and ``settle`` never await, so nothing can happen between a check
and what it allows: two hundred calls that arrive together pass the limits one
after the other. What the meter counts in memory is what the ledger holds; it
is rebuilt from there when the tenant wakes up.

A call counts on the day, in the month and in the windows in which it was
admitted, whenever it ends, because that is where room was kept for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from appliance.model.errors import ApplianceError, ModelUnpriced
from appliance.model.money import Price
from appliance.model.periods import HOUR, Period, day_of, month_of, to_ns
from appliance.model.quotas import Quotas
from appliance.model.spending import (
    Outcome,
    OutcomeStatus,
    QuotaStanding,
    Reservation,
    Settlement,
    SpendRequest,
    Standing,
    rate_headers,
)
from appliance.model.usage import TokenUsage
from appliance.services.budgets import (
    BUDGET_KEYS,
    MOST_COST,
    Budget,
    Tally,
    affordable_output,
    budget_headers,
    budgets,
    worst_cost,
)
from appliance.services.estimates import ASSUMED_OUTPUT, input_to_reserve, usage_of
from appliance.services.rates import Burst, Rates, rate_limited
from appliance.storage.ledger import Entry, LedgerStore
from appliance.storage.sandbox_entries import SandboxEntry

Clock = Callable[[], datetime]  # aware, UTC


@dataclass(slots=True, eq=False)
class _Hold:
    """What a reservation occupies until it is settled."""

    reservation: Reservation
    ts_ns: int
    tokens: int
    cost: int
    day: Tally
    month: Tally
    burst: Burst


class Meter:
    """Counts, limits and books what one tenant spends. One per awake tenant."""

    def __init__(
        self,
        store: LedgerStore,
        *,
        limits: Quotas,
        clock: Clock,
        currency: str,
        assumed_output: int = ASSUMED_OUTPUT,
    ) -> None:
        self.assumed_output = assumed_output
        self._store = store
        self._clock = clock
        self._currency = currency
        self._holds: dict[int, _Hold] = {}  # oldest first: ids only grow
        self._unwritten: dict[int, Outcome] = {}  # settled while the disk was full
        self._rates = Rates()
        now = self._now()
        self._day = self._load(day_of(now))
        self._month = self._load(month_of(now))
        self.limits = limits
        for budget in self._soft:
            tally = self._tally(budget)
            if budget.used(tally) >= budget.limit:
                tally.told.add(budget.key)  # before this process was

    @classmethod
    async def open(
        cls,
        store: LedgerStore,
        *,
        limits: Quotas,
        clock: Clock,
        currency: str,
        assumed_output: int = ASSUMED_OUTPUT,
    ) -> "Meter":
        """Take up where the ledger ends.

        Calls that a crash interrupted are settled as crashed, at the cost of
        their estimated input: the provider has most likely read it, and what
        it answered nobody knows.
        """
        now = to_ns(clock())
        _settle_crashed(store, now_ns=now, currency=currency)
        meter = cls(
            store, limits=limits, clock=clock, currency=currency, assumed_output=assumed_output
        )
        await meter.load_windows(now)
        return meter

    async def load_windows(self, now_ns: int) -> None:
        """Fill the empty windows with the calls of the last hour."""
        for past in await self._store.recent(now_ns - HOUR, now_ns + 1):
            self._rates.load(past.first_ns, past.last_ns, calls=past.calls, tokens=past.tokens)

    @property
    def limits(self) -> Quotas:
        """May be replaced at any time; calls under way keep what they were given."""
        return self._limits

    @limits.setter
    def limits(self, limits: Quotas) -> None:
        self._limits = limits
        self._budgets = budgets(limits)
        self._soft = budgets(limits, prefix="soft_")

    def reserve(self, request: SpendRequest) -> Reservation:
        """Keep room for a call, or refuse it; a refused call consumes nothing.

        Whoever gets a reservation settles it on every way out.

        Raises :exc:`RateLimited`, :exc:`QuotaExceeded`, :exc:`ModelUnpriced`
        (a budget in money, and nobody knows the price), :exc:`DiskFull`.
        """
        self._write_late()
        self._store.fold_when_due(next(iter(self._holds), None))
        now = self._now()
        self._turn_page(now)
        self._check_rates(now)
        price = request.price
        tokens_in = input_to_reserve(request.prompt_bytes, request.searches)
        asked = request.output_limit
        wanted = max(self.assumed_output, request.choices) if asked is None else asked
        tokens_out = self._fit(request, now, tokens_in=tokens_in, wanted=wanted)
        cost = None
        if price is not None:
            cost = worst_cost(
                price,
                input_tokens=tokens_in,
                output_tokens=tokens_out,
                searches=request.searches,
            )
        number = self._store.reserve(
            now,
            request,
            # What a crash is billed at: how often was searched until then nobody knows.
            input_tokens=input_to_reserve(request.prompt_bytes),
            output_tokens=tokens_out,
            cost_nano=cost,
        )
        in_force = self._budgets or self._limits.tokens_per_minute is not None
        reservation = Reservation(
            id=number,
            request=request,
            estimate_input=tokens_in,
            estimate_output=tokens_out,
            estimate_cost=cost,
            output_limit=tokens_out if in_force else None,
        )
        self._hold(reservation, now)
        return reservation

    def count_request(self) -> None:
        """Count a request that uses nothing of a model; it stands in no book.

        Raises :exc:`RateLimited`.
        """
        now = self._now()
        self._rates.check_call(now, self._limits)
        self._rates.add(now, tokens=0)

    def settle(self, reservation: Reservation, outcome: Outcome) -> Settlement:
        """Book what a call used and give back what it did not; a second time does nothing.

        Raises :exc:`DiskFull` or :exc:`TenantBroken` if it cannot be written;
        the outcome is then kept, with its room in the budgets, and written
        before the next call is admitted.
        """
        if reservation.settlement is not None:
            return reservation.settlement
        hold = self._holds[reservation.id]
        entry = self._entry(hold, outcome)
        try:
            self._store.settle([entry])
        except ApplianceError:
            self._unwritten[reservation.id] = outcome
            raise
        self._unwritten.pop(reservation.id, None)
        return self._release(hold, entry)

    def book_sandbox(self, entry: SandboxEntry) -> None:
        """Write down what a sandbox used. Raises :exc:`DiskFull` or :exc:`TenantBroken`."""
        self._store.fold_when_due(next(iter(self._holds), None))
        self._store.record_sandbox(entry, currency=self._currency)

    async def durable(self) -> None:
        """Return when all that was reserved and settled so far is on disk."""
        self._write_late()
        await self._store.durable()

    def correct(self, entry_id: int, *, cost_nano: int, note: str) -> bool:
        """Credit (negative) or charge an entry; it counts today. False: there is no such entry."""
        now = self._now()
        self._turn_page(now)
        if not self._store.correct(entry_id, now_ns=now, cost_nano=cost_nano, note=note):
            return False
        self._day.use(0, cost_nano)
        self._month.use(0, cost_nano)
        return True

    def standing(self) -> Standing:
        """Where the tenant stands now, limits that are not set included."""
        now = self._now()
        self._turn_page(now)
        limits = self._limits
        quotas = [self._budget_standing(key) for key in BUDGET_KEYS]
        quotas += self._rates.standings(now, limits)
        quotas.append(
            QuotaStanding(
                "concurrent_requests", limits.concurrent_requests, None, len(self._holds), 0, None
            )
        )
        return Standing(
            tuple(quotas),
            self._rates.requests(now, limits),
            self._rates.tokens(now, limits),
            self.soft_limits_reached(),
        )

    def rate_headers(self) -> dict[str, str]:
        """``x-ratelimit-*`` for an answer; a rate without a limit has none."""
        now, limits = self._now(), self._limits
        return rate_headers(self._rates.requests(now, limits), self._rates.tokens(now, limits))

    def budget_headers(self) -> dict[str, str]:
        """``x-openclaw-budget-*`` for an answer; empty where no budget is set."""
        if not self._budgets:
            return {}
        now = self._now()
        self._turn_page(now)
        return budget_headers([(each, self._tally(each)) for each in self._budgets], now)

    def soft_limits_reached(self) -> tuple[str, ...]:
        """The soft limits that are reached now, whoever was told of them."""
        self._turn_page(self._now())
        return tuple(b.key for b in self._soft if b.used(self._tally(b)) >= b.limit)

    def _now(self) -> int:
        return to_ns(self._clock())

    def _load(self, period: Period) -> Tally:
        sums = self._store.sums(period.start_ns, period.end_ns)
        return Tally(period, tokens=sums.tokens, cost=sums.cost_nano)

    def _tally(self, budget: Budget) -> Tally:
        return self._month if budget.monthly else self._day

    def _turn_page(self, now: int) -> None:
        """Begin a new day and month when it is time, be it because the clock was set back."""
        if now not in self._day.period:
            self._day = self._tally_of(day_of(now))
        if now not in self._month.period:
            self._month = self._tally_of(month_of(now))

    def _tally_of(self, period: Period) -> Tally:
        for hold in self._holds.values():
            for tally in (hold.day, hold.month):
                if tally.period == period:
                    return tally
        return self._load(period)

    def _check_rates(self, now: int) -> None:
        limits = self._limits
        limit = limits.concurrent_requests
        if limit is not None and len(self._holds) >= limit:
            raise rate_limited("concurrent_requests", limit, 1.0 if limit else None)
        self._rates.check_call(now, limits)

    def _fit(self, request: SpendRequest, now: int, *, tokens_in: int, wanted: int) -> int:
        """How many output tokens the tightest limit allows, at most ``wanted``."""
        # A call that generates needs room for one token of each choice at least.
        needed = min(request.choices, wanted)
        limit = self._limits.tokens_per_minute
        if limit is not None:
            room = self._rates.room_for_output(now, limit, tokens_in=tokens_in, needed=needed)
            wanted = min(wanted, room)
        for budget in self._budgets:
            tally = self._tally(budget)
            left = budget.left(tally)
            if not budget.in_money:
                room = left - tokens_in
            elif request.price is not None:
                room = affordable_output(
                    request.price,
                    input_tokens=tokens_in,
                    money=left,
                    wanted=wanted,
                    searches=request.searches,
                )
            else:
                raise _unpriced(request.model, budget)
            if room < needed or budget.limit == 0:
                raise budget.exceeded(tally, now)
            wanted = min(wanted, room)
        return wanted

    def _hold(self, reservation: Reservation, now: int) -> None:
        tokens = reservation.estimate_input + reservation.estimate_output
        cost = reservation.estimate_cost or 0
        burst = self._rates.add(now, tokens=tokens)
        self._day.reserve(tokens, cost)
        self._month.reserve(tokens, cost)
        self._holds[reservation.id] = _Hold(
            reservation, now, tokens, cost, self._day, self._month, burst
        )

    def _release(self, hold: _Hold, entry: Entry) -> Settlement:
        del self._holds[entry.id]
        tokens, cost = entry.usage.total, entry.cost_nano or 0
        for tally in (hold.day, hold.month):
            tally.release(hold.tokens, hold.cost)
            tally.use(tokens, cost)
        self._rates.adjust(hold.burst, tokens - hold.tokens)
        reached = self._newly_reached(hold) if self._soft else ()
        settlement = Settlement(entry.usage, entry.cost_nano, reached)
        hold.reservation.settlement = settlement
        return settlement

    def _newly_reached(self, hold: _Hold) -> tuple[str, ...]:
        """The soft limits that nobody has been told of in their period."""
        reached = []
        for budget in self._soft:
            tally = hold.month if budget.monthly else hold.day
            if budget.key not in tally.told and budget.used(tally) >= budget.limit:
                tally.told.add(budget.key)
                reached.append(budget.key)
        return tuple(reached)

    def _entry(self, hold: _Hold, outcome: Outcome) -> Entry:
        usage = usage_of(hold.reservation.request, outcome)
        return Entry(
            id=hold.reservation.id,
            ts_ns=hold.ts_ns,
            settled_ns=self._now(),
            request=hold.reservation.request,
            provider=outcome.provider,
            model=outcome.model,
            usage=usage,
            cost_nano=cost_of(usage, outcome.price),
            currency=self._currency,
            price=outcome.price,
            outcome=outcome.status,
            provider_request_id=_storable(outcome.provider_request_id),
            tool_calls=outcome.tool_calls,
            sandbox_ms=outcome.sandbox_ms,
        )

    def _write_late(self) -> None:
        """Settle what could not be written when it ended."""
        for number, outcome in list(self._unwritten.items()):
            self.settle(self._holds[number].reservation, outcome)

    def _budget_standing(self, key: str) -> QuotaStanding:
        limits = self._limits
        tally = self._month if "month" in key else self._day
        used, reserved = (
            (tally.cost, tally.reserved_cost)
            if "cost" in key
            else (tally.tokens, tally.reserved_tokens)
        )
        return QuotaStanding(
            key,
            limit=getattr(limits, key),
            soft_limit=getattr(limits, f"soft_{key}"),
            used=used,
            reserved=reserved,
            resets_at=tally.period.end,
        )


def cost_of(usage: TokenUsage, price: Price | None) -> int | None:
    """Nano-units, None if the price is unknown; what used nothing costs nothing."""
    if usage.total == 0 and usage.web_searches == 0:
        return 0
    return None if price is None else min(usage.cost(price), MOST_COST)


def _settle_crashed(store: LedgerStore, *, now_ns: int, currency: str) -> None:
    entries = []
    for left in store.left_open():
        usage = TokenUsage(input=left.input_tokens, estimated=True)
        entries.append(
            Entry(
                id=left.id,
                ts_ns=left.ts_ns,
                settled_ns=now_ns,
                request=left.request,
                provider="",
                model=left.request.model,
                usage=usage,
                cost_nano=cost_of(usage, left.request.price),
                currency=currency,
                price=left.request.price,
                outcome=OutcomeStatus.CRASHED,
            )
        )
    if entries:
        store.settle(entries)
    store.fold_rest()


def _storable(text: str | None) -> str | None:
    """Text from a provider's header, which may be anything, as the ledger can hold it."""
    if text is None or text.isascii():
        return text
    return text.encode(errors="replace").decode()


def _unpriced(model: str, budget: Budget) -> ModelUnpriced:
    return ModelUnpriced(
        f"{budget.key} is limited, and the price of {model!r} is not known; "
        "the operator can set it in models.rate_card, to 0 if it is free",
        model=model,
        quota=budget.key,
    )
