"""One call of a model on behalf of a tenant: route, reserve, ask, settle.

Every route that spends goes through :meth:`ModelCalls.open`, so a budget can't
be passed by taking another door, and every way out settles: the answer's end,
a failure, a client that left, a revoked token, a shutdown.
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass, field, replace
from typing import Protocol

import trio

from appliance.model.agent_names import names_of
from appliance.model.attempts import Trail
from appliance.model.cache_use import CacheUse
from appliance.model.callers import Caller
from appliance.model.errors import ProviderFailure
from appliance.model.money import FREE, Price
from appliance.model.spending import Outcome, OutcomeStatus, Reservation, Settlement, SpendRequest
from appliance.model.usage import TokenUsage
from appliance.providers.base import Provider, Reply
from appliance.services.asking import Asking
from appliance.services.call_requests import AwakeTenant as AwakeTenant
from appliance.services.call_requests import CallRequest as CallRequest
from appliance.services.estimates import input_to_reserve, is_credible
from appliance.services.guardrails.rules import Meetings, RuleBook, Rules
from appliance.services.key_rings import KeyRings
from appliance.services.plain_calls import require_plain, searches_to_reserve
from appliance.services.response_cache import (
    KeptAnswer,
    KeptReply,
    Place,
    RecordingReply,
    ResponseCache,
)
from appliance.services.routing import Route, Router, Target


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


@dataclass(slots=True)
class OpenCall:
    """A call under way. ``settlement`` is there once the call has ended."""

    reservation: Reservation
    route: Route
    target: Target
    reply: Reply
    opening: AbstractAsyncContextManager[Reply]  # ends the call at the provider
    waited: float  # seconds that providers and tools took so far; not ours to answer for
    settlement: Settlement | None = None
    tool_calls: int = 0  # that the model made, for the books
    trail: Trail = field(default_factory=Trail)
    cache: CacheUse = CacheUse.OFF
    guarded: Sequence[tuple[str, str]] = ()  # rules that the request met, and what they did
    cost_nano: int | None = None  # of the whole answer, be it of several calls; None: not known
    is_estimated: bool = False  # of the whole answer too: not all of its usage was counted


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


@dataclass(slots=True)
class _Care:
    """What is done with a call besides asking; mostly nothing."""

    rules: Rules | None = None
    met: Meetings | None = None
    place: Place | None = None  # where its answer is kept


class ModelCalls:
    def __init__(
        self,
        *,
        router: Router,
        providers: Callable[[], Mapping[str, Provider]],
        price: Callable[[str, str], Price | None],
        count: CountCall,
        keys: KeyRings,
        cache: ResponseCache,
    ) -> None:
        self._router = router
        self._asking = Asking(router=router, keys=keys, providers=providers)
        self._providers = providers
        self._price = price
        self._count = count
        self._cache = cache
        self.rules = RuleBook()  # guardrails, compiled once for all who ask for them

    @asynccontextmanager
    async def open(
        self, tenant: AwakeTenant, caller: Caller, request: CallRequest
    ) -> AsyncIterator[OpenCall]:
        """Reserve, ask the first provider that answers, and settle on the way out.

        After the block the settlement is in the books but not yet on disk;
        whoever acknowledges the answer awaits ``tenant.meter.durable()`` first.

        Raises :exc:`ModelUnknown`, :exc:`ModelForbidden`, :exc:`GuardrailBlocked`,
        :exc:`RateLimited`, :exc:`QuotaExceeded` or what the last provider failed with.
        """
        route = self.require(tenant, caller, request.model, agent=request.agent)
        await require_plain(tenant, caller, request, route)
        care = _Care()
        rules = self.rules.find(tenant.id, tenant.config)
        if rules is not None:
            care.rules, care.met = rules, self.rules.meetings(tenant.id)
            request = await rules.admit(request, care.met)
        if tenant.config.defaults.response_cache.enabled:
            digest = b"" if rules is None else rules.digest
            care.place = self._cache.place(tenant, request, route, caller.cache, rules=digest)
            kept = None if care.place is None else self._cache.find(tenant, care.place)
            if kept is not None:
                async with self._again(tenant, caller, request, route, kept) as again:
                    again.guarded = () if care.met is None else care.met.rules
                    yield again
                return
        searches = await searches_to_reserve(request)
        price = self._dearest(tenant, route, request.prompt_bytes, searches)
        reservation = tenant.meter.reserve(
            SpendRequest(
                request_id=caller.request_id,
                kind=request.kind,
                model=request.model,
                session=request.session,
                agent=request.agent,
                token_id=caller.credential,
                channel=None,
                tags=caller.tags,
                prompt_bytes=request.prompt_bytes,
                output_limit=_times(request.output_limit, request.choices),
                choices=request.choices,
                searches=0 if price is None or price.web_search is None else searches,
                price=price,
            )
        )
        progress = _Progress(request.prompt_bytes)
        call: OpenCall | None = None
        recording: RecordingReply | None = None
        try:
            call = await self._ask(tenant, caller, request, route, reservation, progress)
            with _accounted(call, is_streamed=request.stream):
                try:
                    recording = _dressed(call, care, tenant)
                    yield call
                except BaseException as exc:
                    if not await call.opening.__aexit__(type(exc), exc, exc.__traceback__):
                        raise
                else:
                    await call.opening.__aexit__(None, None, None)
            progress.status = OutcomeStatus.OK
            if recording is not None and care.place is not None:
                self._cache.keep(tenant, care.place, recording)
        except trio.Cancelled:
            progress.status = OutcomeStatus.CANCELLED
            raise
        finally:
            outcome = _outcome(progress)
            if call is not None and call.tool_calls:
                outcome = replace(outcome, tool_calls=call.tool_calls)
            self._settle(tenant, reservation, outcome, call)

    def require(
        self, tenant: AwakeTenant, caller: Caller, model: str, *, agent: str | None = None
    ) -> Route:
        """Where ``model`` leads; raise :exc:`ModelUnknown` or :exc:`ModelForbidden`.

        A token for an ``agent`` is for the model that answers for it, not for
        another that the agent is told to use.
        """
        route = self._router.resolve(model, tenant.config)
        if not caller.models:
            return route
        targets = [str(target) for target in route.targets]
        if agent is None or model != _own_model(tenant, agent):
            caller.require_model(model, targets)
        elif not caller.may_ask(model, targets):
            caller.require_model(names_of(agent)[0])
        return route

    @asynccontextmanager
    async def _again(
        self,
        tenant: AwakeTenant,
        caller: Caller,
        request: CallRequest,
        route: Route,
        kept: KeptAnswer,
    ) -> AsyncIterator[OpenCall]:
        """An answer from before: it counts as a request, and costs nothing."""
        reservation = tenant.meter.reserve(
            SpendRequest(
                request_id=caller.request_id,
                kind="cache",
                model=request.model,
                session=request.session,
                token_id=caller.credential,
                prompt_bytes=0,
                output_limit=0,
                price=FREE,
                tags=caller.tags,
            )
        )
        reply = KeptReply(kept)
        opening: AbstractAsyncContextManager[Reply] = nullcontext(reply)
        call = OpenCall(reservation, route, kept.target, reply, opening, 0.0, cache=CacheUse.HIT)
        # It says what the first one used; that nothing was used now is no estimate.
        call.is_estimated = kept.usage is not None and kept.usage.estimated
        status = OutcomeStatus.FAILED
        try:
            yield call
            status = OutcomeStatus.OK
        except trio.Cancelled:
            status = OutcomeStatus.CANCELLED
            raise
        finally:
            outcome = Outcome(
                status=status,
                usage=TokenUsage(),
                provider=kept.target.provider,
                model=kept.target.model,
                price=FREE,
            )
            self._settle(tenant, reservation, outcome, call)

    def _settle(
        self,
        tenant: AwakeTenant,
        reservation: Reservation,
        outcome: Outcome,
        call: OpenCall | None,
    ) -> None:
        settlement = tenant.meter.settle(reservation, outcome)
        if call is not None:
            call.settlement = settlement
            call.cost_nano = settlement.cost_nano
            call.is_estimated |= settlement.usage.estimated
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
        def asking(target: Target | None) -> None:
            progress.asked = target is not None
            if target is not None:
                progress.target = target
                progress.price = self._price_for(tenant, target)

        begun = await self._asking.ask(
            tenant,
            request,
            route,
            output_limit=_share(reservation.output_limit, request.choices) or request.output_limit,
            request_id=caller.request_id,
            asking=asking,
        )
        progress.reply = begun.reply
        return OpenCall(
            reservation,
            route,
            begun.target,
            begun.reply,
            begun.opening,
            begun.waited,
            trail=begun.trail,
        )

    def _dearest(
        self, tenant: AwakeTenant, route: Route, prompt_bytes: int, searches: int
    ) -> Price | None:
        """The price to reserve at: no target that a failover may reach costs more.

        None if the price of any of them is not known.
        """
        prices = [self._price_for(tenant, target) for target in route.targets]
        known = [price for price in prices if price is not None]
        if len(known) < len(prices):
            return None
        if len(known) == 1:
            return known[0]
        return _ceiling(known, input_to_reserve(prompt_bytes, searches))

    def _price_for(self, tenant: AwakeTenant, target: Target) -> Price | None:
        if tenant.own_provider(target.provider) is not None:
            return FREE  # whatever it costs is between the tenant and its provider
        price = self._price(target.provider, target.model)
        if price is not None and tenant.provider_key(target.provider) is not None:
            return price.of_text()  # what else it asks for is between those two as well
        return price

    def _label(self, provider: str) -> str:
        """Tenants name their own providers as they like, which makes no label."""
        return provider if not provider or provider in self._providers() else "own"


@contextmanager
def _accounted(call: OpenCall, *, is_streamed: bool) -> Iterator[None]:
    """Have a failure tell whose answer broke off, and what it took.

    Of an answer that is not streamed nothing has left yet, so all of it is waited for.
    """
    began = trio.current_time()
    try:
        yield
    except ProviderFailure as failure:
        call.trail.miss(str(call.target), failure.code)
        failure.trail = call.trail
        if not is_streamed:
            failure.waited += call.waited + trio.current_time() - began
        raise
    if not is_streamed:
        call.waited += trio.current_time() - began


def _dressed(call: OpenCall, care: _Care, tenant: AwakeTenant) -> RecordingReply | None:
    """Have the answer looked through, and noted, as ``care`` says."""
    if care.rules is not None and care.met is not None:
        call.reply = care.rules.guard(call.reply, call.target.model, care.met)
        call.guarded = care.met.rules
    if care.place is None:
        return None
    most = tenant.config.defaults.response_cache.max_bytes
    recording = RecordingReply(call.reply, call.target, most_bytes=most)
    call.reply, call.cache = recording, CacheUse.MISS
    return recording


def _ceiling(prices: Sequence[Price], prompt_tokens: int) -> Price:
    """The dearest of each class: one may be dear to read with, another to write with."""
    at = [price.at(prompt_tokens) for price in prices]
    return Price(
        input=max(price.input for price in at),
        output=max(price.output for price in at),
        cache_read=max(price.cache_read for price in at),
        cache_write=max(price.cache_write for price in at),
        reasoning=max(price.reasoning for price in at),
        input_audio=_highest(price.input_audio for price in at),
        output_audio=_highest(price.output_audio for price in at),
        web_search=_highest(price.web_search for price in at),
    )


def _highest(amounts: Iterable[int | None]) -> int | None:
    return max((amount for amount in amounts if amount is not None), default=None)


def _own_model(tenant: AwakeTenant, agent: str) -> str | None:
    settings = tenant.config.defaults.agents.get(agent)
    return (settings and settings.model) or tenant.config.models.default


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
        text_bytes=0 if reply is None or is_credible(usage) else reply.text_bytes,
    )
