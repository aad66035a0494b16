"""One answer on its way out: head, events, keep-alive comments, the end.

The tenant's job writes the answer; the door's own task meanwhile listens for
the client leaving and keeps a quiet stream alive. Only one of them writes at a
time: the comment waits for nothing and is skipped while the job writes, the
job waits for a comment that is being written.
"""

from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Any

import trio

from appliance.services.model_calls import OpenCall
from appliance.transports.bodies import Receive
from appliance.transports.chunks import Chunks
from appliance.transports.raw.call_headers import call_headers, settled_headers
from appliance.transports.raw.failures import Failure, Header

Send = Callable[[dict[str, Any]], Awaitable[None]]

_COMMENT = b": keep-alive\n\n"
_SSE: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
_COMMENT_PATIENCE = 5.0  # seconds a comment may take to leave


class Answer:
    """The ASGI side of one answer; satisfies ``services.completions.Sink``."""

    def __init__(
        self,
        send: Send,
        receive: Receive,
        *,
        request_id: str,
        received_at: float,
        streams: bool,
        keep_alive: float,
        send_timeout: float,
        limits: Callable[[], Sequence[Header]],
        chunks: Chunks | None = None,
    ) -> None:
        self._send = send
        self._receive = receive
        self.request_id = request_id
        self._received_at = received_at
        self.streams = streams
        self._keep_alive = keep_alive
        self._send_timeout = send_timeout
        self._limits = limits
        self._chunks = chunks
        self._commenting: trio.Event | None = None
        self._writing_since: float | None = None
        self._last_write = trio.current_time()
        self._ended = False
        self.begun = False
        self.status = 0
        self.sent_bytes = 0

    # What the job does.

    async def begin(self, call: OpenCall) -> None:
        await self._quiet()
        # The head leaves with the first event: one system call less.
        if not self.begun:
            await self._start(200, (*_SSE, *call_headers(call)), waited=call.waited)

    async def send(self, events: bytes) -> None:
        chunks = self._chunks
        if chunks is None or not chunks.are_open or self._commenting is not None or not events:
            await self._write(events, more=True)
            return
        self._last_write = trio.current_time()
        self.sent_bytes += len(events)
        if chunks.write(events):
            return
        self._writing_since = self._last_write
        try:
            await chunks.drain()
        finally:
            self._writing_since = None

    async def finish(self, call: OpenCall, rest: bytes) -> None:
        await self._quiet()
        self._ended = True
        if self.streams:
            await self._write(rest, more=False)
            return
        await self.whole(rest, waited=call.waited, headers=settled_headers(call))

    async def open_stream(self) -> None:
        """Begin a stream of what was answered before."""
        await self._quiet()
        if not self.begun:
            await self._start(200, _SSE, waited=0.0)

    async def close_stream(self, rest: bytes) -> None:
        """Send the last of it."""
        await self._quiet()
        self._ended = True
        await self._write(rest, more=False)

    # What the door does.

    async def whole(
        self,
        body: bytes,
        *,
        status: int = 200,
        waited: float = 0.0,
        headers: Sequence[Header] = (),
    ) -> None:
        """Send a complete JSON answer."""
        self._ended = True
        headers = ((b"content-type", b"application/json"), _length(body), *headers)
        await self._start(status, headers, waited=waited)
        await self._write(body, more=False)

    async def fail(self, failure: Failure) -> None:
        """Say that the answer failed: with its status, or in the stream if that has begun."""
        await self._quiet()
        self._ended = True
        if self.begun:
            self.status = failure.status
            await self._write(failure.stream, more=False)
            return
        headers = ((b"content-type", b"application/json"), _length(failure.body), *failure.headers)
        await self._start(failure.status, headers, waited=failure.waited)
        await self._write(failure.body, more=False)

    async def break_off(self, failure: Failure) -> None:
        """As :meth:`fail`, unless the last of the answer was on its way."""
        if not self._ended:
            await self.fail(failure)

    async def wait_left(self) -> None:
        """Return when the client has left, or has stopped reading for too long."""
        while True:
            with trio.move_on_after(self._keep_alive):
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    return
            since = self._writing_since
            if since is not None and trio.current_time() - since > self._send_timeout:
                return
            if self.streams and since is None and not self._ended:
                await self._comment()

    async def _comment(self) -> None:
        if trio.current_time() - self._last_write < self._keep_alive / 2:
            return
        self._commenting = trio.Event()
        try:
            # Shielded: half a comment would spoil what the job writes next.
            with trio.move_on_after(_COMMENT_PATIENCE, shield=True):
                if not self.begun:
                    # All that was quiet is taken for waiting: of the rest nobody knows yet.
                    silence = trio.current_time() - self._last_write
                    await self._start(200, _SSE, waited=silence)
                await self._write(_COMMENT, more=True)
        finally:
            self._commenting.set()
            self._commenting = None

    async def _quiet(self) -> None:
        if self._commenting is not None:
            await self._commenting.wait()

    async def _start(self, status: int, headers: Sequence[Header], *, waited: float) -> None:
        self.begun = True
        self.status = status
        overhead = max(0.0, perf_counter() - self._received_at - waited) * 1000
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    *headers,
                    (b"x-request-id", self.request_id.encode()),
                    (b"x-openclaw-overhead-ms", b"%.2f" % overhead),
                    *self._limits(),
                ],
            }
        )

    async def _write(self, data: bytes, *, more: bool) -> None:
        if self._commenting is not None and data is not _COMMENT:
            await self._commenting.wait()
        now = trio.current_time()
        self._last_write = self._writing_since = now
        try:
            await self._send({"type": "http.response.body", "body": data, "more_body": more})
        finally:
            self._writing_since = None
        self.sent_bytes += len(data)


def _length(body: bytes) -> Header:
    return (b"content-length", b"%d" % len(body))
