"""Control groups, version 1: for root on machines that boot with the old hierarchies.

In each of the hierarchies ``pids`` and ``memory``, and ``cpu`` and ``cpuacct`` where
they are mounted, the same path below a top-level group of our own:

    <hierarchy>/openclawmu-<state dir>/<tenant>/<random>/

The empty version 2 hierarchy of such machines is not used, though it has
``cgroup.kill``: entering it takes a grace period of the kernel's (15 to 20 ms
measured), while a single thread enters these through ``tasks`` in 0.05 ms.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from appliance.sandboxes.base import Limits
from appliance.sandboxes.cgroup_files import (
    CgroupFs,
    GroupsUnavailable,
    counters,
    cpu_quota,
    kill_members,
    members,
    wait_until,
)
from appliance.sandboxes.cgroup_mounts import CgroupMounts
from appliance.sandboxes.cgroup_tree import CgroupTree
from appliance.sandboxes.groups import GroupUsage

_REQUIRED = ("pids", "memory")
_OPTIONAL = ("cpu", "cpuacct")
_SHARES = 512  # of all sandboxes together; the gateway beside them has the default of 1024
_NO_CPU = "cgroup v1 has no cpu hierarchy here: a sandbox may use every core"


class CgroupV1:
    """Groups in ``hierarchies``: controller -> its mount; two may be one and the same mount."""

    level = "cgroup v1"
    join_file = "tasks"

    def __init__(
        self,
        hierarchies: Mapping[str, Path],
        owner: str,
        *,
        fs: CgroupFs,
        others: Iterable[Path] = (),
    ) -> None:
        self._fs = fs
        self._name = f"openclawmu-{owner}"
        self._tops = {name: path / self._name for name, path in hierarchies.items()}
        # ``pids`` first: once a sandbox can fork no more, the others are looked at.
        self.tops: Sequence[Path] = tuple(dict.fromkeys(self._tops.values()))
        # A container runtime makes its groups in every hierarchy, and leaves ours there.
        beside = [path / self._name for path in others]
        self.everywhere: Sequence[Path] = tuple(dict.fromkeys((*self.tops, *beside)))
        self.warnings: Sequence[str] = () if "cpu" in hierarchies else (_NO_CPU,)

    def runtime_parent(self, leaf: str) -> str:
        return f"/{self._name}/{leaf}"

    def make_top(self) -> None:
        for controller, top in self._tops.items():
            self._fs.make(top)
            with suppress(OSError):
                if controller == "memory":  # newer kernels know nothing else
                    self._fs.write(top / "memory.use_hierarchy", 1)
                if controller == "cpu":
                    self._fs.write(top / "cpu.shares", _SHARES)

    def make_tenant(self, tenant: str, limits: Limits) -> bool:
        return self._make(tenant, limits)

    def make_leaf(self, leaf: str, limits: Limits) -> None:
        self._make(leaf, limits)

    def usage(self, leaf: str) -> GroupUsage:
        memory = self._tops["memory"] / leaf
        nanoseconds = 0
        if "cpuacct" in self._tops:
            nanoseconds = int(self._fs.read(self._tops["cpuacct"] / leaf / "cpuacct.usage"))
        kills = counters(self._fs.read(memory / "memory.oom_control")).get("oom_kill", 0)
        return GroupUsage(
            cpu_seconds=nanoseconds / 1e9,
            peak_memory_bytes=int(self._fs.read(memory / "memory.max_usage_in_bytes")),
            out_of_memory=kills > 0,
        )

    async def kill(self, group: Path, below: Sequence[Path]) -> bool:
        del group

        def is_empty() -> bool:
            for one in below:
                kill_members(self._fs, one)
            return not any(members(self._fs, one) for one in below)

        for one in below:
            # Nothing can be forked from here on, so that one look finds everything.
            with suppress(OSError):
                self._fs.write(one / "pids.max", 0)
        return await wait_until(is_empty)

    def _make(self, group: str, limits: Limits) -> bool:
        holds = True
        for controller, top in self._tops.items():
            self._fs.make(top / group)
            holds &= self._limit(controller, top / group, limits)
        return holds

    def _limit(self, controller: str, group: Path, limits: Limits) -> bool:
        """False if the kernel does not take it for now."""
        if controller == "pids":
            self._fs.write(group / "pids.max", limits.pids or "max")
        if controller == "memory":
            self._limit_memory(group, limits.memory_bytes or -1)
        return controller != "cpu" or self._limit_cpu(group, limits.cpu_percent)

    def _limit_memory(self, group: Path, limit: int) -> None:
        """Memory, and memory with swap, to the same: no swap. Neither may be the smaller one."""
        memory = group / "memory.limit_in_bytes"
        with_swap = group / "memory.memsw.limit_in_bytes"
        if not self._fs.has(with_swap):  # the kernel counts no swap
            self._fs.write(memory, limit)
            return
        try:
            self._fs.write(memory, limit)
        except OSError:  # it grows: then the other one has to be first
            self._fs.write(with_swap, limit)
            self._fs.write(memory, limit)
        else:
            self._fs.write(with_swap, limit)

    def _limit_cpu(self, group: Path, percent: int | None) -> bool:
        # Of the period that every new group has.
        quota = cpu_quota(percent)[0] if percent else -1
        # The kernel refuses a group more than the one around it has, and that one less than
        # those inside have. The smaller one holds anyway, and a tenant's new limit holds from
        # when none of its sandboxes has more.
        try:
            self._fs.write(group / "cpu.cfs_quota_us", quota)
        except OSError:
            return False
        return True


def use_hierarchies(mounts: CgroupMounts, owner: str, *, fs: CgroupFs | None = None) -> CgroupTree:
    """Raises :exc:`GroupsUnavailable` where limits cannot be had this way. May block."""
    fs = fs or CgroupFs()
    missing = [name for name in _REQUIRED if name not in mounts.hierarchies]
    if missing:
        raise GroupsUnavailable(f"cgroup v1 has no {' and no '.join(missing)} hierarchy")
    names = [name for name in (*_REQUIRED, *_OPTIONAL) if name in mounts.hierarchies]
    used = {name: mounts.hierarchies[name] for name in names}
    others = [*mounts.hierarchies.values(), *([mounts.unified] if mounts.unified else [])]
    version = CgroupV1(used, owner, fs=fs, others=others)
    tried = [top for top in version.tops if not fs.has(top)]
    try:
        version.make_top()
        for top in tried:  # somebody may only want to know, and never come back to remove it
            fs.remove(top)
    except OSError as exc:
        reason = f"only root can make cgroup v1 groups ({exc.strerror})"
        raise GroupsUnavailable(reason) from exc
    return CgroupTree(version, owner, fs=fs)
