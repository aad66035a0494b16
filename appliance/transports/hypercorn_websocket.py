"""WebSockets on Hypercorn's connection, without its cost per message.

Stock Hypercorn sends under a lock and a shield, so a peer that stops reading
keeps the sender for ever and nothing can end it; it agrees to compression,
whose state is 300 KB a connection; and after a message that is too large it
goes on collecting it. Here

1. sending never waits: what the kernel does not take is kept, counted, and
   written by a task that exists only as long as there is something to write;
2. a message is one frame, built in two lines (RFC 6455 §5.2; ours are not masked);
3. nothing is compressed;
4. a message beyond the limit is not kept, and ends the connection;
5. a peer that died without a word is noticed by the kernel (TCP_USER_TIMEOUT),
   which costs no ping and no timer.

The application finds the socket in its scope (``scope["state"]``); what comes
in still comes through ASGI's ``receive``.
"""

import socket as sockets
import struct
from contextlib import suppress
from io import StringIO
from typing import Any

import trio
from hypercorn.protocol.events import Data, Request, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.ws_stream import ASGIWebsocketState, Handshake, WSStream
from hypercorn.typing import ASGISendEvent
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Message, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from appliance.sockets import send_nowait
from appliance.transports.websocket.socket import (
    CLOSING_PATIENCE,
    FIRST_LIMIT,
    SOCKET,
    BinaryRefused,
    Receive,
    SocketClosed,
)

_TEXT = 0x81  # FIN, opcode 1
_AT_ONCE = 64 * 1024  # bytes of the backlog that one write takes
_SILENCE_MS = 60_000  # that sent bytes may stay unacknowledged
_PROTOCOL_ERROR = 1002
_ABNORMAL = 1006
_TOO_BIG = 1009
_LONGEST_REASON = 123  # bytes (RFC 6455 §5.5)


class DoorWebSocket(WSStream):
    """Hypercorn's side: reads frames, and hands the rest to its :class:`DoorSocket`."""

    _deaf = False  # what still comes in is thrown away

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # A stream's ``send`` is a method of its protocol, whose ``send`` is one
        # of the connection's server.
        server = self.send.__self__.send.__self__  # type: ignore[attr-defined]
        self.socket = DoorSocket(self, server)
        self._pieces: StringIO | None = None  # of a message that is not complete
        self._length = 0

    async def handle(self, event: StreamEvent) -> None:
        if type(event) is Request:
            event.state[SOCKET] = self.socket
            headers = [(n, v) for n, v in event.headers if n != b"sec-websocket-extensions"]
            event = Request(
                stream_id=event.stream_id,
                headers=headers,
                http_version=event.http_version,
                method=event.method,
                raw_path=event.raw_path,
                state=event.state,
            )
            await super().handle(event)
            return
        if self._deaf and type(event) is not StreamClosed:
            return
        if type(event) is Data and not self.closed and not self.handshake.accepted:
            await super().handle(event)  # a 400: it talks before we agreed
            self.socket.abort()
            await self._put({"type": "websocket.disconnect", "code": _ABNORMAL})
            return
        try:
            await super().handle(event)
        except (LocalProtocolError, RemoteProtocolError):
            await self._hang_up(_PROTOCOL_ERROR, "")
        except trio.ClosedResourceError:
            pass  # the application ended while this waited for it

    async def app_send(self, message: ASGISendEvent | None) -> None:
        if message is None and self.app_put is not None:
            # Nobody receives any more: whoever has something to hand over must
            # neither wait for that nor begin to.
            self.app_put.__self__.close()  # type: ignore[attr-defined]  # of a memory channel
            self.app_put = None
        await super().app_send(message)

    def forget_upgrade(self) -> None:
        """Let go of the HTTP request, which is a third of what an idle connection costs."""
        self.scope.clear()  # type: ignore[attr-defined]  # a dict; nobody asks any more
        self.handshake = _UPGRADED
        protocol = self.send.__self__  # type: ignore[attr-defined]
        protocol.connection.h11_connection = None

    async def _handle_events(self) -> None:
        for event in self.connection.events():
            if isinstance(event, TextMessage):
                await self._take(event)
            elif isinstance(event, Message):
                if event.message_finished:
                    await self._put({"type": "websocket.receive", "bytes": b""})
            elif isinstance(event, Ping):
                if self.connection.state is ConnectionState.OPEN:
                    self.socket.pong(self.connection.send(event.response()))
            elif isinstance(event, CloseConnection):
                await self._on_close(event)
                return

    async def _take(self, event: TextMessage) -> None:
        if self.state is ASGIWebsocketState.CLOSED:
            return  # after our goodbye only the peer's is of interest
        piece = event.data
        self._length += len(piece)
        if self._length > self.socket.most_bytes:
            self._pieces = None
            await self._end_with(_TOO_BIG, "the message is too large")
            return
        if self._pieces is not None or not event.message_finished:
            # Not a list: a peer may cut a message into single characters.
            self._pieces = self._pieces or StringIO(newline="")
            self._pieces.write(piece)
            if not event.message_finished:
                return
            piece, self._pieces = self._pieces.getvalue(), None
        self._length = 0
        await self._put({"type": "websocket.receive", "text": piece})

    async def _on_close(self, event: CloseConnection) -> None:
        state = self.connection.state
        if state is ConnectionState.OPEN:  # not said by the peer: it broke the protocol
            await self._hang_up(event.code, event.reason or "")
            return
        if state is ConnectionState.REMOTE_CLOSING:
            self.socket.write(self.connection.send(event.response()))
            await self._put({"type": "websocket.disconnect", "code": event.code})
        await self.send(StreamClosed(stream_id=self.stream_id))

    async def _hang_up(self, code: int, reason: str) -> None:
        """The peer broke the protocol: what it says from now on cannot be understood."""
        self._deaf = True
        await self._end_with(code, reason)

    async def _end_with(self, code: int, reason: str) -> None:
        """Tell both sides. The application closes the connection."""
        self.socket.say_goodbye(code, reason)
        await self._put({"type": "websocket.disconnect", "code": code})

    async def _put(self, message: dict[str, Any]) -> None:
        if self.app_put is not None:
            with suppress(trio.ClosedResourceError):  # the application ended meanwhile
                await self.app_put(message)


class _Upgraded(Handshake):
    """All that is asked of a handshake once it is done."""

    def __init__(self) -> None:
        self.accepted = True


_UPGRADED = _Upgraded()


class DoorSocket:
    """Satisfies :class:`~appliance.transports.websocket.socket.Socket`."""

    __slots__ = (
        "_aborted", "_flushing", "_pong", "_receive", "_server", "_stream", "_waiting",
        "buffered", "most_bytes",
    )  # fmt: skip

    def __init__(self, stream: DoorWebSocket, server: Any) -> None:
        self._stream = stream
        self._server = server  # a DoorServer: the TCP stream and the connection's tasks
        self._waiting: list[bytes] = []
        self._pong = b""  # to be sent after what waits
        self._flushing = False
        self._aborted = False
        self._receive: Receive | None = None
        self.most_bytes = FIRST_LIMIT
        self.buffered = 0

    def bind(self, receive: Receive) -> None:
        """Take what comes in from ``receive``, the application's own."""
        self._receive = receive
        self._stream.forget_upgrade()
        self._server.idle_task.finish()  # a WebSocket may be silent for as long as it likes
        transport = getattr(self._server.stream, "transport_stream", self._server.stream)
        if type(transport) is trio.SocketStream:
            with suppress(OSError):  # no TCP: a socket of this machine needs none
                transport.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_USER_TIMEOUT, _SILENCE_MS)
                transport.setsockopt(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1)

    async def receive(self) -> bytes:
        if self._receive is None:
            raise RuntimeError("the socket is not bound")
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise SocketClosed(int(message.get("code") or _ABNORMAL))
        text = message.get("text")
        if text is None:
            raise BinaryRefused
        data: bytes = text.encode()
        if len(data) > self.most_bytes:
            raise SocketClosed(_TOO_BIG)
        return data

    def send(self, text: bytes) -> None:
        length = len(text)
        if length < 126:
            self.write(bytes((_TEXT, length)) + text)
        elif length < 65536:
            self.write(struct.pack("!BBH", _TEXT, 126, length) + text)
        else:
            self.write(struct.pack("!BBQ", _TEXT, 127, length) + text)

    def pong(self, frame: bytes) -> None:
        """Answer a ping; of those that come faster than the peer reads, the latest.

        RFC 6455 §5.5.3 allows that, and a flood of pings must not fill the memory.
        """
        if self._flushing:
            self._pong = frame
        else:
            self.write(frame)

    def limit_messages(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes

    async def close(self, code: int, reason: str) -> None:
        self.say_goodbye(code, reason)
        try:
            with trio.move_on_after(CLOSING_PATIENCE):
                while self._receive is not None and not self._stream.closed:
                    await self._receive()  # what the peer said before it heard us
        finally:
            self.abort()

    def say_goodbye(self, code: int, reason: str) -> None:
        """Queue the close frame; once."""
        stream = self._stream
        if stream.state is not ASGIWebsocketState.CONNECTED:
            return
        stream.state = ASGIWebsocketState.CLOSED
        self._pong = b""
        short = reason.encode()[:_LONGEST_REASON].decode(errors="ignore")
        with suppress(LocalProtocolError):
            self.write(stream.connection.send(CloseConnection(code=code, reason=short)))

    def abort(self) -> None:
        if self._aborted:
            return
        self._aborted = True
        self._waiting.clear()
        self._pong = b""
        self.buffered = 0
        transport = getattr(self._server.stream, "transport_stream", self._server.stream)
        if type(transport) is trio.SocketStream:
            transport.socket.close()  # whoever reads or writes it is woken by that

    def write(self, data: bytes) -> None:
        """Send raw bytes, now if the kernel takes them."""
        if self._aborted:
            return
        if not self._flushing:
            try:
                sent = send_nowait(self._server.stream, data)
            except trio.BrokenResourceError:
                self.abort()
                return
            if sent == len(data):
                return
            data = data[sent:]
            self._flushing = True
            self._stream.task_group.spawn(self._flush)
        self._waiting.append(data)
        self.buffered += len(data)

    async def _flush(self) -> None:
        try:
            while self._waiting or self._pong:
                data = self._next_piece()
                await self._server.stream.send_all(data)
                self.buffered = max(0, self.buffered - len(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            self.abort()
        finally:
            self._flushing = False

    def _next_piece(self) -> bytes:
        """The oldest part of the backlog; what is being written is still ``buffered``."""
        if not self._waiting:
            pong, self._pong = self._pong, b""
            self.buffered += len(pong)
            return pong
        first = self._waiting[0]
        if len(first) > _AT_ONCE:
            self._waiting[0] = first[_AT_ONCE:]
            return first[:_AT_ONCE]
        taken, size = 0, 0
        for piece in self._waiting:
            if size + len(piece) > _AT_ONCE:
                break
            size += len(piece)
            taken += 1
        piece = b"".join(self._waiting[:taken])
        del self._waiting[:taken]
        return piece
