"""Files that have no name any more and still take room, because somebody holds them open.

No walk finds them. Whoever runs in a workspace is known by its root directory,
in which that workspace is mounted, whatever names it has taken on.
"""

import os
import stat
from collections.abc import Collection, Generator, Iterator
from itertools import chain
from pathlib import Path

from appliance.storage.tree_walk import TreeTooLarge

MOST_DESCRIPTORS = 50_000  # looked at for one tenant; some hundred milliseconds of work
_DELETED = " (deleted)"
_BLOCK = 512  # bytes; the unit of st_blocks
_WORKSPACE = "root/workspace"

Place = tuple[int, int]  # device and inode of a workspace's directory


def place_of(found: os.stat_result) -> Place:
    return found.st_dev, found.st_ino


class UnlinkedFiles:
    """What deleted files take that processes in the workspaces at ``places`` hold open.

    Processes that end meanwhile, and those we may not look into, are left out.
    """

    def __init__(self, places: Collection[Place], *, proc: Path = Path("/proc")) -> None:
        self._places = places
        self._proc = proc
        self._sizes: dict[Place, int] = {}

    def steps(self) -> Generator[None, None, None]:
        """Looks, one descriptor a step; not to be shared between threads at once. Blocks.

        Raises :exc:`TreeTooLarge` where so much is open that something could hide behind it.
        """
        devices = {device for device, _ in self._places}
        left = MOST_DESCRIPTORS
        for process in _processes(self._proc, self._places):
            for found in chain(_open_files(f"{process}/fd"), _mapped_files(process)):
                yield
                left -= 1
                if left < 0:
                    raise TreeTooLarge(f"more than {MOST_DESCRIPTORS} open files")
                is_file = stat.S_ISREG(found.st_mode) and found.st_dev in devices
                if is_file and found.st_nlink == 0:
                    self._sizes[place_of(found)] = found.st_blocks * _BLOCK

    @property
    def bytes(self) -> int:
        """Their blocks, as far as they have been looked at."""
        return sum(self._sizes.values())


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
            yield f"{proc}/{name}"


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


def _mapped_files(process: str) -> Iterator[os.stat_result]:
    """What is only in the memory of a process, its descriptor being closed: for root to see."""
    try:
        maps = Path(f"{process}/maps").read_text(errors="replace")
    except OSError:
        return
    for line in maps.splitlines():
        if not line.endswith(_DELETED):
            continue
        begin, _, end = line.partition(" ")[0].partition("-")
        try:
            # The names of the links are the same numbers without leading zeros.
            yield os.stat(f"{process}/map_files/{int(begin, 16):x}-{int(end, 16):x}")  # noqa: PTH116 - as above
        except (OSError, ValueError):
            continue
