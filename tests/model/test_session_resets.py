"""When a conversation is over, also where the clock is changed."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.session_resets import ResetMode, ResetRule, ResetRules, counts_as_use
from appliance.model.session_scopes import ChatType

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("last", "now", "due"),
    [
        ("2026-11-21T03:59+01:00", "2026-11-21T04:00+01:00", "daily"),
        ("2026-11-21T04:00+01:00", "2026-11-22T03:59+01:00", None),
        ("2026-11-21T04:00+01:00", "2026-11-22T04:00+01:00", "daily"),
        ("2026-11-21T23:00+01:00", "2026-11-22T01:00+01:00", None),
        ("2026-11-23T00:00+01:00", "2026-11-22T04:00+01:00", None),  # the clock was set back
    ],
)
def test_a_day_ends_at_the_hour_in_the_zone(last: str, now: str, due: str | None) -> None:
    assert ResetRule().due(at(last), at(now), BERLIN) == due


def test_the_hour_that_does_not_exist_is_when_the_clock_is_put_forward() -> None:
    rule = ResetRule(at_hour=2)
    before, after = at("2026-03-29T01:59+01:00"), at("2026-03-29T03:00+02:00")
    assert rule.due(before - timedelta(hours=1), before, BERLIN) is None
    assert rule.due(before, after, BERLIN) == "daily"
    assert rule.due(after, at("2026-03-30T01:59+02:00"), BERLIN) is None


def test_the_hour_that_comes_twice_ends_the_day_once() -> None:
    rule = ResetRule(at_hour=2)
    first, second = at("2026-10-25T02:00+02:00"), at("2026-10-25T02:00+01:00")
    assert rule.due(first - timedelta(minutes=1), first, BERLIN) == "daily"
    assert rule.due(first, second, BERLIN) is None
    assert rule.due(first, at("2026-10-26T01:59+01:00"), BERLIN) is None
    assert rule.due(first, at("2026-10-26T02:00+01:00"), BERLIN) == "daily"


@given(
    hour=st.integers(0, 23),
    zone=st.sampled_from(["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "UTC"]),
    start=st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)),  # noqa: DTZ001 - made aware below
)
def test_there_is_one_end_of_each_day(hour: int, zone: str, start: datetime) -> None:
    rule, tz = ResetRule(at_hour=hour), ZoneInfo(zone)
    now = start.replace(tzinfo=UTC)
    ends = 0
    for _ in range(4 * 24 * 2):
        later = now + timedelta(minutes=30)
        ends += rule.due(now, later, tz) is not None
        now = later
    # Four days of 23 to 25 hours each.
    assert ends in {3, 4, 5}
    assert rule.due(now - timedelta(hours=26), now, tz) == "daily"


def test_idle_time_slides() -> None:
    rule = ResetRule(ResetMode.IDLE, idle_minutes=30)
    now = at("2026-11-21T12:00+00:00")
    assert rule.due(now - timedelta(minutes=29, seconds=59), now, UTC) is None
    assert rule.due(now - timedelta(minutes=30), now, UTC) == "idle"
    assert ResetRule(ResetMode.IDLE).due(now - timedelta(minutes=60), now, UTC) == "idle"


def test_with_both_the_first_ends_it() -> None:
    rule = ResetRule(idle_minutes=60)
    assert rule.due(at("2026-11-21T03:50+00:00"), at("2026-11-21T04:10+00:00"), UTC) == "daily"
    assert rule.due(at("2026-11-21T08:00+00:00"), at("2026-11-21T09:00+00:00"), UTC) == "idle"


def test_off_ends_nothing() -> None:
    rule = ResetRule(ResetMode.OFF, idle_minutes=1)
    assert rule.due(at("2020-01-01T00:00+00:00"), at("2026-01-01T00:00+00:00"), UTC) is None


def test_a_channels_rule_comes_before_its_types_and_that_before_the_general_one() -> None:
    general, group, thread, irc = (ResetRule(at_hour=hour) for hour in range(4))
    rules = ResetRules(general, group=group, thread=thread, by_channel={"irc": irc})

    def chosen(
        chat_type: ChatType, channel: str | None = None, *, is_thread: bool = False
    ) -> ResetRule:
        return rules.choose(chat_type=chat_type, is_thread=is_thread, channel=channel)

    assert chosen(ChatType.DIRECT) is general
    assert chosen(ChatType.GROUP) is group
    assert chosen(ChatType.CHANNEL, "slack") is group
    assert chosen(ChatType.GROUP, "slack", is_thread=True) is thread
    assert chosen(ChatType.GROUP, "irc", is_thread=True) is irc


def test_a_heartbeat_does_not_count_as_use() -> None:
    assert not counts_as_use("heartbeat")
    assert counts_as_use("chat")
