"""A stream sent piece by piece past ASGI arrives as one that was sent in ASGI's words."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import h11
import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from appliance.transports import hypercorn_door
from appliance.transports.chunks import CHUNKS, Chunks

PIECES = [b"data: %d\n\n" % number for number in range(100)]
LARGE = [bytes([65 + number]) * 300_000 for number in range(20)]


class App:
    """Answers each request with ``pieces``, by way of the chunks or of ASGI alone."""

    def __init__(self) -> None:
        self.pieces = PIECES
        self.by_chunks = True
        self.left_at_once: list[bool] = []
        self.were_open_before = True
        self.ended = trio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        try:
            await self._answer(scope, receive, send)
        finally:
            self.ended.set()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        chunks: Chunks = scope["state"][CHUNKS]
        self.were_open_before = chunks.are_open
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number, piece in enumerate(self.pieces):
            # Both ways may be used in turn.
            if self.by_chunks and number % 7 != 3 and chunks.are_open:
                at_once = chunks.write(piece)
                self.left_at_once.append(at_once)
                if not at_once:
                    await chunks.drain()
            else:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await trio.lowlevel.checkpoint()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"].endswith("shutdown"):
            return


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
async def port(app: App, nursery: trio.Nursery) -> AsyncIterator[int]:
    assert hypercorn_door.install(), "the locked Hypercorn is the one the door was written for"
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.graceful_timeout = 0.3
    config.errorlog = None
    stop = trio.Event()
    binds: list[str] = await nursery.start(partial(serve, app, config, shutdown_trigger=stop.wait))
    yield int(binds[0].rsplit(":", 1)[1])
    stop.set()
    hypercorn_door.uninstall()


async def ask(port: int, *, method: str = "GET", version: str = "1.1") -> trio.SocketStream:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(f"{method} / HTTP/{version}\r\nHost: a\r\n\r\n".encode())
    return stream


async def read_pieces(stream: trio.SocketStream) -> list[bytes]:
    """The chunks of one answer, each as it was framed."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    client.send(h11.EndOfMessage())
    pieces: list[bytes] = []
    while type(event := client.next_event()) is not h11.EndOfMessage:
        if event is h11.NEED_DATA:
            client.receive_data(await stream.receive_some())
        elif type(event) is h11.Data:
            if event.chunk_start:
                pieces.append(b"")
            pieces[-1] += event.data
    return pieces


@pytest.mark.parametrize("by_chunks", [True, False])
async def test_every_piece_arrives_once_in_order_and_in_a_frame_of_its_own(
    app: App, port: int, *, by_chunks: bool
) -> None:
    app.by_chunks = by_chunks
    with trio.fail_after(60):
        async with await ask(port) as stream:
            assert await read_pieces(stream) == PIECES

    assert not app.were_open_before, "no piece may leave before the head"


async def test_a_piece_that_is_not_taken_at_once_is_sent_when_the_client_reads(
    app: App, port: int
) -> None:
    app.pieces = LARGE
    with trio.fail_after(60):
        async with await ask(port) as stream:
            await trio.sleep(0.2)  # whatever fits between the two is full by now
            assert await read_pieces(stream) == LARGE

    assert not all(app.left_at_once)


async def test_a_client_of_http_1_0_reads_the_pieces_without_frames(app: App, port: int) -> None:
    with trio.fail_after(60):
        async with await ask(port, version="1.0") as stream:
            answer = b"".join([data async for data in stream])

    assert answer.endswith(b"\r\n\r\n" + b"".join(PIECES))


async def test_nothing_is_sent_to_a_client_that_wants_no_body(app: App, port: int) -> None:
    with trio.fail_after(60):
        async with await ask(port, method="HEAD") as stream:
            await app.ended.wait()
            assert (await stream.receive_some()).endswith(b"\r\n\r\n")

    assert app.left_at_once == []


async def test_a_client_that_leaves_ends_nobody_else(app: App, port: int) -> None:
    app.pieces = LARGE
    with trio.fail_after(60):
        stream = await ask(port)
        await stream.receive_some(100)
        await stream.aclose()
        await app.ended.wait()

        app.pieces = PIECES
        async with await ask(port) as stream:
            assert await read_pieces(stream) == PIECES
