"""Budgets: what is left of one, when it begins anew, and that no estimate falls short."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from appliance.model.errors import QuotaExceeded
from appliance.model.money import FREE, NANO, Price, PriceStep
from appliance.model.periods import SECOND, day_of, month_of, to_ns
from appliance.model.quotas import Quotas
from appliance.model.usage import TokenUsage
from appliance.services.budgets import (
    MOST_COST,
    Budget,
    Tally,
    affordable_output,
    budgets,
    worst_cost,
)
from tests.books import NOON, PRICE

NOW = to_ns(NOON)
TOKENS = Budget("tokens_per_day", 100, in_money=False, monthly=False)
MONEY = Budget("cost_per_month", 50 * NANO, in_money=True, monthly=True)

amounts = st.integers(0, 10**12)
flat_prices = st.builds(Price, amounts, amounts, amounts, amounts, amounts)
counts = st.integers(0, 10**7)


@st.composite
def stepped_prices(draw: st.DrawFn) -> Price:
    """A price that grows, class by class, with the length of the prompt."""
    base, more = draw(flat_prices), draw(flat_prices)
    dearer = Price(
        base.input + more.input,
        base.output + more.output,
        base.cache_read + more.cache_read,
        base.cache_write + more.cache_write,
        base.reasoning + more.reasoning,
    )
    return replace(base, steps=(PriceStep(draw(counts), dearer),))


maybe = st.none() | amounts
whole_prices = st.builds(
    replace, flat_prices, input_audio=maybe, output_audio=maybe, web_search=maybe
)
prices = flat_prices | stepped_prices() | whole_prices
searches = st.integers(0, 1_000)


class TestTallies:
    def test_what_is_used_and_what_is_reserved_both_count(self) -> None:
        tally = Tally(day_of(NOW))
        tally.use(30, 5)
        tally.reserve(20, 7)

        assert (TOKENS.used(tally), TOKENS.reserved(tally), TOKENS.left(tally)) == (30, 20, 50)
        assert (MONEY.used(tally), MONEY.reserved(tally)) == (5, 7)
        assert MONEY.left(tally) == 50 * NANO - 12

    def test_a_reservation_that_is_released_leaves_nothing_behind(self) -> None:
        tally = Tally(day_of(NOW))
        tally.reserve(20, 7)
        tally.reserve(1, 2)
        tally.release(20, 7)

        assert (tally.reserved_tokens, tally.reserved_cost) == (1, 2)

    def test_a_budget_that_is_overdrawn_has_less_than_nothing_left(self) -> None:
        tally = Tally(day_of(NOW), tokens=130)

        assert TOKENS.left(tally) == -30

    def test_a_credit_makes_room(self) -> None:
        tally = Tally(month_of(NOW), cost=50 * NANO)
        tally.use(0, -NANO)

        assert MONEY.left(tally) == NANO


class TestBudgets:
    def test_only_limits_that_are_set_are_budgets(self) -> None:
        assert budgets(Quotas()) == ()
        assert budgets(Quotas(requests_per_minute=5, soft_tokens_per_day=1)) == ()
        assert budgets(Quotas(tokens_per_day=100, cost_per_month=50 * NANO)) == (TOKENS, MONEY)

    def test_nothing_at_all_is_a_budget_too(self) -> None:
        assert [budget.limit for budget in budgets(Quotas(tokens_per_day=0))] == [0]

    def test_the_soft_ones_have_names_of_their_own(self) -> None:
        quotas = Quotas(tokens_per_day=100, soft_tokens_per_day=80, soft_cost_per_month=NANO)

        assert budgets(quotas, prefix="soft_") == (
            Budget("soft_tokens_per_day", 80, in_money=False, monthly=False),
            Budget("soft_cost_per_month", NANO, in_money=True, monthly=True),
        )

    @pytest.mark.parametrize(
        ("key", "in_money", "monthly"),
        [
            ("tokens_per_day", False, False),
            ("tokens_per_month", False, True),
            ("cost_per_day", True, False),
            ("cost_per_month", True, True),
        ],
    )
    def test_a_budget_is_in_tokens_or_money_for_a_day_or_a_month(
        self, key: str, *, in_money: bool, monthly: bool
    ) -> None:
        (budget,) = budgets(replace(Quotas(), **{key: 1}))

        assert budget == Budget(key, 1, in_money=in_money, monthly=monthly)


class TestExceeded:
    def test_it_says_what_was_used_and_when_the_next_day_begins(self) -> None:
        refusal = TOKENS.exceeded(Tally(day_of(NOW), tokens=99), NOW)

        assert isinstance(refusal, QuotaExceeded)
        assert refusal.detail == (
            "tokens_per_day is limited to 100 and 99 is used; it resets at 2026-11-22T00:00:00Z"
        )
        assert refusal.retry_after == 12 * 3_600
        assert refusal.facts == {
            "quota": "tokens_per_day",
            "limit": 100,
            "resets_at": "2026-11-22T00:00:00Z",
        }

    def test_money_is_written_as_a_decimal(self) -> None:
        refusal = MONEY.exceeded(Tally(month_of(NOW), cost=49_990_000_000), NOW)

        assert refusal.detail == (
            "cost_per_month is limited to 50.00 and 49.99 is used; "
            "it resets at 2026-12-01T00:00:00Z"
        )
        assert refusal.facts["limit"] == "50.00"
        assert refusal.retry_after == (9 * 24 + 12) * 3_600

    def test_where_nothing_may_be_spent_it_says_so(self) -> None:
        refusal = replace(TOKENS, limit=0).exceeded(Tally(day_of(NOW)), NOW)

        assert refusal.detail == "tokens_per_day is 0: this tenant may not spend any"
        assert refusal.facts["limit"] == 0
        assert refusal.retry_after is None  # no day is long enough

    @pytest.mark.parametrize(
        ("before_end_ns", "seconds"),
        [(1, 1), (SECOND, 1), (SECOND + 1, 2), (86_400 * SECOND, 86_400)],
    )
    def test_who_waits_as_long_as_it_says_is_not_too_early(
        self, before_end_ns: int, seconds: int
    ) -> None:
        day = day_of(NOW)

        assert TOKENS.exceeded(Tally(day), day.end_ns - before_end_ns).retry_after == seconds


class TestWorstCost:
    @pytest.mark.parametrize(
        ("price", "input_tokens", "output_tokens", "cost"),
        [
            (PRICE, 0, 0, 0),
            (PRICE, 10, 0, 12_500),  # as if all of it were written to the cache
            (PRICE, 0, 10, 20_000),
            (FREE, 10**9, 10**9, 0),
            (Price(1, 0, 0, 0, 0), 1, 0, 1),  # a millionth of a nano-unit is rounded up
            (Price(0, 1, 0, 0, 3), 0, 1_000_000, 3),
            (Price(0, 0, 5, 0, 0), 1_000_000, 0, 5),
            (Price(10**30, 0, 0, 0, 0), 10**9, 0, MOST_COST),
            (replace(PRICE, input_audio=3 * NANO, output_audio=4 * NANO), 10, 10, 30_000 + 40_000),
            (replace(PRICE, input_audio=0, output_audio=0), 10, 10, 12_500 + 20_000),
        ],
    )
    def test_every_token_is_taken_at_its_dearest(
        self, price: Price, input_tokens: int, output_tokens: int, cost: int
    ) -> None:
        assert worst_cost(price, input_tokens=input_tokens, output_tokens=output_tokens) == cost

    def test_a_long_prompt_is_taken_at_the_price_of_its_step(self) -> None:
        price = replace(FREE, steps=(PriceStep(100, PRICE),))

        assert worst_cost(price, input_tokens=100, output_tokens=10) == 0
        assert worst_cost(price, input_tokens=101, output_tokens=10) == 126_250 + 20_000

    def test_searches_are_paid_beside_the_tokens(self) -> None:
        price = replace(PRICE, web_search=10 * NANO)

        assert worst_cost(price, input_tokens=0, output_tokens=0, searches=3) == NANO * 3 // 100
        assert worst_cost(PRICE, input_tokens=0, output_tokens=0, searches=3) == 0

    @given(
        prices,
        st.tuples(counts, counts, counts),
        st.tuples(counts, counts),
        st.tuples(counts, counts, searches),
        st.tuples(counts, counts, searches),
    )
    def test_no_call_within_the_estimate_costs_more(
        self,
        price: Price,
        prompt: tuple[int, int, int],
        answer: tuple[int, int],
        more: tuple[int, int, int],
        unused: tuple[int, int, int],
    ) -> None:
        heard, spoken, searched = more
        usage = TokenUsage(
            prompt[0],
            answer[0],
            prompt[1],
            prompt[2],
            answer[1],
            input_audio=heard,
            output_audio=spoken,
            web_searches=searched,
        )
        worst = worst_cost(
            price,
            input_tokens=usage.prompt + unused[0],
            output_tokens=usage.completion + unused[1],
            searches=usage.web_searches + unused[2],
        )

        assert usage.cost(price) <= worst


class TestAffordableOutput:
    @pytest.mark.parametrize(
        ("money", "wanted", "tokens"),
        [
            (12_499, 100, -1),  # not even the ten tokens of the prompt
            (12_500, 100, 0),
            (14_499, 100, 0),
            (14_500, 100, 1),
            (32_500, 100, 10),
            (10**15, 100, 100),
            (-1, 100, -1),
        ],
    )
    def test_money_buys_the_prompt_first_and_then_as_much_answer_as_is_left(
        self, money: int, wanted: int, tokens: int
    ) -> None:
        assert affordable_output(PRICE, input_tokens=10, money=money, wanted=wanted) == tokens

    def test_a_free_answer_may_be_as_long_as_it_likes_if_the_prompt_is_paid(self) -> None:
        price = Price(1_000_000, 0, 0, 0, 0)

        assert affordable_output(price, input_tokens=5, money=5, wanted=77) == 77
        assert affordable_output(price, input_tokens=5, money=4, wanted=77) == -1
        assert affordable_output(FREE, input_tokens=5, money=0, wanted=77) == 77

    @given(prices, counts, st.integers(0, MOST_COST - 1), counts, searches)
    def test_one_token_more_than_can_be_bought_would_not_fit(
        self, price: Price, tokens: int, money: int, wanted: int, searched: int
    ) -> None:
        output = affordable_output(
            price, input_tokens=tokens, money=money, wanted=wanted, searches=searched
        )
        assume(output < wanted)

        worst = worst_cost(price, input_tokens=tokens, output_tokens=output + 1, searches=searched)
        assert worst > money

    @given(prices, counts, st.integers(0, MOST_COST - 1), counts, searches)
    def test_never_more_than_wanted_and_never_more_than_there_is_money_for(
        self, price: Price, tokens: int, money: int, wanted: int, searched: int
    ) -> None:
        output = affordable_output(
            price, input_tokens=tokens, money=money, wanted=wanted, searches=searched
        )

        assert -1 <= output <= wanted
        if output >= 0:
            worst = worst_cost(price, input_tokens=tokens, output_tokens=output, searches=searched)
            assert worst <= money
