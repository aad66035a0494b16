"""What is mounted, and where we are, is read from /proc."""

from pathlib import Path

from appliance.sandboxes.cgroup_mounts import CgroupMounts, find_mounts

SYSTEMD = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
CONTAINER = "700 690 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
OLD = """\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
"""


def mounts(tmp_path: Path, mountinfo: str, cgroup: str) -> CgroupMounts:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text(mountinfo)
    (tmp_path / "self/cgroup").write_text(cgroup)
    return find_mounts(tmp_path)


def test_our_own_group_is_below_the_mount_of_version_2(tmp_path: Path) -> None:
    found = mounts(tmp_path, SYSTEMD, "0::/system.slice/openclawmu.service\n")

    assert found.unified == Path("/sys/fs/cgroup")
    assert found.own == Path("/sys/fs/cgroup/system.slice/openclawmu.service")
    assert found.hierarchies == {}


def test_a_mount_that_shows_a_part_of_the_hierarchy_is_seen_from_that_part(tmp_path: Path) -> None:
    found = mounts(tmp_path, CONTAINER, "0::/docker/abc/gw\n")

    assert found.own == Path("/sys/fs/cgroup/gw")


def test_a_group_outside_of_the_mount_is_not_ours(tmp_path: Path) -> None:
    assert mounts(tmp_path, CONTAINER, "0::/other\n").own is None


def test_a_group_above_the_namespace_is_not_ours(tmp_path: Path) -> None:
    assert mounts(tmp_path, SYSTEMD, "0::/../other\n").own is None


def test_each_controller_of_version_1_has_its_mount(tmp_path: Path) -> None:
    found = mounts(tmp_path, OLD, "8:pids:/\n4:memory:/\n")

    assert found.unified is None
    assert found.hierarchies["cpu"] == found.hierarchies["cpuacct"]
    assert found.hierarchies["memory"] == Path("/sys/fs/cgroup/memory")
    assert found.hierarchies["pids"] == Path("/sys/fs/cgroup/pids")


def test_blanks_in_a_mount_point_are_read_as_blanks(tmp_path: Path) -> None:
    line = r"30 23 0:26 / /mnt/my\040groups rw - cgroup2 cgroup2 rw"

    assert mounts(tmp_path, line, "0::/\n").unified == Path("/mnt/my groups")


def test_a_machine_that_tells_nothing_has_no_control_groups(tmp_path: Path) -> None:
    assert find_mounts(tmp_path) == CgroupMounts(None, None, {})
