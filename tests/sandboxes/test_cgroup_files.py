"""What both versions of control groups do with their directories and files."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
import trio

from appliance.sandboxes import cgroup_files
from appliance.sandboxes.cgroup_files import CgroupFs
from tests.fakes.cgroups import FakeCgroupFs


def test_a_file_the_kernel_does_not_have_is_never_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        CgroupFs().write(tmp_path / "memory.max", 1)

    assert list(tmp_path.iterdir()) == []


def test_the_mark_of_a_state_directory_is_its_own_and_tells_nothing(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    (tmp_path / "link").symlink_to(one)

    assert cgroup_files.owner_mark(one) != cgroup_files.owner_mark(other)
    assert cgroup_files.owner_mark(one) == cgroup_files.owner_mark(tmp_path / "link")
    assert "one" not in cgroup_files.owner_mark(one)


def test_a_tenant_has_another_mark_for_each_gateway() -> None:
    assert cgroup_files.tenant_mark("a", "acme") != cgroup_files.tenant_mark("b", "acme")
    assert "acme" not in cgroup_files.tenant_mark("a", "acme")


def test_a_share_of_the_processor_is_never_less_than_the_kernel_takes() -> None:
    assert cgroup_files.cpu_quota(250) == (250_000, 100_000)
    assert cgroup_files.cpu_quota(1) == (1000, 100_000)


def test_lines_that_are_no_counters_are_left_out() -> None:
    assert cgroup_files.counters("usage_usec 12\nmax\nio default 3\n") == {"usage_usec": 12}


def test_neither_ourselves_nor_a_process_of_another_namespace_is_ever_a_member(
    tmp_path: Path,
) -> None:
    (tmp_path / "cgroup.procs").write_text(f"0\n{os.getpid()}\n77\n")

    assert cgroup_files.members(CgroupFs(), tmp_path) == [77]


def test_a_group_that_is_gone_has_no_members(tmp_path: Path) -> None:
    assert cgroup_files.members(CgroupFs(), tmp_path / "gone") == []


def test_every_member_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        (tmp_path / "cgroup.procs").write_text(f"{process.pid}\n")

        assert cgroup_files.kill_members(CgroupFs(), tmp_path)

        assert process.wait(60) == -signal.SIGKILL


def test_a_process_that_took_the_number_of_a_dead_one_is_spared(tmp_path: Path) -> None:
    class Changing(CgroupFs):
        """At the second look the number is no longer in the group."""

        looks = 0

        def read(self, file: Path) -> str:
            self.looks += 1
            return super().read(file) if self.looks == 1 else ""

    with subprocess.Popen(["sleep", "60"]) as process:
        (tmp_path / "cgroup.procs").write_text(f"{process.pid}\n")

        cgroup_files.kill_members(Changing(), tmp_path)

        assert process.poll() is None
        process.kill()


async def test_waiting_ends_after_a_while(autojump_clock: trio.testing.MockClock) -> None:
    assert not await cgroup_files.wait_until(lambda: False)

    assert trio.current_time() == pytest.approx(cgroup_files.KILL_TIMEOUT)


async def test_waiting_is_not_cut_short_by_cancellation(
    autojump_clock: trio.testing.MockClock,
) -> None:
    looks = iter([False, False, True])
    with trio.CancelScope() as scope:
        scope.cancel()
        is_done = await cgroup_files.wait_until(lambda: next(looks))

    assert is_done


async def test_a_group_in_use_is_tried_again_until_it_can_be_removed(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    fs = FakeCgroupFs()
    fs.mount_v1(tmp_path / "pids", "pids")
    group = tmp_path / "pids/one"
    fs.make(group)
    fs.enter(group, 1)
    async with trio.open_nursery() as nursery:

        async def bury() -> None:
            await trio.sleep(0.5)
            (group / "cgroup.procs").write_text("")

        nursery.start_soon(bury)
        assert await cgroup_files.remove_all(fs, [group])

    assert not group.exists()


async def test_removing_what_is_gone_is_no_failure(tmp_path: Path) -> None:
    assert await cgroup_files.remove_all(CgroupFs(), [tmp_path / "gone"])
