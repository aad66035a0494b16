import ctypes
import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.model.errors import DiskFull
from appliance.storage import files
from appliance.storage.files import remove_leftovers, remove_tree, replace_file


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_a_new_file_has_its_content_and_its_mode(folder: int, tmp_path: Path) -> None:
    old = os.umask(0o777)
    try:
        replace_file(folder, "a", b"new")
    finally:
        os.umask(old)
    assert (tmp_path / "a").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    assert os.listdir(folder) == ["a"]


def test_a_file_is_replaced_and_whoever_has_the_old_one_open_keeps_it(
    folder: int, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with (tmp_path / "a").open("rb") as reader:
        replace_file(folder, "a", b"new" * 1_000_000)
        assert reader.read() == b"old"
    assert (tmp_path / "a").stat().st_size == 3_000_000


def test_everything_is_synced_in_the_order_that_survives_a_power_cut(
    folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def spy(name: str) -> None:
        real = getattr(os, name)

        def call(*args: Any, **keywords: Any) -> Any:
            steps.append(f"{name} folder" if args[0] == folder else name)
            return real(*args, **keywords)

        monkeypatch.setattr(os, name, call)

    for name in ("write", "fsync", "rename"):
        spy(name)
    replace_file(folder, "a", b"new")
    assert steps == ["write", "fsync", "rename", "fsync folder"]


@pytest.mark.parametrize("step", ["open", "write", "fsync", "rename", "fchmod"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_and_leaves_the_old_content(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int
) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def full(*args: Any, **keywords: Any) -> Any:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(DiskFull):
        replace_file(folder, "a", b"new")
    monkeypatch.undo()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(folder) == ["a"]


def test_a_disk_that_fills_up_half_way_leaves_the_old_content(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    real = os.write
    written = 0

    def short(fd: int, data: bytes) -> int:
        nonlocal written
        if written >= 10:
            raise OSError(errno.ENOSPC, "full")
        count = real(fd, data[:5])
        written += count
        return count

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(DiskFull):
        replace_file(folder, "a", b"n" * 100)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(folder) == ["a"]


def test_a_short_write_is_continued(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    replace_file(folder, "a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_is_really_full_is_said(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        fd = os.open(tmp_path, os.O_RDONLY)
        replace_file(fd, "a", b"old" * 1000)
        with pytest.raises(DiskFull):
            replace_file(fd, "a", b"n" * 200_000)
        assert [found.name for found in tmp_path.iterdir()] == ["a"]
        assert (tmp_path / "a").read_bytes() == b"old" * 1000
        os.close(fd)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_another_failure_is_passed_on_and_cleaned_up(folder: int, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(folder, "a", b"new")
    assert os.listdir(folder) == ["a"]


def test_a_link_in_place_of_the_file_is_replaced_and_not_followed(
    folder: int, tmp_path: Path
) -> None:
    (tmp_path / "other").write_bytes(b"precious")
    (tmp_path / "a").symlink_to("other")
    replace_file(folder, "a", b"new")
    assert (tmp_path / "other").read_bytes() == b"precious"
    assert not (tmp_path / "a").is_symlink()


def test_what_a_crash_left_is_removed_and_nothing_else(folder: int, tmp_path: Path) -> None:
    crash = (
        "import os, sys; from appliance.storage import files;"
        "os.rename = lambda *args, **keywords: os._exit(9);"
        "files.replace_file(os.open(sys.argv[1], os.O_RDONLY), 'a', b'new')"
    )
    result = subprocess.run([sys.executable, "-c", crash, str(tmp_path)], check=False)
    assert result.returncode == 9
    mine = f".openclaw-{files._RUN}-7.tmp"
    for name in (mine, ".openclaw-notes.tmp", "b"):
        (tmp_path / name).touch()
    assert len(os.listdir(folder)) == 4
    assert remove_leftovers(folder) == 1
    assert set(os.listdir(folder)) == {mine, ".openclaw-notes.tmp", "b"}


def test_a_tree_is_removed_with_everything_in_it(folder: int, tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"x")
    os.mkfifo(tmp_path / "a" / "fifo")
    remove_tree(folder, "a")
    assert os.listdir(folder) == []


def test_a_link_in_a_tree_is_removed_and_not_followed(folder: int, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_bytes(b"x")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "link").symlink_to("../precious")
    (tmp_path / "a" / "b" / "link").symlink_to("../../precious")
    (tmp_path / "top").symlink_to("precious")
    remove_tree(folder, "a")
    remove_tree(folder, "top")
    assert os.listdir(folder) == ["precious"]
    assert (tmp_path / "precious" / "file").read_bytes() == b"x"


def test_a_tree_deeper_than_our_limits_is_removed(folder: int, tmp_path: Path) -> None:
    here = os.dup(folder)
    os.mkdir("a", dir_fd=here)
    for _ in range(3000):
        below = os.open("a", os.O_PATH, dir_fd=here)
        os.close(here)
        here = below
        os.mkdir("a", dir_fd=here)
    os.close(here)
    remove_tree(folder, "a")
    assert os.listdir(folder) == []


def test_a_tree_wider_than_a_listing_is_removed(folder: int, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for n in range(1500):
        (tmp_path / "a" / "b" / str(n)).touch()
    remove_tree(folder, "a")
    assert os.listdir(folder) == []


@contextmanager
def ordinary_user(folder: int) -> Iterator[None]:
    """Root enters every directory, so this thread touches files as nobody, who owns ``folder``."""
    if os.geteuid() != 0:
        yield
        return
    nobody = 65534
    os.fchown(folder, nobody, nobody)
    libc = ctypes.CDLL(None)
    libc.setfsuid(nobody)
    try:
        yield
    finally:
        libc.setfsuid(0)


def test_a_tree_whose_owner_closed_directories_is_removed(folder: int) -> None:
    with ordinary_user(folder):
        above = "a"
        os.mkdir(above, dir_fd=folder)
        for name in ("b", "c", "d"):
            above = f"{above}/{name}"
            os.mkdir(above, dir_fd=folder)
        for name, mode in (("a/b/c", 0), ("a/b", 0o500), ("a", 0o100)):
            os.chmod(name, mode, dir_fd=folder)
        with pytest.raises(PermissionError):
            os.open("a", os.O_RDONLY, dir_fd=folder)
        remove_tree(folder, "a")
    assert os.listdir(folder) == []
