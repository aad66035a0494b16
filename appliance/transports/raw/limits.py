"""Rate headers of a tenant, in OpenAI's words."""

from collections.abc import Sequence
from typing import Protocol

from appliance.transports.raw.failures import Header


class Rated(Protocol):
    def rate_headers(self) -> dict[str, str]: ...


def limit_headers(meter: Rated) -> Sequence[Header]:
    """``x-ratelimit-{limit,remaining,reset}-{requests,tokens}`` of the rates that have a limit."""
    return [(name.encode(), value.encode()) for name, value in meter.rate_headers().items()]
