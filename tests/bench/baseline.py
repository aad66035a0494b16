"""The bare application: constant answers on the same Hypercorn, with or without our door.

``python -m tests.bench.baseline --port N --feed N [--door]`` serves

* ``/json``: reads the body, answers one constant completion;
* ``/events``: 104 constant events, one ``send`` each;
* ``/joined``: the same bytes in one ``send``;
* ``/relay``: asks the lock-step upstream and sends one constant event for each
  that arrives there: the least that one event in, one event out can cost.
"""

import argparse
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypercorn.trio
import trio
from hypercorn.config import Config

from tests.bench.answers import ANSWER, EVENTS, STREAM, request_bytes
from tests.bench.processes import (
    Cores,
    Server,
    clean_environment,
    free_port,
    running,
    wait_for_port,
)

_SOCKET = "openclaw.socket"  # where the door leaves it in a scope's state
NO_DOOR = 3  # exit code: the door does not fit the installed Hypercorn

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_JSON_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(ANSWER)).encode()),
]
_SSE_HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]


@dataclass(frozen=True, slots=True)
class Baseline:
    server: Server
    port: int


@asynccontextmanager
async def serving_baseline(
    scratch: Path, cores: Cores, *, door: bool, feed: int
) -> AsyncIterator[Baseline]:
    """Raises :exc:`MeasurementFailed` when it does not start, so too when there is no door."""
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.baseline", f"--port={port}", f"--feed={feed}"]
    if door:
        command.append("--door")
    async with running(
        command,
        log=scratch / f"baseline-{'door' if door else 'stock'}.log",
        core=cores.server,
        environment=clean_environment(scratch),
    ) as server:
        await wait_for_port(port, server)
        yield Baseline(server, port)


class BareApp:
    """Raw ASGI; ``feed`` is the port of the lock-step upstream."""

    def __init__(self, feed: int) -> None:
        self._feed = feed
        self._idle: list[trio.SocketStream] = []

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] == "websocket":
            await _echo(scope, receive, send)
            return
        body = await _read(receive)
        path = scope["path"]
        if path == "/json":
            await _start(send, _JSON_HEADERS)
            await send({"type": "http.response.body", "body": ANSWER})
        elif path == "/events":
            await _start(send, _SSE_HEADERS)
            for event in EVENTS:
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        elif path == "/joined":
            await _start(send, _SSE_HEADERS)
            await send({"type": "http.response.body", "body": STREAM})
        else:
            await self._relay(body, send)

    async def _relay(self, body: bytes, send: Send) -> None:
        stream = self._idle.pop() if self._idle else None
        if stream is None:
            stream = await trio.open_tcp_stream("127.0.0.1", self._feed)
        await stream.send_all(request_bytes("/", body))
        await _start(send, _SSE_HEADERS)
        place = 0
        while place < len(EVENTS):
            data = await stream.receive_some()
            if not data:
                raise ConnectionError("the lock-step upstream has gone")
            for _ in range(data.count(b"data: ")):
                event = EVENTS[place]
                await send({"type": "http.response.body", "body": event, "more_body": True})
                place += 1
        await send({"type": "http.response.body", "body": b""})
        self._idle.append(stream)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _echo(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """In ASGI's own words, or through the door's socket where there is one: the leaner way."""
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    lean = scope.get("state", {}).get(_SOCKET)
    if lean is not None:
        lean.bind(receive)
    while (message := await receive())["type"] == "websocket.receive":
        if lean is not None:
            lean.send(message["text"].encode())
        else:
            await send({"type": "websocket.send", "text": message["text"]})


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _start(send: Send, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": headers})


def settings(port: int) -> Config:
    """What `serve` sets too: it costs nothing to have and would spoil the comparison if missing."""
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.backlog = 1024
    config.keep_alive_timeout = 75.0
    config.keep_alive_max_requests = 10_000_000
    config.include_server_header = False
    config.errorlog = None
    config.accesslog = None
    return config


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.bench.baseline")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--feed", type=int, required=True)
    parser.add_argument("--door", action="store_true")
    options = parser.parse_args()
    if options.door and not _install_door():
        print("the door is not made for the installed Hypercorn", file=sys.stderr)
        return NO_DOOR
    app: Any = BareApp(options.feed)
    trio.run(hypercorn.trio.serve, app, settings(options.port))
    return 0


def _install_door() -> bool:
    from appliance.transports import hypercorn_door

    return hypercorn_door.install()


if __name__ == "__main__":
    sys.exit(main())
