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
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.bench.answers import EVENTS, MODEL, request_body, request_bytes
from tests.bench.gateway import CHAT
from tests.bench.load import Target
from tests.bench.lockstep import TRANSLATED_CHAT, LockstepResult, marker
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
from tests.bench.samples import median
from tests.bench.stage import BUSY, Stage
from tests.bench.streaming import in_lockstep
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
        name = f"Streams of 100 tokens, c={BUSY}"
        ours, theirs = await _fed_alike(stage, litellm)
        rows += _rows(f"{name}, an event a send", ours, theirs, at_least_share(_STREAMS))
        ours, theirs = await _rates(stage, litellm, streams=True, connections=BUSY)
        rows += _rows(f"{name}, joined", ours, theirs, at_least_share(_JOINED))
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


async def _fed_alike(stage: Stage, litellm: Litellm) -> tuple[_Rate, _Rate]:
    """The upstream sends both an event when the one before it has come out."""
    tokens = {
        stage.gateway.port: stage.gateway.state.tenants[0].token,
        litellm.port: litellm.key,
    }
    servers = {stage.gateway.port: stage.gateway.server, litellm.port: litellm.server}
    models = {stage.gateway.port: f"lockstep/{MODEL}", litellm.port: "lockstep"}
    results: dict[int, list[LockstepResult]] = {port: [] for port in tokens}
    for _ in range(stage.bench.plan.rounds):
        for port, done in results.items():
            requests = [
                request_bytes(
                    CHAT,
                    request_body(models[port], stream=True, marker=marker(slot)),
                    token=tokens[port],
                )
                for slot in range(BUSY)
            ]
            done.append(
                await in_lockstep(
                    stage, port, requests, servers[port], script=TRANSLATED_CHAT, seconds=_SECONDS
                )
            )
    stage.answered += sum(one.begun for one in results[stage.gateway.port])
    ours, theirs = (
        _Rate(
            median([one.rate for one in done]) / _EVENTS,
            median([one.cpu_us * _EVENTS for one in done if one.cpu_us is not None]),
        )
        for done in results.values()
    )
    return ours, theirs


@asynccontextmanager
async def serving_litellm(stage: Stage) -> AsyncIterator[Litellm]:
    """Raises :exc:`MeasurementFailed` when it cannot be had or does not start."""
    program = await trio.to_thread.run_sync(_program)
    scratch, port = stage.bench.scratch, free_port()
    key = f"sk-{secrets.token_hex(16)}"
    config = scratch / "litellm.yaml"
    bases = {
        "json": f"http://127.0.0.1:{stage.upstream.port}{JSON_PATH}",
        "sse": f"http://127.0.0.1:{stage.upstream.port}{STREAM_PATH}",
        "lockstep": f"http://127.0.0.1:{stage.lockstep.port}/v1",
    }
    config.write_text(config_text(bases, key))
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


def config_text(bases: Mapping[str, str], key: str) -> str:
    """Its config: a model for each upstream, a price, and a key that is checked."""
    models = [
        {
            "model_name": name,
            "litellm_params": {
                "model": f"openai/{MODEL}",
                "api_base": base,
                "api_key": "bench",
                "input_cost_per_token": 0.000001,
                "output_cost_per_token": 0.000002,
            },
        }
        for name, base in bases.items()
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
