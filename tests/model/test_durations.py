"""Durations, as people write them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.durations import parse_duration

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30d", timedelta(days=30)),
        ("12h", timedelta(hours=12)),
        ("10m", timedelta(minutes=10)),
        ("90s", timedelta(seconds=90)),
        ("2w", timedelta(days=14)),
        ("250ms", timedelta(milliseconds=250)),
        ("1h30m", timedelta(minutes=90)),
        ("5m5ms", timedelta(minutes=5, milliseconds=5)),
        ("30m1h", timedelta(minutes=90)),
        ("1d1d", timedelta(days=2)),
        ("0s", timedelta()),
        ("007s", timedelta(seconds=7)),
        ("999999w", timedelta(weeks=999_999)),
    ],
)
def test_a_duration_is_a_sum_of_numbers_with_units(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", " ", "10", "d", "-1d", "+1d", "1.5h", "1e3s", "1D", "1 d", " 1d", "1d ", "1d\n", "1h,30m",
     "1y", "1min", "٣d", "1234567d", "1h30", "PT1H", "1d\x00", "forever"],
)  # fmt: skip
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="a duration reads 30d"):
        parse_duration(text)


def test_a_sum_that_nothing_can_hold_is_no_duration() -> None:
    with pytest.raises(ValueError, match="million years"):
        parse_duration("999999w" * 150)


@given(
    st.lists(
        st.tuples(st.integers(0, 999_999), st.sampled_from(sorted(UNITS))), min_size=1, max_size=50
    )
)
def test_the_parts_add_up(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)

    expected = sum((timedelta(seconds=n * UNITS[unit]) for n, unit in parts), start=timedelta())
    assert parse_duration(text) == expected


@given(st.text() | st.text(alphabet="0189smhdw "))
def test_whatever_comes_it_is_a_duration_or_a_value_error(text: str) -> None:
    try:
        assert parse_duration(text) >= timedelta()
    except ValueError:
        return
