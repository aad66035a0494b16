"""How fast a terminal's output reaches a client, and what fifty of them cost."""

import errno
import json
import os
import pty
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import trio

from appliance.sandboxes.base import TerminalSize
from appliance.services.sandboxes.sandboxes import SandboxRequest
from tests.bench.crowd import Peer
from tests.bench.gateway import Gateway
from tests.bench.greeting import request
from tests.bench.latency import in_thread
from tests.bench.processes import MeasurementFailed, Server, all_cores
from tests.bench.report import Row, at_least, at_most
from tests.bench.stage import Bench
from tests.bench.starts import real_sandboxes
from tests.bench.websocket import gateway_alone

_MB = 1_000_000
_KIB = 1024
_LINE = "The quick brown fox jumps over the lazy dog, and then again back to where it was."
_READ = 65_536
_LOOK_EVERY = 2 * _MB  # characters between two looks at the gateway's memory
_SETTLED = 0.2  # of all output; from then on memory must stay what it is
# Clients acknowledge what they have shown, some frames at a time.
_ACK_EVERY = 200_000
_LATEST = 60.0  # seconds until all of many terminals have answered


async def terminal_rates(bench: Bench) -> list[Row]:
    """One client of one flooding terminal, then many terminals that each say a line."""
    with all_cores(bench.cores) as cores:
        free = replace(bench, cores=cores)
        size = bench.plan.terminal_megabytes * _MB
        bare = await in_thread(lambda: flood_bare(size))
        inside = await _flood_inside(bench.scratch / "terminal-inside", size)
        async with gateway_alone(free, "terminal") as gateway:
            flood = await in_thread(lambda: _flood(gateway, size))
        async with gateway_alone(free, "terminals") as gateway:
            many = await in_thread(lambda: _open_many(gateway, bench.plan.terminals))
    return [
        Row(
            "A terminal's output at a client",
            flood.rate,
            "MB/s",
            bare,
            "a bare PTY",
            at_least(40),
        ),
        Row("The same", flood.rate, "MB/s", inside, "a sandbox's, only read"),
        Row("The same, a core for itself", 1000 / flood.cpu_ms, "MB/s", bar=at_least(40)),
        Row("CPU a megabyte of it", flood.cpu_ms, "ms"),
        Row("Memory that the gateway grew by meanwhile", flood.growth, "MB", bar=at_most(8)),
        *_rows(many),
    ]


def _rows(many: "Many") -> list[Row]:
    name = f"{many.count} terminals at once"
    return [
        Row(f"{name}, to open each", many.opened * 1000 / many.count, "ms"),
        Row(f"{name}, until each has said a line", many.said * 1000, "ms"),
        Row(f"{name}, to close each", many.closed * 1000 / many.count, "ms"),
        Row(f"{name}, the gateway's memory each", many.memory / many.count / _KIB, "KiB"),
    ]


def flooding(size: int) -> str:
    """A command that prints ``size`` bytes, the last line cut."""
    return f"yes '{_LINE}' | head -c {size}"


def expected(size: int) -> int:
    """How much that is once a terminal has put a carriage return before each line feed."""
    return size + size // (len(_LINE) + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flood:
    rate: float  # MB a second
    cpu_ms: float  # of the gateway, for a megabyte
    growth: float  # MB of the gateway's memory


@dataclass(slots=True)
class Memory:
    """What is kept of some looks at a process' memory."""

    looks: list[tuple[int, int]] = field(default_factory=list)  # of output, of memory; bytes

    def growth(self, size: int) -> int:
        """From the first fifth of the output on: the most above what it was then."""
        early = [memory for place, memory in self.looks if place <= size * _SETTLED]
        late = [memory for place, memory in self.looks if place > size * _SETTLED]
        if not early or not late:
            raise MeasurementFailed("too little output to see whether memory grows")
        return max(0, max(late) - max(early))


def flood_bare(size: int) -> float:
    """MB a second through a PTY that somebody only reads."""
    master, slave = pty.openpty()
    command = ["/bin/sh", "-c", flooding(size)]
    try:
        with subprocess.Popen(command, stdin=slave, stdout=slave, start_new_session=True):
            os.close(slave)
            began, got = perf_counter(), 0
            while got < expected(size) and (piece := _read(master)):
                got += len(piece)
            took = perf_counter() - began
    finally:
        os.close(master)
    if got != expected(size):
        raise MeasurementFailed(f"a bare PTY brought {got} of {expected(size)} bytes")
    return got / took / _MB


async def _flood_inside(path: Path, size: int) -> float:
    """MB a second out of a sandbox' terminal that somebody only reads."""
    await trio.Path(path).mkdir()
    command = ("/bin/bash", "-c", flooding(size))
    async with real_sandboxes(path) as (service, _, _):
        request = SandboxRequest(agent="main", command=command, terminal=TerminalSize(80, 24))
        async with service.sandboxes.open(service.tenant, request) as sandbox:
            began, got = perf_counter(), 0
            while got < expected(size) and (piece := await sandbox.output.receive_some(_READ)):
                got += len(piece)
            took = perf_counter() - began
    return got / took / _MB


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, _READ)
    except OSError as exc:
        if exc.errno == errno.EIO:  # nobody writes to it any more
            return b""
        raise


def _flood(gateway: Gateway, size: int) -> Flood:
    memory = Memory()
    peer = _client(gateway)
    try:
        peer.send(request("terminal.spawn", command=flooding(size)))
        cpu, began = gateway.server.cpu_seconds(), perf_counter()
        end = _follow(peer, gateway.server, memory)
        took, cpu = perf_counter() - began, gateway.server.cpu_seconds() - cpu
    finally:
        peer.close()
    if end != expected(size):
        raise MeasurementFailed(f"a terminal ended after {end} of {expected(size)} characters")
    return Flood(
        rate=end / took / _MB, cpu_ms=cpu * 1000 / (end / _MB), growth=memory.growth(end) / _MB
    )


def _follow(peer: Peer, server: Server, memory: Memory) -> int:
    """Read and acknowledge to the terminal's end; return how much it said."""
    offset = acked = looked = 0
    for event, payload in _events(peer):
        if event == "terminal.exit":
            return offset
        if event != "terminal.output":
            continue
        offset = payload["offset"]
        if offset - acked >= _ACK_EVERY:
            acked = offset
            peer.send(request("terminal.ack", terminalId=payload["terminalId"], offset=offset))
        if offset - looked >= _LOOK_EVERY:
            looked = offset
            memory.looks.append((offset, server.rss_bytes()))
    raise AssertionError("unreachable: events end with an exception")


def _events(peer: Peer) -> Iterator[tuple[str, Any]]:
    while True:
        message = json.loads(peer.next())
        if message["type"] == "event":
            yield message["event"], message["payload"]
        elif not message["ok"]:
            raise MeasurementFailed(f"refused: {message['error']}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Many:
    """Seconds of all together, and bytes."""

    count: int
    opened: float
    said: float
    closed: float
    memory: int


def _open_many(gateway: Gateway, count: int) -> Many:
    peer = _client(gateway)
    try:
        peer.call(request("terminal.close", terminalId=_spawned(peer)))  # warms up
        before, began = gateway.server.rss_bytes(), perf_counter()
        names = [_spawned(peer) for _ in range(count)]
        opened = perf_counter()
        for name in names:
            peer.send(request("terminal.write", terminalId=name, data="echo $((6*7))-said\r"))
        _await_all(peer, set(names), "42-said")
        said, memory = perf_counter(), gateway.server.rss_bytes() - before
        for name in names:
            peer.call(request("terminal.close", terminalId=name))
        closed = perf_counter()
    finally:
        peer.close()
    return Many(
        count=count,
        opened=opened - began,
        said=said - opened,
        closed=closed - said,
        memory=max(0, memory),
    )


def _spawned(peer: Peer) -> str:
    return str(peer.call(request("terminal.spawn"))["terminalId"])


def _await_all(peer: Peer, waited: set[str], text: str) -> None:
    shown: dict[str, str] = dict.fromkeys(waited, "")
    patience = perf_counter() + _LATEST
    for event, payload in _events(peer):
        if event == "terminal.output":
            name = payload["terminalId"]
            shown[name] = shown.get(name, "") + payload["data"]
            if text in shown[name]:
                waited.discard(name)
        if not waited:
            return
        if perf_counter() > patience:
            raise MeasurementFailed(f"{len(waited)} terminals did not answer")


def _client(gateway: Gateway) -> Peer:
    peer = Peer(gateway.port, gateway.state.tenants[0].token)
    while not peer.shake_hands():
        pass
    return peer
