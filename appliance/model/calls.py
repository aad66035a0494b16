"""A call of a language model, in words every provider understands.

``ModelCall`` goes in; what comes back is a stream of deltas. A provider of the
caller's own dialect may hand the bytes on untouched instead (see
``appliance.providers``), which is what the hot path does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from appliance.model.usage import TokenUsage


class Dialect(StrEnum):
    """Whose words are used: by a caller, or to a provider."""

    OPENAI = "openai"  # POST /chat/completions
    RESPONSES = "openai-responses"  # POST /responses
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
class ReasoningSeal:
    """Ends what was thought so far; to be sent back with it.

    ``signature`` belongs to the text before it, ``hidden`` is thought that only
    the provider can read.
    """

    signature: str = ""
    hidden: str = ""


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    text: str


@dataclass(frozen=True, slots=True)
class LogprobsDelta:
    """How likely the tokens of the text before it were, in OpenAI's form."""

    tokens: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call.

    ``id``, ``name`` and ``is_custom`` come with the first piece of each index.
    ``arguments`` are JSON, of a custom tool a text of any form.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    is_custom: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    reason: FinishReason
    usage: TokenUsage | None  # None: the provider did not say
    stop: str | None = None  # which of the stop sequences it was, if the provider says


@dataclass(frozen=True, slots=True)
class Aside:
    """Something about the answer that is no part of it, for whom has a word for it.

    Guardrails leave it out where they look through answers; to a dialect without
    a word for its kind it says nothing.
    """


@dataclass(frozen=True, slots=True)
class Annotation(Aside):
    """Where the text before it is from: a ``url_citation``, a ``file_citation``, …

    ``value`` is as OpenAI's responses have it: the type and its members side by side.
    """

    value: Mapping[str, Any]


Delta = (
    TextDelta
    | ReasoningDelta
    | ReasoningSeal
    | RefusalDelta
    | LogprobsDelta
    | ToolCallDelta
    | Aside
    | Finished
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds to wait for a provider; None is what its own section of the config says.

    ``request`` is for an answer to begin, or for all of one that is not
    streamed; ``first_token`` for the first words of a streamed one, ``idle``
    for each piece after them.
    """

    request: float | None = None
    first_token: float | None = None
    idle: float | None = None


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One request to one model of one provider.

    ``body`` is a request in the form of ``dialect``: every value is JSON text
    (bytes), not decoded, because most of it is only passed on. A provider of
    another dialect reads it into a ``Prompt`` and says it in its own words.
    ``model`` replaces the caller's name for the model by the provider's.
    ``headers`` are the caller's that mean something to a provider of its dialect.
    ``prompt_bytes`` is the size that its tokens are estimated from, None if nobody has measured it.
    With ``has_next`` somebody else will be asked if this one fails before it has said a word.
    """

    model: str
    body: Mapping[str, bytes]
    stream: bool
    dialect: Dialect = Dialect.OPENAI
    output_limit: int | None = None  # tokens; set where the caller's own is missing or too high
    request_id: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    timeouts: Timeouts | None = None
    prompt_bytes: int | None = None
    has_next: bool = False
