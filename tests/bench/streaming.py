"""Streams: how many, how many frames, how late each frame, and whether all of them came."""

from collections.abc import Callable, Sequence
from functools import partial

import trio

from tests.bench.answers import EVENTS, MODEL, request_body, request_bytes
from tests.bench.frames import FrameChecker, FrameReport
from tests.bench.gateway import CHAT
from tests.bench.latency import in_thread
from tests.bench.lockstep import CHAT as CHAT_SCRIPT
from tests.bench.lockstep import LockstepResult, Script, marker
from tests.bench.processes import MeasurementFailed, Server
from tests.bench.report import Row, at_least, at_least_share, at_most
from tests.bench.samples import median, percentile
from tests.bench.stage import BUSY, Stage
from tests.bench.wire import AnswerReader, BadAnswer

_EVENTS = len(EVENTS)


async def stream_rates(stage: Stage) -> list[Row]:
    """The upstream delivers a stream in one read: whole events may leave together."""
    targets = [
        stage.bare(stage.stock, "/events"),
        stage.through_gateway("sse", stream=True),
        stage.bare(stage.door, "/events"),
        stage.bare(stage.door, "/joined"),
    ]
    figures = await stage.compare(targets, connections=BUSY, rounds=stage.bench.plan.busy_rounds)
    gateway, joined = figures["gateway"], figures["door/joined"]
    free = {name: figures[f"{name}/events"].rate * _EVENTS for name in ("stock", "door")}
    frames = gateway.rate * _EVENTS
    name = f"Streams of 100 tokens, joined, c={BUSY}"
    share = at_least_share(0.8)
    return [
        Row(name, gateway.rate, "/s", joined.rate, "bare app, one send", at_least(400)),
        Row("CPU a stream", gateway.cpu_us, "µs", joined.cpu_us, "bare app, one send"),
        Row(
            "The same in frames", frames, "/s", free["stock"], "bare app, a send each, stock", share
        ),
        Row(
            "The same in frames",
            frames,
            "/s",
            free["door"],
            "bare app, a send each, our door",
            share,
        ),
        *await _lockstep_rates(stage, free["door"]),
    ]


async def _lockstep_rates(stage: Stage, free: float) -> list[Row]:
    """The upstream sends an event when the last one is out: one read, one send, each."""
    results: dict[str, list[LockstepResult]] = {"stock": [], "gateway": [], "door": []}
    for _ in range(stage.bench.plan.rounds):
        for name, done in results.items():
            done.append(await lockstep(stage, name, streams=BUSY))
    stage.answered += sum(one.report.events // _EVENTS for one in results["gateway"])
    rates = {name: median([one.rate for one in done]) for name, done in results.items()}
    report = sum((one.report for one in results["gateway"]), FrameReport())
    stalls = sum(one.stalls for one in results["gateway"])
    alone = await lockstep(stage, "gateway", streams=1)
    bare = await lockstep(stage, "door", streams=1)
    stage.answered += alone.report.events // _EVENTS
    name = f"Frames, one a read and a send, c={BUSY}"
    share = at_least_share(0.8)
    late = [percentile(alone.delays, part) * 1000 for part in (0.5, 0.99)]
    bare_late = [percentile(bare.delays, part) * 1000 for part in (0.5, 0.99)]
    return [
        Row(name, rates["gateway"], "/s", rates["stock"], "bare app fed alike, stock", share),
        Row(name, rates["gateway"], "/s", rates["door"], "bare app fed alike, our door", share),
        Row(name, rates["gateway"], "/s", free, "bare app, a send each, our door"),
        Row(
            "CPU a frame",
            _cpu(results["gateway"]),
            "µs",
            _cpu(results["door"]),
            "bare app fed alike, our door",
        ),
        Row(
            "A token's way through, c=1, p50",
            late[0],
            "ms",
            bare_late[0],
            "bare app fed alike, our door",
        ),
        Row(
            "A token's way through, c=1, p99",
            late[1],
            "ms",
            bare_late[1],
            "bare app fed alike, our door",
        ),
        Row("Events held back until the next", stalls, "", bar=at_most(0)),
        _integrity_row("Faulty frames, one by one", report),
    ]


def _cpu(results: Sequence[LockstepResult]) -> float | None:
    known = [one.cpu_us for one in results if one.cpu_us is not None]
    return median(known) if known else None


async def lockstep(stage: Stage, name: str, *, streams: int, pause: float = 0.0) -> LockstepResult:
    """A round through ``name``: gateway, door, stock, or direct (nothing between)."""
    ends: dict[str, tuple[int, Server | None]] = {
        "direct": (stage.lockstep.port, None),
        "gateway": (stage.gateway.port, stage.gateway.server),
        "stock": (stage.stock.port, stage.stock.server),
        "door": (stage.door.port, stage.door.server),
    }
    port, server = ends[name]
    request = _gateway_request if name == "gateway" else _bare_request
    requests = [request(stage, slot) for slot in range(streams)]
    return await in_lockstep(stage, port, requests, server, pause=pause)


async def in_lockstep(
    stage: Stage,
    port: int,
    requests: Sequence[bytes],
    server: Server | None,
    *,
    pause: float = 0.0,
    script: Script = CHAT_SCRIPT,
    seconds: int = 0,
) -> LockstepResult:
    """A round of streams for ``requests``, each with the marker of its place."""
    run = partial(
        stage.lockstep.run,
        port,
        requests,
        # A stream of a hundred pauses has to have room for one.
        seconds=max(seconds or stage.bench.plan.seconds, 150 * pause),
        cpu_seconds=server.cpu_seconds if server else None,
        pause=pause,
        script=script,
    )
    return await _stoppable(stage, run)


async def _stoppable(stage: Stage, run: Callable[[], LockstepResult]) -> LockstepResult:
    try:
        return await in_thread(run)
    finally:
        stage.lockstep.stop()


def _gateway_request(stage: Stage, slot: int) -> bytes:
    body = request_body(f"lockstep/{MODEL}", stream=True, marker=marker(slot))
    return request_bytes(CHAT, body, token=stage.gateway.state.tenants[0].token)


def _bare_request(_: Stage, slot: int) -> bytes:
    return request_bytes("/relay", request_body(MODEL, stream=True, marker=marker(slot)))


async def integrity(stage: Stage) -> list[Row]:
    """Every byte of many parallel streams against what the upstream sent."""
    body = request_body(f"sse/{MODEL}", stream=True)
    reports: list[FrameReport] = []
    count = stage.bench.plan.checked_streams

    async def caller(token: str) -> None:
        request = request_bytes(CHAT, body, token=token)
        reports.append(await _checked(stage.gateway.port, request, count))

    problem: BaseException | None = None
    try:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for tenant in stage.gateway.state.tenants[:BUSY]:
                    nursery.start_soon(caller, tenant.token)
    except* (MeasurementFailed, OSError, BadAnswer) as group:
        problem = group.exceptions[0]
    if problem is not None:
        raise MeasurementFailed(str(problem))
    stage.answered += count * len(reports)
    whole = sum(reports, FrameReport())
    return [_integrity_row("Faulty frames, joined", whole)]


async def _checked(port: int, request: bytes, count: int) -> FrameReport:
    reader, total = AnswerReader(), FrameReport()
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        for _ in range(count):
            reader.restart()
            checker = FrameChecker(EVENTS)
            await stream.send_all(request)
            while not reader.done:
                data = await stream.receive_some()
                if not data:
                    raise MeasurementFailed("a stream was closed before its end")
                for piece in reader.feed(data):
                    checker.feed(piece)
            if reader.status != 200:
                raise MeasurementFailed(f"a stream was refused with status {reader.status}")
            total += checker.finish()
    return total


def _integrity_row(name: str, report: FrameReport) -> Row:
    return Row(name, report.faults, f"of {report.events:,}", bar=at_most(0), note=str(report))
