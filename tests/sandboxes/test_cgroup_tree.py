"""A group for each tenant that has a sandbox, and one in it for each sandbox."""

import errno
from pathlib import Path

import pytest
import trio

from appliance.sandboxes.base import Limits, SandboxFailed
from appliance.sandboxes.cgroup_tree import CgroupTree
from appliance.sandboxes.cgroup_v2 import CgroupV2
from tests.fakes.cgroups import FakeCgroupFs
from tests.sandboxes.grouped import groups_in, leaf_of

LIMITS = Limits(memory_bytes=1000, pids=10, cpu_percent=50)


@pytest.fixture
def fs() -> FakeCgroupFs:
    return FakeCgroupFs()


@pytest.fixture
def tree(tmp_path: Path, fs: FakeCgroupFs) -> CgroupTree:
    base = tmp_path / "base"
    fs.mount_v2(base, "memory", "pids", "cpu")
    fs.make(base / "gw")
    fs.write(base / "gw/cgroup.procs", (base / "cgroup.procs").read_text().strip())
    for controller in ("memory", "pids", "cpu"):
        fs.write(base / "cgroup.subtree_control", f"+{controller}")
    version = CgroupV2(base, "owner", mount=base, controllers=("memory", "pids", "cpu"), fs=fs)
    return CgroupTree(version, "owner", fs=fs)


def top(tmp_path: Path) -> Path:
    return tmp_path / "base/sandboxes-owner"


async def test_sandboxes_of_a_tenant_share_its_group(tree: CgroupTree, tmp_path: Path) -> None:
    await tree.open("acme", LIMITS, LIMITS)
    await tree.open("acme", LIMITS, LIMITS)
    await tree.open("globex", LIMITS, LIMITS)

    assert sorted(len(groups_in(tenant)) for tenant in groups_in(top(tmp_path))) == [1, 2]


async def test_no_name_tells_which_tenant_it_is(tree: CgroupTree, tmp_path: Path) -> None:
    group = await tree.open("acme", LIMITS, None)

    assert "acme" not in group.join_files[0].removeprefix(str(tmp_path))


async def test_a_closed_sandbox_leaves_no_group(tree: CgroupTree, tmp_path: Path) -> None:
    one = await tree.open("acme", LIMITS, LIMITS)
    other = await tree.open("acme", LIMITS, LIMITS)

    await one.close()
    assert len(groups_in(groups_in(top(tmp_path))[0])) == 1
    await other.close()
    await other.close()

    assert groups_in(top(tmp_path)) == []


async def test_what_was_used_is_known_after_the_end(
    tree: CgroupTree, tmp_path: Path, fs: FakeCgroupFs
) -> None:
    group = await tree.open("acme", LIMITS, LIMITS)
    leaf = leaf_of(group)
    (leaf / "cpu.stat").write_text("usage_usec 2500000\n")
    (leaf / "memory.peak").write_text("4096\n")
    (leaf / "memory.events").write_text("oom 1\noom_kill 1\n")

    await group.close()

    usage = group.usage()
    assert usage is not None
    assert (usage.cpu_seconds, usage.peak_memory_bytes, usage.out_of_memory) == (2.5, 4096, True)


async def test_closing_kills_what_is_left(
    tree: CgroupTree, tmp_path: Path, fs: FakeCgroupFs
) -> None:
    group = await tree.open("acme", LIMITS, LIMITS)
    fs.enter(leaf_of(group), 77)

    with trio.CancelScope() as scope:
        scope.cancel()
        await group.close()

    assert groups_in(top(tmp_path)) == []


async def test_a_limit_that_cannot_be_set_is_a_failure_and_leaves_nothing(
    tree: CgroupTree, tmp_path: Path, fs: FakeCgroupFs
) -> None:
    fs.refused["memory.oom.group"] = errno.EACCES

    with pytest.raises(SandboxFailed, match="control group"):
        await tree.open("acme", LIMITS, LIMITS)

    assert groups_in(top(tmp_path)) == []


async def test_a_cancelled_start_leaves_nothing(tree: CgroupTree, tmp_path: Path) -> None:
    await (await tree.open("acme", LIMITS, LIMITS)).close()

    with trio.CancelScope() as scope:
        scope.cancel()
        await tree.open("acme", LIMITS, LIMITS)

    assert scope.cancelled_caught
    assert groups_in(top(tmp_path)) == []


async def test_a_new_sandbox_brings_the_tenants_new_limits(
    tree: CgroupTree, tmp_path: Path
) -> None:
    await tree.open("acme", LIMITS, Limits(pids=20))
    await tree.open("acme", LIMITS, Limits(pids=30))

    assert (groups_in(top(tmp_path))[0] / "pids.max").read_text() == "30\n"


async def test_a_tenant_that_comes_back_while_its_group_is_being_removed_keeps_it(
    tree: CgroupTree, tmp_path: Path, fs: FakeCgroupFs, autojump_clock: trio.testing.MockClock
) -> None:
    first = await tree.open("acme", LIMITS, LIMITS)
    tenant = groups_in(top(tmp_path))[0]
    (tenant / "cgroup.procs").write_text("77\n")  # the kernel has not buried it yet
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.close)
        await trio.testing.wait_all_tasks_blocked()
        second = await tree.open("acme", LIMITS, LIMITS)
        (tenant / "cgroup.procs").write_text("")

    assert leaf_of(second).exists()


async def test_sweeping_ends_what_a_former_gateway_left_and_spares_others(
    tree: CgroupTree, tmp_path: Path, fs: FakeCgroupFs
) -> None:
    group = await tree.open("acme", LIMITS, LIMITS)
    fs.enter(leaf_of(group), 77)
    other = CgroupV2(
        tmp_path / "base", "other", mount=tmp_path, controllers=("memory", "pids"), fs=fs
    )
    stranger = await CgroupTree(other, "other", fs=fs).open("acme", LIMITS, None)
    fs.enter(leaf_of(stranger), 78)

    await tree.sweep()

    assert not top(tmp_path).exists()
    assert fs.read(leaf_of(stranger) / "cgroup.procs") == "78\n"


async def test_after_a_sweep_sandboxes_start_again(tree: CgroupTree) -> None:
    await tree.open("acme", LIMITS, LIMITS)
    await tree.sweep()

    assert leaf_of(await tree.open("acme", LIMITS, LIMITS)).exists()
