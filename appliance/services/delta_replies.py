"""Replies that are written from deltas, whatever the provider's dialect is."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol

from appliance.model.calls import Delta
from appliance.model.usage import TokenUsage
from appliance.protocols.answers import AnswerWriter


class Source(Protocol):
    """What a reply is written from."""

    @property
    def usage(self) -> TokenUsage | None: ...
    @property
    def finished(self) -> bool: ...
    @property
    def text_bytes(self) -> int: ...
    @property
    def provider_request_id(self) -> str | None: ...
    def deltas(self) -> AsyncGenerator[Sequence[Delta], None]: ...


class DeltaReply:
    """Another reply, with something done to its deltas; satisfies ``providers.base.Reply``."""

    def __init__(self, inner: Source, model: str) -> None:
        self._inner = inner
        self._model = model

    @property
    def usage(self) -> TokenUsage | None:
        return self._inner.usage

    @property
    def finished(self) -> bool:
        return self._inner.finished

    @property
    def text_bytes(self) -> int:
        return self._inner.text_bytes

    @property
    def provider_request_id(self) -> str | None:
        return self._inner.provider_request_id

    def deltas(self) -> AsyncGenerator[Sequence[Delta], None]:
        return self._inner.deltas()

    async def events(self, writer: AnswerWriter) -> AsyncGenerator[bytes, None]:
        start = writer.start(self._model)
        async with aclosing(self.deltas()) as answer:
            async for deltas in answer:
                if events := start + writer.deltas(deltas):
                    yield events
                start = b""
        if end := start + writer.end(self.usage):
            yield end

    async def whole(self, writer: AnswerWriter) -> bytes:
        async with aclosing(self.deltas()) as answer:
            async for deltas in answer:
                writer.collect(deltas)
        return writer.whole(self._model, self.usage)
