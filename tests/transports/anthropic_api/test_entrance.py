"""What is told with every answer of this API."""

from datetime import UTC, datetime

from appliance.model.spending import RateStanding
from appliance.model.spending import rate_headers as in_openais_words
from appliance.transports.anthropic_api.entrance import rate_headers

NOW = datetime(2026, 11, 21, 23, 59, 59, tzinfo=UTC)


def test_a_reset_is_a_point_in_time() -> None:
    rates = in_openais_words(RateStanding(10, 3, 0.25), RateStanding(1000, 0, 61))

    assert list(rate_headers(rates, now=NOW)) == [
        (b"anthropic-ratelimit-requests-limit", b"10"),
        (b"anthropic-ratelimit-requests-remaining", b"3"),
        (b"anthropic-ratelimit-requests-reset", b"2026-11-22T00:00:00Z"),
        (b"anthropic-ratelimit-tokens-limit", b"1000"),
        (b"anthropic-ratelimit-tokens-remaining", b"0"),
        (b"anthropic-ratelimit-tokens-reset", b"2026-11-22T00:01:00Z"),
    ]


def test_a_rate_without_a_limit_has_no_header() -> None:
    assert list(rate_headers(in_openais_words(None, None), now=NOW)) == []
