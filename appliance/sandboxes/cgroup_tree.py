"""The groups of all sandboxes, whatever version of control groups they are made with."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
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
    def make_tenant(self, tenant: str, limits: Limits) -> None:
        """Make it, or give the one that is there its new limits."""

    def make_leaf(self, leaf: str, limits: Limits) -> None: ...
    def usage(self, leaf: str) -> GroupUsage: ...
    async def kill(self, group: Path, below: Sequence[Path]) -> bool:
        """Kill all in ``group`` and those ``below``. False if some are left after a while."""


class CgroupTree:
    """Implements ``Groups``: a group for each tenant that has a sandbox, one below for each."""

    def __init__(self, version: CgroupVersion, owner: str, *, fs: CgroupFs) -> None:
        self._version = version
        self._owner = owner
        self._fs = fs
        self._sandboxes: dict[str, int] = {}  # tenant's directory -> how many
        self.level = version.level
        self.warnings: Sequence[str] = version.warnings

    async def open(self, tenant: str, limits: Limits, tenant_limits: Limits | None) -> Group:
        name = tenant_mark(self._owner, tenant)
        self._sandboxes[name] = self._sandboxes.get(name, 0) + 1
        leaf = _Leaf(self, self._version, f"{name}/{leaf_mark()}", fs=self._fs)
        make = partial(self._make, name, leaf.path, limits, tenant_limits or UNLIMITED)
        try:
            # In a thread: lowering the memory of a tenant makes the kernel look for some.
            await trio.to_thread.run_sync(make)
        except BaseException as exc:
            await leaf.close()
            if isinstance(exc, OSError):
                raise SandboxFailed(f"the control group cannot be set up: {exc}") from exc
            raise
        return leaf

    async def sweep(self) -> None:
        for top in self._version.everywhere:
            if not self._fs.has(top):
                continue
            groups = self._fs.below(top)
            if not await self._version.kill(top, groups):
                log.warning("processes of an earlier sandbox cannot be killed: %s", top)
            await remove_all(self._fs, groups)

    async def aclose(self) -> None:
        await self.sweep()

    def _make(self, tenant: str, leaf: str, limits: Limits, tenant_limits: Limits) -> None:
        self._version.make_top()
        self._version.make_tenant(tenant, tenant_limits)
        self._version.make_leaf(leaf, limits)

    async def left(self, path: str) -> None:
        """A sandbox has ended: remove its groups, and the tenant's with the last one."""
        tops = self._version.everywhere
        groups = [group for top in tops for group in self._fs.below(top / path)]
        is_gone = await remove_all(self._fs, groups)
        name = path.partition("/")[0]
        self._sandboxes[name] -= 1
        if not self._sandboxes[name]:
            del self._sandboxes[name]
        for top in tops:

            def done(group: Path = top / name) -> bool:
                # The look and the removal are one step of the loop, so nobody makes a
                # group in it meanwhile.
                return name in self._sandboxes or removed(self._fs, group)

            is_gone &= await wait_until(done, at_most=1.0)
        if not is_gone:
            log.warning("a control group stays behind until the next start: %s", path)


class _Leaf:
    def __init__(
        self, tree: CgroupTree, version: CgroupVersion, path: str, *, fs: CgroupFs
    ) -> None:
        self._fs = fs
        self.path = path
        self._tree = tree
        self._version = version
        self._is_closed = False
        self._last: GroupUsage | None = None
        self.join_files: Sequence[str] = [
            str(top / path / version.join_file) for top in version.tops
        ]
        self.runtime_parent = version.runtime_parent(path)

    def usage(self) -> GroupUsage | None:
        if not self._is_closed:
            with suppress(OSError, ValueError):
                self._last = self._version.usage(self.path)
        return self._last

    async def kill(self) -> None:
        if self._is_closed:
            return
        with trio.CancelScope(shield=True):
            for top in self._version.tops:
                group = top / self.path
                if not await self._version.kill(group, self._fs.below(group)):
                    log.warning("processes of a sandbox cannot be killed: %s", group)

    async def close(self) -> None:
        if self._is_closed:
            return
        with trio.CancelScope(shield=True):
            await self.kill()
            self.usage()
            if self._is_closed:  # somebody else was faster
                return
            self._is_closed = True
            await self._tree.left(self.path)
