"""A tenant that writes too much is ended, and nobody else."""

import os
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from appliance.model.errors import DiskFull, QuotaExceeded
from appliance.services.sandboxes import disk_watch
from appliance.services.sandboxes.disk_watch import FLOOR_BYTES, DiskWatch
from appliance.services.workspaces import open_workspace
from appliance.storage.paths import FreeSpace
from appliance.storage.tree_walk import TreeTooLarge
from appliance.storage.unlinked_files import UnlinkedFiles
from tests.books import HandClock
from tests.fakes.sandboxes import FakeSandbox, Script
from tests.fakes.tenants import FakeTenant, open_tenant
from tests.services.sandbox_bench import SandboxBench, ask, open_sandboxes

MIB = 1024 * 1024


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[SandboxBench]:
    async with open_sandboxes(tmp_path) as bench:
        yield bench


@asynccontextmanager
async def watching(bench: SandboxBench) -> AsyncIterator[None]:
    """The watch begins its work, and the test has half a minute."""
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.watch.run)
            await trio.testing.wait_all_tasks_blocked()
            yield
            nursery.cancel_scope.cancel()


def fill(home: Path, size: int, name: str = "big") -> None:
    (home / "workspace").mkdir(exist_ok=True)
    (home / "workspace" / name).write_bytes(os.urandom(size))


def writes(bench: SandboxBench, size: int, *, then_hangs: bool = True) -> Script:
    async def behave(sandbox: FakeSandbox) -> int:
        fill(bench.home, size)
        if then_hangs:
            await trio.sleep_forever()
        return 0

    return Script(behave=behave)


async def test_whoever_writes_too_much_is_ended_and_told(bench: SandboxBench) -> None:
    bench.limit(sandbox_disk_mb=1)
    bench.backend.will(writes(bench, 2 * MIB))
    async with watching(bench):
        result = await bench.run("dd", timeout=25)

    assert result.over_disk
    assert result.ending.killed
    assert "no room left on the disk" in result.reason
    assert not result.timed_out
    assert bench.counted.ends == [("exec", "over_disk", 0)]


async def test_then_nothing_runs_and_nothing_is_written_until_there_is_room(
    bench: SandboxBench,
) -> None:
    bench.limit(sandbox_disk_mb=1)
    bench.backend.will(writes(bench, 2 * MIB), Script())
    async with watching(bench):
        await bench.run("dd", timeout=25)
        with pytest.raises(QuotaExceeded, match="of 1048576 allowed"):
            await bench.run("true")
        with open_workspace(bench.tenant, "main") as workspace:
            with pytest.raises(QuotaExceeded):
                workspace.write_atomic("note", b"x")
            workspace.unlink("big")
        await _until(lambda: bench.tenant.root.room.left_bytes != 0)

        assert (await bench.run("true")).ending.exit_code == 0


async def test_more_room_from_the_operator_counts_at_once(bench: SandboxBench) -> None:
    bench.limit(sandbox_disk_mb=1)
    fill(bench.home, 2 * MIB)
    bench.backend.will(Script())
    async with watching(bench):
        with pytest.raises(QuotaExceeded):
            await bench.run("true")
        bench.limit(sandbox_disk_mb=3)
        await bench.run("true")
    left = bench.backend.specs[0].limits.file_bytes
    assert left is not None
    assert 0.9 * MIB < left <= MIB


async def test_files_count_besides_bytes(bench: SandboxBench) -> None:
    bench.configure("    captain: {}\nsandbox: {limits: {files: 1000}}\n")
    for number in range(1001):
        fill(bench.home, 0, str(number))

    async with watching(bench):
        with pytest.raises(QuotaExceeded, match="more than 1000 files"):
            await bench.run("true")


async def test_the_quota_of_all_files_counts_too(bench: SandboxBench) -> None:
    bench.limit(disk_bytes=MIB)
    (bench.home / "memory").mkdir()
    (bench.home / "memory/main.sqlite").write_bytes(os.urandom(2 * MIB))

    async with watching(bench):
        with pytest.raises(QuotaExceeded, match="in its files"):
            await bench.run("true")


async def test_what_was_measured_is_told_to_the_reports(bench: SandboxBench) -> None:
    fill(bench.home, MIB)
    bench.backend.will(Script())
    async with watching(bench):
        await bench.run("true")

    assert bench.learned[0].of("workspace") >= MIB


async def test_without_limits_nobody_is_ended(bench: SandboxBench) -> None:
    bench.backend.will(writes(bench, 3 * MIB, then_hangs=False))
    async with watching(bench):
        result = await bench.run("dd")
    assert (result.over_disk, result.reason) == (False, "")


async def test_the_last_of_the_disk_is_nobodys(bench: SandboxBench) -> None:
    async with watching(bench):
        async with bench.sandboxes.open(bench.tenant, ask("dd")) as sandbox:
            bench.free[0] = FreeSpace(FLOOR_BYTES - 1)
            ending = await sandbox.wait()
        assert "no space left" in ending.reason
        with pytest.raises(DiskFull):
            await bench.run("true")


class Endable:
    def __init__(self) -> None:
        self.reasons: list[str] = []

    async def end(self, reason: str, *, over_disk: bool = False) -> None:
        assert over_disk
        self.reasons.append(reason)


async def test_when_the_disk_is_full_whoever_grew_is_ended_first(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    calm, greedy = Endable(), Endable()
    free = [FreeSpace(10**12)]
    async with (
        open_tenant(tmp_path / "calm") as one,
        open_tenant(tmp_path / "greedy") as other,
    ):
        one.id, other.id = "calm", "greedy"
        watch = DiskWatch(
            tenants=lambda: [one, other],
            running=lambda tenant: [calm if tenant == "calm" else greedy],
            free=lambda: free[0],
            clock=HandClock(),
        )
        nursery.start_soon(watch.run)
        with trio.fail_after(30):
            for tenant in (one, other):
                await watch._account(tenant).known.wait()
            fill(tmp_path / "greedy/tenant", 5 * MIB)
            await _until(lambda: watch._account(other).growth > 0)
            free[0] = FreeSpace(0)
            await _until(lambda: bool(greedy.reasons))
        assert calm.reasons == []
        nursery.cancel_scope.cancel()


async def test_a_tenant_that_falls_asleep_while_it_is_measured_is_forgotten(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    awake: list[FakeTenant] = []
    async with open_tenant(tmp_path) as tenant:
        watch = DiskWatch(
            tenants=lambda: awake,
            running=lambda _: [],
            free=lambda: FreeSpace(10**12),
            clock=HandClock(),
        )
        nursery.start_soon(watch.run)
        await trio.testing.wait_all_tasks_blocked()
        tenant.root.close()
        awake.append(tenant)
        watch.began()
        with trio.fail_after(30):
            await watch._account(tenant).known.wait()
        awake.clear()
        watch.began()
        await _until(lambda: not watch._accounts)
        nursery.cancel_scope.cancel()


async def test_long_walks_are_rare_and_a_disk_that_fills_is_looked_at_sooner(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_tenant(tmp_path) as tenant:
        watch = DiskWatch(
            tenants=lambda: [tenant],
            running=lambda _: [Endable()],
            free=lambda: FreeSpace(10**12),
            clock=HandClock(),
        )
        account = watch._account(tenant)
        account.ended_at, account.cost = trio.current_time(), 10.0
        account.free_before = 10**12

        def due(free: int) -> bool:
            return watch._is_due(tenant, account, FreeSpace(free))

        tenant.root.room.told(left=1000, refusal=None)
        assert not due(10**12)
        await trio.sleep(11)
        assert not due(10**12 - 1000)
        assert due(10**12 - 1001)
        await trio.sleep(30)
        assert due(10**12)
        tenant.root.room.told(left=None, refusal=None)
        account.ended_at = trio.current_time()
        await trio.sleep(11)
        assert not due(3 * disk_watch.FLOOR_BYTES)
        assert due(disk_watch.FLOOR_BYTES + 1)

        # A short one is repeated with every look: a second is a gigabyte.
        tenant.root.room.told(left=1000, refusal=None)
        account.ended_at, account.cost = trio.current_time(), 0.01
        assert not due(10**12 - 1001)
        await trio.sleep(disk_watch.TICK)
        assert due(10**12 - 1001)
        assert not due(10**12 - 1000)


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - walks in threads tell nobody here
        await trio.sleep(0.02)


async def test_who_cannot_be_measured_is_over(
    bench: SandboxBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TooMany(UnlinkedFiles):
        def steps(self) -> Generator[None, None, None]:
            yield
            raise TreeTooLarge("open files")

    monkeypatch.setattr(disk_watch, "UnlinkedFiles", TooMany)
    bench.backend.will(writes(bench, 10))
    async with watching(bench):
        assert (await bench.run("hide", timeout=25)).over_disk
