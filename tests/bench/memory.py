"""What sleeping tenants cost: memory, time to start, time to wake."""

from contextlib import AbstractAsyncContextManager

import trio

from tests.bench.answers import MODEL, request_body, request_bytes
from tests.bench.gateway import CHAT, Gateway, State, Upstreams, serving
from tests.bench.latency import Connection, in_thread
from tests.bench.report import Bar, Row, at_most
from tests.bench.samples import added, median, percentile
from tests.bench.stage import Bench, new_state
from tests.bench.upstream import serving_answers

_MEGABYTE = 1_000_000
_RSS_BARS = {1_000: 90.0, 10_000: 150.0}
_START_BARS = {10_000: 1.5}


async def populations(bench: Bench) -> list[Row]:
    """Resident memory and time to the first 200 of `/readyz`, by number of sleeping tenants."""
    rows: list[Row] = []
    none: tuple[float, float] | None = None
    for tenants in bench.plan.populations:
        state = await new_state(bench, f"asleep-{tenants}", tenants=tenants)
        starts: list[float] = []
        sizes: list[float] = []
        for _ in range(bench.plan.starts):
            async with _serving(bench, state) as gateway:
                await trio.sleep(bench.plan.settle)
                starts.append(gateway.ready_seconds)
                sizes.append(gateway.server.rss_bytes() / _MEGABYTE)
        size, start = median(sizes), median(starts)
        empty, none = none or (None, None), none or (size, start)
        rows += [
            Row(
                f"Resident memory, {tenants:,} sleeping tenants",
                size,
                "MB",
                empty[0],
                "no tenant",
                _bar(_RSS_BARS, tenants),
            ),
            Row(
                f"Start to ready, {tenants:,} tenants",
                start,
                "s",
                empty[1],
                "no tenant",
                _bar(_START_BARS, tenants),
            ),
        ]
    return rows


async def wake_ups(bench: Bench) -> list[Row]:
    """The first call of each sleeping tenant, beside the same tenant's next one.

    A tenant's very first call also makes its databases; so each calls once, the
    gateway is started again, and then every tenant's first call is a wake-up.
    """
    async with serving_answers(bench.scratch, bench.cores) as upstream:
        state = await new_state(
            bench,
            "sleepers",
            tenants=bench.plan.sleepers + 1,
            upstreams=Upstreams(fixed=upstream.port),
        )
        async with _serving(bench, state) as gateway:
            made, known = await in_thread(lambda: _call_each(gateway))
        async with _serving(bench, state) as gateway:
            woken, awake = await in_thread(lambda: _call_each(gateway))
    sleepers, usual = bench.plan.sleepers, percentile(awake, 0.5)
    return [
        Row(f"Wake-up, p50 of {sleepers}", added(woken, awake, 0.5), "ms", usual, "an awake call"),
        Row("Wake-up, p99", _worst(woken, awake), "ms", usual, "an awake call", at_most(10)),
        Row("A tenant's very first call, p50", added(made, known, 0.5), "ms"),
        Row("A tenant's very first call, p99", _worst(made, known), "ms"),
    ]


def _worst(first: list[float], second: list[float]) -> float:
    """Of the slow ones only a usual call is taken off: two tails would cancel each other."""
    return percentile(first, 0.99) - percentile(second, 0.5)


def _call_each(gateway: Gateway) -> tuple[list[float], list[float]]:
    """Milliseconds of two calls by each tenant: the first and the one after it."""
    first, second = [], []
    body = request_body(f"json/{MODEL}", stream=False)
    warm, *sleeping = gateway.state.tenants
    connection = Connection(gateway.port)
    try:
        for _ in range(20):
            connection.ask(request_bytes(CHAT, body, token=warm.token))
        for tenant in sleeping:
            request = request_bytes(CHAT, body, token=tenant.token)
            first.append(connection.ask(request) * 1000)
            second.append(connection.ask(request) * 1000)
    finally:
        connection.close()
    return first, second


def _serving(bench: Bench, state: State) -> AbstractAsyncContextManager[Gateway]:
    log = bench.scratch / f"gateway-{state.path.name}.log"
    return serving(state, command=bench.command, cores=bench.cores, log=log)


def _bar(bars: dict[int, float], tenants: int) -> Bar | None:
    return at_most(bars[tenants]) if tenants in bars else None
