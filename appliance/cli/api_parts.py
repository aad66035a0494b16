"""The routes that speak the APIs of OpenAI and Anthropic, built from their parts."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from appliance.services.completions import Completions
from appliance.services.model_calls import ModelCalls
from appliance.services.routing import CatalogueEntry
from appliance.services.tools.invocations import ToolInvocations
from appliance.services.turns.turns import Turns
from appliance.tenants.runtime import TenantRuntime
from appliance.transports import tools_http
from appliance.transports.gateway import Endpoint
from appliance.transports.openai_api import models
from appliance.transports.openai_api.chat import ChatHandler
from appliance.transports.openai_api.failures import failure_of
from appliance.transports.openai_api.models import ModelsHandler
from appliance.transports.raw.door import RawDoor
from appliance.transports.raw.exchange import RawRoute, Tenants


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiFoundation:
    """What the routes stand on."""

    door: RawDoor
    tenants: Tenants
    calls: ModelCalls
    turns: Turns
    tools: ToolInvocations
    list_models: Callable[[TenantRuntime], Awaitable[Sequence[CatalogueEntry]]]
    started_at: datetime
    clock: Callable[[], datetime]


def raw_routes(base: ApiFoundation) -> dict[str, Endpoint]:
    """Each path (a prefix ends in ``/``) with its endpoint."""
    openai = partial(RawRoute, door=base.door, tenants=base.tenants, form=failure_of)
    completions = Completions(base.calls)
    listing = ModelsHandler(base.list_models, base.started_at)
    chat = "/v1/chat/completions"
    return {
        chat: openai(ChatHandler(completions, base.turns, base.clock), label=chat),
        models.PATH: openai(listing, label=models.PATH),
        f"{models.PATH}/": openai(listing, label=f"{models.PATH}/{{model}}"),
        tools_http.PATH: RawRoute(
            tools_http.ToolsHandler(base.tools),
            door=base.door,
            tenants=base.tenants,
            form=tools_http.tools_failure,
            label=tools_http.PATH,
        ),
    }
