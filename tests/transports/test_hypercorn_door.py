"""The leaner door behaves like Hypercorn's own: one contract, both implementations."""

import math
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import httpx
import hypercorn.protocol
import hypercorn.trio.run
import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from trio_websocket import open_websocket_url

from appliance.transports import hypercorn_door

IDLE = 0.4  # seconds


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    while (await receive()).get("more_body"):
        pass
    await ROUTES[scope["path"]](receive, send)


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"].endswith("shutdown"):
            return


async def _head(send: Any, *headers: tuple[bytes, bytes], status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def _body(send: Any, data: bytes = b"", *, more: bool = False) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def _two_parts(receive: Any, send: Any) -> None:
    await _head(send, (b"content-length", b"10"))
    await _body(send, b"hello", more=True)
    await _body(send, b"world")


async def _events(receive: Any, send: Any) -> None:
    await _head(send, (b"content-type", b"text/event-stream"))
    for number in range(5):
        await _body(send, b"data: %d\n\n" % number, more=True)
    await _body(send)


async def _empty(receive: Any, send: Any) -> None:
    await _head(send, status=204)
    await _body(send)


async def _boom(receive: Any, send: Any) -> None:
    raise ValueError("boom")


async def _slow(receive: Any, send: Any) -> None:
    await trio.sleep(IDLE * 2)
    await _head(send, (b"content-length", b"2"))
    await _body(send, b"ok")


async def _flood(receive: Any, send: Any) -> None:
    """Send for ever to whoever reads; end when the reader has left."""
    await _head(send)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                scope.cancel()

            nursery.start_soon(listen)
            while True:
                await _body(send, b"x" * 65536, more=True)


ROUTES = {
    "/": _two_parts,
    "/events": _events,
    "/empty": _empty,
    "/boom": _boom,
    "/slow": _slow,
    "/flood": _flood,
}


@pytest.fixture(params=["stock", "door"])
def door(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "door":
        assert hypercorn_door.install(), "the locked Hypercorn is the one the door was written for"
    yield request.param
    hypercorn_door.uninstall()


class Server:
    def __init__(self, base: str, stop: trio.Event) -> None:
        self.base = base
        self.stop = stop
        self.port = int(base.rsplit(":", 1)[1])

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.base, trust_env=False)

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)


@pytest.fixture
async def server(door: str, nursery: trio.Nursery) -> AsyncIterator[Server]:
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.keep_alive_timeout = IDLE
    config.graceful_timeout = 0.3
    config.errorlog = None
    stop = trio.Event()
    binds: list[str] = await nursery.start(partial(serve, app, config, shutdown_trigger=stop.wait))
    yield Server(binds[0], stop)
    stop.set()


async def until_closed(stream: trio.SocketStream) -> bytes:
    received = b""
    async with stream:
        with trio.fail_after(60):
            while data := await stream.receive_some(65536):
                received += data
    return received


async def test_answers_arrive_whole_on_a_kept_connection(server: Server) -> None:
    async with server.client() as client:
        for _ in range(5):
            assert (await client.post("/", content=b"a" * 1000)).text == "helloworld"
            assert (await client.head("/")).status_code == 200
            assert (await client.get("/empty")).status_code == 204
            assert (await client.get("/events")).text == "".join(f"data: {n}\n\n" for n in range(5))


async def test_an_app_that_fails_is_a_500(server: Server) -> None:
    async with server.client() as client:
        assert (await client.get("/boom")).status_code == 500


async def test_a_slow_answer_outlives_the_idle_timeout(server: Server) -> None:
    async with server.client() as client:
        assert (await client.get("/slow")).text == "ok"


async def test_pipelined_requests_are_answered_in_order_and_then_the_connection_idles_out(
    server: Server,
) -> None:
    stream = await server.connect()
    await stream.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 3)
    began = trio.current_time()

    assert (await until_closed(stream)).count(b"helloworld") == 3
    assert trio.current_time() - began >= IDLE * 0.9


async def test_a_silent_connection_is_closed(server: Server) -> None:
    stream = await server.connect()
    began = trio.current_time()

    assert await until_closed(stream) == b""
    assert trio.current_time() - began >= IDLE * 0.9


async def test_a_client_may_leave_before_its_answer(server: Server) -> None:
    stream = await server.connect()
    await stream.send_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
    await stream.aclose()

    async with server.client() as client:
        assert (await client.get("/")).status_code == 200


async def test_garbage_is_a_bad_request(server: Server) -> None:
    stream = await server.connect()
    await stream.send_all(b"garbage\r\n\r\n")

    assert b" 400 " in await until_closed(stream)


async def test_a_websocket_outlives_the_idle_timeout(server: Server) -> None:
    async with open_websocket_url(f"ws://127.0.0.1:{server.port}/") as socket:
        for _ in range(3):
            await socket.send_message("hi")
            assert await socket.get_message() == "hi"
        await trio.sleep(IDLE * 2)
        await socket.send_message("still here")
        assert await socket.get_message() == "still here"


async def test_an_idle_connection_does_not_hold_up_the_shutdown(server: Server) -> None:
    stream = await server.connect()
    await stream.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    await stream.receive_some(65536)

    server.stop.set()

    await until_closed(stream)


async def test_a_reader_that_leaves_ends_a_stream(server: Server) -> None:
    stream = await server.connect()
    await stream.send_all(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
    await stream.receive_some(65536)
    await stream.aclose()

    async with server.client() as client:
        assert (await client.get("/")).status_code == 200


async def test_a_cancelled_send_tears_the_connection_so_that_nothing_garbled_follows() -> None:
    """The client does not read: the send blocks, is cancelled, and the connection ends."""
    hypercorn_door.install()
    try:
        async with trio.open_nursery() as nursery:
            gave_up = trio.Event()

            async def stubborn(scope: Any, receive: Any, send: Any) -> None:
                if scope["type"] == "lifespan":
                    await _lifespan(receive, send)
                    return
                await _head(send)
                with trio.move_on_after(0.2):
                    while True:
                        await _body(send, b"x" * 65536, more=True)
                await _body(send, b"this must not arrive")
                gave_up.set()

            config = Config()
            config.bind = ["127.0.0.1:0"]
            config.errorlog = None
            config.graceful_timeout = 0.1
            stop = trio.Event()
            binds: list[str] = await nursery.start(
                partial(serve, stubborn, config, shutdown_trigger=stop.wait)
            )
            stream = await trio.open_tcp_stream("127.0.0.1", int(binds[0].rsplit(":", 1)[1]))
            await stream.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            with trio.fail_after(60):
                await gave_up.wait()
            received = b""
            with suppress(trio.BrokenResourceError):  # a reset is as good an end as a close
                received = await until_closed(stream)
            assert b"must not arrive" not in received
            stop.set()
    finally:
        hypercorn_door.uninstall()


def test_another_hypercorn_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hypercorn_door, "WRITTEN_FOR", "0.0.1")

    assert hypercorn_door.install() is False


async def test_the_idle_timer_starts_one_task_however_often_it_is_restarted() -> None:
    timer = hypercorn_door.IdleTimer(timeout=5)

    class Tasks:
        spawned = 0

        def spawn(self, *_: object) -> None:
            self.spawned += 1

    class Connection:
        async def action(self) -> None: ...

    tasks = Tasks()
    for _ in range(3):
        await timer.restart(tasks, Connection().action)  # type: ignore[arg-type]  # a fake task group
    await timer.stop()

    assert tasks.spawned == 1
    assert timer._scope.deadline == math.inf


async def test_a_head_that_drips_in_is_not_waited_for_as_long_as_an_idle_connection(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hypercorn_door, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(hypercorn.trio.run, "TCPServer", hypercorn_door.DoorServer)
    monkeypatch.setattr(hypercorn.protocol, "H11Protocol", hypercorn_door.DoorProtocol)
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.keep_alive_timeout = 60
    config.errorlog = None
    stop = trio.Event()
    binds: list[str] = await nursery.start(partial(serve, app, config, shutdown_trigger=stop.wait))
    port = int(binds[0].rsplit(":", 1)[1])

    async def drip(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                await stream.send_all(b"x-more: and more\r\n")
                await trio.sleep(0.02)

    async with await trio.open_tcp_stream("127.0.0.1", port) as idle:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n")
        nursery.start_soon(drip, stream)
        assert await until_closed(stream) == b""

        await idle.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"200" in await idle.receive_some()
    stop.set()
