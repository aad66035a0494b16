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


def _of_an_api(*, form: Form = Form.OPENAI, **declared: Any) -> Route:
    """A tenant's route that a raw door answers."""
    return Route(who=Who.TENANT, handler=None, form=form, **declared)


ROUTES = (
    _of_an_api(
        name="openai.chat",
        method="POST",
        path="/v1/chat/completions",
        summary="Answer a conversation, as OpenAI's chat completions; streams with stream: true",
        scope=Scope.CHAT,
        body=ChatBody,
        failures=(502, 504),
        produces=("application/json", "text/event-stream"),
    ),
    _of_an_api(
        name="openai.responses",
        method="POST",
        path="/v1/responses",
        summary="Answer as Open Responses and OpenAI's responses do; stored for what follows it",
        scope=Scope.CHAT,
        body=ResponseBody,
        failures=(502, 504),
        produces=("application/json", "text/event-stream"),
    ),
    _of_an_api(
        name="openai.response",
        method="GET",
        path="/v1/responses/{response}",
        summary="Show a stored response; stream=true resumes one that runs in the background",
        scope=None,
        query=ResponseQuery,
        produces=("application/json", "text/event-stream"),
    ),
    _of_an_api(
        name="openai.response_delete",
        method="DELETE",
        path="/v1/responses/{response}",
        summary="Delete a stored response",
        scope=Scope.CHAT,
    ),
    _of_an_api(
        name="openai.response_cancel",
        method="POST",
        path="/v1/responses/{response}/cancel",
        summary="End a response that runs in the background",
        scope=Scope.CHAT,
    ),
    _of_an_api(
        name="openai.response_input",
        method="GET",
        path="/v1/responses/{response}/input_items",
        summary="List what a response was asked",
        scope=None,
        query=ItemsQuery,
    ),
    _of_an_api(
        name="openai.input_tokens",
        method="POST",
        path="/v1/responses/input_tokens",
        summary="Count the tokens of a request",
        scope=Scope.CHAT,
        body=InputTokensBody,
        failures=(502, 504),
    ),
    _of_an_api(
        name="openai.compact",
        method="POST",
        path="/v1/responses/compact",
        summary="Make a conversation shorter, for a response to go on from",
        scope=Scope.CHAT,
        body=CompactBody,
        failures=(502, 504),
    ),
    _of_an_api(
        name="openai.conversation_create",
        method="POST",
        path="/v1/conversations",
        summary="Begin a conversation",
        scope=Scope.CHAT,
        body=ConversationBody,
    ),
    _of_an_api(
        name="openai.conversation",
        method="GET",
        path="/v1/conversations/{conversation}",
        summary="Show a conversation",
        scope=None,
    ),
    _of_an_api(
        name="openai.conversation_update",
        method="POST",
        path="/v1/conversations/{conversation}",
        summary="Give a conversation new metadata",
        scope=Scope.CHAT,
        body=ConversationUpdate,
    ),
    _of_an_api(
        name="openai.conversation_delete",
        method="DELETE",
        path="/v1/conversations/{conversation}",
        summary="Delete a conversation",
        scope=Scope.CHAT,
    ),
    _of_an_api(
        name="openai.items",
        method="GET",
        path="/v1/conversations/{conversation}/items",
        summary="List what was said in a conversation",
        scope=None,
        query=ItemsQuery,
    ),
    _of_an_api(
        name="openai.items_create",
        method="POST",
        path="/v1/conversations/{conversation}/items",
        summary="Add to a conversation",
        scope=Scope.CHAT,
        body=ConversationItems,
    ),
    _of_an_api(
        name="openai.item",
        method="GET",
        path="/v1/conversations/{conversation}/items/{item}",
        summary="Show one item",
        scope=None,
    ),
    _of_an_api(
        name="openai.item_delete",
        method="DELETE",
        path="/v1/conversations/{conversation}/items/{item}",
        summary="Take an item out of a conversation",
        scope=Scope.CHAT,
    ),
    _of_an_api(
        name="openai.embeddings",
        method="POST",
        path="/v1/embeddings",
        summary="Turn texts into vectors, as OpenAI's embeddings",
        scope=Scope.CHAT,
        body=EmbeddingsBody,
        failures=(502, 504),
    ),
    _of_an_api(
        name="openai.models",
        method="GET",
        path="/v1/models",
        summary="List what may be named as model: agents, aliases, models",
        scope=None,
        query=ModelsQuery,
    ),
    _of_an_api(
        name="openai.model",
        method="GET",
        path="/v1/models/{model}",
        summary="Show one of them",
        scope=None,
    ),
    _of_an_api(
        name="anthropic.messages",
        method="POST",
        path="/v1/messages",
        summary="Answer a conversation, as Anthropic's messages; streams with stream: true",
        scope=Scope.CHAT,
        body=MessagesBody,
        failures=(502, 504, 529),
        produces=("application/json", "text/event-stream"),
        form=Form.ANTHROPIC,
    ),
    _of_an_api(
        name="anthropic.count_tokens",
        method="POST",
        path="/v1/messages/count_tokens",
        summary="Count the tokens of a request",
        scope=Scope.CHAT,
        body=CountTokensBody,
        failures=(502, 504, 529),
        form=Form.ANTHROPIC,
    ),
    _of_an_api(
        name="tools.invoke",
        method="POST",
        path="/tools/invoke",
        summary="Run one tool, as far as the tenant's policy allows it over HTTP",
        scope=Scope.CHAT,
        body=dict[str, Any],
        failures=(405,),
        form=Form.OPENCLAW,
    ),
)
