"""Answers on their way: read from a connection, handed on as bytes or as deltas."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

import trio

from appliance.model.calls import Delta, Dialect, Finished
from appliance.model.usage import TokenUsage
from appliance.protocols.answers import (
    AnswerReader,
    AnswerWriter,
    RelayedAnswer,
    RelayingReader,
    WholeAnswer,
    believed,
)
from appliance.protocols.openai_answers import text_bytes
from appliance.providers.base import LARGEST_ANSWER
from appliance.providers.beginnings import Beginning
from appliance.providers.connections import Response
from appliance.providers.errors import (
    CONNECTION_TROUBLE,
    UpstreamFailed,
    UpstreamTimeout,
    connection_failure,
    reported_failure,
)
from appliance.providers.silence import SilenceWatch

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
    prompt_bytes: int | None = None  # to estimate from when usage is missing


class StreamedReply:
    """An answer that comes in pieces, in a dialect that is translated."""

    _relays = False  # callers may be handed the very events

    def __init__(self, response: Response, reader: AnswerReader, context: Context) -> None:
        self._response = response
        self._reader = reader
        self._context = context
        self._silence = SilenceWatch(context.idle_timeout)
        self._first = b""

    @property
    def provider_request_id(self) -> str | None:
        return self._context.request_id

    @property
    def usage(self) -> TokenUsage | None:
        reader = self._reader
        return believed(
            reader.usage,
            # Of half an answer nobody is told; whoever settles it estimates.
            prompt_bytes=self._context.prompt_bytes if reader.finished else None,
            text_bytes=reader.text_bytes,
        )

    @property
    def finished(self) -> bool:
        return self._reader.finished

    @property
    def text_bytes(self) -> int:
        return self._reader.text_bytes

    async def events(self, writer: AnswerWriter) -> AsyncGenerator[bytes, None]:
        start = writer.start(self._context.model)
        async with aclosing(self.deltas()) as answer:
            async for deltas in answer:
                yield start + writer.deltas(deltas)
                start = b""
        if end := start + writer.end(self.usage):
            yield end

    async def deltas(self) -> AsyncGenerator[Sequence[Delta], None]:
        reader = self._reader
        while not reader.finished:
            deltas = reader.deltas(await self._read())
            if reader.finished:
                self._silence.rest()
                deltas = _told(deltas, self.usage)
            if deltas:
                yield deltas
            self._check()

    async def whole(self, writer: AnswerWriter) -> bytes:
        async with aclosing(self.deltas()) as pieces:
            async for deltas in pieces:
                writer.collect(deltas)
                if self.text_bytes > LARGEST_ANSWER:
                    raise UpstreamFailed(
                        f"{self._context.provider} sent more than an answer may hold"
                    )
        return writer.whole(self._context.model, self.usage)

    def begin(self) -> None:
        """Watch for silence from here on; whoever begins ends (see :meth:`end`)."""
        self._silence.__enter__()

    async def end(self, exc: BaseException | None) -> None:
        """End the exchange; the connection is kept if the answer came to its end.

        ``exc`` is what the reading ended with. Raises :exc:`UpstreamTimeout` if
        that was silence.
        """
        try:
            if exc is None:
                self._silence.__exit__(None, None, None)
            else:
                self._silence.__exit__(type(exc), exc, exc.__traceback__)
        finally:
            if self._reader.finished:
                await self._response.finish(patience=_END_PATIENCE)
            else:
                self._response.release()
        if self._silence.was_silent:
            raise UpstreamTimeout(f"{self._context.provider} was silent for too long")

    async def prime(self, *, deadline: float, needs_token: bool) -> None:
        """Wait until the answer begins (see :class:`Beginning`), at most until ``deadline``.

        What has come is read in its time. Raises as reading it would, also for
        an answer that begins with an error.
        """
        beginning = Beginning(type(self._reader), needs_token=needs_token or not self._relays)
        has_begun = False
        try:
            while not has_begun:
                left = max(0.0, deadline - trio.current_time())
                patience = min(left, self._context.idle_timeout)
                data = self._some(await self._response.read_some(patience=patience))
                has_begun = beginning.feed(data)
        except CONNECTION_TROUBLE as exc:
            raise connection_failure(self._context.provider, exc) from exc
        self._first = beginning.data

    async def _read(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        self._silence.expect()
        try:
            data = await self._response.receive()
        except CONNECTION_TROUBLE as exc:
            raise connection_failure(self._context.provider, exc) from exc
        self._silence.expect()  # for whoever handles it
        return data or self._some(self._last_word())

    def _last_word(self) -> bytes:
        """What the end of the body says; empty if the answer is not complete."""
        return b""

    def _some(self, data: bytes) -> bytes:
        if not data:
            raise UpstreamFailed(
                f"{self._context.provider} ended its answer before it was complete"
            )
        return data

    def _check(self) -> None:
        if self._reader.failure is not None:
            raise reported_failure(self._context.provider, self._reader.failure)


class RelayedReply(StreamedReply):
    """A streamed answer whose events are handed on as they came to callers of its dialect."""

    _relays = True

    def __init__(
        self, response: Response, reader: RelayingReader, context: Context, *, dialect: Dialect
    ) -> None:
        super().__init__(response, reader, context)
        self._relaying = reader
        self._dialect = dialect

    def events(self, writer: AnswerWriter) -> AsyncGenerator[bytes, None]:
        return self._relayed(writer) if writer.dialect is self._dialect else super().events(writer)

    async def _relayed(self, writer: AnswerWriter) -> AsyncGenerator[bytes, None]:
        reader, include_usage = self._relaying, writer.include_usage
        while not reader.finished:
            events = reader.relay(await self._read(), include_usage=include_usage)
            if reader.finished:
                self._silence.rest()
                events += reader.ending(self.usage, include_usage=include_usage)
            if events:
                yield events
            self._check()

    def _last_word(self) -> bytes:
        return self._relaying.last_word


class WholeReply:
    """An answer that came in one piece."""

    finished = True

    def __init__(self, answer: WholeAnswer, context: Context, *, dialect: Dialect) -> None:
        self.provider_request_id = context.request_id
        self._answer = answer
        self._context = context
        self._dialect = dialect

    @property
    def usage(self) -> TokenUsage | None:
        told = self._answer.usage
        # What was said is only looked at where it is needed: it may be long.
        size = self.text_bytes if told is None or told.completion == 0 else 0
        return believed(told, prompt_bytes=self._context.prompt_bytes, text_bytes=size)

    @property
    def text_bytes(self) -> int:
        return sum(map(text_bytes, self._answer.deltas()))

    async def events(self, writer: AnswerWriter) -> AsyncGenerator[bytes, None]:
        """For a provider that was asked to stream and did not."""
        start, usage = writer.start(self._context.model), self.usage
        yield start + writer.deltas(_told(self._answer.deltas(), usage)) + writer.end(usage)

    async def deltas(self) -> AsyncGenerator[Sequence[Delta], None]:
        yield _told(self._answer.deltas(), self.usage)

    async def whole(self, writer: AnswerWriter) -> bytes:
        answer, usage = self._answer, self.usage
        # A response's ids and what is kept of it are ours, whoever has answered.
        if writer.dialect is self._dialect and isinstance(answer, RelayedAnswer):
            return answer.relayed(usage)
        writer.collect(_told(answer.deltas(), usage))
        return writer.whole(self._context.model, usage)

    async def prime(self, *, deadline: float, needs_token: bool) -> None:
        """It is all there."""

    def begin(self) -> None:
        """There is nothing to watch."""

    async def end(self, exc: BaseException | None) -> None:
        """The connection was given back when the answer was read."""


def _told(deltas: Sequence[Delta], usage: TokenUsage | None) -> Sequence[Delta]:
    """The last deltas of an answer, with the figures that it is settled at."""
    return [replace(each, usage=usage) if isinstance(each, Finished) else each for each in deltas]
