"""What tests of databases, ledgers and meters share: a directory, a clock, a call that spends."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from appliance.model.money import Price
from appliance.model.spending import Outcome, OutcomeStatus, SpendRequest
from appliance.model.usage import TokenUsage
from appliance.storage.paths import ConfinedDirectory, TenantRoot

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
# One dollar a million input tokens is 1,000 nano-dollars a token.
PRICE = Price(
    input=1_000_000_000,
    output=2_000_000_000,
    cache_read=100_000_000,
    cache_write=1_250_000_000,
    reasoning=2_000_000_000,
)


def directory(path: Path) -> ConfinedDirectory:
    path.mkdir(parents=True, exist_ok=True)
    return ConfinedDirectory(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))


def tenant_root(path: Path, tenant: str = "acme") -> TenantRoot:
    path.mkdir(parents=True, exist_ok=True)
    return TenantRoot(tenant, os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def spend(
    *,
    prompt_tokens: int = 10,
    output_limit: int | None = 20,
    price: Price | None = PRICE,
    request_id: str = "req_1",
    model: str = "stub/mock",
    kind: str = "chat",
    session: str | None = None,
    agent: str | None = None,
) -> SpendRequest:
    """A call whose prompt is reserved at ``prompt_tokens`` (8 at least)."""
    return SpendRequest(
        request_id=request_id,
        kind=kind,
        model=model,
        prompt_bytes=(prompt_tokens - 8) * 3,
        output_limit=output_limit,
        price=price,
        session=session,
        agent=agent,
        token_id="tok_1",
    )


def outcome(
    usage: TokenUsage | None,
    *,
    status: OutcomeStatus = OutcomeStatus.OK,
    price: Price | None = PRICE,
    provider: str = "stub",
    model: str = "mock",
    text_bytes: int = 0,
) -> Outcome:
    return Outcome(
        status=status,
        usage=usage,
        provider=provider,
        model=model,
        price=price,
        provider_request_id="up_1",
        text_bytes=text_bytes,
    )
