"""One caller at a time: what the gateway adds to an answer and to a first token.

Plain blocking sockets in a worker thread: the client's own cost is small and the
same for both sides, and calls alternate between them.
"""

import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import trio

from tests.bench.answers import MODEL, request_body, request_bytes
from tests.bench.gateway import CHAT
from tests.bench.processes import MeasurementFailed
from tests.bench.report import Row, at_most
from tests.bench.samples import added, percentile
from tests.bench.stage import Stage
from tests.bench.wire import AnswerReader, BadAnswer

_TIMEOUT = 10.0  # seconds an answer may take
_READ = 65536

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """A port on loopback and a whole request for it."""

    port: int
    request: bytes


class Connection:
    """A kept-alive connection that asks and waits."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = AnswerReader()

    def ask(self, request: bytes) -> float:
        """Seconds from the first byte sent to the last received; the answer must be a 200."""
        began = perf_counter()
        self._socket.sendall(request)
        while not self._reader.done:
            self._read()
        took = perf_counter() - began
        self._finish()
        return took

    def first_token(self, request: bytes, *, since: float) -> float:
        """Seconds from ``since`` to the first event; the rest is read and dropped."""
        self._socket.sendall(request)
        took = None
        while not self._reader.done:
            pieces = self._read()
            if took is None and any(b"data: {" in piece for piece in pieces):
                took = perf_counter() - since
        self._finish()
        if took is None:
            raise MeasurementFailed("a stream without a single event")
        return took

    def close(self) -> None:
        self._socket.close()

    def _read(self) -> list[bytes]:
        data = self._socket.recv(_READ)
        if not data:
            raise MeasurementFailed("the connection was closed within an answer")
        return self._reader.feed(data)

    def _finish(self) -> None:
        if self._reader.status != 200:
            raise MeasurementFailed(f"answered with status {self._reader.status}")
        self._reader.restart()


@dataclass(frozen=True, slots=True)
class Pairs:
    """Milliseconds of the same call, directly and through the gateway."""

    direct: list[float]
    gateway: list[float]


async def added_delays(stage: Stage) -> list[Row]:
    """Rows for a whole answer and for a first token, and for the disk below them."""
    plan = stage.bench.plan
    whole = await answers(*_calls(stage, "json", stream=False), pairs=plan.pairs)
    first = await first_tokens(*_calls(stage, "sse", stream=True), pairs=plan.first_tokens)
    disk = await in_thread(lambda: _syncs(stage.bench.scratch, plan.pairs))
    stage.answered += len(whole.gateway) + len(first.gateway)
    return [
        _added("Added to an answer, c=1, p50", whole, 0.5, bar=2.5),
        _added("Added to an answer, c=1, p99", whole, 0.99, bar=8.0),
        _added("Added to the first token, c=1, p50", first, 0.5, bar=3.0),
        _added("Added to the first token, c=1, p99", first, 0.99, bar=5.0),
        Row("This disk's own fdatasync, p50", percentile(disk, 0.5), "ms"),
        Row("This disk's own fdatasync, p99", percentile(disk, 0.99), "ms"),
    ]


def _added(name: str, pairs: "Pairs", share: float, *, bar: float) -> Row:
    value = added(pairs.gateway, pairs.direct, share)
    return Row(name, value, "ms", percentile(pairs.direct, share), "direct", at_most(bar))


def _calls(stage: Stage, model: str, *, stream: bool) -> "tuple[Call, Call]":
    direct = request_bytes(stage.upstream.path(stream=stream), request_body(MODEL, stream=stream))
    token = stage.gateway.state.tenants[0].token
    body = request_body(f"{model}/{MODEL}", stream=stream)
    return (
        Call(stage.upstream.port, direct),
        Call(stage.gateway.port, request_bytes(CHAT, body, token=token)),
    )


async def answers(direct: Call, gateway: Call, *, pairs: int) -> Pairs:
    """Kept-alive connections, one call at a time, in turn."""
    return await in_thread(lambda: _answers(direct, gateway, pairs))


async def first_tokens(direct: Call, gateway: Call, *, pairs: int) -> Pairs:
    """A fresh connection for every stream; connecting counts."""
    return await in_thread(lambda: _first_tokens(direct, gateway, pairs))


async def in_thread(measure: Callable[[], T]) -> T:
    try:
        return await trio.to_thread.run_sync(measure, abandon_on_cancel=True)
    except (OSError, BadAnswer) as exc:
        raise MeasurementFailed(f"a call failed: {exc}") from exc


def _answers(direct: Call, gateway: Call, pairs: int) -> Pairs:
    to_direct, to_gateway = Connection(direct.port), Connection(gateway.port)
    result = Pairs([], [])
    try:
        for number in range(-(pairs // 20), pairs):
            first = to_direct.ask(direct.request) * 1000
            second = to_gateway.ask(gateway.request) * 1000
            if number >= 0:  # those before warm both sides up
                result.direct.append(first)
                result.gateway.append(second)
    finally:
        to_direct.close()
        to_gateway.close()
    return result


def _first_tokens(direct: Call, gateway: Call, pairs: int) -> Pairs:
    result = Pairs([], [])
    for number in range(-(pairs // 20), pairs):
        first = _first_token(direct) * 1000
        second = _first_token(gateway) * 1000
        if number >= 0:
            result.direct.append(first)
            result.gateway.append(second)
    return result


def _first_token(call: Call) -> float:
    since = perf_counter()
    connection = Connection(call.port)
    try:
        return connection.first_token(call.request, since=since)
    finally:
        connection.close()


def _syncs(folder: Path, count: int) -> list[float]:
    """Milliseconds of appending 4 KiB and waiting for the disk: what every settle has in it."""
    block = bytes(4096)
    took: list[float] = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(count):
            file.write(block)
            began = perf_counter()
            os.fdatasync(file.fileno())
            took.append((perf_counter() - began) * 1000)
    return took
