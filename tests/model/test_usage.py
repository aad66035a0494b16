"""Usage: five classes that do not overlap, and what they cost."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from appliance.model.money import Price, PriceStep
from appliance.model.usage import TokenUsage

PRICE = Price(input=3_000, output=15_000, cache_read=300, cache_write=3_750, reasoning=15_000)

counts = st.integers(0, 10**7)
usages = st.builds(TokenUsage, counts, counts, counts, counts, counts)
rates = st.integers(0, 10**12)
prices = st.builds(Price, rates, rates, rates, rates, rates)


def test_the_classes_add_up_as_openai_counts_them() -> None:
    usage = TokenUsage(input=1, output=20, cache_read=300, cache_write=4_000, reasoning=50_000)
    assert usage.prompt == 4_301
    assert usage.completion == 50_020
    assert usage.total == 54_321


def test_each_class_costs_its_own_price() -> None:
    million = 10**6
    for usage, cost in (
        (TokenUsage(input=million), 3_000),
        (TokenUsage(output=million), 15_000),
        (TokenUsage(cache_read=million), 300),
        (TokenUsage(cache_write=million), 3_750),
        (TokenUsage(reasoning=million), 15_000),
    ):
        assert usage.cost(PRICE) == cost


def test_what_is_kept_for_an_hour_costs_twice_what_it_costs_to_read() -> None:
    million = 10**6
    usage = TokenUsage(cache_write=million, cache_write_hour=million // 2)

    assert usage.total == usage.prompt == million
    assert usage.cost(PRICE) == (3_750 + 6_000) // 2
    assert TokenUsage(cache_write=million, cache_write_hour=9 * million).cost(PRICE) == 6_000
    dear = Price(input=1, output=0, cache_read=0, cache_write=3, reasoning=0)
    assert TokenUsage(cache_write=million, cache_write_hour=million).cost(dear) == 3


def test_a_cost_is_rounded_once_half_up() -> None:
    half = Price(500_000, 500_000, 0, 0, 0)
    assert TokenUsage(input=1).cost(half) == 1
    assert TokenUsage(input=1, output=1).cost(half) == 1
    assert TokenUsage(input=1).cost(Price(499_999, 0, 0, 0, 0)) == 0


def test_the_whole_prompt_decides_the_step() -> None:
    double = Price(2 * 10**6, 2 * 10**6, 0, 0, 0)
    stepped = Price(10**6, 10**6, 0, 0, 0, steps=(PriceStep(100, double),))
    assert TokenUsage(input=40, cache_read=60, output=1).cost(stepped) == 41
    assert TokenUsage(input=40, cache_read=61, output=1).cost(stepped) == 82


@given(usages, prices)
def test_a_cost_is_exact_to_half_a_nano_unit(usage: TokenUsage, price: Price) -> None:
    micro = sum(
        getattr(usage, name) * getattr(price, name)
        for name in ("input", "output", "cache_read", "cache_write", "reasoning")
    )
    assert abs(usage.cost(price) - Fraction(micro, 10**6)) <= Fraction(1, 2)
