"""Version 1: what is written where, and bombs in the kernel's own groups."""

import errno
import os
import signal
import time
from pathlib import Path

import pytest
import trio

from appliance.sandboxes.base import Limits
from appliance.sandboxes.cgroup_files import CgroupFs, GroupsUnavailable, owner_mark, wait_until
from appliance.sandboxes.cgroup_mounts import CgroupMounts
from appliance.sandboxes.cgroup_tree import CgroupTree
from appliance.sandboxes.cgroup_v1 import CgroupV1, use_hierarchies
from tests.fakes.cgroups import FakeCgroupFs
from tests.sandboxes import grouped

MIB = grouped.MIB
ALL = ("pids", "memory", "cpu", "cpuacct")


@pytest.fixture
def fs() -> FakeCgroupFs:
    return FakeCgroupFs()


def used(tmp_path: Path, fs: FakeCgroupFs, *controllers: str) -> CgroupTree:
    names = controllers or ALL
    for name in names:
        fs.mount_v1(tmp_path / name, name)
    mounts = CgroupMounts(None, None, {name: tmp_path / name for name in names})
    return use_hierarchies(mounts, "owner", fs=fs)


def read(file: Path) -> str:
    return file.read_text().strip()


async def test_a_sandbox_has_its_limits_in_every_hierarchy(
    tmp_path: Path, fs: FakeCgroupFs
) -> None:
    tree = used(tmp_path, fs)

    group = await tree.open(
        "acme",
        Limits(memory_bytes=64, pids=12, cpu_percent=20),
        Limits(memory_bytes=640, pids=120, cpu_percent=200),
    )

    pids, memory, cpu, _ = (Path(file).parent for file in group.join_files)
    assert read(pids / "pids.max") == "12"
    assert read(pids.parent / "pids.max") == "120"
    assert read(memory / "memory.limit_in_bytes") == "64"
    assert read(memory / "memory.memsw.limit_in_bytes") == "64"
    assert read(memory.parent / "memory.limit_in_bytes") == "640"
    assert read(cpu / "cpu.cfs_quota_us") == "20000"
    assert read(cpu.parent / "cpu.cfs_quota_us") == "200000"


async def test_a_single_thread_joins_through_tasks_which_costs_no_grace_period(
    tmp_path: Path, fs: FakeCgroupFs
) -> None:
    group = await used(tmp_path, fs).open("acme", Limits(), None)

    assert {Path(file).name for file in group.join_files} == {"tasks"}


async def test_hierarchies_that_share_a_mount_are_joined_once(
    tmp_path: Path, fs: FakeCgroupFs
) -> None:
    for name in ("pids", "memory", "cpu"):
        fs.mount_v1(tmp_path / name, name)
    (tmp_path / "cpu/cpuacct.usage").write_text("1500000000")
    hierarchies = {name: tmp_path / name for name in ("pids", "memory", "cpu")}
    hierarchies["cpuacct"] = tmp_path / "cpu"
    tree = use_hierarchies(CgroupMounts(None, None, hierarchies), "owner", fs=fs)

    group = await tree.open("acme", Limits(), None)

    assert len(group.join_files) == 3
    usage = group.usage()
    assert usage is not None
    assert usage.cpu_seconds == 1.5


async def test_a_share_the_kernel_refuses_is_no_reason_not_to_start(
    tmp_path: Path, fs: FakeCgroupFs
) -> None:
    fs.refused["cpu.cfs_quota_us"] = errno.EINVAL

    await used(tmp_path, fs).open("acme", Limits(cpu_percent=400), Limits(cpu_percent=100))


async def test_a_tenants_new_share_is_tried_with_each_sandbox_until_the_kernel_takes_it(
    tmp_path: Path, fs: FakeCgroupFs
) -> None:
    tree = used(tmp_path, fs)
    fs.refused["cpu.cfs_quota_us"] = errno.EINVAL  # as long as one inside has more
    group = await tree.open("acme", Limits(), Limits(cpu_percent=100))
    del fs.refused["cpu.cfs_quota_us"]

    await tree.open("acme", Limits(), Limits(cpu_percent=100))

    cpu = Path(group.join_files[2]).parent.parent
    assert read(cpu / "cpu.cfs_quota_us") == "100000"


async def test_without_cpu_the_rest_holds_and_a_warning_says_so(
    tmp_path: Path, fs: FakeCgroupFs
) -> None:
    tree = used(tmp_path, fs, "pids", "memory")

    usage = (await tree.open("acme", Limits(), None)).usage()

    assert "every core" in tree.warnings[0]
    assert usage is not None
    assert usage.cpu_seconds == 0


def test_without_memory_it_is_not_used(tmp_path: Path, fs: FakeCgroupFs) -> None:
    with pytest.raises(GroupsUnavailable, match="no memory hierarchy"):
        used(tmp_path, fs, "pids", "cpu")


def test_who_may_make_no_groups_is_told_so(tmp_path: Path, fs: FakeCgroupFs) -> None:
    class Refusing(FakeCgroupFs):
        def make(self, group: Path) -> None:
            raise PermissionError(errno.EACCES, "Permission denied", str(group))

    with pytest.raises(GroupsUnavailable, match="only root"):
        used(tmp_path, Refusing())


def test_asking_whether_groups_can_be_made_leaves_none(tmp_path: Path, fs: FakeCgroupFs) -> None:
    used(tmp_path, fs)

    assert not [path for path in tmp_path.glob("*/*") if path.is_dir()]


@pytest.fixture
def tree(tmp_path: Path) -> CgroupTree:
    """In the kernel's own hierarchies."""
    fs, owner = CgroupFs(), owner_mark(tmp_path)
    return CgroupTree(CgroupV1(grouped.real_v1(), owner, fs=fs), owner, fs=fs)


async def test_a_memory_bomb_is_killed_and_reported(tree: CgroupTree) -> None:
    async with grouped.tidied(tree):
        group = await tree.open("acme", Limits(memory_bytes=48 * MIB), None)
        status, _ = await grouped.run(group, grouped.MEMORY_BOMB)
        await group.close()

    usage = group.usage()
    assert status != 0
    assert usage is not None
    assert usage.out_of_memory
    assert usage.peak_memory_bytes is not None
    assert 40 * MIB < usage.peak_memory_bytes <= 48 * MIB


async def test_a_command_that_keeps_to_its_memory_is_not_reported(tree: CgroupTree) -> None:
    async with grouped.tidied(tree):
        group = await tree.open("acme", Limits(memory_bytes=48 * MIB), None)
        status, output = await grouped.run(group, "echo fine")
        await group.close()

    usage = group.usage()
    assert (status, output) == (0, b"fine\n")
    assert usage is not None
    assert not usage.out_of_memory


async def test_sandboxes_of_one_tenant_share_its_memory(tree: CgroupTree) -> None:
    tenant = Limits(memory_bytes=32 * MIB, pids=None, cpu_percent=None)
    async with grouped.tidied(tree):
        group = await tree.open("acme", Limits(memory_bytes=400 * MIB), tenant)
        status, _ = await grouped.run(group, grouped.MEMORY_BOMB)
        usage = group.usage()

    assert status != 0
    assert usage is not None
    assert usage.out_of_memory


async def test_a_tenants_memory_can_be_raised_and_lowered_while_it_runs(
    tree: CgroupTree,
) -> None:
    async with grouped.tidied(tree):
        limits = [Limits(memory_bytes=size * MIB) for size in (64, 128, 32)]
        group = await tree.open("acme", Limits(), limits[0])
        memory = Path(group.join_files[1]).parent.parent
        found = []
        for one in limits:
            await tree.open("acme", Limits(), one)
            names = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
            found.append([int(read(memory / name)) // MIB for name in names])

    assert found == [[64, 64], [128, 128], [32, 32]]


async def test_a_fork_bomb_stops_at_the_limit(tree: CgroupTree) -> None:
    async with grouped.tidied(tree):
        group = await tree.open("acme", Limits(pids=20), None)
        with grouped.joined(group, grouped.FORK_BOMB) as process:
            pids = grouped.leaf_of(group)
            assert await wait_until(
                lambda: int(read(pids / "pids.current")) == 20 or process.poll() is not None
            )
            assert int(read(pids / "pids.current")) <= 20
            assert int(read(pids / "pids.events").split()[1]) > 0
            await group.kill()
            assert read(pids / "cgroup.procs") == ""


async def test_a_busy_loop_gets_its_share_of_the_processor(tree: CgroupTree) -> None:
    async with grouped.tidied(tree):
        group = await tree.open("acme", Limits(cpu_percent=20), None)
        with grouped.joined(group, "while :; do :; done"):
            began = time.monotonic()
            assert await wait_until(lambda: grouped.cpu_seconds(group) > 0.2, at_most=60)
            seconds = time.monotonic() - began

    # 0.2 s of it at 20 % take a second, less the first period's worth.
    assert seconds > 0.7


async def test_daemons_that_ignore_signals_and_fork_on_are_killed(tree: CgroupTree) -> None:
    script = (
        "for i in 1 2 3 4 5; do setsid sh -c \"trap '' TERM HUP INT; "
        'while :; do sleep 0.01; done" </dev/null >/dev/null 2>&1 & done; echo up; exec sleep 60'
    )
    async with grouped.tidied(tree):
        group = await tree.open("acme", Limits(), None)
        with grouped.joined(group, script) as process:
            assert process.stdout is not None
            with trio.fail_after(60):
                assert await trio.to_thread.run_sync(process.stdout.readline) == b"up\n"
                await group.kill()
            assert process.wait(60) == -signal.SIGKILL
            pids = grouped.leaf_of(group)
            assert read(pids / "cgroup.procs") == ""


async def test_what_a_former_gateway_left_is_swept_and_others_are_spared(tmp_path: Path) -> None:
    fs, hierarchies = CgroupFs(), grouped.real_v1()

    def gateway(state_dir: Path) -> CgroupTree:
        owner = owner_mark(state_dir)
        return CgroupTree(CgroupV1(hierarchies, owner, fs=fs), owner, fs=fs)

    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    async with grouped.tidied(gateway(ours)) as tree, grouped.tidied(gateway(theirs)) as other:
        left = await gateway(ours).open("acme", Limits(), None)
        spared = await other.open("acme", Limits(), None)
        with (
            grouped.joined(left, "echo up; exec sleep 60") as dead,
            grouped.joined(spared, "echo up; exec sleep 60") as alive,
        ):
            assert dead.stdout is not None
            assert alive.stdout is not None
            with trio.fail_after(60):
                await trio.to_thread.run_sync(dead.stdout.readline)
                await trio.to_thread.run_sync(alive.stdout.readline)
                await tree.sweep()

            assert dead.wait(60) == -signal.SIGKILL
            assert alive.poll() is None
            assert not grouped.leaf_of(left).parent.parent.exists()
            assert "openclawmu-" + owner_mark(theirs) in grouped.group_of(alive.pid)


async def test_nothing_of_ours_is_left_on_the_machine(tmp_path: Path) -> None:
    mounts = grouped.real_v1()
    owner = owner_mark(tmp_path)
    tree = use_hierarchies(CgroupMounts(None, None, mounts), owner)
    assert os.geteuid() == 0
    await tree.open("acme", Limits(), Limits())

    await tree.aclose()

    assert not any((path / f"openclawmu-{owner}").exists() for path in mounts.values())
