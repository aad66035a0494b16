"""How many tokens a prompt has, without having it answered: nothing is spent."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from time import perf_counter

import trio

from appliance.model.attempts import Trail
from appliance.model.callers import Caller
from appliance.model.calls import Dialect, ModelCall
from appliance.model.errors import InvalidRequest, Kind, ProviderFailure
from appliance.protocols.json_body import INLINE_BYTES
from appliance.protocols.translation import translated
from appliance.providers import anthropic, openai_responses
from appliance.providers.base import Provider
from appliance.providers.http_provider import HttpProvider
from appliance.services.call_requests import AwakeTenant, CallRequest
from appliance.services.guardrails.rules import RuleBook
from appliance.services.plain_calls import require_plain
from appliance.services.routing import Router


@dataclass(frozen=True, slots=True)
class ProviderCount:
    """``tokens`` is None where nobody can count, or not what is in the prompt."""

    tokens: int | None
    waited: float = 0.0  # seconds for the provider; not ours to answer for


_UNKNOWN = ProviderCount(None)


class TokenCounts:
    """Asks the model's provider, if its dialect has a word for it: Anthropic's or responses."""

    def __init__(
        self, router: Router, providers: Callable[[], Mapping[str, Provider]], rules: RuleBook
    ) -> None:
        self._router = router
        self._providers = providers
        self._rules = rules

    async def count(
        self, tenant: AwakeTenant, caller: Caller, request: CallRequest
    ) -> ProviderCount:
        """Count the prompt of ``request``.

        A provider that is down or does not count its tokens is no failure: the
        caller estimates. Raises :exc:`ModelUnknown`, :exc:`ModelForbidden`,
        :exc:`InvalidRequest` for what is not for the gateway's key, and
        :exc:`ProviderFailure` where a provider of Anthropic's dialect finds
        fault with the request.
        """
        route = self._router.resolve(request.model, tenant.config)
        caller.require_model(request.model, map(str, route.targets))
        await require_plain(tenant, caller, request, route)
        rules = self._rules.find(tenant.id, tenant.config)
        if rules is not None and rules.looks_at_requests:
            return _UNKNOWN  # what is not to leave is not to leave for counting either
        target = route.targets[0]
        provider = tenant.own_provider(target.provider) or self._providers().get(target.provider)
        if not isinstance(provider, HttpProvider) or provider.dialect not in _COUNTS:
            return _UNKNOWN
        call = ModelCall(
            model=target.model,
            body=request.body,
            stream=False,
            dialect=request.dialect,
            request_id=caller.request_id,
            headers=request.headers,
        )
        try:
            call = await _in_words_of(provider.dialect, call)
        except InvalidRequest:
            return _UNKNOWN  # there is no word for something in it
        key = tenant.provider_key(target.provider)
        began = perf_counter()
        try:
            tokens = await _COUNTS[provider.dialect](provider, call, key)
        except ProviderFailure as failure:
            waited = perf_counter() - began
            # A path that it does not know is a 404, as a model would be. Of what speaks
            # like OpenAI most does not count, and says so in many ways.
            is_told = provider.dialect is Dialect.ANTHROPIC
            if is_told and failure.kind is Kind.INVALID and not failure.retryable:
                failure.waited = waited
                failure.trail = Trail(attempts=1)
                failure.trail.miss(str(target), failure.code)
                raise
            return ProviderCount(None, waited)
        return ProviderCount(tokens, perf_counter() - began)


async def _in_words_of(dialect: Dialect, call: ModelCall) -> ModelCall:
    """``call`` in ``dialect``; raises :exc:`InvalidRequest`."""
    if sum(map(len, call.body.values())) <= INLINE_BYTES:
        asked = translated(call, dialect)
    else:
        asked = await trio.to_thread.run_sync(translated, call, dialect)
    if call.dialect is dialect:
        return asked
    body = {name: value for name, value in asked.body.items() if name not in _NOT_OF_THE_PROMPT}
    return replace(asked, body=body)


# A provider of Anthropic's dialect refuses to count with them.
_NOT_OF_THE_PROMPT = frozenset(
    {"max_tokens", "metadata", "service_tier", "stop_sequences", "temperature", "top_k", "top_p"}
)
_Counts = Callable[[HttpProvider, ModelCall, str | None], Awaitable[int]]
_COUNTS: Mapping[Dialect, _Counts] = {
    Dialect.ANTHROPIC: anthropic.count_tokens,
    Dialect.RESPONSES: openai_responses.count_tokens,
}
