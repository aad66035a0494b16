"""Control groups, version 2: a subtree that was delegated to us (systemd: ``Delegate=yes``).

    <our group>/gw/                      the gateway itself, moved here at the start
    <our group>/sandboxes-<state dir>/   everything below is ours to limit and kill
        <tenant>/                        the tenant's limits
            <random>/                    one sandbox

Processes may be in leaves only, as soon as controllers are handed on: hence
``gw``. All names are digests or random, though a sandbox has a namespace of its
own and sees ``/``.
"""

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from appliance.sandboxes.base import Limits
from appliance.sandboxes.cgroup_files import (
    CgroupFs,
    GroupsUnavailable,
    counters,
    cpu_quota,
    kill_members,
    wait_until,
)
from appliance.sandboxes.cgroup_mounts import CgroupMounts
from appliance.sandboxes.cgroup_tree import CgroupTree
from appliance.sandboxes.groups import GroupUsage

GATEWAY_LEAF = "gw"
_REQUIRED = ("memory", "pids")
_OPTIONAL = ("cpu", "io")
_WEIGHT = 50  # of all sandboxes together; the gateway beside them has the default of 100
_MARKS = ("user.delegate", "trusted.delegate")  # systemd 251 and later; root sees the other
_ATTEMPTS = 10
_NO_CPU = "the cgroup v2 group has no cpu controller: a sandbox may use every core"
_NOT_OURS = (
    "the gateway's cgroup v2 group was not delegated to it; start it as a systemd service with "
    "Delegate=yes, or with `systemd-run --user --scope -p Delegate=yes`"
)


class CgroupV2:
    """Groups below ``base``, with those of its ``controllers`` that are handed on."""

    level = "cgroup v2"
    join_file = "cgroup.procs"

    def __init__(
        self, base: Path, owner: str, *, mount: Path, controllers: Collection[str], fs: CgroupFs
    ) -> None:
        self._fs = fs
        self._mount = mount
        self._top = base / f"sandboxes-{owner}"
        self._controllers = [name for name in (*_REQUIRED, *_OPTIONAL) if name in controllers]
        self.tops: Sequence[Path] = (self._top,)
        self.everywhere = self.tops
        self.warnings: Sequence[str] = () if "cpu" in controllers else (_NO_CPU,)

    def runtime_parent(self, leaf: str) -> str:
        return f"/{(self._top / leaf).relative_to(self._mount)}"

    def make_top(self) -> None:
        if self._fs.has(self._top):
            return
        self._fs.make(self._top)
        self._hand_on(self._top)
        for name in ("cpu.weight", "io.weight"):
            with suppress(OSError):
                self._fs.write(self._top / name, _WEIGHT)

    def make_tenant(self, tenant: str, limits: Limits) -> bool:
        group = self._top / tenant
        if not self._fs.has(group):
            self._fs.make(group)
            self._hand_on(group)
        self._limit(group, limits)
        return True

    def make_leaf(self, leaf: str, limits: Limits) -> None:
        group = self._top / leaf
        self._fs.make(group)
        self._limit(group, limits)
        if "memory" in self._controllers:
            # Without it a killed child leaves a command that waits for it for ever.
            self._fs.write(group / "memory.oom.group", 1)

    def usage(self, leaf: str) -> GroupUsage:
        group = self._top / leaf
        peak = group / "memory.peak"  # since Linux 5.19
        events = group / "memory.events"
        kills = counters(self._fs.read(events)) if self._fs.has(events) else {}
        return GroupUsage(
            cpu_seconds=counters(self._fs.read(group / "cpu.stat")).get("usage_usec", 0) / 1e6,
            peak_memory_bytes=int(self._fs.read(peak)) if self._fs.has(peak) else None,
            out_of_memory=kills.get("oom_kill", 0) > 0,
        )

    async def kill(self, group: Path, below: Sequence[Path]) -> bool:
        fs = self._fs

        def is_empty() -> bool:
            try:
                if counters(fs.read(group / "cgroup.events")).get("populated") == 0:
                    return True
            except OSError:
                return True  # gone
            if not can_kill:
                for one in below:
                    kill_members(fs, one)
            return False

        can_kill = fs.has(group / "cgroup.kill")  # since Linux 5.14; it misses nothing
        with suppress(OSError):
            if can_kill:
                fs.write(group / "cgroup.kill", 1)
            else:  # nothing can be forked from here on, so that one look finds everything
                fs.write(group / "pids.max", 0)
        return await wait_until(is_empty)

    def _hand_on(self, group: Path) -> None:
        for controller in self._controllers:
            self._fs.write(group / "cgroup.subtree_control", f"+{controller}")

    def _limit(self, group: Path, limits: Limits) -> None:
        # No memory.high: without swap a process crawls below it for minutes and never ends.
        if "memory" in self._controllers:
            self._fs.write(group / "memory.max", limits.memory_bytes or "max")
            if self._fs.has(group / "memory.swap.max"):  # else the kernel counts no swap
                self._fs.write(group / "memory.swap.max", 0)
        if "pids" in self._controllers:
            self._fs.write(group / "pids.max", limits.pids or "max")
        if "cpu" in self._controllers:
            percent = limits.cpu_percent
            quota = "{} {}".format(*cpu_quota(percent)) if percent else "max"
            self._fs.write(group / "cpu.max", quota)


def enter_delegated(mounts: CgroupMounts, owner: str, *, fs: CgroupFs | None = None) -> CgroupTree:
    """Move ourselves into a leaf of our group and take the rest of it for sandboxes.

    Raises :exc:`GroupsUnavailable` where that group was not given to us. May block.
    """
    fs = fs or CgroupFs()
    if mounts.unified is None or mounts.own is None:
        raise GroupsUnavailable("cgroup v2 is not mounted")
    base = mounts.own
    if base.name == GATEWAY_LEAF and base != mounts.unified:
        base = base.parent  # systemd put us here (DelegateSubgroup=), or we ourselves did
    try:
        given = fs.read(base / "cgroup.controllers").split()
        missing = [name for name in _REQUIRED if name not in given]
        if missing:
            raise GroupsUnavailable(f"cgroup v2 has no {' and no '.join(missing)} controller here")
        if base != mounts.unified and not is_delegated(base):
            raise GroupsUnavailable(_NOT_OURS)
        version = CgroupV2(
            base, owner, mount=mounts.unified, controllers=_take(fs, base, given), fs=fs
        )
    except OSError as exc:
        raise GroupsUnavailable(f"cgroup v2 cannot be used: {exc.strerror}") from exc
    return CgroupTree(version, owner, fs=fs)


def is_delegated(group: Path) -> bool:
    """Whether a group was given to us. That root could write to it does not make it ours."""
    for mark in _MARKS:
        with suppress(OSError):
            if os.getxattr(group, mark) == b"1":
                return True
    # Before systemd 251 a user cannot read the mark. Below system.slice only what was
    # delegated belongs to a user; below user.slice everything does, and says nothing.
    is_users = group.stat().st_uid == os.geteuid() != 0
    return is_users and "user.slice" not in group.parts


def _take(fs: CgroupFs, base: Path, given: Collection[str]) -> list[str]:
    """Empty ``base`` of processes and hand its controllers on. Returns those."""
    # Only the root of the whole machine has no events, and may hold both.
    if fs.has(base / "cgroup.events"):
        _move_into(fs, base, base / GATEWAY_LEAF)
    taken = []
    for name in (*_REQUIRED, *_OPTIONAL):
        if name not in given:
            continue
        try:
            fs.write(base / "cgroup.subtree_control", f"+{name}")
            taken.append(name)
        except OSError as exc:
            if name in _REQUIRED:
                raise GroupsUnavailable(f"cgroup v2 does not hand on {name}: {exc}") from exc
    return taken


def _move_into(fs: CgroupFs, base: Path, leaf: Path) -> None:
    """Move what is in ``base`` into ``leaf``: us, and what runs in the same service."""
    fs.make(leaf)
    for _ in range(_ATTEMPTS):  # what is forked meanwhile is found by the next look
        here = fs.read(base / "cgroup.procs").split()
        if not here:
            return
        for pid in here:
            with suppress(ProcessLookupError):
                fs.write(leaf / "cgroup.procs", pid)
