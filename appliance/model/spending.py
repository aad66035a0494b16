"""What is asked of a tenant's budgets before a call, and what is told after it."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from appliance.model.money import Price
from appliance.model.usage import TokenUsage


class OutcomeStatus(StrEnum):
    """How a metered call ended."""

    OK = "ok"
    CANCELLED = "cancelled"  # the caller left, the token was revoked, the tenant stopped
    FAILED = "failed"
    CRASHED = "crashed"  # the gateway died during the call; written at the next start


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendRequest:
    """A call that is about to spend.

    ``prompt_bytes`` is the size its input tokens are estimated from.
    ``output_limit`` is the caller's own limit in tokens, 0 for calls that
    generate nothing; for all ``choices`` together, each of which needs room for
    one token. ``searches`` are those that the provider may make and that have a
    price. ``price`` is None where nobody knows it; a call that may
    fall back to other models names the dearest.
    """

    request_id: str
    kind: str  # chat, embedding, …: what reports group by
    model: str  # as the caller named it, which may be an alias
    prompt_bytes: int
    output_limit: int | None
    price: Price | None
    choices: int = 1
    searches: int = 0
    session: str | None = None
    agent: str | None = None
    token_id: str | None = None
    channel: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call ended and what it used.

    ``usage`` is None where the provider said nothing of it: the meter then
    estimates it, the answer from ``text_bytes``. ``provider`` is "" for a call
    that reached none.
    """

    status: OutcomeStatus
    usage: TokenUsage | None
    provider: str
    model: str
    price: Price | None
    provider_request_id: str | None = None
    text_bytes: int = 0
    tool_calls: int = 0
    sandbox_ms: int = 0


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a call cost in the end; ``cost_nano`` is None if the price is unknown.

    ``soft_limits`` names the soft limits that this call was the first to reach
    in their period.
    """

    usage: TokenUsage
    cost_nano: int | None
    soft_limits: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Reservation:
    """A place in the budgets, held until it is settled.

    ``output_limit`` is what the provider must be told to stop at, None where
    no budget is in force. ``settlement`` is set by the first settle.
    """

    id: int
    request: SpendRequest
    estimate_input: int  # tokens
    estimate_output: int
    estimate_cost: int | None  # nano-units
    output_limit: int | None
    settlement: Settlement | None = None


@dataclass(frozen=True, slots=True)
class QuotaStanding:
    """One quota: its limit and soft limit (None: unlimited), what counts against it now."""

    key: str
    limit: int | None
    soft_limit: int | None
    used: int
    reserved: int
    resets_at: datetime | None  # None: it slides, or it is no matter of time

    @property
    def remaining(self) -> int | None:
        return None if self.limit is None else max(0, self.limit - self.used - self.reserved)


@dataclass(frozen=True, slots=True)
class RateStanding:
    """A rate as the ``x-ratelimit-*`` headers tell it; ``reset_after`` is in seconds."""

    limit: int
    remaining: int
    reset_after: float


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a tenant stands with each of its quotas."""

    quotas: tuple[QuotaStanding, ...]
    requests: RateStanding | None = None
    tokens: RateStanding | None = None
    soft_limits: tuple[str, ...] = field(default=())

    def find(self, key: str) -> QuotaStanding | None:
        return next((quota for quota in self.quotas if quota.key == key), None)

    def headers(self) -> dict[str, str]:
        return rate_headers(self.requests, self.tokens)


def rate_headers(requests: RateStanding | None, tokens: RateStanding | None) -> dict[str, str]:
    """The rate headers in OpenAI's words; a rate without a limit has none."""
    headers: dict[str, str] = {}
    for name, rate in (("requests", requests), ("tokens", tokens)):
        if rate is not None:
            headers[f"x-ratelimit-limit-{name}"] = str(rate.limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(rate.remaining)
            headers[f"x-ratelimit-reset-{name}"] = (
                f"{rate.reset_after:.3f}".rstrip("0").rstrip(".") + "s"
            )
    return headers
