"""``POST /v1/embeddings``."""

from dataclasses import dataclass, replace
from functools import partial

from appliance.config.schema import GatewayConfig
from appliance.model.tokens import Scope
from appliance.protocols.embeddings import EmbeddingRequest
from appliance.services.embeddings import Embeddings, model_for_agents
from appliance.transports.bodies import off_the_loop
from appliance.transports.raw.agents import agent_of
from appliance.transports.raw.exchange import Exchange

PATH = "/v1/embeddings"


@dataclass(frozen=True, slots=True)
class EmbeddingsHandler:
    embeddings: Embeddings

    async def __call__(self, exchange: Exchange) -> None:
        exchange.require_method("POST")
        caller = exchange.admit(Scope.CHAT)
        body = await exchange.read()
        limit = exchange.door.config.server.max_body_bytes
        parse = partial(EmbeddingRequest.parse, body, limit_bytes=limit)
        request = await off_the_loop(body, parse)
        runtime = await exchange.wake()
        request = _with_model(request, runtime.config)
        await exchange.perform(
            partial(self.embeddings.embed, runtime, caller, request, exchange.answer)
        )


def _with_model(request: EmbeddingRequest, config: GatewayConfig) -> EmbeddingRequest:
    """``request`` with a model in place of an agent."""
    if agent_of(request.call.model) is None:
        return request
    return replace(request, call=replace(request.call, model=model_for_agents(config)))
