"""Version 2: what is written where, and the kernel's own where it has it."""

import errno
import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from appliance.sandboxes.base import Limits
from appliance.sandboxes.cgroup_files import CgroupFs, GroupsUnavailable, wait_until
from appliance.sandboxes.cgroup_mounts import CgroupMounts, find_mounts
from appliance.sandboxes.cgroup_tree import CgroupTree
from appliance.sandboxes.cgroup_v2 import CgroupV2, enter_delegated, is_delegated
from tests.fakes.cgroups import FakeCgroupFs
from tests.sandboxes import grouped

ALL = ("memory", "pids", "cpu", "io")


@pytest.fixture
def fs() -> FakeCgroupFs:
    return FakeCgroupFs()


def entered(tmp_path: Path, fs: FakeCgroupFs, *controllers: str) -> tuple[CgroupTree, Path]:
    base = tmp_path / "unified"
    fs.mount_v2(base, *(controllers or ALL))
    return enter_delegated(CgroupMounts(base, base, {}), "owner", fs=fs), base


def read(file: Path) -> str:
    return file.read_text().strip()


async def test_a_sandbox_has_its_limits_and_its_tenant_has_others(
    tmp_path: Path, fs: FakeCgroupFs
) -> None:
    tree, _ = entered(tmp_path, fs)

    group = await tree.open(
        "acme",
        Limits(memory_bytes=64, pids=12, cpu_percent=20),
        Limits(memory_bytes=640, pids=120, cpu_percent=200),
    )

    leaf = grouped.leaf_of(group)
    assert read(leaf / "memory.max") == "64"
    assert read(leaf / "memory.swap.max") == "0"
    assert read(leaf / "memory.oom.group") == "1"
    assert read(leaf / "pids.max") == "12"
    assert read(leaf / "cpu.max") == "20000 100000"
    assert read(leaf.parent / "memory.max") == "640"
    assert read(leaf.parent / "pids.max") == "120"
    assert read(leaf.parent / "cpu.max") == "200000 100000"


async def test_no_limit_is_what_the_machine_has(tmp_path: Path, fs: FakeCgroupFs) -> None:
    tree, _ = entered(tmp_path, fs)

    group = await tree.open("acme", Limits(memory_bytes=None, pids=None, cpu_percent=None), None)

    leaf = grouped.leaf_of(group)
    for one in (leaf, leaf.parent):
        assert [read(one / name) for name in ("memory.max", "pids.max", "cpu.max")] == ["max"] * 3


async def test_all_sandboxes_together_weigh_less_than_the_gateway(
    tmp_path: Path, fs: FakeCgroupFs
) -> None:
    tree, base = entered(tmp_path, fs)

    await tree.open("acme", Limits(), None)

    assert read(base / "sandboxes-owner/cpu.weight") == "50"


async def test_the_gateway_moves_itself_before_controllers_are_handed_on(
    tmp_path: Path, fs: FakeCgroupFs
) -> None:
    _, base = entered(tmp_path, fs)

    assert read(base / "gw/cgroup.procs") == str(os.getpid())
    assert read(base / "cgroup.procs") == ""
    assert fs.order[0] == f"cgroup.procs {os.getpid()}"
    assert set(read(base / "cgroup.subtree_control").split()) == set(ALL)


async def test_a_gateway_that_is_in_the_leaf_already_stays_there(
    tmp_path: Path, fs: FakeCgroupFs, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, base = entered(tmp_path, fs)
    monkeypatch.setattr(os, "getxattr", lambda _path, _name: b"1")

    tree = enter_delegated(CgroupMounts(tmp_path, base / "gw", {}), "owner", fs=fs)

    group = await tree.open("acme", Limits(), None)
    assert Path(group.join_files[0]).is_relative_to(base / "sandboxes-owner")


async def test_without_cpu_the_rest_holds_and_a_warning_says_so(
    tmp_path: Path, fs: FakeCgroupFs
) -> None:
    tree, _ = entered(tmp_path, fs, "memory", "pids")

    group = await tree.open("acme", Limits(pids=5), None)

    assert read(grouped.leaf_of(group) / "pids.max") == "5"
    assert "every core" in tree.warnings[0]
    assert tree.level == "cgroup v2"


def test_without_memory_or_pids_it_is_not_used(tmp_path: Path, fs: FakeCgroupFs) -> None:
    with pytest.raises(GroupsUnavailable, match="no memory and no pids controller"):
        entered(tmp_path, fs, "cpu", "io")


def test_a_machine_without_it_says_so() -> None:
    with pytest.raises(GroupsUnavailable, match="not mounted"):
        enter_delegated(CgroupMounts(None, None, {}), "owner")


def test_controllers_that_are_not_handed_on_are_a_reason(tmp_path: Path, fs: FakeCgroupFs) -> None:
    fs.refused["cgroup.subtree_control"] = errno.EBUSY

    with pytest.raises(GroupsUnavailable, match="does not hand on memory"):
        entered(tmp_path, fs)


def test_a_group_that_is_only_read_is_a_reason(tmp_path: Path, fs: FakeCgroupFs) -> None:
    fs.refused["cgroup.procs"] = errno.EROFS

    with pytest.raises(GroupsUnavailable, match="cgroup v2 cannot be used"):
        entered(tmp_path, fs)


def test_a_group_nobody_gave_us_is_left_alone(tmp_path: Path, fs: FakeCgroupFs) -> None:
    mount = tmp_path / "unified"
    scope = mount / "user.slice/session-1.scope"
    fs.mount_v2(scope, *ALL)

    with pytest.raises(GroupsUnavailable, match="Delegate=yes"):
        enter_delegated(CgroupMounts(mount, scope, {}), "owner", fs=fs)

    assert fs.order == []


def test_the_mark_of_systemd_says_that_a_group_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getxattr", lambda _path, _name: b"1")

    assert is_delegated(tmp_path)


def test_where_the_mark_cannot_be_read_a_users_own_group_below_the_system_is_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, user = tmp_path / "system.slice", tmp_path / "user.slice"
    for one in (system, user):
        one.mkdir()
        if os.geteuid() == 0:
            os.chown(one, 1000, -1)
    monkeypatch.setattr(os, "geteuid", lambda: system.stat().st_uid)

    assert is_delegated(system)
    assert not is_delegated(user)


@pytest.fixture
def real_base() -> Iterator[Path]:
    """A group of our own in the real hierarchy, with whatever controllers it has: none, mostly."""
    mount = find_mounts().unified
    if mount is None or not os.access(mount, os.W_OK):
        pytest.skip("cgroup v2 is not mounted here, or not for us to write")
    base = mount / f"openclawmu-test-{secrets.token_hex(4)}"
    base.mkdir()
    try:
        yield base
    finally:
        base.rmdir()


async def test_the_kernel_kills_all_of_a_group_and_counts_what_it_used(real_base: Path) -> None:
    fs = CgroupFs()
    tree = CgroupTree(
        CgroupV2(real_base, "owner", mount=real_base.parent, controllers=(), fs=fs), "owner", fs=fs
    )
    async with grouped.tidied(tree):
        group = await tree.open("acme", Limits(), None)
        script = "trap '' TERM HUP; (setsid sleep 60 &) ; echo up; while :; do :; done"
        with grouped.joined(group, script) as process:
            assert process.stdout is not None
            with trio.fail_after(60):
                assert await trio.to_thread.run_sync(process.stdout.readline) == b"up\n"
                assert await wait_until(lambda: grouped.cpu_seconds(group) > 0.05)
                await group.kill()
            assert process.wait(60) == -signal.SIGKILL
            assert read(Path(group.join_files[0])) == ""
        await group.close()
        usage = group.usage()

    assert usage is not None
    assert 0.05 <= usage.cpu_seconds < 30
    assert usage.peak_memory_bytes is None


async def test_the_kernels_leftovers_are_swept(real_base: Path) -> None:
    fs = CgroupFs()
    version = CgroupV2(real_base, "owner", mount=real_base.parent, controllers=(), fs=fs)
    former, tree = CgroupTree(version, "owner", fs=fs), CgroupTree(version, "owner", fs=fs)
    async with grouped.tidied(tree):
        group = await former.open("acme", Limits(), None)
        with grouped.joined(group, "echo up; exec sleep 60") as process:
            assert process.stdout is not None
            with trio.fail_after(60):
                await trio.to_thread.run_sync(process.stdout.readline)
                await tree.sweep()
            assert process.wait(60) == -signal.SIGKILL

        assert grouped.groups_in(real_base) == []
