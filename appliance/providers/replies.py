"""Answers on their way: read from a connection, handed on as bytes or as deltas."""

import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from appliance.model.calls import Delta
from appliance.model.usage import TokenUsage
from appliance.protocols.answers import AnswerReader
from appliance.protocols.openai_answers import Completion, StreamReader, text_bytes
from appliance.protocols.openai_chat import AnswerBuilder, ChunkEncoder
from appliance.providers.base import LARGEST_ANSWER
from appliance.providers.connections import Response
from appliance.providers.errors import (
    CONNECTION_TROUBLE,
    UpstreamFailed,
    connection_failure,
    reported_failure,
)

# Seconds to wait for the end of a body after the end of its answer: it is in
# the same packet or the next.
_END_PATIENCE = 0.05


@dataclass(frozen=True, slots=True)
class Context:
    """What a reply must know of its call."""

    provider: str
    model: str
    request_id: str | None  # the provider's
    idle_timeout: float  # seconds
    clock: Callable[[], datetime]

    def encoder(self) -> ChunkEncoder:
        """For an answer that has to be written anew."""
        return ChunkEncoder(
            id=f"chatcmpl-{secrets.token_hex(12)}",
            created=int(self.clock().timestamp()),
            model=self.model,
        )


class StreamedReply:
    """An answer that comes in pieces, in a dialect that is translated."""

    def __init__(self, response: Response, reader: AnswerReader, context: Context) -> None:
        self._response = response
        self._reader = reader
        self._context = context

    @property
    def provider_request_id(self) -> str | None:
        return self._context.request_id

    @property
    def usage(self) -> TokenUsage | None:
        return self._reader.usage

    @property
    def finished(self) -> bool:
        return self._reader.finished

    @property
    def text_bytes(self) -> int:
        return self._reader.text_bytes

    async def chunks(self, *, include_usage: bool) -> AsyncGenerator[bytes, None]:
        encoder = self._context.encoder()
        start = encoder.start()
        async with aclosing(self.deltas()) as answer:
            async for deltas in answer:
                yield start + b"".join(map(encoder.delta, deltas))
                start = b""
        if include_usage and self.usage is not None:
            yield encoder.usage(self.usage)

    async def deltas(self) -> AsyncGenerator[Sequence[Delta], None]:
        reader = self._reader
        while not reader.finished:
            deltas = reader.deltas(await self._read())
            if deltas:
                yield deltas
            self._check()

    async def completion(self) -> bytes:
        answer = AnswerBuilder()
        async with aclosing(self.deltas()) as pieces:
            async for deltas in pieces:
                answer.add(deltas)
                if self.text_bytes > LARGEST_ANSWER:
                    raise UpstreamFailed(
                        f"{self._context.provider} sent more than an answer may hold"
                    )
        return answer.encode(self._context.encoder())

    async def release(self) -> None:
        """End the exchange; the connection is kept if the answer came to its end."""
        if self._reader.finished:
            await self._response.finish(patience=_END_PATIENCE)
        else:
            self._response.release()

    async def _read(self) -> bytes:
        try:
            data = await self._response.read_some(patience=self._context.idle_timeout)
        except CONNECTION_TROUBLE as exc:
            raise connection_failure(self._context.provider, exc) from exc
        if not data:
            raise UpstreamFailed(
                f"{self._context.provider} ended its answer before it was complete"
            )
        return data

    def _check(self) -> None:
        if self._reader.failure is not None:
            raise reported_failure(self._context.provider, self._reader.failure)


class RelayedReply(StreamedReply):
    """A streamed answer in the caller's own dialect: its events are handed on as they came."""

    def __init__(self, response: Response, reader: StreamReader, context: Context) -> None:
        super().__init__(response, reader, context)
        self._relay = reader.relay

    async def chunks(self, *, include_usage: bool) -> AsyncGenerator[bytes, None]:
        reader = self._reader
        while not reader.finished:
            events = self._relay(await self._read(), include_usage=include_usage)
            if events:
                yield events
            self._check()


class WholeReply:
    """An answer that came in one piece."""

    finished = True

    def __init__(self, completion: Completion, context: Context) -> None:
        self.provider_request_id = context.request_id
        self._completion = completion
        self._context = context

    @property
    def usage(self) -> TokenUsage | None:
        return self._completion.usage

    @property
    def text_bytes(self) -> int:
        return sum(map(text_bytes, self._completion.deltas()))

    async def chunks(self, *, include_usage: bool) -> AsyncGenerator[bytes, None]:
        """For a provider that was asked to stream and did not."""
        encoder = self._context.encoder()
        deltas = self._completion.deltas()
        yield encoder.start() + b"".join(map(encoder.delta, deltas))
        if include_usage and self.usage is not None:
            yield encoder.usage(self.usage)

    async def deltas(self) -> AsyncGenerator[Sequence[Delta], None]:
        yield self._completion.deltas()

    async def completion(self) -> bytes:
        return self._completion.text

    async def release(self) -> None:
        """The connection was given back when the answer was read."""
