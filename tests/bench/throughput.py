"""Completions a second, what they cost, and how late the event loop runs meanwhile."""

from tests.bench.gateway import loop_lag_ms
from tests.bench.load import load
from tests.bench.processes import MeasurementFailed
from tests.bench.report import Row, at_least, at_least_share, at_most
from tests.bench.stage import BUSY, Stage

_CONNECTIONS = (BUSY, 1, 64)


async def json_rates(stage: Stage) -> list[Row]:
    rows: list[Row] = []
    plan = stage.bench.plan
    for connections in _CONNECTIONS:
        busy = connections == BUSY
        targets = [
            stage.bare(stage.stock, "/json"),
            stage.through_gateway("json", stream=False),
            stage.bare(stage.door, "/json"),
        ]
        rounds = plan.busy_rounds if busy else plan.rounds
        figures = await stage.compare(targets, connections=connections, rounds=rounds)
        gateway, stock, door = (figures[n] for n in ("gateway", "stock/json", "door/json"))
        name = f"JSON completions, c={connections}"
        share = at_least_share(0.45) if busy else None
        if busy:
            rows.append(Row(name, gateway.rate, "/s", bar=at_least(800)))
        rows.append(Row(name, gateway.rate, "/s", stock.rate, "bare app, stock", share))
        rows.append(Row(name, gateway.rate, "/s", door.rate, "bare app, our door", share))
        if busy:
            rows.append(
                Row("CPU a completion", gateway.cpu_us, "µs", door.cpu_us, "bare app, our door")
            )
            rows.append(
                Row("p99 under that load", gateway.p99_ms, "ms", door.p99_ms, "bare app, our door")
            )
    rows.append(await _many_tenants(stage))
    return rows


async def _many_tenants(stage: Stage) -> Row:
    """The same load by sixteen tenants: sixteen ledgers have to reach the disk."""
    target = stage.through_gateway("json", stream=False, tenants=BUSY)
    figures = await stage.compare([target], connections=BUSY, rounds=stage.bench.plan.rounds)
    return Row(f"JSON completions, c={BUSY}, {BUSY} tenants", figures["gateway"].rate, "/s")


async def loop_lag(stage: Stage) -> list[Row]:
    """The gateway's own figure after half a minute of nothing but load, its whole window."""
    for target in (
        stage.through_gateway("json", stream=False),
        stage.through_gateway("sse", stream=True),
    ):
        one = await load(
            target,
            connections=BUSY,
            seconds=stage.bench.plan.lag_seconds,
            scratch=stage.bench.scratch,
        )
        stage.answered += one.answers
    lag = await loop_lag_ms(stage.gateway)
    if lag is None:
        raise MeasurementFailed("/readyz does not show loop_lag_ms")
    return [Row(f"Event loop lag p99 at c={BUSY}", lag, "ms", bar=at_most(20))]
