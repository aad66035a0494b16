"""Rate headers in OpenAI's words."""

from appliance.model.spending import RateStanding, rate_headers
from appliance.transports.raw.limits import limit_headers


class Metered:
    def __init__(self, requests: RateStanding | None, tokens: RateStanding | None) -> None:
        self._rates = requests, tokens
        self.budgets: dict[str, str] = {}

    def rate_headers(self) -> dict[str, str]:
        return rate_headers(*self._rates)

    def budget_headers(self) -> dict[str, str]:
        return self.budgets


def test_a_rate_with_a_limit_is_told_as_bytes() -> None:
    metered = Metered(RateStanding(10, 3, 0.25), RateStanding(1000, 0, 60))

    assert list(limit_headers(metered)) == [
        (b"x-ratelimit-limit-requests", b"10"),
        (b"x-ratelimit-remaining-requests", b"3"),
        (b"x-ratelimit-reset-requests", b"0.25s"),
        (b"x-ratelimit-limit-tokens", b"1000"),
        (b"x-ratelimit-remaining-tokens", b"0"),
        (b"x-ratelimit-reset-tokens", b"60s"),
    ]


def test_a_budget_is_told_beside_the_rates() -> None:
    metered = Metered(None, None)
    metered.budgets = {"x-openclaw-budget-limit-cost": "5.00"}

    assert list(limit_headers(metered)) == [(b"x-openclaw-budget-limit-cost", b"5.00")]


def test_a_rate_without_a_limit_has_no_header() -> None:
    assert list(limit_headers(Metered(None, None))) == []
