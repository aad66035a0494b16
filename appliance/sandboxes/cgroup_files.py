"""Control groups as the directories and small files they are: what both versions share."""

import hashlib
import os
import secrets
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio

KILL_TIMEOUT = 5.0  # seconds; what is still there then is stuck in the kernel
_STEPS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032)  # seconds between looks, the last for ever
_PERIOD = 100_000  # microseconds, the kernel's own default


class GroupsUnavailable(Exception):
    """This version of control groups cannot be used here. The text says why."""


class CgroupFs:
    """The calls on the kernel's file system. Each may raise ``OSError``."""

    def make(self, group: Path) -> None:
        """Make a group, or take the one that is there."""
        group.mkdir(exist_ok=True)

    def remove(self, group: Path) -> None:
        group.rmdir()

    def has(self, file: Path) -> bool:
        return file.exists()

    def read(self, file: Path) -> str:
        with file.open("rb", buffering=0) as opened:  # half the time of reading text
            return opened.read().decode()

    def write(self, file: Path, value: str | int) -> None:
        # Never created: a name the kernel does not know is a mistake, not a new file.
        descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, f"{value}\n".encode())
        finally:
            os.close(descriptor)

    def below(self, group: Path) -> list[Path]:
        """All groups below one and itself, each before the one that holds it."""
        found: list[Path] = []
        for directory, _, _ in os.walk(group, topdown=False):
            found.append(Path(directory))
        return found

    def signal(self, pidfd: int, number: int) -> None:
        signal.pidfd_send_signal(pidfd, number)


def owner_mark(state_dir: Path) -> str:
    """What marks the groups of one state directory, without telling which that is."""
    return hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:12]


def tenant_mark(owner: str, tenant: str) -> str:
    return hashlib.sha256(f"{owner}/{tenant}".encode()).hexdigest()[:16]


def leaf_mark() -> str:
    return secrets.token_hex(8)


def cpu_quota(percent: int) -> tuple[int, int]:
    """Microseconds of the processor in each period of so many."""
    return max(1000, percent * _PERIOD // 100), _PERIOD


def counters(text: str) -> dict[str, int]:
    """The lines ``name number`` of a file such as ``cpu.stat``."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def members(fs: CgroupFs, group: Path) -> list[int]:
    """The processes in a group itself; none if it is gone."""
    try:
        text = fs.read(group / "cgroup.procs")
    except OSError:
        # Between the look for the file and its reading a group may be removed (ENODEV).
        return []
    # 0 stands for a process of another namespace, which we could only hit by mistake.
    return [pid for pid in map(int, text.split()) if pid > 0 and pid != os.getpid()]


def kill_members(fs: CgroupFs, group: Path) -> bool:
    """Kill every process in a group itself. True if there was any.

    A number may be given to another process between reading and killing it,
    so it is pinned by a descriptor and then looked up in the group again.
    """
    pinned: list[tuple[int, int]] = []
    try:
        for pid in members(fs, group):
            with suppress(ProcessLookupError):
                pinned.append((pid, os.pidfd_open(pid)))
        still = set(members(fs, group))
        for pid, pidfd in pinned:
            if pid in still:
                with suppress(ProcessLookupError):
                    fs.signal(pidfd, signal.SIGKILL)
    finally:
        for _, pidfd in pinned:
            os.close(pidfd)
    return bool(pinned)


async def wait_until(is_done: Callable[[], bool], *, at_most: float = KILL_TIMEOUT) -> bool:
    """Look again and again, at first often: most groups are empty within two milliseconds."""
    with trio.move_on_after(at_most, shield=True):
        for look in range(1_000_000):
            if is_done():
                return True
            await trio.sleep(_STEPS[min(look, len(_STEPS) - 1)])
    return False


async def remove_all(fs: CgroupFs, groups: Iterable[Path], *, at_most: float = 1.0) -> bool:
    """Remove groups, in this order. False if one of them is still in use."""
    results = [await wait_until(partial(removed, fs, one), at_most=at_most) for one in groups]
    return all(results)


def removed(fs: CgroupFs, group: Path) -> bool:
    """Try to remove an empty group. The kernel says EBUSY until its last process is buried."""
    try:
        fs.remove(group)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
