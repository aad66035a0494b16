"""A group for each tenant, kept a while without a sandbox, and one in it for each sandbox."""

import errno
from pathlib import Path

import pytest
import trio

from appliance.sandboxes import cgroup_tree
from appliance.sandboxes.base import Limits, SandboxFailed
from appliance.sandboxes.cgroup_tree import MOST_IDLE, CgroupTree
from appliance.sandboxes.cgroup_v1 import CgroupV1
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


def sandboxes_in(tmp_path: Path) -> list[Path]:
    return [leaf for tenant in groups_in(top(tmp_path)) for leaf in groups_in(tenant)]


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
    assert sandboxes_in(tmp_path) == [leaf_of(other)]
    await other.close()
    await other.close()

    assert sandboxes_in(tmp_path) == []


async def test_the_group_of_a_tenant_stays_for_its_next_sandbox_which_is_made_with_less(
    tree: CgroupTree, tmp_path: Path, fs: FakeCgroupFs
) -> None:
    await (await tree.open("acme", LIMITS, LIMITS)).close()
    tenants, made = groups_in(top(tmp_path)), len(fs.order)

    group = await tree.open("acme", LIMITS, LIMITS)

    assert [leaf_of(group).parent] == tenants
    assert len(fs.order) - made == len(["memory", "swap", "oom.group", "pids", "cpu"])


async def test_of_many_tenants_without_a_sandbox_the_longest_idle_loses_its_group(
    tree: CgroupTree, tmp_path: Path
) -> None:
    busy = await tree.open("busy", LIMITS, LIMITS)
    for number in range(MOST_IDLE + 1):
        group = await tree.open(f"tenant {number}", LIMITS, LIMITS)
        if number == 0:
            first = leaf_of(group).parent
        if number == 1:
            second = leaf_of(group).parent
        await group.close()

    assert not first.exists()
    assert second.exists()
    assert leaf_of(busy).exists()
    assert len(groups_in(top(tmp_path))) == 1 + MOST_IDLE


async def test_closing_the_gateway_removes_the_groups_that_are_idle(
    tree: CgroupTree, tmp_path: Path
) -> None:
    await (await tree.open("acme", LIMITS, LIMITS)).close()

    await tree.aclose()

    assert not top(tmp_path).exists()


async def test_a_group_that_somebody_else_has_removed_is_made_again(
    tree: CgroupTree, tmp_path: Path, fs: FakeCgroupFs
) -> None:
    await (await tree.open("acme", LIMITS, Limits(pids=20))).close()
    for group in fs.below(top(tmp_path)):
        fs.remove(group)

    leaf = leaf_of(await tree.open("acme", LIMITS, Limits(pids=20)))

    assert leaf.exists()
    assert (leaf.parent / "pids.max").read_text() == "20\n"


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

    assert sandboxes_in(tmp_path) == []
    assert "cgroup.kill 1" in fs.order


async def test_an_empty_group_is_removed_and_nobody_looked_for(
    tree: CgroupTree, fs: FakeCgroupFs
) -> None:
    await (await tree.open("acme", LIMITS, LIMITS)).close()

    assert "cgroup.kill 1" not in fs.order


async def test_what_a_container_runtime_has_made_in_a_group_goes_with_it(tmp_path: Path) -> None:
    fs = FakeCgroupFs()
    for name in ("pids", "memory"):
        fs.mount_v1(tmp_path / name, name)
    (tmp_path / "devices").mkdir()
    hierarchies = {name: tmp_path / name for name in ("pids", "memory")}
    version = CgroupV1(hierarchies, "owner", fs=fs, others=[tmp_path / "devices"])
    tree = CgroupTree(version, "owner", fs=fs)
    group = await tree.open("acme", LIMITS, LIMITS)
    parent = group.runtime_parent.strip("/")
    for hierarchy in ("pids", "memory", "devices"):
        (tmp_path / hierarchy / parent / "container").mkdir(parents=True)
        for path in (tmp_path / hierarchy).glob("**/"):
            (path / "cgroup.procs").touch()

    await group.close()

    assert [fs.below(tmp_path / name / parent) for name in ("pids", "memory", "devices")] == [
        []
    ] * 3


async def test_a_limit_that_cannot_be_set_is_a_failure_and_leaves_nothing(
    tree: CgroupTree, tmp_path: Path, fs: FakeCgroupFs
) -> None:
    fs.refused["memory.oom.group"] = errno.EACCES

    with pytest.raises(SandboxFailed, match="control group"):
        await tree.open("acme", LIMITS, LIMITS)

    assert sandboxes_in(tmp_path) == []


async def test_a_limit_of_a_tenant_that_cannot_be_set_leaves_nothing_of_the_tenants(
    tree: CgroupTree, tmp_path: Path, fs: FakeCgroupFs
) -> None:
    fs.refused["cpu.max"] = errno.EACCES

    with pytest.raises(SandboxFailed, match="control group"):
        await tree.open("acme", LIMITS, LIMITS)

    assert groups_in(top(tmp_path)) == []


@pytest.mark.parametrize("earlier", ["acme", "globex"])
async def test_a_cancelled_start_leaves_nothing(
    tree: CgroupTree, tmp_path: Path, earlier: str
) -> None:
    await (await tree.open(earlier, LIMITS, LIMITS)).close()
    before = groups_in(top(tmp_path))

    with trio.CancelScope() as scope:
        scope.cancel()
        await tree.open("acme", LIMITS, LIMITS)

    assert scope.cancelled_caught
    assert sandboxes_in(tmp_path) == []
    assert groups_in(top(tmp_path)) == before


async def test_a_new_sandbox_brings_the_tenants_new_limits(
    tree: CgroupTree, tmp_path: Path
) -> None:
    await tree.open("acme", LIMITS, Limits(pids=20))
    await tree.open("acme", LIMITS, Limits(pids=30))

    assert (groups_in(top(tmp_path))[0] / "pids.max").read_text() == "30\n"


async def test_also_when_its_group_has_stayed(tree: CgroupTree, tmp_path: Path) -> None:
    await (await tree.open("acme", LIMITS, Limits(pids=20))).close()
    await tree.open("acme", LIMITS, Limits(pids=30))

    assert (groups_in(top(tmp_path))[0] / "pids.max").read_text() == "30\n"


async def test_of_new_limits_set_at_once_those_are_remembered_that_hold(
    tree: CgroupTree, tmp_path: Path
) -> None:
    async with trio.open_nursery() as nursery:
        for pids in range(20, 30):
            nursery.start_soon(tree.open, "acme", LIMITS, Limits(pids=pids))
    await tree.open("acme", LIMITS, Limits(pids=20))

    assert (groups_in(top(tmp_path))[0] / "pids.max").read_text() == "20\n"


async def test_a_tenant_that_comes_back_while_its_group_is_being_removed_keeps_it(
    tree: CgroupTree,
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cgroup_tree, "MOST_IDLE", 0)
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
