"""One WebSocket as a connection uses it, whatever server is below.

:class:`~appliance.transports.hypercorn_websocket.DoorSocket` is the lean
implementation; :class:`AsgiSocket` works on any ASGI server and takes over
where the server is not the one that the lean one was written for.
"""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import trio

SOCKET = "openclaw.socket"
"""Key in an ASGI scope's ``state``: the lean socket, if there is one."""

FIRST_LIMIT = 64 * 1024  # bytes of a message, until the application says otherwise
CLOSING_PATIENCE = 5.0  # seconds for what waits, the close frame and the peer's answer to it

_NORMAL = 1000
_ABNORMAL = 1006
_TOO_BIG = 1009

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class SocketClosed(Exception):
    """The peer is gone, or said goodbye; ``code`` is the close code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the WebSocket is closed ({code})")
        self.code = code


class BinaryRefused(Exception):
    """A binary message came; the Gateway speaks text."""


class Socket(Protocol):
    async def receive(self) -> bytes:
        """The next text message in UTF-8.

        Raises :exc:`SocketClosed` or :exc:`BinaryRefused`.
        """

    def send(self, text: bytes) -> None:
        """Send one text message; what the peer does not take yet waits in memory.

        Never waits and never raises: the reader notices a broken connection.
        """

    @property
    def buffered(self) -> int:
        """Bytes that wait for the peer."""

    def limit_messages(self, most_bytes: int) -> None:
        """Refuse longer messages with the close code 1009."""

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye after what is waiting; gone in a few seconds, peer willing or not."""

    def abort(self) -> None:
        """End the connection now."""


@asynccontextmanager
async def open_socket(scope: dict[str, Any], receive: Receive, send: Send) -> AsyncIterator[Socket]:
    """The socket of an accepted WebSocket: the lean one if the server has it."""
    lean = scope.get("state", {}).get(SOCKET)
    if lean is not None:
        lean.bind(receive)
        yield lean
        return
    plain = AsgiSocket(receive, send)
    ended: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(plain.run)
        try:
            yield plain
        except (SocketClosed, BinaryRefused) as error:
            ended = error  # the nursery would wrap it
        finally:
            plain.abort()
    if ended is not None:
        raise ended


class AsgiSocket:
    """A :class:`Socket` on plain ASGI. :meth:`run` must run as long as it is used."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._waiting: deque[dict[str, Any]] = deque()
        self._wake = trio.Event()
        self._most_bytes = FIRST_LIMIT
        self._closing = False
        self._scope = trio.CancelScope()
        self.buffered = 0

    async def run(self) -> None:
        """Send what waits, until closed."""
        with self._scope:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                while self._waiting:
                    message = self._waiting.popleft()
                    await self._send(message)
                    self.buffered -= _size(message)
                    if message["type"] == "websocket.close":
                        return

    async def receive(self) -> bytes:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise SocketClosed(int(message.get("code") or _ABNORMAL))
        text = message.get("text")
        if text is None:
            raise BinaryRefused
        data: bytes = text.encode()
        if len(data) > self._most_bytes:
            raise SocketClosed(_TOO_BIG)
        return data

    def send(self, text: bytes) -> None:
        if not self._closing:
            self._put({"type": "websocket.send", "text": text.decode()})

    def limit_messages(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes

    async def close(self, code: int, reason: str) -> None:
        if self._closing:
            return
        self._closing = True
        self._put({"type": "websocket.close", "code": code, "reason": reason})
        with trio.move_on_after(CLOSING_PATIENCE):
            while (await self._receive())["type"] != "websocket.disconnect":
                pass
        self.abort()

    def abort(self) -> None:
        self._closing = True
        self._scope.cancel()

    def _put(self, message: dict[str, Any]) -> None:
        self._waiting.append(message)
        self.buffered += _size(message)
        self._wake.set()


def _size(message: dict[str, Any]) -> int:
    return len(message.get("text") or "")
