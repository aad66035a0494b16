"""Which control groups this machine has, and in which of them we are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class CgroupMounts:
    unified: Path | None  # where version 2 is mounted
    own: Path | None  # our group in it; None: it is not below the mount
    hierarchies: Mapping[str, Path]  # controller of version 1 -> its mount


def find_mounts(proc: Path = PROC) -> CgroupMounts:
    """Read ``/proc/self``; a machine without control groups has none of the three."""
    unified: Path | None = None
    own: Path | None = None
    hierarchies: dict[str, Path] = {}
    for line in _lines(proc / "self/mountinfo"):
        before, _, after = line.partition(" - ")
        kind, _, options = [*after.split(), "", "", ""][:3]
        root, point = (_unescaped(word) for word in before.split()[3:5])
        if kind == "cgroup2" and unified is None:
            unified = Path(point)
            own = _below(unified, root, _own_path(proc))
        if kind == "cgroup":
            for controller in options.split(","):
                hierarchies.setdefault(controller, Path(point))
    return CgroupMounts(unified, own, hierarchies)


def _own_path(proc: Path) -> str:
    for line in _lines(proc / "self/cgroup"):
        if line.startswith("0::"):
            return line.removeprefix("0::")
    return "/"


def _below(mount: Path, root: str, own: str) -> Path | None:
    """Our group, seen through a mount that shows the hierarchy from ``root`` on."""
    if "/.." in own:
        return None  # above what the namespace shows
    try:
        return mount / PurePosixPath(own).relative_to(root)
    except ValueError:
        return None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []


def _unescaped(word: str) -> str:
    """As the kernel writes blanks and backslashes in mountinfo."""
    for code, char in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        word = word.replace(code, char)
    return word
