"""What it costs to run a command in a sandbox, beside the same launcher without a gateway."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

import trio

from appliance.config.sandbox_schema import SandboxConfig
from appliance.sandboxes.base import Limits, SandboxSpec
from appliance.sandboxes.bubblewrap import Bubblewrap
from appliance.sandboxes.bubblewrap_arguments import Invocation
from appliance.sandboxes.bubblewrap_sandbox import BubblewrapSandbox
from appliance.sandboxes.detection import choose_groups
from appliance.sandboxes.groups import Group, Groups
from appliance.sandboxes.launcher import GO, Descriptor
from appliance.sandboxes.spawning import SharedFiles, Spawned, read_greeting, spawn
from tests.bench.processes import MeasurementFailed, all_cores
from tests.bench.report import Row, at_most_share
from tests.bench.samples import percentile
from tests.bench.stage import Bench
from tests.services.sandbox_bench import SandboxBench, open_sandboxes

_COMMAND = "true"
_PATIENCE = 20.0  # seconds that one of them may take


async def sandbox_starts(bench: Bench) -> list[Row]:
    """`true` from asking the service to its answer, and the launcher's own time for it."""
    with all_cores(bench.cores):
        path = bench.scratch / "starts"
        path.mkdir()
        async with real_sandboxes(path) as (service, backend, groups):
            took = await _take(service, backend, groups, bench.plan.commands)
    name, against = f"{_COMMAND} in a sandbox ({groups.level})", "the launcher bare"
    return [
        Row(
            f"{name}, p{share:.0%}".removesuffix("%"),
            percentile(took.service, share),
            "ms",
            percentile(took.bare, share),
            against,
            at_most_share(1.3),
        )
        for share in (0.5, 0.99)
    ]


@dataclass(frozen=True, slots=True)
class Starts:
    """Milliseconds from start to end."""

    service: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)


class _Noting(Bubblewrap):
    """Remembers what it started last."""

    last: Invocation
    joined: tuple[str, ...] = ()

    def _spawn(self, invocation: Invocation, spec: SandboxSpec, group: Group) -> BubblewrapSandbox:
        self.last, self.joined = invocation, tuple(group.join_files)
        return super()._spawn(invocation, spec, group)


@asynccontextmanager
async def real_sandboxes(path: Path) -> AsyncIterator[tuple[SandboxBench, _Noting, Groups]]:
    """The gateway's service with everything behind it: quotas, books, the watch of the disk.

    ``path`` is an empty directory.
    """
    groups = await choose_groups(path)
    backend = _Noting(uid=SandboxConfig().uid, groups=groups)
    failed: MeasurementFailed | None = None
    try:
        proof = await backend.prove()
        if not proof.holds:
            raise MeasurementFailed(f"there is no sandbox here: {proof.problem}")
        async with open_sandboxes(path) as bench, trio.open_nursery() as nursery:
            bench.sandboxes.use(backend, proof)
            nursery.start_soon(bench.watch.run)
            try:
                yield bench, backend, groups
            except MeasurementFailed as exc:  # the nursery would wrap it
                failed = exc
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await backend.aclose()
    if failed is not None:
        raise failed


async def _take(service: SandboxBench, backend: _Noting, groups: Groups, count: int) -> Starts:
    await _run(service)  # makes the workspace
    took, files = Starts(), SharedFiles()
    group = await groups.open("bare", Limits(), None)
    workspace = os.open(service.home / "workspace", os.O_PATH | os.O_DIRECTORY)
    try:
        for number in range(-(count // 20 + 1), count):
            within = await _run(service)
            joined: dict[str | bytes, str] = {}
            joined.update(zip(backend.joined, group.join_files, strict=True))
            alike = rejoined(backend.last, joined, workspace=workspace)
            bare = _run_bare(alike, files)
            if number >= 0:  # those before warm both sides up
                took.service.append(within)
                took.bare.append(bare)
    finally:
        files.close()
        os.close(workspace)
        await group.close()
    return took


async def _run(service: SandboxBench) -> float:
    began = perf_counter()
    result = await service.run(_COMMAND, timeout=_PATIENCE)
    took = (perf_counter() - began) * 1000
    if result.ending.exit_code != 0:
        raise MeasurementFailed(f"{_COMMAND} ended with {result.ending}: {result.errors!r}")
    return took


def rejoined(
    invocation: Invocation, groups: Mapping[str | bytes, str], *, workspace: int
) -> Invocation:
    """The same with other groups to join and with another descriptor of the workspace."""
    return replace(
        invocation,
        argv=[groups.get(argument, argument) for argument in invocation.argv],
        descriptors={**invocation.descriptors, Descriptor.WORKSPACE: workspace},
    )


def _run_bare(invocation: Invocation, files: SharedFiles) -> float:
    """Milliseconds from posix_spawn until bwrap has ended. Blocks; nothing is read or counted."""
    began = perf_counter()
    spawned = spawn(invocation, files=files, terminal=None, owner=None)
    try:
        spawned.handshake.settimeout(_PATIENCE)
        if read_greeting(spawned.handshake) is None:
            raise MeasurementFailed("the bare launcher did not start its sandbox")
        spawned.handshake.send(GO)
        _, status = os.waitpid(spawned.pid, 0)
        took = (perf_counter() - began) * 1000
    except TimeoutError as exc:
        raise MeasurementFailed("the bare launcher hangs") from exc
    finally:
        _close(spawned)
    if status:
        raise MeasurementFailed(f"the bare launcher ended with status {status}")
    return took


def _close(spawned: Spawned) -> None:
    spawned.handshake.close()
    for descriptor in (spawned.pidfd, spawned.status, spawned.input, spawned.output):
        if descriptor is not None:
            os.close(descriptor)
    if spawned.errors is not None:
        os.close(spawned.errors)
