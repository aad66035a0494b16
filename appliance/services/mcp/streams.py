"""MCP's messages to and from a server in a sandbox. Loads the SDK; see ``mcp_connection``."""

import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType

import anyio
import trio
from mcp.client._transport import ReadStream, WriteStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter
from pydantic import ValidationError

from appliance.protocols.mcp_lines import Allowance, Lines, LineTooLong
from appliance.sandboxes.base import Sandbox

log = logging.getLogger(__name__)

_PIECE = 64 * 1024
_WRITE_TAKES = 10.0  # seconds for a server to read one message
_KEPT_ERRORS = 5  # lines of what it prints besides
_LONGEST_ERROR = 300  # characters
_LAST_WORDS = 0.5  # seconds
_GOODBYE = 2.0  # seconds to end by itself once its input has ended
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
_CLOSED = (anyio.BrokenResourceError, anyio.ClosedResourceError)

# A message costs one and, if it is as long as it may be, a hundred more. So a
# server may say a thousand small things at once, and ten large ones.
BURST = 1000.0
PER_SECOND = 50.0
_DEAREST = 100.0


class GuardedStream:
    """What a server says, until it ends or says too much. Satisfies the SDK's ``ReadStream``.

    Whoever fills ``inner`` calls :meth:`spend` for each message.
    """

    def __init__(self, inner: ReadStream[SessionMessage | Exception]) -> None:
        self.ended = trio.Event()
        self.reason = ""
        self._inner = inner
        self._allowance = Allowance(BURST, PER_SECOND, now=trio.current_time())

    def spend(self, share: float) -> bool:
        """Count a message; ``share`` is its part of the longest allowed. False ends the stream."""
        cost = 1 + _DEAREST * share
        if self._allowance.take(cost, now=trio.current_time()):
            return True
        self.end("it floods the gateway with messages")
        return False

    def end(self, reason: str) -> None:
        """The first reason counts."""
        if not self.ended.is_set():
            self.reason = reason
            self.ended.set()

    async def receive(self) -> SessionMessage | Exception:
        if self.ended.is_set():
            raise anyio.EndOfStream
        try:
            message = await self._inner.receive()
        except (anyio.EndOfStream, *_CLOSED):
            self.end("it closed the connection")
            raise anyio.EndOfStream from None
        return message

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> "GuardedStream":
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> "GuardedStream":
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()


GuardedStreams = tuple[GuardedStream, WriteStream[SessionMessage]]


@asynccontextmanager
async def sandbox_streams(
    opening: AbstractAsyncContextManager[Sandbox], *, longest: int
) -> AsyncIterator[GuardedStreams]:
    """Talk to the command in a sandbox, one JSON text a line; end it when this is left.

    A server that says a line of more than ``longest`` bytes, too much, or
    that does not read what it is told, is ended.
    """
    async with opening as sandbox, trio.open_nursery() as nursery:
        to_us, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        outgoing, from_us = anyio.create_memory_object_stream[SessionMessage](0)
        guard = GuardedStream(incoming)
        errors: deque[str] = deque(maxlen=_KEPT_ERRORS)
        try:
            nursery.start_soon(_hear, sandbox, to_us, guard, longest)
            nursery.start_soon(_tell, sandbox, from_us, guard)
            nursery.start_soon(_drain, sandbox, errors)
            yield guard, outgoing
            if not guard.ended.is_set():
                await _say_goodbye(sandbox)
        finally:
            nursery.cancel_scope.cancel()
            for stream in (to_us, incoming, outgoing, from_us):
                stream.close()
            if errors:
                log.debug("an MCP server printed", extra={"lines": list(errors)})


async def _hear(
    sandbox: Sandbox,
    to_us: "anyio.abc.ObjectSendStream[SessionMessage | Exception]",
    guard: GuardedStream,
    longest: int,
) -> None:
    lines = Lines(longest)
    reason = "it ended by itself"
    try:
        while piece := await sandbox.output.receive_some(_PIECE):
            for line in lines.feed(bytes(piece)):
                # What is no message counts as well.
                if not guard.spend(len(line) / longest):
                    return
                message = _parsed(line)
                if message is not None:
                    await to_us.send(message)
    except LineTooLong:
        reason = f"it said more than {longest} bytes at once"
    except (*_GONE, *_CLOSED):
        pass
    finally:
        guard.end(reason)
        with trio.CancelScope(shield=True):
            await to_us.aclose()


def _parsed(line: bytes) -> SessionMessage | None:
    """Programs print other things than messages, too; those are passed over."""
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except (ValidationError, ValueError):
        return None


async def _tell(
    sandbox: Sandbox,
    from_us: "anyio.abc.ObjectReceiveStream[SessionMessage]",
    guard: GuardedStream,
) -> None:
    try:
        async for message in from_us:
            text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            with trio.move_on_after(_WRITE_TAKES) as limit:
                await sandbox.input.send_all(text.encode(errors="replace") + b"\n")
            if limit.cancelled_caught:
                guard.end(f"it has not read what it is told for {_WRITE_TAKES:g} s")
                return
    except (*_GONE, *_CLOSED):
        pass
    finally:
        with trio.CancelScope(shield=True):
            await from_us.aclose()


async def _drain(sandbox: Sandbox, errors: deque[str]) -> None:
    """Read what it prints besides, so that it is not held up; keep the end of it."""
    stream = sandbox.errors
    if stream is None:
        return
    try:
        while piece := await stream.receive_some(_PIECE):
            for line in bytes(piece).decode(errors="replace").splitlines()[-_KEPT_ERRORS:]:
                errors.append(line[:_LONGEST_ERROR])
            await trio.sleep(0.005)  # who prints without end keeps nobody busy
    except _GONE:
        pass


async def _say_goodbye(sandbox: Sandbox) -> None:
    await trio.aclose_forcefully(sandbox.input)
    with trio.move_on_after(_GOODBYE):
        await sandbox.wait()
