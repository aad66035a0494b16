"""How many tokens a prompt has, without having it answered: nothing is spent."""

from collections.abc import Callable, Mapping

from appliance.model.callers import Caller
from appliance.model.calls import Dialect, ModelCall
from appliance.model.errors import Kind, ProviderFailure
from appliance.providers.anthropic import count_tokens
from appliance.providers.base import Provider
from appliance.providers.http_provider import HttpProvider
from appliance.services.call_requests import AwakeTenant, CallRequest
from appliance.services.routing import Router


class TokenCounts:
    """Asks the model's provider if it speaks Anthropic's dialect: no other has a word for it."""

    def __init__(self, router: Router, providers: Callable[[], Mapping[str, Provider]]) -> None:
        self._router = router
        self._providers = providers

    async def count(self, tenant: AwakeTenant, caller: Caller, request: CallRequest) -> int | None:
        """Count the prompt of ``request``, which is in Anthropic's dialect; None: nobody can.

        A provider that is down or does not count its tokens is no failure: the
        caller estimates. Raises :exc:`ModelUnknown`, :exc:`ModelForbidden`, and
        :exc:`ProviderFailure` where the provider finds fault with the request.
        """
        route = self._router.resolve(request.model, tenant.config)
        caller.require_model(request.model, map(str, route.targets))
        target = route.targets[0]
        provider = tenant.own_provider(target.provider) or self._providers().get(target.provider)
        if not isinstance(provider, HttpProvider) or provider.dialect is not Dialect.ANTHROPIC:
            return None
        call = ModelCall(
            model=target.model,
            body=request.body,
            stream=False,
            dialect=Dialect.ANTHROPIC,
            request_id=caller.request_id,
            headers=request.headers,
        )
        try:
            return await count_tokens(provider, call, api_key=tenant.provider_key(target.provider))
        except ProviderFailure as failure:
            # A path that it does not know is a 404, as a model would be.
            if failure.kind is Kind.INVALID and not failure.retryable:
                raise
            return None
