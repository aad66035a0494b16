"""What a tenant notices of another one that lets bombs off in its sandbox."""

import itertools
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from appliance.sandboxes.cgroup_files import owner_mark
from tests.bench.answers import MODEL, request_body, request_bytes
from tests.bench.bombs import BOMBS, CONTROL, DISK_MB, Bomb
from tests.bench.gateway import CHAT, Gateway, Upstreams, serving
from tests.bench.latency import Connection, in_thread
from tests.bench.processes import MeasurementFailed, all_cores
from tests.bench.report import Row, at_most
from tests.bench.samples import percentile
from tests.bench.stage import Bench, new_state
from tests.bench.upstream import serving_answers
from tests.bench.wire import AnswerReader

_RATE = 50  # completions a second
_WARM_UP = 1.0  # seconds
_INVOKE = "/tools/invoke"
_CLEARING = 5.0  # seconds until what was left behind counts
_MB = 1_000_000
_BLOCK = 512  # bytes
_LOOK = b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"


async def neighbours(bench: Bench) -> list[Row]:
    """One tenant's completions at a fixed rate, alone and while another's bomb goes off."""
    rows: list[Row] = []
    trials = (CONTROL, *BOMBS)
    with all_cores(bench.cores) as cores:
        free = replace(bench, cores=cores)
        async with serving_answers(bench.scratch, cores) as upstream:
            # A tenant for each bomb: one that has filled its disk may run nothing more.
            state = await new_state(
                free,
                "neighbours",
                tenants=1 + len(trials),
                upstreams=Upstreams(fixed=upstream.port),
            )
            state.config.write_text(written_config(state.config.read_text()))
            log = bench.scratch / "gateway-neighbours.log"
            async with serving(state, command=bench.command, cores=cores, log=log) as gateway:
                seconds = bench.plan.bomb_seconds
                await in_thread(lambda: _attack(gateway, 1, "true", seconds))  # proves, wakes
                for number, bomb in enumerate(trials, 1):
                    trial = await in_thread(partial(_try, gateway, number, bomb, seconds))
                    rows += rows_of(bomb, trial)
    return rows


def written_config(text: str) -> str:
    """The same config; tenants may run commands over HTTP, and write so much and no more."""
    known = json.loads(text)
    known["defaults"] = {"tools": {"http_deny": []}}
    known["quotas"]["sandbox_disk_mb"] = DISK_MB
    return json.dumps(known)


@dataclass(frozen=True, slots=True)
class Waits:
    """Milliseconds. A completion waits for the disk, and so for all who write to it."""

    completions: list[float] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)  # at /healthz


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a neighbour waited for; what became of the bomb."""

    alone: "Waits"
    beside: "Waits"
    cpu_alone: float  # seconds a second, of the gateway
    cpu_beside: float
    ended: str
    seconds: float
    left: Sequence[str]  # processes and groups, a moment later
    stored: int  # bytes in the workspace


def rows_of(bomb: Bomb, trial: Trial) -> list[Row]:
    rows = [
        *_waits(bomb, "a completion", trial.beside.completions, trial.alone.completions),
        *_waits(bomb, "/healthz", trial.beside.looks, trial.alone.looks),
        Row(
            f"Beside a {bomb.name}, the gateway's CPU",
            100 * trial.cpu_beside,
            "% of a core",
            100 * trial.cpu_alone,
            "without it",
        ),
        Row(
            f"Beside a {bomb.name}, left behind",
            len(trial.left),
            "processes, groups",
            bar=at_most(0),
            note=f"it ended after {trial.seconds:.1f} s: {trial.ended}"
            + "".join(f"; {each}" for each in trial.left),
        ),
    ]
    if bomb.fills_disk:
        rows.append(Row(f"Stored by a {bomb.name}", trial.stored / _MB, "MB", DISK_MB, "allowed"))
    return rows


def _waits(bomb: Bomb, name: str, beside: Sequence[float], alone: Sequence[float]) -> Iterator[Row]:
    for text, share in (("p50", 0.5), ("p99", 0.99)):
        value, baseline = percentile(beside, share), percentile(alone, share)
        label = f"Beside a {bomb.name}, {text} of {name}"
        yield Row(label, value, "ms", baseline, "without it")
    yield Row(f"Beside a {bomb.name}, added to that", value - baseline, "ms", bar=at_most(10))


def _try(gateway: Gateway, number: int, bomb: Bomb, seconds: float) -> Trial:
    with _asking(gateway):
        sleep(_WARM_UP)
    with _asking(gateway) as alone:
        cpu_alone = _share(gateway, lambda: sleep(seconds / 2))
    ended, took = "", 0.0

    def attack() -> None:
        nonlocal ended, took
        began = perf_counter()
        ended = _attack(gateway, number, bomb.command, seconds)
        took = perf_counter() - began
        # If it ended early, what follows is its doing too.
        sleep(max(0.0, min(2.0, seconds - took)))

    with _asking(gateway) as beside:
        cpu_beside = _share(gateway, attack)
    left = _left_behind(gateway)
    # Both before and after: others use the machine as well, and not always as much.
    with _asking(gateway, alone):
        sleep(seconds / 2)
    tenant = gateway.state.tenants[number].id
    return Trial(
        alone=alone,
        beside=beside,
        cpu_alone=cpu_alone,
        cpu_beside=cpu_beside,
        ended=ended,
        seconds=took,
        left=left,
        stored=_stored(gateway.state.path / "tenants" / tenant / "workspace"),
    )


def _share(gateway: Gateway, work: Callable[[], None]) -> float:
    """How much of a core the gateway uses while ``work`` is done."""
    cpu, began = gateway.server.cpu_seconds(), perf_counter()
    work()
    return (gateway.server.cpu_seconds() - cpu) / (perf_counter() - began)


def due_times(began: float, rate: int) -> Iterator[float]:
    for number in itertools.count():
        yield began + number / rate


@contextmanager
def _asking(gateway: Gateway, waits: Waits | None = None) -> Iterator[Waits]:
    """Ask in threads of their own while the block runs. The samples are complete after it."""
    waits = Waits() if waits is None else waits
    body = request_body(f"json/{MODEL}", stream=False)
    completion = request_bytes(CHAT, body, token=gateway.state.tenants[0].token)
    over, failures = threading.Event(), list[Exception]()

    def ask(request: bytes, took: list[float]) -> None:
        try:
            _ask_on(gateway.port, request, took, over)
        except Exception as exc:  # noqa: BLE001 - raised again below, in the other thread
            failures.append(exc)

    threads = [
        threading.Thread(target=ask, args=(completion, waits.completions)),
        threading.Thread(target=ask, args=(_LOOK, waits.looks)),
    ]
    for thread in threads:
        thread.start()
    try:
        yield waits
    finally:
        over.set()
        for thread in threads:
            thread.join()
    if failures:
        raise MeasurementFailed(f"the neighbour was not answered: {failures[0]}")


def _ask_on(port: int, request: bytes, took: list[float], over: threading.Event) -> None:
    """At a fixed rate, each timed from when it was due: one that waits delays those after it."""
    connection = Connection(port)
    try:
        for due in due_times(perf_counter(), _RATE):
            if (ahead := due - perf_counter()) > 0:
                sleep(ahead)
            if over.is_set():
                return
            connection.ask(request)
            took.append((perf_counter() - due) * 1000)
    finally:
        connection.close()


def _attack(gateway: Gateway, number: int, command: str, seconds: float) -> str:
    """Run a command as a tenant's tool; the end of what the tool said."""
    arguments = {"command": command, "timeout": seconds, "yieldMs": 120_000}
    body = json.dumps({"tool": "exec", "args": arguments}).encode()
    asked = request_bytes(_INVOKE, body, token=gateway.state.tenants[number].token, close=True)
    status, answer = _ask(gateway.port, asked, patience=seconds + 30)
    try:
        return told(json.loads(answer))
    except (ValueError, LookupError) as exc:
        raise MeasurementFailed(f"exec was refused with {status}: {answer[:300]!r}") from exc


def told(answer: Mapping[str, Any]) -> str:
    """How a command ended, which is the last line in brackets of what its tool says.

    A command that did not end well is the tool's error. Raises ``LookupError``
    for what is no answer of the tool.
    """
    if answer["ok"]:
        text = "".join(part.get("text", "") for part in answer["result"]["content"])
    elif answer["error"]["type"] == "tool_error":
        text = answer["error"]["message"]
    else:
        raise LookupError(answer["error"]["type"])
    lines = [line for line in text.splitlines() if line.startswith("(") and line.endswith(")")]
    return lines[-1].strip("()")[:160] if lines else "by itself"


def _ask(port: int, asked: bytes, *, patience: float) -> tuple[int, bytes]:
    reader, pieces = AnswerReader(), list[bytes]()
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
        connection.sendall(asked)
        while not reader.done:
            if not (data := connection.recv(65_536)):
                raise MeasurementFailed("the connection was closed within an answer")
            pieces += reader.feed(data)
    return reader.status, b"".join(pieces)


def _left_behind(gateway: Gateway) -> list[str]:
    """What is still there of sandboxes when there has been time to tidy up."""
    patience = perf_counter() + _CLEARING
    while left := [*_descendants(gateway.server.pid), *_groups(gateway.state.path)]:
        if perf_counter() > patience:
            return left
        sleep(0.05)
    return []


def _descendants(pid: int) -> list[str]:
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    return [f"process {child}" for child in children(parents, pid)]


def children(parents: Mapping[int, int], pid: int) -> list[int]:
    """All below ``pid``, however deep."""
    found: list[int] = []
    unseen = [pid]
    while unseen:
        parent = unseen.pop()
        born = [child for child, its in parents.items() if its == parent]
        found += born
        unseen += born
    return sorted(found)


def _groups(state: Path) -> list[str]:
    """Groups of the kernel that belong to sandboxes, and processes in them."""
    found: list[str] = []
    for top in Path("/sys/fs/cgroup").glob(f"**/openclawmu-{owner_mark(state)}"):
        found += [f"group {path.name}" for path in top.glob("*/*") if path.is_dir()]
    return found


def _stored(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            total += (Path(place) / name).lstat().st_blocks * _BLOCK
    return total
