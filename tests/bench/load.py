"""Saturating load with wrk, in short rounds that take turns between the servers compared."""

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from tests.bench.processes import MeasurementFailed, Server, find_program
from tests.bench.samples import median

_REPORT = re.compile(r"^bench (\{.*\})$", re.MULTILINE)
_PATIENCE = 15.0  # seconds beyond a round's own length

# wrk runs `init` and `request` in its thread, `done` after it. The requests are
# made once; a turn through the tokens spreads the load over tenants.
_SCRIPT = """\
local requests, turn = {{}}, 0
function init(args)
  local body = [==[{body}]==]
  for i, token in ipairs({{ {tokens} }}) do
    requests[i] = wrk.format("POST", nil, {{
      ["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. token,
    }}, body)
  end
end
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    'bench {{"answers": %d, "microseconds": %d, "refused": %d, "broken": %d, ' ..
      '"p50": %d, "p99": %d}}\\n',
    summary.requests, summary.duration, e.status, e.connect + e.read + e.write + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL and what is posted to it, by turns in the name of each token."""

    name: str
    url: str
    body: bytes
    tokens: tuple[str, ...] = ("none",)
    server: Server | None = None  # whose CPU time counts


@dataclass(frozen=True, slots=True)
class Round:
    answers: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_us: float | None = None  # of the server, an answer

    @property
    def rate(self) -> float:
        return self.answers / self.seconds


@dataclass(frozen=True, slots=True)
class Figures:
    """The rounds of one target and their medians."""

    rounds: list[Round] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return median([each.rate for each in self.rounds])

    @property
    def p50_ms(self) -> float:
        return median([each.p50_ms for each in self.rounds])

    @property
    def p99_ms(self) -> float:
        return median([each.p99_ms for each in self.rounds])

    @property
    def cpu_us(self) -> float | None:
        known = [each.cpu_us for each in self.rounds if each.cpu_us is not None]
        return median(known) if known else None

    @property
    def answers(self) -> int:
        return sum(each.answers for each in self.rounds)


def script(target: Target) -> str:
    """The Lua program that makes wrk send ``target``'s requests and report in JSON."""
    body = target.body.decode()
    if "]==]" in body or any('"' in token or "\\" in token for token in target.tokens):
        raise ValueError("does not fit into a Lua literal")
    return _SCRIPT.format(body=body, tokens=", ".join(f'"{token}"' for token in target.tokens))


def parse_report(output: str) -> Round:
    """Read what the script's ``done`` printed.

    Raises :exc:`MeasurementFailed` when it is missing, and when any request was
    refused or broken off: a rate of errors is not a rate.
    """
    found = _REPORT.search(output)
    if found is None:
        raise MeasurementFailed(f"wrk said nothing useful: {output.strip()[-300:]!r}")
    report = json.loads(found[1])
    if report["refused"] or report["broken"]:
        raise MeasurementFailed(
            f"{report['refused']} of {report['answers']} requests were refused "
            f"and {report['broken']} broken off"
        )
    if not report["answers"]:
        raise MeasurementFailed("no request was answered within a round")
    return Round(
        answers=report["answers"],
        seconds=report["microseconds"] / 1e6,
        p50_ms=report["p50"] / 1000,
        p99_ms=report["p99"] / 1000,
    )


async def interleaved(
    targets: Sequence[Target], *, connections: int, seconds: int, rounds: int, scratch: Path
) -> dict[str, Figures]:
    """Load each target in turn, ``rounds`` times over; the figures by target name.

    Taking turns spreads what else happens on the machine over all of them.
    """
    figures = {target.name: Figures() for target in targets}
    for _ in range(rounds):
        for target in targets:
            one = await load(target, connections=connections, seconds=seconds, scratch=scratch)
            figures[target.name].rounds.append(one)
    return figures


async def load(target: Target, *, connections: int, seconds: int, scratch: Path) -> Round:
    """One round of wrk against ``target``."""
    before = target.server.cpu_seconds() if target.server else 0.0
    one = await _wrk(target, connections=connections, seconds=seconds, scratch=scratch)
    if target.server is None:
        return one
    spent = target.server.cpu_seconds() - before
    return Round(one.answers, one.seconds, one.p50_ms, one.p99_ms, spent / one.answers * 1e6)


async def _wrk(target: Target, *, connections: int, seconds: int, scratch: Path) -> Round:
    path = trio.Path(scratch / "wrk.lua")  # in a file: arguments are visible to everyone
    await path.write_text(script(target))
    command = [
        find_program("wrk"),
        "--threads=1",
        f"--connections={connections}",
        f"--duration={seconds}s",
        "--timeout=10s",
        f"--script={path}",
        target.url,
    ]
    with trio.move_on_after(seconds + _PATIENCE):
        done = await trio.run_process(
            command, capture_stdout=True, stderr=subprocess.STDOUT, check=False
        )
        return parse_report(done.stdout.decode(errors="replace"))
    raise MeasurementFailed(f"wrk did not come back from {target.name} within {_PATIENCE:.0f} s")
