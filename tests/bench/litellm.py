"""The LiteLLM proxy beside the gateway: one worker each, the same core, upstream and questions.

It checks a key and computes what each call costs, as the gateway does; without
a database of its own it stores neither. Its environment comes from the package
index (:mod:`build.python_clients`), which takes minutes the first time, so it
is measured only when asked for: ``--only litellm``.
"""

import json
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.bench.answers import EVENTS, MODEL, request_body
from tests.bench.gateway import CHAT
from tests.bench.load import Target
from tests.bench.processes import (
    REPOSITORY,
    MeasurementFailed,
    Server,
    clean_environment,
    free_port,
    running,
    wait_for_port,
)
from tests.bench.report import Bar, Row, at_least_share
from tests.bench.stage import BUSY, Stage
from tests.bench.streaming import lockstep
from tests.bench.upstream import JSON_PATH, STREAM_PATH

_START = 120.0  # seconds until it listens
_EVENTS = len(EVENTS)
_SECONDS = 5  # of a round: one of its streams takes more than one second at 16 connections
_REQUESTS, _STREAMS, _JOINED = 10.0, 15.0, 40.0  # times as many as it


@dataclass(frozen=True, slots=True)
class Litellm:
    server: Server
    port: int
    key: str

    def target(self, model: str, *, stream: bool) -> Target:
        url = f"http://127.0.0.1:{self.port}{CHAT}"
        body = request_body(model, stream=stream)
        return Target("litellm", url, body, (self.key,), self.server)


async def beside_litellm(stage: Stage) -> list[Row]:
    """Rates by the clock, and what one core could do that nobody else uses."""
    rows: list[Row] = []
    async with serving_litellm(stage) as litellm:
        for connections, bar in ((BUSY, at_least_share(_REQUESTS)), (1, None)):
            ours, theirs = await _rates(stage, litellm, streams=False, connections=connections)
            rows += _rows(f"JSON completions, c={connections}", ours, theirs, bar)
        joined, theirs = await _rates(stage, litellm, streams=True, connections=BUSY)
        apart = await lockstep(stage, "gateway", streams=BUSY)
        stage.answered += apart.report.events // _EVENTS
        cpu = apart.cpu_us * _EVENTS if apart.cpu_us is not None else None
        name = f"Streams of 100 tokens, c={BUSY}"
        one_by_one = _Rate(apart.rate / _EVENTS, cpu)
        rows += _rows(f"{name}, an event a send", one_by_one, theirs, at_least_share(_STREAMS))
        rows += _rows(f"{name}, joined", joined, theirs, at_least_share(_JOINED))
        rss = litellm.server.rss_bytes() / 1e6
        rows.append(Row("Memory", stage.gateway.server.rss_bytes() / 1e6, "MB", rss, "LiteLLM"))
    return rows


@dataclass(frozen=True, slots=True)
class _Rate:
    """Answers a second, and the CPU time of one."""

    rate: float
    cpu_us: float | None

    @property
    def alone(self) -> float | None:
        """What a core for itself could do."""
        return 1e6 / self.cpu_us if self.cpu_us else None


def _rows(name: str, ours: _Rate, theirs: _Rate, bar: Bar | None) -> list[Row]:
    alone = f"{name}, a core for itself"
    return [
        Row(name, ours.rate, "/s", theirs.rate, "LiteLLM", bar),
        Row(alone, ours.alone, "/s", theirs.alone, "LiteLLM", bar),
    ]


async def _rates(
    stage: Stage, litellm: Litellm, *, streams: bool, connections: int
) -> tuple[_Rate, _Rate]:
    model = "sse" if streams else "json"
    targets = [
        stage.through_gateway(model, stream=streams),
        litellm.target(model, stream=streams),
    ]
    rounds = stage.bench.plan.rounds
    figures = await stage.compare(targets, connections=connections, rounds=rounds, seconds=_SECONDS)
    ours, theirs = (_Rate(one.rate, one.cpu_us) for one in figures.values())
    return ours, theirs


@asynccontextmanager
async def serving_litellm(stage: Stage) -> AsyncIterator[Litellm]:
    """Raises :exc:`MeasurementFailed` when it cannot be had or does not start."""
    program = await trio.to_thread.run_sync(_program)
    scratch, port = stage.bench.scratch, free_port()
    key = f"sk-{secrets.token_hex(16)}"
    config = scratch / "litellm.yaml"
    config.write_text(config_text(stage.upstream.port, key))
    environment = clean_environment(
        scratch, LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_TELEMETRY="False"
    )
    command = [str(program), f"--config={config}", "--host=127.0.0.1", f"--port={port}"]
    async with running(
        [*command, "--num_workers=1"],
        log=scratch / "litellm.log",
        core=stage.bench.cores.server,
        environment=environment,
    ) as server:
        await wait_for_port(port, server, patience=_START)
        litellm = Litellm(server, port, key)
        for model in ("json", "sse"):
            # Its first answers are its slowest; they do not count.
            await stage.compare(
                [litellm.target(model, stream=model == "sse")],
                connections=2,
                rounds=1,
                seconds=_SECONDS,
            )
        yield litellm


def config_text(port: int, key: str) -> str:
    """Its config: both answers of the upstream, a price, and a key that is checked."""
    models = [
        {
            "model_name": name,
            "litellm_params": {
                "model": f"openai/{MODEL}",
                "api_base": f"http://127.0.0.1:{port}{path}",
                "api_key": "bench",
                "input_cost_per_token": 0.000001,
                "output_cost_per_token": 0.000002,
            },
        }
        for name, path in (("json", JSON_PATH), ("sse", STREAM_PATH))
    ]
    return json.dumps({"model_list": models, "general_settings": {"master_key": key}})


def _program() -> Path:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "build" / "python_clients.py"), "litellm"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MeasurementFailed("LiteLLM could not be installed; see above")
    return Path(done.stdout.strip()).with_name("litellm")
