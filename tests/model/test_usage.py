"""Usage: five classes that do not overlap, and what they cost."""

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.money import Price, PriceStep
from appliance.model.usage import MOST_TOKENS, TokenUsage

PRICE = Price(input=3_000, output=15_000, cache_read=300, cache_write=3_750, reasoning=15_000)

counts = st.integers(0, 10**7)
usages = st.builds(TokenUsage, counts, counts, counts, counts, counts)
rates = st.integers(0, 10**12)
prices = st.builds(Price, rates, rates, rates, rates, rates)
maybe = st.none() | rates
# Of all kinds, and of what is in each: text, sound, searches.
whole_prices = st.builds(
    Price,
    rates,
    rates,
    rates,
    rates,
    rates,
    input_audio=maybe,
    output_audio=maybe,
    web_search=maybe,
)
KINDS = (
    "text",
    "heard",
    "said",
    "spoken",
    "cache_read",
    "cache_write",
    "reasoning",
    "web_searches",
)
parts = st.fixed_dictionaries(dict.fromkeys(KINDS, counts))


def used(kinds: Mapping[str, int]) -> TokenUsage:
    """Of tokens that are text or sound, never both."""
    return TokenUsage(
        input=kinds["text"] + kinds["heard"],
        output=kinds["said"] + kinds["spoken"],
        cache_read=kinds["cache_read"],
        cache_write=kinds["cache_write"],
        reasoning=kinds["reasoning"],
        input_audio=kinds["heard"],
        output_audio=kinds["spoken"],
        web_searches=kinds["web_searches"],
    )


@pytest.mark.parametrize(
    "name",
    [
        "input", "output", "cache_read", "cache_write", "reasoning",
        "input_audio", "output_audio", "web_searches",
    ],
)  # fmt: skip
def test_counts_lie_between_nothing_and_what_can_be(name: str) -> None:
    most = 10_000 if name == "web_searches" else MOST_TOKENS

    for count, is_plausible in ((0, True), (most, True), (most + 1, False), (-1, False)):
        told: dict[str, Any] = {name: count}
        assert TokenUsage(**told).is_plausible is is_plausible


@pytest.mark.parametrize("told", [0, 1])
@pytest.mark.parametrize("size", [None, 0, 1])
def test_nothing_is_read_or_said_for_nothing(told: int, size: int | None) -> None:
    is_counted = told > 0 or size == 0

    assert TokenUsage(input=told).counts_prompt(size) is is_counted
    assert TokenUsage(cache_read=told, output=7).counts_prompt(size) is is_counted
    assert TokenUsage(output=told).counts_answer(size) is is_counted
    assert TokenUsage(reasoning=told, input=7).counts_answer(size) is is_counted


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


def test_sound_and_searches_cost_what_the_price_says_of_them() -> None:
    price = replace(PRICE, input_audio=32_000, output_audio=64_000, web_search=10_000)
    million = 10**6
    for usage, cost in (
        (TokenUsage(input=million, input_audio=million), 32_000),
        (TokenUsage(input=million, input_audio=million // 2), 16_000 + 1_500),
        (TokenUsage(output=million, output_audio=million), 64_000),
        (TokenUsage(web_searches=1_000), 10_000),
        (TokenUsage(web_searches=1), 10),
    ):
        assert usage.cost(price) == cost


def test_without_a_price_of_its_own_sound_is_billed_as_text_and_a_search_is_not() -> None:
    million = 10**6
    sound = TokenUsage(input=million, input_audio=million, output=million, output_audio=7)
    assert sound.cost(PRICE) == TokenUsage(input=million, output=million).cost(PRICE)
    assert TokenUsage(web_searches=million).cost(PRICE) == 0


def test_sound_is_among_the_tokens_that_are_counted() -> None:
    usage = TokenUsage(input=10, output=20, input_audio=10, output_audio=20, web_searches=5)
    assert (usage.prompt, usage.completion, usage.total) == (10, 20, 30)


@given(parts, whole_prices)
def test_each_token_is_billed_once_as_text_or_as_sound(kinds: dict[str, int], price: Price) -> None:
    heard = price.input if price.input_audio is None else price.input_audio
    spoken = price.output if price.output_audio is None else price.output_audio
    exact = (
        Fraction(
            kinds["text"] * price.input
            + kinds["heard"] * heard
            + kinds["said"] * price.output
            + kinds["spoken"] * spoken
            + kinds["cache_read"] * price.cache_read
            + kinds["cache_write"] * price.cache_write
            + kinds["reasoning"] * price.reasoning,
            10**6,
        )
        + Fraction(kinds["web_searches"] * (price.web_search or 0), 1_000)
    )  # fmt: skip
    cost = used(kinds).cost(price)
    assert cost >= 0
    assert abs(cost - exact) <= Fraction(1, 2)


@given(parts, whole_prices, st.sampled_from(KINDS), counts)
def test_to_use_more_never_costs_less(
    kinds: dict[str, int], price: Price, kind: str, more: int
) -> None:
    grown = {**kinds, kind: kinds[kind] + more}
    assert used(grown).cost(price) >= used(kinds).cost(price)


@given(usages, whole_prices, counts, counts)
def test_more_sound_than_tokens_is_not_billed(
    usage: TokenUsage, price: Price, heard: int, spoken: int
) -> None:
    claimed = replace(usage, input_audio=usage.input + heard, output_audio=usage.output + spoken)
    all_of_it = replace(usage, input_audio=usage.input, output_audio=usage.output)
    assert claimed.cost(price) == all_of_it.cost(price)


@pytest.mark.parametrize(
    ("base", "step"),
    [
        (replace(PRICE, input_audio=10**6), replace(PRICE, input_audio=8 * 10**6)),
        (replace(PRICE, output_audio=10**6), replace(PRICE, output_audio=8 * 10**6)),
        (replace(PRICE, web_search=10**6), replace(PRICE, web_search=8 * 10**6)),
    ],
)
def test_a_long_prompt_has_the_steps_price_for_all_of_it(base: Price, step: Price) -> None:
    price = replace(base, steps=(PriceStep(10, step),))
    usage = TokenUsage(input=11, output=1_000, input_audio=11, output_audio=1_000, web_searches=1)
    assert usage.cost(price) == usage.cost(step) > usage.cost(base)
