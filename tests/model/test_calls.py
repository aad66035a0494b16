"""Calls: the words that go over the wire, and what callers are told of their quotas."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.calls import Dialect, FinishReason
from appliance.model.spending import QuotaStanding, RateStanding, Standing, rate_headers

MIDNIGHT = datetime(2026, 11, 22, tzinfo=UTC)


def quota(key: str = "tokens_per_day", *, limit: int | None, used: int, reserved: int = 0) -> (
    QuotaStanding
):  # fmt: skip
    return QuotaStanding(key, limit, None, used, reserved, MIDNIGHT)


def test_an_answer_ends_for_one_of_the_reasons_openai_names() -> None:
    assert {str(reason) for reason in FinishReason} == {
        "stop",
        "length",
        "tool_calls",
        "content_filter",
    }


def test_dialects_are_called_what_the_configuration_calls_them() -> None:
    assert {str(dialect) for dialect in Dialect} == {
        "openai",
        "openai-responses",
        "anthropic",
        "ollama",
        "embedded",
    }


@pytest.mark.parametrize(
    ("standing", "remaining"),
    [
        (quota(limit=10, used=3), 7),
        (quota(limit=10, used=3, reserved=4), 3),
        (quota(limit=10, used=10), 0),
        (quota(limit=0, used=0), 0),
        (quota(limit=None, used=10**15), None),
    ],
)
def test_what_is_left_is_neither_used_nor_reserved(
    standing: QuotaStanding, remaining: int | None
) -> None:
    assert standing.remaining == remaining


def test_a_limit_that_was_lowered_below_what_is_used_leaves_nothing_and_not_less() -> None:
    assert quota(limit=5, used=8, reserved=2).remaining == 0


def test_a_quota_is_found_by_its_key() -> None:
    day, month = quota(limit=1, used=0), quota("tokens_per_month", limit=2, used=0)
    standing = Standing((day, month))

    assert standing.find("tokens_per_month") is month
    assert standing.find("tokens_per_year") is None


def test_rates_are_told_in_openais_headers() -> None:
    standing = Standing(
        (), requests=RateStanding(60, 59, 1.0), tokens=RateStanding(40_000, 0, 59.25)
    )

    assert standing.headers() == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "40000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "59.25s",
    }


def test_a_rate_without_a_limit_is_not_told() -> None:
    assert rate_headers(None, None) == {}
    assert all(name.endswith("-tokens") for name in rate_headers(None, RateStanding(1, 1, 0)))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0004, "0s"), (0.05, "0.05s"), (1.5, "1.5s"), (10.0, "10s"), (3_600, "3600s")],
)
def test_a_reset_is_a_plain_number_of_seconds(seconds: float, text: str) -> None:
    headers = rate_headers(RateStanding(1, 0, seconds), None)

    assert headers["x-ratelimit-reset-requests"] == text


@given(st.floats(0, 3_600))
def test_a_reset_is_told_to_the_millisecond(seconds: float) -> None:
    text = rate_headers(RateStanding(1, 0, seconds), None)["x-ratelimit-reset-requests"]

    assert text.endswith("s")
    assert float(text[:-1]) == pytest.approx(seconds, abs=0.0006)
