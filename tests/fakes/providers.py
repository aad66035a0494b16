"""A model provider made of a script: it answers what it was told to, and counts who came."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from types import TracebackType

import trio

from appliance.model.calls import Delta, Dialect, Finished, FinishReason, ModelCall, TextDelta
from appliance.model.usage import TokenUsage
from appliance.protocols.answers import AnswerWriter
from appliance.providers.base import Reply

USED = TokenUsage(input=10, output=5)


@dataclass
class FakeReply:
    """Answers ``pieces``, one a checkpoint, then fails or tells ``final`` usage."""

    pieces: Sequence[str] = ("Hello", " there")
    final: TokenUsage | None = USED  # None: it never tells
    failure: Exception | None = None  # raised after the pieces
    reason: FinishReason | None = FinishReason.STOP  # None: it ends without a word
    finished: bool = False
    usage: TokenUsage | None = None
    text_bytes: int = 0
    provider_request_id: str | None = "up_1"

    async def events(self, writer: AnswerWriter) -> AsyncGenerator[bytes, None]:
        async with aclosing(self.deltas()) as answer:
            async for deltas in answer:
                yield b"".join(map(_event, deltas))
        if writer.include_usage and self.usage is not None:
            yield b"data: usage\n\n"

    async def deltas(self) -> AsyncGenerator[Sequence[Delta], None]:
        for piece in self.pieces:
            await trio.lowlevel.checkpoint()
            self.text_bytes += len(piece.encode())
            yield [TextDelta(piece)]
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        self.finished, self.usage = True, self.final
        if self.reason is not None:
            yield [Finished(self.reason, self.usage)]

    async def whole(self, writer: AnswerWriter) -> bytes:
        async with aclosing(self.events(writer)) as events:
            return b"".join([each async for each in events])


def _event(delta: Delta) -> bytes:
    return b"data: %s\n\n" % (delta.text.encode() if isinstance(delta, TextDelta) else b"finished")


@dataclass
class FakeProvider:
    """Satisfies ``providers.base.Provider``: each call gets the next of ``script``, then the last.

    An exception in the script is raised instead of an answer.
    """

    name: str = "stub"
    script: Sequence[FakeReply | Exception] = field(default_factory=lambda: [FakeReply()])
    offers: Sequence[str] = ()
    dialect: Dialect = Dialect.OPENAI
    calls: list[ModelCall] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    entered: int = 0  # answers that began
    exited: int = 0
    closed: int = 0

    def open(
        self, call: ModelCall, *, api_key: str | None = None
    ) -> AbstractAsyncContextManager[Reply]:
        answer = self.script[min(len(self.calls), len(self.script) - 1)]
        self.calls.append(call)
        self.keys.append(api_key)
        return _Opening(self, answer)

    async def models(self) -> Sequence[str]:
        await trio.lowlevel.checkpoint()
        return self.offers

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.close()


class _Opening:
    def __init__(self, provider: FakeProvider, answer: FakeReply | Exception) -> None:
        self._provider = provider
        self._answer = answer

    async def __aenter__(self) -> Reply:
        await trio.lowlevel.checkpoint()
        if isinstance(self._answer, Exception):
            raise self._answer
        self._provider.entered += 1
        return self._answer

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._provider.exited += 1
        await trio.lowlevel.checkpoint()
