"""Days and months in UTC."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.periods import DAY, HOUR, Period, day_of, from_ns, month_of, to_ns

moments = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone


def at(text: str) -> int:
    return to_ns(datetime.fromisoformat(text))


@pytest.mark.parametrize(
    ("moment", "start", "end"),
    [
        ("2026-11-21T12:00:00Z", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
        ("2026-12-31T23:59:59.999999Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("2028-02-29T00:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
        ("2027-02-28T23:00:00Z", "2027-02-01T00:00:00Z", "2027-03-01T00:00:00Z"),
        ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z"),
    ],
)
def test_a_month_begins_on_its_first_day_at_midnight(moment: str, start: str, end: str) -> None:
    assert month_of(at(moment)) == Period(at(start), at(end))


def test_a_day_is_utcs_wherever_it_is_asked_for() -> None:
    evening_in_new_york = datetime(2026, 11, 21, 20, tzinfo=timezone(timedelta(hours=-5)))
    day = day_of(to_ns(evening_in_new_york))
    assert day == Period(at("2026-11-22T00:00:00Z"), at("2026-11-23T00:00:00Z"))
    assert day.end == datetime(2026, 11, 23, tzinfo=UTC)


@given(moments)
def test_every_moment_lies_in_its_day_and_month_and_the_end_in_the_next(moment: datetime) -> None:
    now = to_ns(moment)
    day, month = day_of(now), month_of(now)
    assert now in day
    assert now in month
    assert day.end_ns not in day
    assert month.start_ns <= day.start_ns
    assert day.end_ns <= month.end_ns
    assert day.end_ns - day.start_ns == DAY
    assert month_of(month.end_ns).start_ns == month.end_ns
    assert all(bound % HOUR == 0 for bound in (month.start_ns, month.end_ns))


@given(moments)
def test_nanoseconds_lose_no_microsecond(moment: datetime) -> None:
    assert from_ns(to_ns(moment)) == moment


@given(moments, moments)
def test_nanoseconds_are_in_the_order_of_the_moments(one: datetime, other: datetime) -> None:
    assert (one < other) == (to_ns(one) < to_ns(other))
