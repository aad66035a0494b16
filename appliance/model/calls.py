"""A call of a language model, in words every provider understands.

``ModelCall`` goes in; what comes back is a stream of deltas. A provider of the
caller's own dialect may hand the bytes on untouched instead (see
``appliance.providers``), which is what the hot path does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from appliance.model.usage import TokenUsage


class Dialect(StrEnum):
    OPENAI = "openai"  # POST /chat/completions
    ANTHROPIC = "anthropic"  # POST /v1/messages
    OLLAMA = "ollama"  # POST /api/chat
    EMBEDDED = "embedded"  # the worker process beside us; speaks OpenAI's


class FinishReason(StrEnum):
    """Why an answer ended, in OpenAI's words."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call; ``id`` and ``name`` come with the first piece of each index."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    reason: FinishReason
    usage: TokenUsage | None  # None: the provider did not say


Delta = TextDelta | ReasoningDelta | ToolCallDelta | Finished


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One request to one model of one provider.

    ``body`` is a chat-completions request in OpenAI's form: every value is
    JSON text (bytes), not decoded, because most of it is only passed on.
    ``model`` replaces the caller's name for the model by the provider's.
    """

    model: str
    body: Mapping[str, bytes]
    stream: bool
    output_limit: int | None = None  # tokens; set where the caller's own is missing or too high
    request_id: str = ""
