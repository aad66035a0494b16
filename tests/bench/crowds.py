"""Many clients of one tenant: what they cost while nothing happens, and when something does."""

from dataclasses import dataclass, field
from time import perf_counter

from tests.bench.crowd import Crowd, Peer
from tests.bench.greeting import request
from tests.bench.latency import in_thread
from tests.bench.processes import MeasurementFailed, Server
from tests.bench.report import Row, at_most
from tests.bench.samples import median, percentile
from tests.bench.stage import Bench
from tests.bench.websocket import bare_echo, gateway_alone

_KIB = 1024
_AWAKE = 8  # clients that are there before the others are counted
_QUIET = 1.5  # seconds without a message until a crowd counts as idle
_PATIENCE = 15.0  # seconds for that
_LATEST = 10.0  # seconds until an event has to be with everybody


async def idle_clients(bench: Bench) -> list[Row]:
    """Memory and CPU time of open connections on which nobody says anything."""
    count, seconds = bench.plan.idle_clients, bench.plan.idle_seconds
    async with gateway_alone(bench, "idle") as gateway:
        token = gateway.state.tenants[0].token
        ours = await in_thread(lambda: _idle(gateway.server, gateway.port, token, count, seconds))
    async with bare_echo(bench, door=True) as door:
        bare = await in_thread(lambda: _idle(door.server, door.port, None, count, 1.0))
    name = f"{count:,} idle clients"
    against = "bare, our door"
    return [
        Row(f"{name}, resident memory each", ours.rss, "KiB", bare.rss, against, at_most(30)),
        Row(f"{name}, proportional memory each", ours.pss, "KiB", bare.pss, against, at_most(30)),
        Row(
            f"{name}, CPU time in {seconds:.0f} s",
            ours.cpu,
            "s",
            ours.cpu_before,
            f"{_AWAKE} clients",
        ),
        Row(
            "Of that, because of them", max(0.0, ours.cpu - ours.cpu_before), "s", bar=at_most(0.1)
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """KiB a connection, and CPU seconds with the crowd and before it."""

    rss: float
    pss: float
    cpu: float
    cpu_before: float


def _idle(server: Server, port: int, token: str | None, count: int, seconds: float) -> Idle:
    with Crowd() as crowd:
        crowd.enter(port, token, _AWAKE)
        _settle(crowd)
        cpu_before = _spent(server, crowd, seconds)
        rss, pss = server.rss_bytes(), server.pss_bytes()
        crowd.enter(port, token, count)
        _settle(crowd)
        cpu = _spent(server, crowd, seconds)
        return Idle(
            rss=(server.rss_bytes() - rss) / count / _KIB,
            pss=(server.pss_bytes() - pss) / count / _KIB,
            cpu=cpu,
            cpu_before=cpu_before,
        )


def _settle(crowd: Crowd) -> None:
    """Until those who came have been told of each other."""
    patience = perf_counter() + _PATIENCE
    while crowd.listen(_QUIET):
        if perf_counter() > patience:
            raise MeasurementFailed("idle clients are told something all the time")


def _spent(server: Server, crowd: Crowd, seconds: float) -> float:
    before = server.cpu_seconds()
    crowd.listen(seconds)
    return server.cpu_seconds() - before


async def fan_out(bench: Bench) -> list[Row]:
    """From sending a request that publishes to the event's arrival, at each subscriber."""
    async with gateway_alone(bench, "fan-out") as gateway:
        token = gateway.state.tenants[0].token
        told = await in_thread(lambda: _tell(gateway.port, token, bench))
    name = f"An event to {bench.plan.subscribers} subscribers"
    first, against = percentile(told.first, 0.5), "the first of them"
    return [
        Row(f"{name}, p50", percentile(told.all, 0.5), "ms", first, against),
        Row(f"{name}, p99", percentile(told.all, 0.99), "ms", first, against, at_most(50)),
        Row(f"{name}, first to last, p50", median(told.spread), "ms"),
    ]


@dataclass(frozen=True, slots=True)
class Told:
    """Milliseconds from the request: to each subscriber, to the first; first to last."""

    all: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    spread: list[float] = field(default_factory=list)

    def add(self, delays: list[float]) -> None:
        self.all.extend(delays)
        self.first.append(delays[0])
        self.spread.append(delays[-1] - delays[0])


def _tell(port: int, token: str, bench: Bench) -> Told:
    told = Told()
    publisher = Peer(port, token)
    try:
        while not publisher.shake_hands():
            pass
        with Crowd() as crowd:
            crowd.enter(port, token, bench.plan.subscribers)
            _settle(crowd)
            for number in range(-2, bench.plan.published):
                delays = _publish(publisher, crowd, f"word {number}")
                if number >= 0:  # those before warm both sides up
                    told.add(delays)
    finally:
        publisher.close()
    return told


def _publish(publisher: Peer, crowd: Crowd, word: str) -> list[float]:
    """Milliseconds until each of ``crowd`` has the event, in the order they got it."""
    frame = request("voicewake.set", triggers=[word])
    expected, delays = word.encode(), list[float]()
    began = perf_counter()
    publisher.send(frame)
    while len(delays) < len(crowd):
        if perf_counter() - began > _LATEST:
            raise MeasurementFailed(f"an event reached {len(delays)} of {len(crowd)} subscribers")
        for peer in crowd.ready(1):
            for message in peer.messages():
                if b'"voicewake.changed"' in message[:60] and expected in message:
                    delays.append((perf_counter() - began) * 1000)
    while b'"ok":true' not in publisher.next():
        pass  # its own event
    return delays
