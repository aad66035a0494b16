"""Requests and failures of the APIs that are not ours, for the documents.

The routes read more than stands here, each in its own parser; what a request
must hold, and what is asked most, is here.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct

from appliance.transports.schemas.base import View

Name = Annotated[str, Meta(min_length=1, max_length=256, description="As GET /v1/models lists it.")]
Messages = Annotated[list[dict[str, Any]], Meta(min_length=1)]
Metadata = Annotated[dict[str, str], Meta(max_length=16)]


class OpenBody(Struct, frozen=True, kw_only=True):
    """A body that may hold more than is documented."""


class ChatBody(OpenBody, frozen=True):
    """A chat completion, as OpenAI's API reference describes it."""

    model: Name
    messages: Messages
    stream: bool | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    response_format: dict[str, Any] | None = None
    user: str | None = None


class ResponseBody(OpenBody, frozen=True):
    """A response, as Open Responses and OpenAI describe it."""

    model: Name
    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    store: bool | None = None
    stream: bool | None = None
    background: bool | None = None
    max_output_tokens: int | None = None
    tools: list[dict[str, Any]] | None = None
    metadata: Metadata | None = None


class CompactBody(OpenBody, frozen=True):
    model: Name
    input: str | list[dict[str, Any]] | None = None
    previous_response_id: str | None = None
    instructions: str | None = None


class InputTokensBody(OpenBody, frozen=True):
    model: Name
    input: str | list[dict[str, Any]] | None = None


class ConversationBody(OpenBody, frozen=True):
    items: list[dict[str, Any]] | None = None
    metadata: Metadata | None = None


class ConversationUpdate(OpenBody, frozen=True):
    metadata: Metadata


class ConversationItems(OpenBody, frozen=True):
    items: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=20)]


class MessagesBody(OpenBody, frozen=True):
    """A message, as Anthropic's API reference describes it."""

    model: Name
    max_tokens: Annotated[int, Meta(ge=1)]
    messages: Messages
    system: str | list[dict[str, Any]] | None = None
    stream: bool | None = None
    tools: list[dict[str, Any]] | None = None


class CountTokensBody(OpenBody, frozen=True):
    model: Name
    messages: Messages
    system: str | list[dict[str, Any]] | None = None


class EmbeddingsBody(OpenBody, frozen=True):
    """Embeddings, as OpenAI's API reference describes them."""

    model: Name
    input: Annotated[
        str | list[Any], Meta(description="A text, texts, the tokens of a text, or of texts.")
    ]
    encoding_format: str | None = None
    dimensions: int | None = None


class OpenAiErrorDetail(View, frozen=True):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAiError(View, frozen=True):
    """A failure in OpenAI's form."""

    error: OpenAiErrorDetail


class AnthropicErrorDetail(View, frozen=True):
    type: str
    message: str


class AnthropicError(View, frozen=True):
    """A failure in Anthropic's form."""

    type: str
    error: AnthropicErrorDetail
    request_id: str | None = None


class ToolErrorDetail(View, frozen=True):
    type: str
    message: str


class ToolError(View, frozen=True):
    """A failure in OpenClaw's form."""

    ok: bool
    error: ToolErrorDetail
