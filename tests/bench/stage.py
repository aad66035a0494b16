"""What a measurement needs around it: how long to measure, and everything that runs."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from tests.bench.answers import MODEL, request_body
from tests.bench.baseline import Baseline, serving_baseline
from tests.bench.gateway import (
    Gateway,
    State,
    Upstreams,
    check_limits,
    serving,
    write_state,
)
from tests.bench.load import Figures, Target, interleaved
from tests.bench.lockstep import Lockstep
from tests.bench.processes import Cores
from tests.bench.upstream import Upstream, serving_answers

BUSY = 16  # connections at which one core is saturated


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. The whole of it stays below six minutes, the quick one below one."""

    seconds: int = 2  # of one round
    rounds: int = 3
    busy_rounds: int = 5  # where a bar is judged
    lag_seconds: int = 16  # of each of two loads: together the gateway's own window of 30 s
    pairs: int = 600
    first_tokens: int = 150
    checked_streams: int = 40  # of each of the 16 callers
    populations: tuple[int, ...] = (0, 1_000, 10_000)
    starts: int = 3
    sleepers: int = 200
    settle: float = 2.0  # seconds a fresh gateway gets before its memory is read
    idle_clients: int = 2_000  # WebSockets
    idle_seconds: float = 10.0
    subscribers: int = 500
    published: int = 40  # events that reach all of them
    turns: int = 200
    commands: int = 200  # in sandboxes
    terminal_megabytes: int = 400
    terminals: int = 50
    bomb_seconds: float = 10.0

    @classmethod
    def quick(cls) -> "Plan":
        return cls(
            seconds=1,
            rounds=1,
            busy_rounds=1,
            lag_seconds=1,
            pairs=40,
            first_tokens=20,
            checked_streams=3,
            populations=(0, 200),
            starts=1,
            sleepers=20,
            settle=0.5,
            idle_clients=100,
            idle_seconds=1.0,
            subscribers=50,
            published=5,
            turns=20,
            commands=10,
            terminal_megabytes=20,
            terminals=5,
            bomb_seconds=2.0,
        )


@dataclass(frozen=True, slots=True)
class Bench:
    """One run: its plan, its folder, and what starts the gateway."""

    plan: Plan
    scratch: Path
    cores: Cores
    command: Sequence[str]


@dataclass(slots=True)
class Stage:
    """Everything that serves during the load measurements; idle servers cost nothing."""

    bench: Bench
    upstream: Upstream
    lockstep: Lockstep
    stock: Baseline
    door: Baseline
    gateway: Gateway
    answered: int = field(default=0)  # calls that callers saw answered

    def through_gateway(self, model: str, *, stream: bool, tenants: int = 1) -> Target:
        return Target(
            "gateway",
            self.gateway.url(),
            request_body(f"{model}/{MODEL}", stream=stream),
            tuple(tenant.token for tenant in self.gateway.state.tenants[:tenants]),
            self.gateway.server,
        )

    def bare(self, baseline: Baseline, path: str) -> Target:
        name = "door" if baseline is self.door else "stock"
        body = request_body(MODEL, stream=path != "/json")
        url = f"http://127.0.0.1:{baseline.port}{path}"
        return Target(f"{name}{path}", url, body, server=baseline.server)

    async def compare(
        self, targets: Sequence[Target], *, connections: int, rounds: int, seconds: int = 0
    ) -> dict[str, Figures]:
        """Rounds in turn; what the gateway answered is remembered for the check of its books."""
        figures = await interleaved(
            targets,
            connections=connections,
            seconds=seconds or self.bench.plan.seconds,
            rounds=rounds,
            scratch=self.bench.scratch,
        )
        self.answered += sum(
            figures[target.name].answers
            for target in targets
            if target.server is self.gateway.server
        )
        return figures

    async def warm_up(self) -> None:
        """Let every server take its slow first steps before anything counts."""
        targets = [
            self.through_gateway("json", stream=False, tenants=BUSY),
            self.through_gateway("sse", stream=True),
            self.bare(self.stock, "/json"),
            self.bare(self.door, "/json"),
        ]
        for target in targets:
            figures = await interleaved(
                [target], connections=4, seconds=1, rounds=1, scratch=self.bench.scratch
            )
            if target.server is self.gateway.server:
                self.answered += figures[target.name].answers


@asynccontextmanager
async def setting(bench: Bench) -> AsyncIterator[Stage]:
    """Start upstream, both bare applications and the gateway; end them all on leaving.

    Raises :exc:`MeasurementFailed` if one does not start, or if the gateway
    lets a limited tenant through.
    """
    scratch, cores = bench.scratch, bench.cores
    async with AsyncExitStack() as stack:
        lockstep = Lockstep()
        stack.callback(lockstep.close)
        upstream = await stack.enter_async_context(serving_answers(scratch, cores))
        stock, door = [
            await stack.enter_async_context(
                serving_baseline(scratch, cores, door=door, feed=lockstep.port)
            )
            for door in (False, True)
        ]
        state = await new_state(
            bench, "busy", tenants=BUSY, upstreams=Upstreams(upstream.port, lockstep.port)
        )
        gateway = await stack.enter_async_context(
            serving(state, command=bench.command, cores=cores, log=scratch / "gateway.log")
        )
        await check_limits(gateway, request_body(f"json/{MODEL}", stream=False))
        stage = Stage(bench, upstream, lockstep, stock, door, gateway, answered=1)
        await stage.warm_up()
        yield stage


async def new_state(
    bench: Bench, name: str, *, tenants: int, upstreams: Upstreams | None = None
) -> State:
    return await trio.to_thread.run_sync(
        lambda: write_state(
            bench.scratch / name,
            tenants=tenants,
            upstreams=upstreams or Upstreams(),
            limited=upstreams is not None,
        )
    )
