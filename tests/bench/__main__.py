"""``make bench``: measure, print the table, keep the JSON.

The exit code says whether every figure could be taken, not whether the bars
were reached: on a shared machine a missed bar may be a neighbour's fault, a
measurement that does not run never is.
"""

import argparse
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import trio

from tests.bench import report
from tests.bench.crowds import fan_out, idle_clients
from tests.bench.dialects import dialect_costs, later_tokens
from tests.bench.gateway import settled_calls
from tests.bench.latency import added_delays
from tests.bench.litellm import beside_litellm
from tests.bench.memory import populations, wake_ups
from tests.bench.neighbours import neighbours
from tests.bench.processes import REPOSITORY, Cores, MeasurementFailed
from tests.bench.report import Row, at_least_share, failed
from tests.bench.stage import Bench, Plan, Stage, setting
from tests.bench.starts import sandbox_starts
from tests.bench.streaming import integrity, stream_rates
from tests.bench.terminal import terminal_rates
from tests.bench.throughput import json_rates, loop_lag
from tests.bench.turns import first_deltas
from tests.bench.websocket import handshake_rates, health_rates

# In this order; those of the first table share one set of running servers.
LOADS: dict[str, Callable[[Stage], Awaitable[list[Row]]]] = {
    "latency": added_delays,
    "integrity": integrity,
    "json": json_rates,
    "stream": stream_rates,
    "later": later_tokens,
    "dialects": dialect_costs,
    "lag": loop_lag,
    "litellm": beside_litellm,
}
# Each of these starts what it needs.
ALONE: dict[str, Callable[[Bench], Awaitable[list[Row]]]] = {
    "memory": populations,
    "wake": wake_ups,
    "health": health_rates,
    "handshake": handshake_rates,
    "idle": idle_clients,
    "fanout": fan_out,
    "turn": first_deltas,
    "exec": sandbox_starts,
    "terminal": terminal_rates,
    "neighbours": neighbours,
}
ALL = (*LOADS, *ALONE)
# What has to be installed first is measured only when it is named.
USUAL = tuple(name for name in ALL if name != "litellm")
LONGEST = 740.0  # seconds of the whole run; what has not been measured by then is not run
RESULTS = REPOSITORY / "bench-results"

_FAILURES = (MeasurementFailed, OSError, trio.TooSlowError)
T = TypeVar("T")
Sections = dict[str, list[Row]]


class Run:
    """One run of some of the measurements, and what came of it so far."""

    def __init__(self, bench: Bench, chosen: Sequence[str], say: Callable[[str], None]) -> None:
        self._bench = bench
        self._chosen = chosen
        self._say = say
        self.sections: Sections = {}
        self.upstream: str | None = None

    @property
    def is_complete(self) -> bool:
        return all(row.value is not None for rows in self.sections.values() for row in rows)

    async def measure(self) -> None:
        """Fill :attr:`sections`; a measurement that fails is a row and the next one goes on."""
        with trio.move_on_after(LONGEST) as limit:
            loads = [name for name in LOADS if name in self._chosen]
            if loads:
                await self._loads(loads)
            for name in ALONE:
                if name in self._chosen:
                    await self._take(name, ALONE[name], self._bench)
        if limit.cancelled_caught:
            for name in self._chosen:
                reason = f"the run's {LONGEST:.0f} s were over"
                self.sections.setdefault(name, [failed(name, reason)])

    async def _loads(self, names: Sequence[str]) -> None:
        answered = None
        try:
            async with setting(self._bench) as stage:
                self.upstream = stage.upstream.kind
                for name in names:
                    await self._take(name, LOADS[name], stage)
                answered, state = stage.answered, stage.gateway.state
        except _FAILURES as exc:
            for name in names:
                self.sections.setdefault(name, [failed(name, str(exc))])
        if answered is None:
            return
        # The gateway has ended: its books are closed.
        try:
            self.sections["books"] = [_books(answered, settled_calls(state))]
        except MeasurementFailed as exc:
            self.sections["books"] = [failed("books", str(exc))]

    async def _take(
        self, name: str, measurement: Callable[[T], Awaitable[list[Row]]], around: T
    ) -> None:
        self._say(f"measuring {name} …")
        began = perf_counter()
        try:
            self.sections[name] = await measurement(around)
        except _FAILURES as exc:
            self.sections[name] = [failed(name, str(exc) or type(exc).__name__)]
        self._say(f"  {perf_counter() - began:.0f} s")


def _books(answered: int, settled: int) -> Row:
    """Every answered call must be in a ledger; calls cut off at a round's end may be too."""
    return Row(
        "Answered calls that are in the ledger",
        min(settled, answered),
        "",
        answered,
        "answered",
        at_least_share(1.0),
    )


async def _until_told(run: Run) -> bool:
    """Measure; a TERM ends it as Ctrl-C does. Return whether it got through."""
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            with trio.open_signal_receiver(signal.SIGTERM) as signals:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

        nursery.start_soon(listen)
        await run.measure()
        nursery.cancel_scope.cancel()
        return True
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(arguments)
    cores = Cores.choose()
    RESULTS.mkdir(exist_ok=True)
    # On the repository's own disk: /tmp may be memory, where a sync costs nothing.
    scratch = Path(tempfile.mkdtemp(prefix=".run-", dir=options.scratch or RESULTS))
    started = datetime.now(UTC)
    began = perf_counter()
    console = report.console(plain=options.plain)
    facts: dict[str, Any] = {
        "started": started.isoformat(timespec="seconds"),
        "quick": options.quick,
        "machine": report.machine(cores, scratch),
    }
    cores.keep_to_load()
    bench = Bench(Plan.quick() if options.quick else Plan(), scratch, cores, options.command)
    run = Run(bench, options.only, lambda text: print(text, file=sys.stderr, flush=True))
    try:
        through = trio.run(_until_told, run)
    except* KeyboardInterrupt:
        through = False
    finally:
        if options.keep:
            print(f"kept {scratch}", file=sys.stderr)
        else:
            shutil.rmtree(scratch, ignore_errors=True)
    if not through:
        return 130
    facts["upstream"] = run.upstream
    facts["seconds"] = round(perf_counter() - began, 1)
    path = RESULTS / f"{started:%Y%m%dT%H%M%SZ}.json"
    path.write_text(report.as_json(run.sections, facts))
    if options.markdown:
        print(report.markdown(run.sections), end="")
    else:
        report.print_table(console, run.sections)
        console.print(report.describe(facts), style="dim")
    print(f"{path} ({facts['seconds']:.0f} s)", file=sys.stderr)
    return 0 if run.is_complete else 1


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measure the gateway beside bare anchors in the same run.",
    )
    parser.add_argument("--quick", action="store_true", help="tiny rounds: does it run at all?")
    parser.add_argument(
        "--only",
        type=_names,
        default=USUAL,
        metavar="NAME,…",
        help=f"some of {', '.join(ALL)}",
    )
    parser.add_argument("--plain", action="store_true", help="no colours")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table instead")
    parser.add_argument("--keep", action="store_true", help="keep the scratch folder and its logs")
    parser.add_argument("--scratch", type=Path, help="where to make it (on a real disk)")
    parser.add_argument(
        "--command",
        type=shlex.split,
        default=[sys.executable, "-m", "appliance"],
        help="what to measure instead of this checkout, such as dist/openclawmu",
    )
    return parser.parse_args(arguments)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in ALL]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(ALL)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
