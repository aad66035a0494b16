"""What a model provider is to the rest of the appliance."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from appliance.model.calls import Delta, Dialect, ModelCall
from appliance.model.embeddings import EmbeddingAnswer, EmbeddingCall
from appliance.model.usage import TokenUsage
from appliance.protocols.answers import AnswerWriter

LARGEST_ANSWER = 64 * 1024 * 1024  # bytes of an answer that is not streamed


class Reply(Protocol):
    """One answer. Use one of ``events``, ``deltas`` and ``whole``, once.

    A reply either ends well, with ``finished`` True, or raises
    :exc:`~appliance.model.errors.ProviderFailure`: half an answer never looks
    whole.
    """

    @property
    def usage(self) -> TokenUsage | None:
        """The best figures so far, final after the end; None if the provider told none."""

    @property
    def finished(self) -> bool:
        """Whether the provider said that the answer is complete."""

    @property
    def text_bytes(self) -> int:
        """Bytes of answer that have come, to estimate from when usage is missing."""

    @property
    def provider_request_id(self) -> str | None:
        """What the provider calls this request."""

    def events(self, writer: AnswerWriter) -> AsyncGenerator[bytes, None]:
        """The answer as events of the writer's dialect, those of one read joined.

        Whole events only, without what ``writer.tail()`` adds. Where the
        provider speaks this dialect, the events are its own bytes.
        """

    def deltas(self) -> AsyncGenerator[Sequence[Delta], None]:
        """The answer decoded; the last delta is ``Finished``."""

    async def whole(self, writer: AnswerWriter) -> bytes:
        """The answer as one object of the writer's dialect."""


class Provider(Protocol):
    """A model API under the name the config gives it. One call is one attempt."""

    @property
    def name(self) -> str: ...

    @property
    def dialect(self) -> Dialect: ...

    def open(
        self, call: ModelCall, *, api_key: str | None = None
    ) -> AbstractAsyncContextManager[Reply]:
        """Ask; ``api_key`` replaces the gateway's own.

        Entering sends the request and waits for the answer to begin, or, when
        it is not streamed, for all of it. Leaving early, or being cancelled,
        closes the connection, which ends the work at the provider. Raises
        :exc:`~appliance.model.errors.ProviderFailure`, and
        :exc:`~appliance.model.errors.InvalidRequest` for what this provider's
        dialect cannot express.
        """

    async def models(self) -> Sequence[str]:
        """The models it offers: as configured, else as it tells. Never raises; may be empty."""

    async def aclose(self) -> None:
        """Close what is idle. Calls under way go on to their end."""


@runtime_checkable
class EmbeddingProvider(Protocol):
    """A provider that may also be asked for embeddings."""

    async def embed(self, call: EmbeddingCall, *, api_key: str | None = None) -> EmbeddingAnswer:
        """Ask once; ``api_key`` replaces the gateway's own.

        Raises :exc:`~appliance.model.errors.ProviderFailure`, in particular
        :exc:`~appliance.providers.errors.EmbeddingRefused` for what this
        provider or this model cannot do.
        """
