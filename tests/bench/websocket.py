"""What a WebSocket's requests and handshakes cost, beside a bare echo on the same server."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from tests.bench.baseline import Baseline, serving_baseline
from tests.bench.crowd import Crowd, come_and_go
from tests.bench.gateway import Gateway, Upstreams, serving
from tests.bench.greeting import Device, request
from tests.bench.latency import in_thread
from tests.bench.processes import Server
from tests.bench.report import Row, at_least
from tests.bench.samples import median
from tests.bench.stage import Bench, new_state

_CLIENTS = 8
_REQUEST = request("health", id="123")
_WARM_UP = 1.0  # seconds; the first to come wakes the tenant


@asynccontextmanager
async def gateway_alone(bench: Bench, name: str, *, upstream: int = 9) -> AsyncIterator[Gateway]:
    """A gateway with one tenant, whose default model is behind the port ``upstream``."""
    state = await new_state(bench, name, tenants=1, upstreams=Upstreams(fixed=upstream))
    log = bench.scratch / f"gateway-{name}.log"
    async with serving(state, command=bench.command, cores=bench.cores, log=log) as gateway:
        yield gateway


@asynccontextmanager
async def bare_echo(bench: Bench, *, door: bool) -> AsyncIterator[Baseline]:
    async with serving_baseline(bench.scratch, bench.cores, door=door, feed=9) as baseline:
        yield baseline


@dataclass(frozen=True, slots=True)
class Party:
    """A server and how to load it: ``load`` returns how much was done in how many seconds."""

    server: Server
    load: Callable[[float], tuple[int, float]]
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)  # microseconds of the server's CPU

    def round(self, seconds: float) -> None:
        before = self.server.cpu_seconds()
        done, took = self.load(seconds)
        self.rates.append(done / took)
        self.costs.append((self.server.cpu_seconds() - before) / done * 1e6)

    @property
    def rate(self) -> float:
        return median(self.rates)

    @property
    def cpu_us(self) -> float:
        return median(self.costs)


async def take_turns(bench: Bench, *parties: Party) -> None:
    """A round each, several times over: what else the machine does hits all of them."""
    for party in parties:
        await in_thread(partial(party.load, _WARM_UP))
    for _ in range(bench.plan.rounds):
        for party in parties:
            await in_thread(partial(party.round, bench.plan.seconds))


async def health_rates(bench: Bench) -> list[Row]:
    """Eight clients that ask for `health` and wait for the answer."""
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(gateway_alone(bench, "health"))
        door = await stack.enter_async_context(bare_echo(bench, door=True))
        stock = await stack.enter_async_context(bare_echo(bench, door=False))
        token = gateway.state.tenants[0].token
        parties = [
            Party(server, await in_thread(partial(_askers, stack, port, token)))
            for server, port, token in (
                (gateway.server, gateway.port, token),
                (door.server, door.port, None),
                (stock.server, stock.port, None),
            )
        ]
        await take_turns(bench, *parties)
    return _rows("health", "a request", 8_000, *parties)


def _askers(
    stack: AsyncExitStack, port: int, token: str | None
) -> Callable[[float], tuple[int, float]]:
    """Clients that are in until ``stack`` is left, and how to let them ask."""
    crowd = stack.enter_context(Crowd())
    crowd.enter(port, token, _CLIENTS)
    return lambda seconds: crowd.ask(_REQUEST, seconds=seconds)


async def handshake_rates(bench: Bench) -> list[Row]:
    """Clients that come in, eight at a time, and leave again; then the same with a device each."""
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(gateway_alone(bench, "handshake"))
        door = await stack.enter_async_context(bare_echo(bench, door=True))
        stock = await stack.enter_async_context(bare_echo(bench, door=False))
        token = gateway.state.tenants[0].token
        nobody: list[Device | None] = [None] * _CLIENTS
        devices: list[Device | None] = [Device() for _ in nobody]
        plain = Party(gateway.server, lambda s: come_and_go(gateway.port, token, nobody, seconds=s))
        proven = Party(
            gateway.server, lambda s: come_and_go(gateway.port, token, devices, seconds=s)
        )
        at_door = Party(door.server, lambda s: come_and_go(door.port, None, nobody, seconds=s))
        at_stock = Party(stock.server, lambda s: come_and_go(stock.port, None, nobody, seconds=s))
        await take_turns(bench, plain, proven, at_door, at_stock)
    return [
        *_rows("Handshakes", "a handshake", 500, plain, at_door, at_stock),
        *_rows("Handshakes with a device", "one with a device", 500, proven, at_door, at_stock),
    ]


def _rows(name: str, each: str, bar: float, gateway: Party, door: Party, stock: Party) -> list[Row]:
    reach = at_least(bar)
    name = f"{name}, {_CLIENTS} clients"
    return [
        Row(f"{name}, by the clock", gateway.rate, "/s", door.rate, "bare, our door", reach),
        Row(f"{name}, by the clock", gateway.rate, "/s", stock.rate, "bare, stock"),
        Row(f"{name}, a core for itself", 1e6 / gateway.cpu_us, "/s", 1e6 / door.cpu_us,
            "bare, our door", reach),
        Row(f"{name}, a core for itself", 1e6 / gateway.cpu_us, "/s", 1e6 / stock.cpu_us,
            "bare, stock"),
        Row(f"CPU {each}", gateway.cpu_us, "µs", door.cpu_us, "bare, our door"),
    ]  # fmt: skip
