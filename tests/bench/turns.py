"""From a chat message to the first words of its answer, beside the provider's own."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter

from tests.bench.answers import MODEL, request_body, request_bytes
from tests.bench.crowd import Peer
from tests.bench.gateway import Gateway
from tests.bench.greeting import request
from tests.bench.latency import Call, Connection, in_thread
from tests.bench.processes import (
    MeasurementFailed,
    clean_environment,
    free_port,
    running,
    wait_for_port,
)
from tests.bench.report import Row, at_most
from tests.bench.samples import added, percentile
from tests.bench.stage import Bench
from tests.bench.upstream import JSON_PATH
from tests.bench.websocket import gateway_alone

_A_SESSION = 10  # turns, before the next session begins
_WARM_UP = 10  # turns


async def first_deltas(bench: Bench) -> list[Row]:
    """`chat.send` to the first `chat` delta, less the provider's own time to a first event."""
    async with (
        _provider(bench) as provider,
        gateway_alone(bench, "turns", upstream=provider) as gateway,
    ):
        turns = await in_thread(lambda: _take(provider, gateway, bench.plan.turns))
    usual = percentile(turns.direct, 0.5)
    # Of the slow ones only a usual call is taken off: two tails would cancel each other.
    late, name = percentile(turns.deltas, 0.99) - usual, "Added by chat.send to the first delta"
    half = added(turns.deltas, turns.direct, 0.5)
    return [
        Row(f"{name}, p50", half, "ms", usual, "the provider", at_most(5)),
        Row(f"{name}, p99", late, "ms", usual, "the provider"),
        Row("chat.send until it is acknowledged, p50", percentile(turns.taken, 0.5), "ms"),
        Row("chat.send until the run has ended, p50", percentile(turns.ended, 0.5), "ms"),
    ]


@asynccontextmanager
async def _provider(bench: Bench) -> AsyncIterator[int]:
    """The port of the stub provider, which streams twenty words at once."""
    port = free_port()
    async with running(
        [sys.executable, "-m", "tests.stub_provider", f"--port={port}"],
        log=bench.scratch / "provider.log",
        core=bench.cores.load,
        environment=clean_environment(bench.scratch),
    ) as server:
        await wait_for_port(port, server)
        yield port


@dataclass(frozen=True, slots=True)
class Turns:
    """Milliseconds from asking."""

    direct: list[float] = field(default_factory=list)  # to the provider's first event
    taken: list[float] = field(default_factory=list)  # to the answer of chat.send
    deltas: list[float] = field(default_factory=list)  # to the first words
    ended: list[float] = field(default_factory=list)


def _take(provider: int, gateway: Gateway, count: int) -> Turns:
    turns = Turns()
    body = request_body(MODEL, stream=True)
    call = Call(provider, request_bytes(f"{JSON_PATH}/chat/completions", body))
    direct = Connection(provider)
    peer = Peer(gateway.port, gateway.state.tenants[0].token)
    try:
        while not peer.shake_hands():
            pass
        for number in range(-_WARM_UP, count):
            began = perf_counter()
            asked = direct.first_token(call.request, since=began) * 1000
            taken, first, ended = _turn(peer, number)
            if number >= 0:
                turns.direct.append(asked)
                turns.taken.append(taken)
                turns.deltas.append(first)
                turns.ended.append(ended)
    finally:
        direct.close()
        peer.close()
    return turns


def _turn(peer: Peer, number: int) -> tuple[float, float, float]:
    """Milliseconds to the acknowledgement, the first words and the end."""
    frame = request(
        "chat.send",
        id=f"turn-{number}",
        sessionKey=f"bench-{(number + _WARM_UP) // _A_SESSION}",
        message="Write a sentence about a fox.",
        idempotencyKey=f"turn-{number}",
    )
    taken = first = None
    began = perf_counter()
    peer.send(frame)
    while True:
        message = peer.next()
        now = (perf_counter() - began) * 1000
        if message.startswith(b'{"type":"res"'):
            if not json.loads(message)["ok"]:
                raise MeasurementFailed(f"chat.send was refused: {message[:300]!r}")
            taken = now
        elif b'"event":"chat"' not in message[:60]:
            continue
        elif b'"state":"delta"' in message:
            first = first or now
        elif b'"state":"final"' in message:
            if taken is None or first is None:
                raise MeasurementFailed("a run ended that was not begun, or said nothing")
            return taken, first, now
        else:
            raise MeasurementFailed(f"a run failed: {message[:300]!r}")
