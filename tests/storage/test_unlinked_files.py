"""Deleted files that are still open, as /proc shows them."""

import mmap
import os
from pathlib import Path

import pytest

from appliance.storage import unlinked_files
from appliance.storage.tree_walk import TreeTooLarge
from appliance.storage.unlinked_files import Place, UnlinkedFiles, place_of


def process(proc: Path, number: int, workspace: Path, *descriptors: int) -> None:
    folder = proc / str(number)
    (folder / "root").mkdir(parents=True)
    (folder / "root/workspace").symlink_to(workspace)
    (folder / "fd").mkdir()
    for descriptor in descriptors:
        (folder / f"fd/{descriptor}").symlink_to(f"/proc/self/fd/{descriptor}")


def deleted(folder: Path, size: int) -> int:
    path = folder / f"file-{size}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(fd, os.urandom(size))
    path.unlink()
    return fd


def unlinked_bytes(places: set[Place], proc: Path) -> int:
    files = UnlinkedFiles(places, proc=proc)
    for _ in files.steps():
        pass
    return files.bytes


def test_what_is_deleted_and_open_in_the_workspace_counts_once(tmp_path: Path) -> None:
    mine, other, proc = tmp_path / "mine", tmp_path / "other", tmp_path / "proc"
    for folder in (mine, other, proc / "sys"):
        folder.mkdir(parents=True)
    gone, foreign = deleted(mine, 100_000), deleted(other, 500_000)
    kept = os.open(mine / "kept", os.O_RDWR | os.O_CREAT)
    os.write(kept, os.urandom(100_000))
    pipe, _ = os.pipe()
    process(proc, 1, mine, gone, kept, pipe)
    process(proc, 2, mine, gone)
    process(proc, 3, other, foreign)

    found = unlinked_bytes({place_of(mine.stat())}, proc)
    assert 100_000 <= found < 200_000
    assert unlinked_bytes(set(), proc) == 0


def test_nothing_hides_behind_very_many_open_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unlinked_files, "MOST_DESCRIPTORS", 0)
    mine, proc = tmp_path / "mine", tmp_path / "proc"
    mine.mkdir()
    process(proc, 1, mine, deleted(mine, 1000))

    with pytest.raises(TreeTooLarge):
        unlinked_bytes({place_of(mine.stat())}, proc)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into another's memory")
def test_what_is_deleted_and_only_mapped_counts_too(tmp_path: Path) -> None:
    mine, proc = tmp_path / "mine", tmp_path / "proc"
    mine.mkdir()
    process(proc, 1, mine)
    for name in ("maps", "map_files"):
        (proc / "1" / name).symlink_to(f"/proc/self/{name}")
    gone = deleted(mine, 100_000)
    with mmap.mmap(gone, 100_000):
        os.close(gone)

        assert unlinked_bytes({place_of(mine.stat())}, proc) >= 100_000
    assert unlinked_bytes({place_of(mine.stat())}, proc) == 0
