"""Routes that the raw doors answer in front of the framework.

They have no handler here. They stand in the table for the documents and for
the isolation suite, which asks them through the whole gateway.
"""

from typing import Any

from appliance.model.tokens import Scope
from appliance.transports.control.route import Route, Who

ROUTES = (
    Route(
        name="openai.chat",
        method="POST",
        path="/v1/chat/completions",
        who=Who.TENANT,
        summary="Answer a conversation, as OpenAI's chat completions; streams with stream: true",
        handler=None,
        scope=Scope.CHAT,
        body=dict[str, Any],
        failures=(400, 429, 502, 503, 504),
        produces=("application/json", "text/event-stream"),
    ),
    Route(
        name="openai.models",
        method="GET",
        path="/v1/models",
        who=Who.TENANT,
        summary="List what may be named as model: agents, aliases, models",
        handler=None,
        scope=None,
    ),
    Route(
        name="openai.model",
        method="GET",
        path="/v1/models/{model}",
        who=Who.TENANT,
        summary="Show one of them",
        handler=None,
        scope=None,
    ),
    Route(
        name="tools.invoke",
        method="POST",
        path="/tools/invoke",
        who=Who.TENANT,
        summary="Run one tool, as far as the tenant's policy allows it over HTTP",
        handler=None,
        scope=Scope.CHAT,
        body=dict[str, Any],
        failures=(400, 404, 405, 413, 503),
    ),
)
