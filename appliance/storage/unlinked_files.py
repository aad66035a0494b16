"""Files that have no name any more and still take room, because somebody holds them open.

No walk finds them. Whoever runs in a workspace is known by its root directory,
in which that workspace is mounted, whatever names it has taken on.
"""

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

MOST_DESCRIPTORS = 20_000  # looked at in one go; some fifty milliseconds
_BLOCK = 512  # bytes; the unit of st_blocks
_WORKSPACE = "root/workspace"

Place = tuple[int, int]  # device and inode of a workspace's directory


def place_of(found: os.stat_result) -> Place:
    return found.st_dev, found.st_ino


def unlinked_bytes(places: Collection[Place], *, proc: Path = Path("/proc")) -> int:
    """What deleted files take that processes in these workspaces hold open. Blocks.

    Processes that end meanwhile, and those we may not look into, are left out.
    """
    files: dict[Place, int] = {}
    devices = {device for device, _ in places}
    left = MOST_DESCRIPTORS
    for process in _processes(proc, places):
        for found in _open_files(process):
            left -= 1
            if left < 0:
                return sum(files.values())
            is_file = stat.S_ISREG(found.st_mode) and found.st_dev in devices
            if is_file and found.st_nlink == 0:
                files[place_of(found)] = found.st_blocks * _BLOCK
    return sum(files.values())


def _processes(proc: Path, places: Collection[Place]) -> Iterator[str]:
    for name in os.listdir(proc):  # noqa: PTH208 - names are all that is wanted
        if not name.isdecimal():
            continue
        try:
            # A magic link: the kernel leads into the process's own mounts.
            found = os.stat(f"{proc}/{name}/{_WORKSPACE}")  # noqa: PTH116 - many, quickly
        except OSError:
            continue
        if place_of(found) in places:
            yield f"{proc}/{name}/fd"


def _open_files(folder: str) -> Iterator[os.stat_result]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 - as above
    except OSError:
        return
    for name in names:
        try:
            yield os.stat(f"{folder}/{name}")  # noqa: PTH116 - as above
        except OSError:
            continue
