"""Bombs, floods and hangs in real sandboxes: each ends, and is told why."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from appliance.config.sandbox_schema import SandboxConfig
from appliance.model.callers import Caller
from appliance.model.errors import QuotaExceeded
from appliance.sandboxes.base import TerminalSize
from appliance.sandboxes.detection import choose_backend, choose_groups
from appliance.services.workspaces import open_workspace
from appliance.tenants.jobs import Jobs
from tests.fakes.tenants import CALLER
from tests.services.sandbox_bench import SandboxBench, ask, open_sandboxes

MIB = 1024 * 1024


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[SandboxBench]:
    async with real_sandboxes(tmp_path) as bench:
        yield bench


@asynccontextmanager
async def real_sandboxes(path: Path) -> AsyncIterator[SandboxBench]:
    groups = await choose_groups(path)
    backend, proof = await choose_backend(SandboxConfig(), groups=groups, state_dir=path)
    if backend is None:
        pytest.skip(f"no isolation here: {proof.problem}")
    try:
        async with open_sandboxes(path) as bench, trio.open_nursery() as nursery:
            bench.sandboxes.use(backend, proof)
            nursery.start_soon(bench.watch.run)
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(100):
                yield bench
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await backend.aclose()


def shell(text: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", text)


def left_over(mark: str) -> list[int]:
    """Processes of this machine whose command line holds ``mark``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if mark.encode() in words and int(path.parent.name) != os.getpid():
            found.append(int(path.parent.name))
    return found


async def test_files_go_both_ways(bench: SandboxBench) -> None:
    with open_workspace(bench.tenant, "main") as workspace:
        workspace.write_atomic("AGENTS.md", b"from outside\n")
        result = await bench.run(*shell("cat AGENTS.md; echo inside >> AGENTS.md; mkdir a; id -u"))
        assert result.output.startswith(b"from outside\n")
        assert result.ending.exit_code == 0
        assert workspace.read_bytes("AGENTS.md", limit=99) == b"from outside\ninside\n"
        workspace.write_atomic("a/new", b"x")
    assert (await bench.run(*shell("cat a/new; rm a/new AGENTS.md"))).output == b"x"


async def test_other_agents_cannot_be_seen_from_the_first(bench: SandboxBench) -> None:
    with open_workspace(bench.tenant, "pirate") as workspace:
        workspace.write_atomic("SOUL.md", b"arr")

    assert (await bench.run(*shell("ls -A agents; touch agents/x; mv agents b"))).output == b""
    assert (await bench.run("cat", "SOUL.md", agent="pirate")).output == b"arr"
    assert (bench.home / "workspace/agents/pirate/SOUL.md").exists()


async def test_a_disk_bomb_of_one_file_stops_at_what_is_left(bench: SandboxBench) -> None:
    bench.limit(sandbox_disk_mb=8)
    result = await bench.run("dd", "if=/dev/zero", "of=bomb", "bs=1M", "count=100")

    assert result.ending.exit_code != 0
    assert (bench.home / "workspace/bomb").stat().st_size <= 8 * MIB


async def test_a_disk_bomb_of_many_files_is_ended(bench: SandboxBench) -> None:
    bench.limit(sandbox_disk_mb=8)
    bomb = "n=0; while :; do n=$((n+1)); head -c 1000000 /dev/urandom > f$n; done"
    result = await bench.run(*shell(bomb), timeout=60)

    assert (result.over_disk, result.timed_out) == (True, False)
    assert "no room left" in result.reason
    with pytest.raises(QuotaExceeded):
        await bench.run("true")


async def test_a_bomb_of_empty_files_is_ended(bench: SandboxBench) -> None:
    bench.configure("    captain: {}\nsandbox: {limits: {files: 1000}}\n")
    bomb = "mkdir -p d; n=0; while :; do n=$((n+1)); : > d/$n; done"
    result = await bench.run(*shell(bomb), timeout=60)

    assert (result.over_disk, result.timed_out) == (True, False)


async def test_a_bomb_of_deleted_files_is_ended(bench: SandboxBench) -> None:
    bench.limit(sandbox_disk_mb=8)
    bomb = (
        'for n in 3 4 5 6 7 8; do eval "exec $n>f"; rm f; head -c 4000000 /dev/urandom >&$n; done'
    )
    result = await bench.run("/bin/sh", "-c", f"{bomb}; sleep 60", timeout=60)

    assert (result.over_disk, result.timed_out) == (True, False)


async def test_a_flood_is_cut(bench: SandboxBench) -> None:
    result = await bench.run("yes", most=1000, timeout=60)

    assert (len(result.output), result.truncated, result.ending.killed) == (1000, True, True)
    assert not result.timed_out


async def test_what_hangs_is_ended_in_time_with_all_it_started(bench: SandboxBench) -> None:
    mark = f"3600.{os.getpid()}1"
    result = await bench.run(
        *shell(f"trap '' TERM HUP; setsid sleep {mark} & sleep {mark}"), timeout=1
    )

    assert (result.timed_out, result.ending.killed) == (True, True)
    assert left_over(mark) == []


async def test_what_was_used_is_in_the_books(bench: SandboxBench) -> None:
    await bench.run(*shell("n=0; while [ $n -lt 100000 ]; do n=$((n+1)); done; sleep 0.2"))

    ((wall, cpu),) = bench.tenant.entries("sandbox_ms, sandbox_cpu_ms")
    assert isinstance(wall, int)
    assert isinstance(cpu, int)
    assert wall >= 200
    assert 0 < cpu < 60_000


async def test_a_tenant_that_is_stopped_leaves_no_process(bench: SandboxBench) -> None:
    mark = f"3600.{os.getpid()}2"
    jobs = Jobs("acme", is_live=lambda _: True)
    async with trio.open_nursery() as nursery:
        await nursery.start(jobs.run)

        async def work() -> None:
            await bench.run(*shell(f"setsid sleep {mark} & sleep {mark}"), timeout=60)

        async def terminal() -> None:
            request = ask("sleep", mark, terminal=TerminalSize(80, 24), purpose="terminal")
            async with bench.sandboxes.open(bench.tenant, request):
                await trio.sleep_forever()

        caller: Caller = CALLER
        for each in (work, work, terminal):
            jobs.start(each, caller=caller)
        while len(left_over(mark)) < 5:  # noqa: ASYNC110 - the processes do not tell
            await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    assert left_over(mark) == []
    assert len(bench.sandboxes.starts) == 0


async def test_a_command_gets_its_input_and_signals_end_it(bench: SandboxBench) -> None:
    assert (await bench.run("wc", "-c", input=b"x" * 300_000)).output.strip() == b"300000"
    async with bench.sandboxes.open(bench.tenant, ask("sleep", "60")) as sandbox:
        sandbox.interrupt(signal.SIGTERM)
        ending = await sandbox.wait()
    assert (ending.exit_code, ending.signal) == (143, signal.SIGTERM)
