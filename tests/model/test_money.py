"""Money: whole nano-units in, decimals out, nothing lost between."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.money import NANO, Price, PriceStep, format_amount, parse_amount


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("0", 0),
        ("50.00", 50 * NANO),
        ("0.000000001", 1),
        ("1e2", 100 * NANO),
        ("+3", 3 * NANO),
        ("1000000000000", 10**12 * NANO),
        (7, 7 * NANO),
    ],
)
def test_a_decimal_is_read_exactly(text: str | int, nano: int) -> None:
    assert parse_amount(text) == nano


@pytest.mark.parametrize(
    "text",
    ["", "-1", "-0.000000001", "0.0000000001", "NaN", "Infinity", "1,50", "1000000000001", "x",
     "1" * 60, True, " 1", "1_0", "\u0661", "1e400"],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"amount|decimal"):
        parse_amount(text)


def test_a_float_has_lost_digits_already() -> None:
    with pytest.raises(ValueError, match="in quotes"):
        parse_amount(0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "0.00"),
        (1, "0.000000001"),
        (125_000, "0.000125"),
        (50 * NANO, "50.00"),
        (1_100_000_000, "1.10"),
        (-1_500_000_000, "-1.50"),
        (-1, "-0.000000001"),
    ],
)
def test_an_amount_is_written_with_two_places_at_least(nano: int, text: str) -> None:
    assert format_amount(nano) == text


@given(st.integers(0, 10**12 * NANO))
def test_what_is_written_reads_as_what_it_was(nano: int) -> None:
    assert parse_amount(format_amount(nano)) == nano
    assert Decimal(format_amount(nano)) * NANO == nano


def price(factor: int, *steps: PriceStep) -> Price:
    return Price(factor, factor, factor, factor, factor, steps=steps)


def test_a_long_prompt_is_charged_at_the_last_step_it_passed() -> None:
    stepped = price(1, PriceStep(100, price(2)), PriceStep(200, price(3)))
    assert [stepped.at(tokens).input for tokens in (0, 100, 101, 200, 201, 10**9)] == [
        1, 1, 2, 2, 3, 3,
    ]  # fmt: skip
    assert price(1).at(10**9) == price(1)
