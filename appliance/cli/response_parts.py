"""The routes of responses and conversations, built from their parts."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Protocol

from appliance.services.model_calls import ModelCalls
from appliance.services.responses.compaction import Compaction
from appliance.services.responses.conversations import ConversationService
from appliance.services.responses.responses import Responses
from appliance.services.token_counts import TokenCounts
from appliance.services.turns.turns import Turns
from appliance.transports.gateway import Endpoint, Upgradable
from appliance.transports.openai_api import conversations, response_objects, responses
from appliance.transports.openai_api.conversations import ConversationsHandler
from appliance.transports.openai_api.failures import failure_of
from appliance.transports.openai_api.response_objects import ResponseObjects
from appliance.transports.openai_api.responses import (
    CompactHandler,
    InputTokensHandler,
    ResponsesHandler,
    described,
)
from appliance.transports.openai_api.responses_socket import ResponsesSocket
from appliance.transports.openai_api.responses_socket import Tenants as SocketTenants
from appliance.transports.raw.door import RawDoor
from appliance.transports.raw.exchange import RawRoute, Tenants


class ResponseTenants(Tenants, SocketTenants, Protocol):
    """The tenants of this gateway, for requests and for WebSockets."""


def build_responses(calls: ModelCalls, turns: Turns, clock: Callable[[], datetime]) -> Responses:
    return Responses(calls, turns, clock=clock, describe=described)


def response_routes(
    service: Responses,
    calls: ModelCalls,
    counts: TokenCounts,
    *,
    door: RawDoor,
    tenants: ResponseTenants,
    clock: Callable[[], datetime],
) -> dict[str, Endpoint]:
    """Each path (a prefix ends in ``/``) with its endpoint."""
    route = partial(RawRoute, door=door, tenants=tenants, form=failure_of)
    compaction = Compaction(calls, counts, clock=clock)
    below = ResponseObjects(
        service,
        {"compact": CompactHandler(compaction), "input_tokens": InputTokensHandler(compaction)},
    )
    of_conversations = ConversationsHandler(ConversationService(clock=clock))
    return {
        responses.PATH: Upgradable(
            http=route(ResponsesHandler(service), label=responses.PATH),
            websocket=ResponsesSocket(service, door=door, tenants=tenants),
        ),
        f"{responses.PATH}/": route(below, label=response_objects.label_of),
        conversations.PATH: route(of_conversations, label=conversations.PATH),
        f"{conversations.PATH}/": route(of_conversations, label=conversations.label_of),
    }
