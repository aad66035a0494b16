"""Asking for an answer: one target after the other, and each of its keys, until one begins."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial

import trio

from appliance.config.model_schema import timeouts_of
from appliance.config.schema import GatewayConfig
from appliance.model.attempts import COOLING, Trail
from appliance.model.calls import ModelCall, Timeouts
from appliance.model.errors import (
    ApplianceError,
    InvalidRequest,
    ProviderFailure,
    UpstreamUnavailable,
)
from appliance.providers.api_keys import ApiKey
from appliance.providers.base import Provider, Reply
from appliance.services.call_requests import AwakeTenant, CallRequest
from appliance.services.key_rings import KeyRings
from appliance.services.routing import CHAT, EMBEDDING, GATEWAY, Route, Router, Target


@dataclass(frozen=True, slots=True)
class Begun:
    """An answer that has begun. Whoever has it ends ``opening``."""

    target: Target
    reply: Reply
    opening: AbstractAsyncContextManager[Reply]
    waited: float  # seconds, all attempts together
    trail: Trail


@dataclass(slots=True)
class _Misses:
    """What those failed with who were asked."""

    began: float
    trail: Trail = field(default_factory=Trail)
    _told: ProviderFailure | None = None
    _wordless: InvalidRequest | None = None

    def add(self, target: Target, failure: ProviderFailure) -> None:
        """Raises ``failure`` if nobody else is to be asked."""
        if self._told is None or self._told.lasts or not failure.lasts:
            self._told = failure
        self.trail.miss(str(target), failure.code)
        if not failure.retryable:
            raise self._with_trail(failure)

    def pass_over(self, target: Target, refused: InvalidRequest) -> None:
        """It has no word for something in the request, where the next may have one."""
        self.trail.attempts -= 1  # nothing was sent
        self.trail.miss(str(target), refused.code)
        self._wordless = self._wordless or refused

    def told(self, model: str) -> ApplianceError:
        """What the caller is told when nobody has answered."""
        if self._told is not None:
            return self._with_trail(self._told)
        if self._wordless is not None:
            return self._wordless
        return UpstreamUnavailable(f"no provider of {model} is configured any more")

    def _with_trail(self, failure: ProviderFailure) -> ProviderFailure:
        failure.waited = trio.current_time() - self.began
        failure.trail = self.trail
        return failure


class Asking:
    def __init__(
        self,
        *,
        router: Router,
        keys: KeyRings,
        providers: Callable[[], Mapping[str, Provider]],
    ) -> None:
        self._router = router
        self._keys = keys
        self._providers = providers

    async def ask(
        self,
        tenant: AwakeTenant,
        request: CallRequest,
        route: Route,
        *,
        output_limit: int | None,
        request_id: str,
        asking: Callable[[Target | None], None],
    ) -> Begun:
        """Return the first answer that begins.

        ``asking`` is told of each target before it is asked, and of None when
        it has refused. Raises what the last one failed with, or one before it
        that may be over soon where the last one's failure is not; and
        :exc:`InvalidRequest` where nobody has words for the request.
        """
        misses = _Misses(trio.current_time())
        trail = misses.trail
        # The ledger knows more kinds, which are asked in the same way.
        kind = EMBEDDING if request.kind == EMBEDDING else CHAT
        targets = self._router.order(route, kind=kind, owner=partial(owner_of, tenant))
        for place, target in enumerate(targets, 1):
            provider = tenant.own_provider(target.provider) or self._providers().get(
                target.provider
            )
            if provider is None:
                continue  # it was taken out of the config meanwhile
            call = ModelCall(
                model=target.model,
                body=request.body,
                dialect=request.dialect,
                headers=request.headers,
                stream=request.stream,
                output_limit=output_limit,
                request_id=request_id,
                prompt_bytes=request.prompt_bytes,
                timeouts=_timeouts(tenant.config, request.model, target),
                has_next=place < len(targets),
            )
            owner = owner_of(tenant, target)
            ring = self._keys.order(target, kind) if owner == GATEWAY else ()
            failed: ProviderFailure | None = None
            for key in ring or (None,):
                secret = tenant.provider_key(target.provider) if key is None else key.secret
                opening = request.opens(provider, call, secret)
                trail.attempts += 1
                asking(target)
                try:
                    reply = await opening.__aenter__()
                except ProviderFailure as failure:
                    # Refused or unreachable: nothing was generated, nothing is owed.
                    asking(None)
                    failed = failure
                    misses.add(target, failure)
                    if key is not None and self._keys.note_failure(target, kind, key, failure):
                        continue
                    break
                except InvalidRequest as refused:
                    asking(None)
                    misses.pass_over(target, refused)
                    break
                except ApplianceError:
                    asking(None)
                    raise
                self._note_success(target, kind, key, owner)
                if len(targets) > 1:
                    self._note_passed_over(tenant, route, kind, target, trail)
                return Begun(target, reply, opening, trio.current_time() - misses.began, trail)
            if failed is not None:
                self._router.note_failure(target, failed, kind=kind, owner=owner)
        raise misses.told(request.model)

    def _note_success(self, target: Target, kind: str, key: ApiKey | None, owner: str) -> None:
        self._router.note_success(target, kind=kind, owner=owner)
        if key is not None:
            self._keys.note_success(target, kind, key)

    def _note_passed_over(
        self, tenant: AwakeTenant, route: Route, kind: str, answered: Target, trail: Trail
    ) -> None:
        """Name those who would have had their turn, had they not failed a short while ago."""
        asked = {name for name, _ in trail.missed}
        ahead = route.targets[: max(route.targets.index(answered), len(route.weights))]
        for target in ahead:
            name, owner = str(target), owner_of(tenant, target)
            cooling = self._router.cooling(target, kind=kind, owner=owner) is not None
            if cooling and target != answered and name not in asked:
                trail.miss(name, COOLING)


def owner_of(tenant: AwakeTenant, target: Target) -> str:
    """Whose cool-down counts: what a tenant's own key meets says nothing about the others."""
    own = tenant.own_provider(target.provider) is not None
    return tenant.id if own or tenant.provider_key(target.provider) is not None else GATEWAY


def _timeouts(config: GatewayConfig, name: str, target: Target) -> Timeouts | None:
    """What the name that was asked for says counts more than what its target says."""
    sections = config.models.timeouts
    if not sections:
        return None
    return timeouts_of([sections[key] for key in (name, str(target)) if key in sections])
