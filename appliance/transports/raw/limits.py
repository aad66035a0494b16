"""What a tenant has left, on every answer: rates in OpenAI's words, and budgets."""

from collections.abc import Sequence
from typing import Protocol

from appliance.transports.raw.failures import Header


class Rated(Protocol):
    def rate_headers(self) -> dict[str, str]: ...
    def budget_headers(self) -> dict[str, str]: ...


def limit_headers(meter: Rated) -> Sequence[Header]:
    """Of what has a limit: the rates and the budgets of the tenant whose meter this is.

    ``x-ratelimit-{limit,remaining,reset}-{requests,tokens}`` and
    ``x-openclaw-budget-{limit,remaining,reset}-{tokens,cost}``.
    """
    told = meter.rate_headers() | meter.budget_headers()
    return [(name.encode(), value.encode()) for name, value in told.items()]
