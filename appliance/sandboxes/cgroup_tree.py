"""The groups of all sandboxes, whatever version of control groups they are made with."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import trio

from appliance.sandboxes.base import Limits, SandboxFailed
from appliance.sandboxes.cgroup_files import (
    CgroupFs,
    leaf_mark,
    remove_all,
    removed,
    tenant_mark,
    wait_until,
)
from appliance.sandboxes.groups import Group, GroupUsage

UNLIMITED = Limits(memory_bytes=None, pids=None, cpu_percent=None)
MOST_IDLE = 64  # tenants whose groups are kept; each takes 30 KiB of the kernel

log = logging.getLogger(__name__)


class CgroupVersion(Protocol):
    """How one version does it. A path is relative to the ``tops`` and exists below each."""

    @property
    def level(self) -> str: ...
    @property
    def warnings(self) -> Sequence[str]: ...
    @property
    def tops(self) -> Sequence[Path]:
        """Our own groups, one in each hierarchy. They need not exist yet."""

    @property
    def everywhere(self) -> Sequence[Path]:
        """The tops, and those that a container runtime makes beside them."""

    @property
    def join_file(self) -> str: ...
    def runtime_parent(self, leaf: str) -> str: ...

    def make_top(self) -> None: ...
    def make_tenant(self, tenant: str, limits: Limits) -> bool:
        """Make it, or give the one that is there its new limits. False if not all of them hold."""

    def make_leaf(self, leaf: str, limits: Limits) -> None:
        """Raises ``FileNotFoundError`` if its tenant's group is gone."""

    def usage(self, leaf: str) -> GroupUsage: ...
    async def kill(self, group: Path, below: Sequence[Path]) -> bool:
        """Kill all in ``group`` and those ``below``. False if some are left after a while."""


@dataclass(slots=True, eq=False)
class _Tenant:
    """A tenant's group. ``limits`` are those it is known to be there with."""

    sandboxes: int = 0
    limits: Limits | None = None
    making: trio.Lock = field(default_factory=trio.Lock)


class CgroupTree:
    """Implements ``Groups``: a group for each tenant, one below it for each sandbox.

    A tenant's stays a while when its last sandbox has ended: most run one command
    after another, and making it takes as long as making the sandbox's.
    """

    def __init__(self, version: CgroupVersion, owner: str, *, fs: CgroupFs) -> None:
        self._version = version
        self._owner = owner
        self._fs = fs
        self._busy: dict[str, _Tenant] = {}  # by the tenant's directory
        self._idle: dict[str, _Tenant] = {}  # the same without a sandbox, the longest idle first
        self.level = version.level
        self.warnings: Sequence[str] = version.warnings

    async def open(self, tenant: str, limits: Limits, tenant_limits: Limits | None) -> Group:
        name = tenant_mark(self._owner, tenant)
        # From here on nobody removes the tenant's group.
        if name not in self._busy:
            self._busy[name] = self._idle.pop(name) if name in self._idle else _Tenant()
        self._busy[name].sandboxes += 1
        leaf = _Leaf(self, self._version, f"{name}/{leaf_mark()}", fs=self._fs)
        try:
            await self._make(name, leaf.path, limits, tenant_limits or UNLIMITED)
        except BaseException as exc:
            await leaf.close()
            if isinstance(exc, OSError):
                raise SandboxFailed(f"the control group cannot be set up: {exc}") from exc
            raise
        return leaf

    async def sweep(self) -> None:
        self._idle.clear()
        for known in self._busy.values():
            known.limits = None
        for top in self._version.everywhere:
            if not self._fs.has(top):
                continue
            groups = self._fs.below(top)
            if not await self._version.kill(top, groups):
                log.warning("processes of an earlier sandbox cannot be killed: %s", top)
            await remove_all(self._fs, groups)

    async def aclose(self) -> None:
        await self.sweep()

    async def _make(self, name: str, leaf: str, limits: Limits, tenant_limits: Limits) -> None:
        await self._make_tenant(name, tenant_limits)
        # In threads: the kernel may have to find memory, or another one holds its lock.
        try:
            await trio.to_thread.run_sync(self._version.make_leaf, leaf, limits)
        except FileNotFoundError:  # somebody else has removed the tenant's group
            self._busy[name].limits = None
            await self._make_tenant(name, tenant_limits)
            await trio.to_thread.run_sync(self._version.make_leaf, leaf, limits)

    async def _make_tenant(self, name: str, limits: Limits) -> None:
        known = self._busy[name]
        if known.limits == limits:
            return
        # One at a time: two could set their limits in one order, and note them in another.
        async with known.making:
            if known.limits == limits:
                return
            known.limits = None
            if await trio.to_thread.run_sync(self._make_group_of_tenant, name, limits):
                known.limits = limits

    def _make_group_of_tenant(self, name: str, limits: Limits) -> bool:
        self._version.make_top()
        return self._version.make_tenant(name, limits)

    async def left(self, path: str, *, is_lent: bool) -> None:
        """A sandbox has ended: remove its groups, and the tenant's if it is not worth keeping."""
        groups = [top / path for top in self._version.tops]
        if is_lent:
            groups = [one for top in self._version.everywhere for one in self._fs.below(top / path)]
        is_gone = await remove_all(self._fs, groups)
        name = path.partition("/")[0]
        known = self._busy[name]
        known.sandboxes -= 1
        if not known.sandboxes:
            self._idle[name] = self._busy.pop(name)
            # What could not be made as asked for is made anew.
            if known.limits is None:
                is_gone &= await self._remove_idle(name)
            elif len(self._idle) > MOST_IDLE:
                is_gone &= await self._remove_idle(next(iter(self._idle)))
        if not is_gone:
            log.warning("a control group stays behind until the next start: %s", path)

    async def _remove_idle(self, name: str) -> bool:
        del self._idle[name]
        results = []
        for top in self._version.everywhere:

            def done(group: Path = top / name) -> bool:
                # The look and the removal are one step of the loop, so nobody makes a
                # group in it meanwhile.
                is_wanted = name in self._busy or name in self._idle
                return is_wanted or removed(self._fs, group)

            results.append(await wait_until(done, at_most=1.0))
        return all(results)


class _Leaf:
    def __init__(
        self, tree: CgroupTree, version: CgroupVersion, path: str, *, fs: CgroupFs
    ) -> None:
        self._fs = fs
        self.path = path
        self._tree = tree
        self._version = version
        self._is_closed = False
        self._is_lent = False
        self._last: GroupUsage | None = None
        self._groups = [top / path for top in version.tops]
        self.join_files: Sequence[str] = [str(group / version.join_file) for group in self._groups]

    @property
    def runtime_parent(self) -> str:
        # Who asks makes groups of its own in there, and in hierarchies we do not use.
        self._is_lent = True
        return self._version.runtime_parent(self.path)

    def usage(self) -> GroupUsage | None:
        if not self._is_closed:
            with suppress(OSError, ValueError):
                self._last = self._version.usage(self.path)
        return self._last

    async def kill(self) -> None:
        if self._is_closed:
            return
        with trio.CancelScope(shield=True):
            for group in self._groups:
                if not await self._version.kill(group, self._fs.below(group)):
                    log.warning("processes of a sandbox cannot be killed: %s", group)

    async def close(self) -> None:
        if self._is_closed:
            return
        with trio.CancelScope(shield=True):
            self.usage()
            # The kernel removes none with a process in it: if it does, nobody is to be killed.
            if not all(removed(self._fs, group) for group in self._groups):
                await self.kill()
                self.usage()
            if self._is_closed:  # somebody else was faster
                return
            self._is_closed = True
            await self._tree.left(self.path, is_lent=self._is_lent)
