"""The routes that speak the APIs of OpenAI and Anthropic, built from their parts."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from appliance.cli.response_parts import ResponseTenants, build_responses, response_routes
from appliance.services.completions import Completions
from appliance.services.embeddings import Embeddings
from appliance.services.model_calls import ModelCalls
from appliance.services.routing import CatalogueEntry
from appliance.services.token_counts import TokenCounts
from appliance.services.tools.invocations import ToolInvocations
from appliance.services.turns.turns import Turns
from appliance.tenants.runtime import TenantRuntime
from appliance.transports import tools_http
from appliance.transports.anthropic_api import count_tokens, messages
from appliance.transports.anthropic_api.count_tokens import CountHandler
from appliance.transports.anthropic_api.failures import failure_of as anthropic_failure
from appliance.transports.anthropic_api.messages import MessagesHandler
from appliance.transports.gateway import Endpoint
from appliance.transports.openai_api import embeddings, models
from appliance.transports.openai_api.chat import ChatHandler
from appliance.transports.openai_api.embeddings import EmbeddingsHandler
from appliance.transports.openai_api.failures import failure_of
from appliance.transports.raw.door import RawDoor
from appliance.transports.raw.exchange import RawRoute
from appliance.transports.raw.unknown_paths import LABEL, UnknownPathHandler, unknown_paths


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiFoundation:
    """What the routes stand on."""

    door: RawDoor
    tenants: ResponseTenants
    calls: ModelCalls
    turns: Turns
    tools: ToolInvocations
    counts: TokenCounts
    list_models: Callable[[TenantRuntime], Awaitable[Sequence[CatalogueEntry]]]
    started_at: datetime
    clock: Callable[[], datetime]


def raw_routes(base: ApiFoundation) -> dict[str, Endpoint]:
    """Each path (a prefix ends in ``/``) with its endpoint."""
    openai = partial(RawRoute, door=base.door, tenants=base.tenants, form=failure_of)
    completions = Completions(base.calls)
    anthropic = partial(RawRoute, door=base.door, tenants=base.tenants, form=anthropic_failure)
    chat = "/v1/chat/completions"
    responses = build_responses(base.calls, base.turns, base.clock)
    nothing = UnknownPathHandler()
    missing, missing_there = openai(nothing, label=LABEL), anthropic(nothing, label=LABEL)
    return {
        **unknown_paths(
            either=models.ByVersionHeader(missing, missing_there),
            openai=missing,
            anthropic=missing_there,
        ),
        **response_routes(
            responses,
            base.calls,
            base.counts,
            door=base.door,
            tenants=base.tenants,
            clock=base.clock,
        ),
        chat: openai(ChatHandler(completions, base.turns, base.clock), label=chat),
        embeddings.PATH: openai(EmbeddingsHandler(Embeddings(base.calls)), label=embeddings.PATH),
        messages.PATH: anthropic(
            MessagesHandler(completions, base.turns, base.clock), label=messages.PATH
        ),
        count_tokens.PATH: anthropic(
            CountHandler(base.counts, base.clock), label=count_tokens.PATH
        ),
        models.PATH: _models(base, label=models.PATH),
        f"{models.PATH}/": _models(base, label=f"{models.PATH}/{{model}}"),
        tools_http.PATH: RawRoute(
            tools_http.ToolsHandler(base.tools),
            door=base.door,
            tenants=base.tenants,
            form=tools_http.tools_failure,
            label=tools_http.PATH,
        ),
    }


def _models(base: ApiFoundation, *, label: str) -> Endpoint:
    offered = models.Offered(base.list_models, base.calls)
    route = partial(RawRoute, door=base.door, tenants=base.tenants, label=label)
    return models.ByVersionHeader(
        openai=route(models.ModelsHandler(offered, base.started_at), form=failure_of),
        anthropic=route(
            models.AnthropicModelsHandler(offered, base.started_at), form=anthropic_failure
        ),
    )
