"""Routes that the raw doors answer in front of the framework.

They have no handler here. They stand in the table for the documents and for
the isolation suite, which asks them through the whole gateway.
"""

from typing import Annotated, Any

from msgspec import Meta

from appliance.model.tokens import Scope
from appliance.transports.control.route import Form, Route, Who
from appliance.transports.schemas.apis import (
    ChatBody,
    CompactBody,
    ConversationBody,
    ConversationItems,
    ConversationUpdate,
    CountTokensBody,
    EmbeddingsBody,
    InputTokensBody,
    MessagesBody,
    ResponseBody,
)
from appliance.transports.schemas.base import Query

_Limit = Annotated[int, Meta(ge=1, le=100)]
_Id = Annotated[str, Meta(max_length=128)]


class ResponseQuery(Query, frozen=True):
    stream: bool | None = None
    starting_after: Annotated[int, Meta(ge=0)] | None = None


class ItemsQuery(Query, frozen=True):
    limit: _Limit | None = None
    order: Annotated[str, Meta(pattern="^(asc|desc)$")] | None = None
    after: _Id | None = None


class ModelsQuery(Query, frozen=True):
    """For Anthropic's clients."""

    limit: Annotated[int, Meta(ge=1, le=1000)] | None = None
    after_id: Annotated[str, Meta(max_length=300)] | None = None
    before_id: Annotated[str, Meta(max_length=300)] | None = None


ROUTES = (
    Route(
        name="openai.chat",
        method="POST",
        path="/v1/chat/completions",
        who=Who.TENANT,
        summary="Answer a conversation, as OpenAI's chat completions; streams with stream: true",
        handler=None,
        scope=Scope.CHAT,
        body=ChatBody,
        failures=(502, 504),
        produces=("application/json", "text/event-stream"),
        form=Form.OPENAI,
    ),
    Route(
        name="openai.responses",
        method="POST",
        path="/v1/responses",
        who=Who.TENANT,
        summary="Answer as Open Responses and OpenAI's responses do; stored for what follows it",
        handler=None,
        scope=Scope.CHAT,
        body=ResponseBody,
        failures=(502, 504),
        produces=("application/json", "text/event-stream"),
        form=Form.OPENAI,
    ),
    Route(
        name="openai.response",
        method="GET",
        path="/v1/responses/{response}",
        who=Who.TENANT,
        summary="Show a stored response; stream=true resumes one that runs in the background",
        handler=None,
        scope=None,
        query=ResponseQuery,
        produces=("application/json", "text/event-stream"),
        form=Form.OPENAI,
    ),
    Route(
        name="openai.response_delete",
        method="DELETE",
        path="/v1/responses/{response}",
        who=Who.TENANT,
        summary="Delete a stored response",
        handler=None,
        scope=Scope.CHAT,
        form=Form.OPENAI,
    ),
    Route(
        name="openai.response_cancel",
        method="POST",
        path="/v1/responses/{response}/cancel",
        who=Who.TENANT,
        summary="End a response that runs in the background",
        handler=None,
        scope=Scope.CHAT,
        form=Form.OPENAI,
    ),
    Route(
        name="openai.response_input",
        method="GET",
        path="/v1/responses/{response}/input_items",
        who=Who.TENANT,
        summary="List what a response was asked",
        handler=None,
        scope=None,
        query=ItemsQuery,
        form=Form.OPENAI,
    ),
    Route(
        name="openai.input_tokens",
        method="POST",
        path="/v1/responses/input_tokens",
        who=Who.TENANT,
        summary="Count the tokens of a request",
        handler=None,
        scope=Scope.CHAT,
        body=InputTokensBody,
        failures=(502, 504),
        form=Form.OPENAI,
    ),
    Route(
        name="openai.compact",
        method="POST",
        path="/v1/responses/compact",
        who=Who.TENANT,
        summary="Make a conversation shorter, for a response to go on from",
        handler=None,
        scope=Scope.CHAT,
        body=CompactBody,
        failures=(502, 504),
        form=Form.OPENAI,
    ),
    Route(
        name="openai.conversation_create",
        method="POST",
        path="/v1/conversations",
        who=Who.TENANT,
        summary="Begin a conversation",
        handler=None,
        scope=Scope.CHAT,
        body=ConversationBody,
        form=Form.OPENAI,
    ),
    Route(
        name="openai.conversation",
        method="GET",
        path="/v1/conversations/{conversation}",
        who=Who.TENANT,
        summary="Show a conversation",
        handler=None,
        scope=None,
        form=Form.OPENAI,
    ),
    Route(
        name="openai.conversation_update",
        method="POST",
        path="/v1/conversations/{conversation}",
        who=Who.TENANT,
        summary="Give a conversation new metadata",
        handler=None,
        scope=Scope.CHAT,
        body=ConversationUpdate,
        form=Form.OPENAI,
    ),
    Route(
        name="openai.conversation_delete",
        method="DELETE",
        path="/v1/conversations/{conversation}",
        who=Who.TENANT,
        summary="Delete a conversation",
        handler=None,
        scope=Scope.CHAT,
        form=Form.OPENAI,
    ),
    Route(
        name="openai.items",
        method="GET",
        path="/v1/conversations/{conversation}/items",
        who=Who.TENANT,
        summary="List what was said in a conversation",
        handler=None,
        scope=None,
        query=ItemsQuery,
        form=Form.OPENAI,
    ),
    Route(
        name="openai.items_create",
        method="POST",
        path="/v1/conversations/{conversation}/items",
        who=Who.TENANT,
        summary="Add to a conversation",
        handler=None,
        scope=Scope.CHAT,
        body=ConversationItems,
        form=Form.OPENAI,
    ),
    Route(
        name="openai.item",
        method="GET",
        path="/v1/conversations/{conversation}/items/{item}",
        who=Who.TENANT,
        summary="Show one item",
        handler=None,
        scope=None,
        form=Form.OPENAI,
    ),
    Route(
        name="openai.item_delete",
        method="DELETE",
        path="/v1/conversations/{conversation}/items/{item}",
        who=Who.TENANT,
        summary="Take an item out of a conversation",
        handler=None,
        scope=Scope.CHAT,
        form=Form.OPENAI,
    ),
    Route(
        name="openai.embeddings",
        method="POST",
        path="/v1/embeddings",
        who=Who.TENANT,
        summary="Turn texts into vectors, as OpenAI's embeddings",
        handler=None,
        scope=Scope.CHAT,
        body=EmbeddingsBody,
        failures=(502, 504),
        form=Form.OPENAI,
    ),
    Route(
        name="openai.models",
        method="GET",
        path="/v1/models",
        who=Who.TENANT,
        summary="List what may be named as model: agents, aliases, models",
        handler=None,
        scope=None,
        query=ModelsQuery,
        form=Form.OPENAI,
    ),
    Route(
        name="openai.model",
        method="GET",
        path="/v1/models/{model}",
        who=Who.TENANT,
        summary="Show one of them",
        handler=None,
        scope=None,
        form=Form.OPENAI,
    ),
    Route(
        name="anthropic.messages",
        method="POST",
        path="/v1/messages",
        who=Who.TENANT,
        summary="Answer a conversation, as Anthropic's messages; streams with stream: true",
        handler=None,
        scope=Scope.CHAT,
        body=MessagesBody,
        failures=(502, 504, 529),
        produces=("application/json", "text/event-stream"),
        form=Form.ANTHROPIC,
    ),
    Route(
        name="anthropic.count_tokens",
        method="POST",
        path="/v1/messages/count_tokens",
        who=Who.TENANT,
        summary="Count the tokens of a request",
        handler=None,
        scope=Scope.CHAT,
        body=CountTokensBody,
        failures=(502, 504, 529),
        form=Form.ANTHROPIC,
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
        failures=(405,),
        form=Form.OPENCLAW,
    ),
)
