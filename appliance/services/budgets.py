"""How much a tenant may use in a day or a month, in tokens and in money."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

from appliance.model.errors import ApplianceError, QuotaExceeded
from appliance.model.money import Price
from appliance.model.periods import SECOND, Period
from appliance.model.quotas import Quotas, render_limit

_PER = 1_000_000  # tokens a price is for
# No call costs more: what would is a slip in a price, and must not overflow the books.
MOST_COST = 10**17  # nano-units


@dataclass(slots=True, eq=False)
class Tally:
    """What was used and is reserved in one day or month."""

    period: Period
    tokens: int = 0
    cost: int = 0  # nano-units
    reserved_tokens: int = 0
    reserved_cost: int = 0
    told: set[str] = field(default_factory=set)  # soft limits already reported

    def reserve(self, tokens: int, cost: int) -> None:
        self.reserved_tokens += tokens
        self.reserved_cost += cost

    def release(self, tokens: int, cost: int) -> None:
        self.reserved_tokens -= tokens
        self.reserved_cost -= cost

    def use(self, tokens: int, cost: int) -> None:
        self.tokens += tokens
        self.cost += cost


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit of tokens or money in a day or a month."""

    key: str
    limit: int
    in_money: bool
    monthly: bool

    def used(self, tally: Tally) -> int:
        return tally.cost if self.in_money else tally.tokens

    def reserved(self, tally: Tally) -> int:
        return tally.reserved_cost if self.in_money else tally.reserved_tokens

    def left(self, tally: Tally) -> int:
        return self.limit - self.used(tally) - self.reserved(tally)

    def exceeded(self, tally: Tally, now_ns: int) -> ApplianceError:
        limit = render_limit(self.key, self.limit)
        used = render_limit(self.key, self.used(tally))
        resets_at = f"{tally.period.end:%Y-%m-%dT%H:%M:%SZ}"
        if self.limit == 0:
            detail = f"{self.key} is 0: this tenant may not spend any"
        else:
            detail = (
                f"{self.key} is limited to {limit} and {used} is used; it resets at {resets_at}"
            )
        return QuotaExceeded(
            detail,
            # Of nothing there is no more tomorrow.
            retry_after=ceil((tally.period.end_ns - now_ns) / SECOND) if self.limit else None,
            quota=self.key,
            limit="" if limit is None else limit,
            resets_at=resets_at,
        )


BUDGET_KEYS = ("tokens_per_day", "tokens_per_month", "cost_per_day", "cost_per_month")


def budgets(quotas: Quotas, *, prefix: str = "") -> tuple[Budget, ...]:
    """The budgets that are set; ``prefix`` "soft_" gives the soft ones."""
    limits = ((key, getattr(quotas, prefix + key)) for key in BUDGET_KEYS)
    return tuple(
        Budget(prefix + key, limit, in_money="cost" in key, monthly="month" in key)
        for key, limit in limits
        if limit is not None
    )


def tightest(held: Sequence[tuple[Budget, Tally]]) -> tuple[Budget, Tally] | None:
    """The budget that leaves least, None if none is set."""
    return min(held, key=lambda each: each[0].left(each[1]), default=None)


def budget_headers(held: Sequence[tuple[Budget, Tally]], now_ns: int) -> dict[str, str]:
    """``x-openclaw-budget-{limit,remaining,reset}-{tokens,cost}``.

    Of each kind the budget that leaves least, of the day's and the month's.
    ``reset`` is in seconds, as the rates' are.
    """
    headers: dict[str, str] = {}
    for kind in ("tokens", "cost"):
        found = tightest([each for each in held if each[0].in_money == (kind == "cost")])
        if found is None:
            continue
        budget, tally = found
        left = max(0, budget.left(tally))
        headers[f"x-openclaw-budget-limit-{kind}"] = str(render_limit(budget.key, budget.limit))
        headers[f"x-openclaw-budget-remaining-{kind}"] = str(render_limit(budget.key, left))
        reset = max(0, ceil((tally.period.end_ns - now_ns) / SECOND))
        headers[f"x-openclaw-budget-reset-{kind}"] = f"{reset}s"
    return headers


def worst_cost(price: Price, *, input_tokens: int, output_tokens: int, searches: int = 0) -> int:
    """The most that so much can cost, rounded up: each token at its dearest class."""
    price = price.at(input_tokens)
    cost = _input_cost(price, input_tokens, searches) + output_tokens * _dearest_output(price)
    return min(-(-cost // _PER), MOST_COST)


def affordable_output(
    price: Price, *, input_tokens: int, money: int, wanted: int, searches: int = 0
) -> int:
    """How many of ``wanted`` output tokens ``money`` buys beside the input and the searches.

    Negative if it does not even buy those.
    """
    price = price.at(input_tokens)
    spare = money * _PER - _input_cost(price, input_tokens, searches)
    if spare < 0:
        return -1
    each = _dearest_output(price)
    return wanted if each == 0 else min(wanted, spare // each)


def _input_cost(price: Price, tokens: int, searches: int) -> int:
    # A price of searches is for a thousand of them.
    return tokens * _dearest_input(price) + searches * (price.web_search or 0) * (_PER // 1_000)


def _dearest_input(price: Price) -> int:
    # Which part of a prompt is cached, or sound, is known only afterwards.
    return max(price.input, price.cache_read, price.cache_write, price.input_audio or 0)


def _dearest_output(price: Price) -> int:
    return max(price.output, price.reasoning, price.output_audio or 0)
