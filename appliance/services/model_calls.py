"""One call of a model on behalf of a tenant: route, reserve, ask, settle.

Every route that spends goes through :meth:`ModelCalls.open`, so a budget can't
be passed by taking another door, and every way out settles: the answer's end,
a failure, a client that left, a revoked token, a shutdown.
"""

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Protocol

import trio

from appliance.config.schema import GatewayConfig
from appliance.model.callers import Caller
from appliance.model.calls import ModelCall
from appliance.model.errors import ProviderFailure, UpstreamUnavailable
from appliance.model.money import FREE, Price
from appliance.model.spending import Outcome, OutcomeStatus, Reservation, Settlement, SpendRequest
from appliance.model.usage import TokenUsage
from appliance.providers.base import Provider, Reply
from appliance.services.estimates import input_to_reserve
from appliance.services.meter import Meter
from appliance.services.routing import GATEWAY, Route, Router, Target


class AwakeTenant(Protocol):
    """What a model call needs of a running tenant."""

    @property
    def id(self) -> str: ...
    @property
    def config(self) -> GatewayConfig: ...
    @property
    def meter(self) -> Meter: ...
    def provider_key(self, provider: str) -> str | None:
        """The tenant's own key for ``provider``, None to use the gateway's."""

    def own_provider(self, provider: str) -> Provider | None:
        """A provider that only this tenant has."""


class CountCall(Protocol):
    """Told of every settled call, for the metrics."""

    def __call__(
        self,
        *,
        provider: str,
        outcome: OutcomeStatus,
        usage: TokenUsage,
        cost_nano: int | None,
        tenant: str,
    ) -> None: ...


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CallRequest:
    """What is asked of a model, and under which name it is accounted."""

    model: str  # as the caller named it: an alias or provider/model
    body: Mapping[str, bytes]
    stream: bool
    prompt_bytes: int
    output_limit: int | None  # tokens of one choice
    choices: int = 1
    kind: str = "chat"
    session: str | None = None
    agent: str | None = None


@dataclass(slots=True)
class OpenCall:
    """A call under way. ``settlement`` is there once the call has ended."""

    reservation: Reservation
    route: Route
    target: Target
    reply: Reply
    opening: AbstractAsyncContextManager[Reply]  # ends the call at the provider
    waited: float  # seconds until the provider's answer began; not ours to answer for
    settlement: Settlement | None = None
    tool_calls: int = 0  # that the model made, for the books


@dataclass(slots=True)
class _Progress:
    """How far a call has come, for whoever has to settle it."""

    prompt_bytes: int
    target: Target | None = None
    price: Price | None = None  # when it was asked; a reload in mid-call changes nothing
    asked: bool = False
    reply: Reply | None = None
    status: OutcomeStatus = OutcomeStatus.FAILED

    def usage(self) -> TokenUsage | None:
        """What was used, None where the provider has not said and the meter estimates."""
        if self.reply is not None:
            return self.reply.usage
        # Asked and not answered: the provider may have begun to read the prompt.
        return None if self.asked else TokenUsage()


class ModelCalls:
    def __init__(
        self,
        *,
        router: Router,
        providers: Callable[[], Mapping[str, Provider]],
        price: Callable[[str, str], Price | None],
        count: CountCall,
    ) -> None:
        self._router = router
        self._providers = providers
        self._price = price
        self._count = count

    @asynccontextmanager
    async def open(
        self, tenant: AwakeTenant, caller: Caller, request: CallRequest
    ) -> AsyncIterator[OpenCall]:
        """Reserve, ask the first provider that answers, and settle on the way out.

        After the block the settlement is in the books but not yet on disk;
        whoever acknowledges the answer awaits ``tenant.meter.durable()`` first.

        Raises :exc:`ModelUnknown`, :exc:`RateLimited`, :exc:`QuotaExceeded` or
        what the last provider failed with.
        """
        route = self._router.resolve(request.model, tenant.config)
        reservation = tenant.meter.reserve(
            SpendRequest(
                request_id=caller.request_id,
                kind=request.kind,
                model=request.model,
                session=request.session,
                agent=request.agent,
                token_id=caller.credential,
                channel=None,
                prompt_bytes=request.prompt_bytes,
                output_limit=_times(request.output_limit, request.choices),
                choices=request.choices,
                price=self._dearest(tenant, route, request.prompt_bytes),
            )
        )
        progress = _Progress(request.prompt_bytes)
        call: OpenCall | None = None
        try:
            call = await self._ask(tenant, caller, request, route, reservation, progress)
            try:
                yield call
            finally:
                await call.opening.__aexit__(None, None, None)
            progress.status = OutcomeStatus.OK
        except trio.Cancelled:
            progress.status = OutcomeStatus.CANCELLED
            raise
        finally:
            outcome = _outcome(progress)
            if call is not None and call.tool_calls:
                outcome = replace(outcome, tool_calls=call.tool_calls)
            settlement = tenant.meter.settle(reservation, outcome)
            if call is not None:
                call.settlement = settlement
            if settlement.soft_limits:
                log.warning(
                    "a soft limit is reached",
                    extra={"tenant": tenant.id, "limits": ", ".join(settlement.soft_limits)},
                )
            self._count(
                provider=self._label(outcome.provider),
                outcome=outcome.status,
                usage=settlement.usage,
                cost_nano=settlement.cost_nano,
                tenant=tenant.id,
            )

    async def _ask(
        self,
        tenant: AwakeTenant,
        caller: Caller,
        request: CallRequest,
        route: Route,
        reservation: Reservation,
        progress: _Progress,
    ) -> OpenCall:
        """Ask one target after the other until one answers."""
        began = perf_counter()
        targets = self._router.order(route, owner=partial(_owner, tenant))
        failed: ProviderFailure | None = None
        for number, target in enumerate(targets, start=1):
            provider = tenant.own_provider(target.provider) or self._providers().get(
                target.provider
            )
            if provider is None:
                continue
            key = tenant.provider_key(target.provider)
            owner = _owner(tenant, target)
            call = ModelCall(
                model=target.model,
                body=request.body,
                stream=request.stream,
                output_limit=_share(reservation.output_limit, request.choices)
                or request.output_limit,
                request_id=caller.request_id,
            )
            progress.target, progress.asked = target, True
            progress.price = self._price_for(tenant, target)
            opening = provider.open(call, api_key=key)
            try:
                reply = await opening.__aenter__()
            except ProviderFailure as failure:
                # Refused or unreachable: nothing was generated, nothing is owed.
                progress.asked = False
                self._router.note_failure(target, failure, owner=owner)
                if number == len(targets) or not failure.retryable:
                    raise
                failed = failure
            else:
                self._router.note_success(target, owner=owner)
                progress.reply = reply
                waited = perf_counter() - began
                return OpenCall(reservation, route, target, reply, opening, waited)
        # Targets that were taken out of the config meanwhile were skipped.
        raise failed or UpstreamUnavailable(
            f"no provider of {request.model} is configured any more"
        )

    def _dearest(self, tenant: AwakeTenant, route: Route, prompt_bytes: int) -> Price | None:
        """The price to reserve at: no target that a failover may reach costs more.

        None if the price of any of them is not known.
        """
        prices = [self._price_for(tenant, target) for target in route.targets]
        known = [price for price in prices if price is not None]
        if len(known) < len(prices):
            return None
        return known[0] if len(known) == 1 else _ceiling(known, input_to_reserve(prompt_bytes))

    def _price_for(self, tenant: AwakeTenant, target: Target) -> Price | None:
        if tenant.own_provider(target.provider) is not None:
            return FREE  # whatever it costs is between the tenant and its provider
        return self._price(target.provider, target.model)

    def _label(self, provider: str) -> str:
        """Tenants name their own providers as they like, which makes no label."""
        return provider if not provider or provider in self._providers() else "own"


def _owner(tenant: AwakeTenant, target: Target) -> str:
    """Whose cool-down counts: what a tenant's own key meets says nothing about the others."""
    own = tenant.own_provider(target.provider) is not None
    return tenant.id if own or tenant.provider_key(target.provider) is not None else GATEWAY


def _ceiling(prices: Sequence[Price], prompt_tokens: int) -> Price:
    """The dearest of each class: one may be dear to read with, another to write with."""
    at = [price.at(prompt_tokens) for price in prices]
    return Price(
        input=max(price.input for price in at),
        output=max(price.output for price in at),
        cache_read=max(price.cache_read for price in at),
        cache_write=max(price.cache_write for price in at),
        reasoning=max(price.reasoning for price in at),
    )


def _times(limit: int | None, choices: int) -> int | None:
    return None if limit is None else limit * choices


def _share(limit: int | None, choices: int) -> int | None:
    return None if limit is None else max(1, limit // choices)


def _outcome(progress: _Progress) -> Outcome:
    target, reply = progress.target, progress.reply
    usage = progress.usage()
    return Outcome(
        status=progress.status,
        usage=usage,
        provider="" if target is None else target.provider,
        model="" if target is None else target.model,
        price=progress.price,
        provider_request_id=None if reply is None else reply.provider_request_id,
        # Only needed, and only worth its price, where the provider has not counted.
        text_bytes=0 if reply is None or usage is not None else reply.text_bytes,
    )
