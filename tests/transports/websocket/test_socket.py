"""The contract of a socket, on the lean door and on any ASGI server."""

import gc
import os
import socket as sockets
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import hypercorn.protocol.h11
import hypercorn.trio
import pytest
import trio
import trio_websocket
from hypercorn.config import Config

from appliance.transports import hypercorn_door
from appliance.transports.hypercorn_websocket import DoorWebSocket
from appliance.transports.websocket.socket import (
    BinaryRefused,
    Socket,
    SocketClosed,
    open_socket,
)

# Stock Hypercorn leaves a socket to the collector when its server is cancelled.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)

Talk = Callable[[Socket], Awaitable[None]]


class Server:
    """Serves WebSockets with whatever ``talk`` says."""

    def __init__(self) -> None:
        self.port = 0
        self.talk: Talk = echo
        self.ended: list[str] = []
        self._has_ended = trio.Event()
        self.streams: list[trio.SocketStream] = []  # of clients, to be closed at the end

    async def app(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        await receive()
        await send({"type": "websocket.accept"})
        try:
            async with open_socket(scope, receive, send) as socket:
                await self.talk(socket)
        except SocketClosed as closed:
            self.ended.append(f"closed {closed.code}")
            self._has_ended.set()
        except BinaryRefused:
            self.ended.append("binary")
            self._has_ended.set()

    async def wait_ended(self) -> str:
        with trio.fail_after(60):
            await self._has_ended.wait()
        return self.ended[-1]


async def echo(socket: Socket) -> None:
    while True:
        socket.send(await socket.receive())


@pytest.fixture(params=["lean", "any ASGI server"])
async def server(request: pytest.FixtureRequest, nursery: trio.Nursery) -> AsyncIterator[Server]:
    if request.param == "lean":
        assert hypercorn_door.install()
    else:
        hypercorn_door.uninstall()
    server = Server()
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.accesslog = config.errorlog = None
    config.graceful_timeout = 0.1
    serve = partial(hypercorn.trio.serve, server.app, config, mode="asgi")  # type: ignore[arg-type]  # an ASGI app by shape
    (url,) = await nursery.start(serve)
    server.port = int(url.rsplit(":", 1)[1])
    yield server
    for stream in server.streams:
        await trio.aclose_forcefully(stream)
    nursery.cancel_scope.cancel()
    hypercorn_door.uninstall()
    gc.collect()  # what stock Hypercorn leaves behind is complained about here


# Other servers answer a broken protocol, and negotiate, as they like.
lean_only = pytest.mark.parametrize("server", ["lean"], indirect=True)


def dial(server: Server, **options: Any) -> Any:
    return trio_websocket.open_websocket_url(f"ws://127.0.0.1:{server.port}/", **options)


async def raw(server: Server, offer: bytes = b"") -> trio.SocketStream:
    """A TCP stream whose WebSocket handshake is done."""
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    server.streams.append(stream)
    await stream.send_all(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        + offer
        + b"\r\n"
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await stream.receive_some(1)
    assert head.startswith(b"HTTP/1.1 101")
    return stream


def frame(opcode: int, payload: bytes, *, final: bool = True, masked: bool = True) -> bytes:
    first = opcode | (0x80 if final else 0)
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head = bytes((first, bit | len(payload)))
    elif len(payload) < 65536:
        head = struct.pack("!BBH", first, bit | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, bit | 127, len(payload))
    return head + (b"\0\0\0\0" if masked else b"") + payload


async def read_exactly(stream: trio.SocketStream, count: int) -> bytes:
    data = b""
    with trio.fail_after(60):
        while len(data) < count:
            piece = await stream.receive_some(count - len(data))
            assert piece, "the connection ended"
            data += piece
    return data


async def read_frame(stream: trio.SocketStream) -> tuple[int, bytes]:
    first, length = await read_exactly(stream, 2)
    if length == 126:
        (length,) = struct.unpack("!H", await read_exactly(stream, 2))
    elif length == 127:
        (length,) = struct.unpack("!Q", await read_exactly(stream, 8))
    return first & 0x0F, await read_exactly(stream, length)


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65_535, 65_536, 300_000])
async def test_text_of_every_size_arrives_whole(server: Server, length: int) -> None:
    async def generous(socket: Socket) -> None:
        socket.limit_messages(1_000_000)
        await echo(socket)

    server.talk = generous
    async with dial(server) as client:
        text = "é" + "x" * length
        await client.send_message(text)
        with trio.fail_after(60):
            assert await client.get_message() == text


async def test_a_message_may_come_in_pieces(server: Server) -> None:
    stream = await raw(server)
    whole = "naïve €".encode()
    # Cut inside a character: the pieces are text only together.
    await stream.send_all(frame(1, whole[:3], final=False))
    await stream.send_all(frame(0, whole[3:6], final=False) + frame(9, b"still there?"))
    await stream.send_all(frame(0, whole[6:]))

    assert await read_frame(stream) == (10, b"still there?")
    assert await read_frame(stream) == (1, whole)


async def test_what_the_client_says_byte_by_byte_is_understood(server: Server) -> None:
    stream = await raw(server)
    for byte in frame(1, b"slowly"):
        await stream.send_all(bytes((byte,)))
    assert await read_frame(stream) == (1, b"slowly")


async def test_a_message_beyond_the_limit_ends_the_connection(server: Server) -> None:
    async def small(socket: Socket) -> None:
        socket.limit_messages(1_000)
        try:
            await echo(socket)
        except SocketClosed as closed:
            await socket.close(closed.code, "the message is too large")
            raise

    server.talk = small
    async with dial(server) as client:
        await client.send_message("x" * 1_001)
        with trio.fail_after(60), pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await client.get_message()
    assert caught.value.reason is not None
    assert caught.value.reason.code == 1009
    assert await server.wait_ended() == "closed 1009"


@pytest.mark.parametrize(
    ("bytes_sent", "code"),
    [
        (frame(1, b"\xff\xfe"), 1007),
        (frame(3, b"?"), 1002),
        (frame(1, b"x", masked=False), 1002),
    ],
    ids=["no UTF-8", "an opcode that nobody knows", "no mask"],
)
@lean_only
async def test_a_client_that_breaks_the_protocol_is_told_how(
    server: Server, bytes_sent: bytes, code: int
) -> None:
    async def polite(socket: Socket) -> None:
        try:
            await echo(socket)
        except SocketClosed as closed:
            await socket.close(closed.code, "")
            raise

    server.talk = polite
    stream = await raw(server)
    await stream.send_all(bytes_sent)
    opcode, payload = await read_frame(stream)
    assert opcode == 8
    assert struct.unpack("!H", payload[:2]) == (code,)
    await stream.aclose()
    assert await server.wait_ended() == f"closed {code}"


def _is_lean() -> bool:
    return hypercorn.protocol.h11.WSStream is DoorWebSocket  # type: ignore[attr-defined]  # the name that the door replaces


async def test_a_binary_message_is_refused(server: Server) -> None:
    stream = await raw(server)
    await stream.send_all(frame(2, b"\x00"))
    assert await server.wait_ended() == "binary"


async def test_goodbyes_of_both_sides_carry_their_code(server: Server) -> None:
    async with dial(server) as client:
        await client.aclose(code=4001, reason="enough")
    # Stock Hypercorn does not pass the client's code on.
    assert await server.wait_ended() == ("closed 4001" if _is_lean() else "closed 1006")

    async def leave(socket: Socket) -> None:
        socket.send(b"last words")
        await socket.close(1012, "service restart")

    server.talk = leave
    async with dial(server) as client:
        with trio.fail_after(60):
            assert await client.get_message() == "last words"
            with pytest.raises(trio_websocket.ConnectionClosed) as caught:
                await client.get_message()
    assert caught.value.reason is not None
    assert (caught.value.reason.code, caught.value.reason.reason) == (1012, "service restart")


async def test_a_client_that_vanishes_is_noticed(server: Server) -> None:
    stream = await raw(server)
    stream.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()
    assert await server.wait_ended() == "closed 1006"


async def test_sending_to_a_client_that_does_not_read_waits_in_memory_and_can_be_ended(
    server: Server,
) -> None:
    seen: list[int] = []
    go = trio.Event()

    async def flood(socket: Socket) -> None:
        for _ in range(200):
            socket.send(os.urandom(32_768).hex().encode())
        await trio.sleep(0.1)
        seen.append(socket.buffered)
        socket.abort()
        go.set()
        await socket.receive()

    server.talk = flood
    stream = await raw(server)
    with trio.fail_after(60):
        await go.wait()
    assert seen[0] > 1_000_000
    await stream.aclose()


async def test_what_waited_arrives_in_order_once_the_client_reads(server: Server) -> None:
    async def flood(socket: Socket) -> None:
        for number in range(300):
            socket.send(f"{number} ".encode() + b"x" * 40_000)
        await socket.close(1000, "")  # after what waits

    server.talk = flood
    stream = await raw(server)
    await trio.sleep(0.2)
    for number in range(300):
        opcode, payload = await read_frame(stream)
        assert (opcode, payload[: len(f"{number} ")].decode()) == (1, f"{number} ")
    assert (await read_frame(stream))[0] == 8
    await stream.aclose()


@lean_only
async def test_compression_is_not_agreed_to(server: Server) -> None:
    stream = await raw(server, b"Sec-WebSocket-Extensions: permessage-deflate\r\n")
    await stream.send_all(frame(0x40 | 1, b"x"))  # uses it all the same
    opcode, _ = await read_frame(stream)
    assert opcode == 8


@lean_only  # stock Hypercorn waits for ever to hand it over
async def test_what_nobody_reads_any_more_holds_nothing_up(server: Server) -> None:
    async def leave(socket: Socket) -> None:
        await trio.sleep(0.05)  # more arrives than the server queues

    server.talk = leave
    stream = await raw(server)
    await stream.send_all(frame(1, b"x") * 100)
    with trio.fail_after(60):
        while await stream.receive_some():
            pass
