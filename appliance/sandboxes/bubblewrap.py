"""The bubblewrap backend."""

import errno
import logging
import os
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import cached_property
from pathlib import Path

import trio

from appliance.model.errors import InvalidRequest
from appliance.sandboxes import bubblewrap_arguments, proving
from appliance.sandboxes.base import (
    Access,
    Probe,
    Proof,
    Sandbox,
    SandboxFailed,
    SandboxSpec,
    SandboxUnavailable,
)
from appliance.sandboxes.bubblewrap_arguments import HiddenName, Invocation
from appliance.sandboxes.bubblewrap_sandbox import BubblewrapSandbox, StartFailed
from appliance.sandboxes.commands import Command
from appliance.sandboxes.groups import Group, Groups
from appliance.sandboxes.host_layout import HostLayout, Programs
from appliance.sandboxes.launcher import MOUNT_POINT, MOUNTED_EGRESS, MOUNTED_WORKSPACE
from appliance.sandboxes.orphans import OrphanAdoption
from appliance.sandboxes.spawning import SharedFiles, seal_inherited_descriptors, spawn

log = logging.getLogger(__name__)

_CLOSE_TIMEOUT = 15.0  # seconds for a group to be killed and removed


class Bubblewrap:
    """Implements ``SandboxBackend``.

    ``uid`` is who sandboxes are on the host where the gateway is root; an
    ordinary user's sandboxes are that user. Never is one root.
    """

    name = "bubblewrap"

    def __init__(self, *, uid: int | None, groups: Groups) -> None:
        self._uid = uid if os.geteuid() == 0 else None
        self._groups = groups
        self._files = SharedFiles()
        self._orphans = OrphanAdoption()
        seal_inherited_descriptors()

    @cached_property
    def _host(self) -> tuple[Programs, HostLayout]:
        """Raises :exc:`SandboxUnavailable`."""
        host = (Programs.find(), HostLayout.read())
        if os.geteuid() == 0:
            _refuse_root(self._uid)
            _make_mount_points()
        return host

    @asynccontextmanager
    async def open(self, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
        async with self._prepared(spec) as (sandbox, _):
            sandbox.release()
            yield sandbox

    @asynccontextmanager
    async def _prepared(self, spec: SandboxSpec) -> AsyncIterator[tuple[BubblewrapSandbox, Group]]:
        """A sandbox that stands, and whose command waits for its release."""
        command = Command.of(spec)
        programs, layout = self._host
        group = await self._groups.open(spec.group, spec.limits, spec.group_limits)
        with ExitStack() as stack:
            try:
                if not group.join_files:  # nobody counts what it uses
                    stack.enter_context(self._orphans)
                invocation = bubblewrap_arguments.build(
                    spec,
                    command,
                    programs=programs,
                    layout=layout,
                    hidden=list(_existing(spec)),
                    uid=self._uid,
                    join_files=group.join_files,
                )
                sandbox = self._spawn(invocation, spec, group)
                try:
                    await self._meet(sandbox)
                    yield sandbox, group
                finally:
                    await sandbox.close()
            finally:
                with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                    await group.close()

    def _spawn(self, invocation: Invocation, spec: SandboxSpec, group: Group) -> BubblewrapSandbox:
        try:
            spawned = spawn(invocation, files=self._files, terminal=spec.terminal, owner=self._uid)
        except OSError as exc:
            if exc.errno == errno.E2BIG:
                raise InvalidRequest.at(
                    "command", "is longer than this system takes", "send it to the command's input"
                ) from None
            log.warning("A sandbox could not be started", extra={"reason": str(exc)})
            raise _failed(str(exc)) from exc
        return BubblewrapSandbox(spawned, group)

    async def _meet(self, sandbox: BubblewrapSandbox) -> None:
        try:
            await sandbox.meet()
        except StartFailed as exc:
            # It may name paths of the host.
            log.warning("A sandbox could not be started", extra={"reason": str(exc)})
            raise _failed(str(exc)) from exc

    async def prove(self) -> Proof:
        seal_inherited_descriptors()
        warnings = tuple(self._groups.warnings)
        try:
            probes = await self._probe()
            problem = proving.judge(probes)
        except SandboxUnavailable as exc:
            probes, problem = (), exc.detail
        except SandboxFailed as exc:
            probes, problem = (), proving.explain(str(exc.__cause__ or exc))
        except OSError as exc:
            probes, problem = (), f"the self-test could not be prepared: {exc}"
        return Proof(
            backend=self.name,
            problem=problem,
            probes=probes,
            limits=self._groups.level,
            warnings=warnings,
        )

    async def _probe(self) -> Sequence[Probe]:
        with proving.planted(self._uid) as spec:
            async with self._prepared(spec) as (sandbox, group):
                outside = proving.look_from_outside(
                    sandbox.outer_pid, self._uid or os.geteuid(), group.join_files
                )
                sandbox.release()
                inside = await proving.read_report(sandbox)
        return (*outside, *inside)

    async def sweep(self) -> None:
        # What had no group has died with its gateway.
        await self._groups.sweep()

    async def aclose(self) -> None:
        self._files.close()
        await self._groups.aclose()


def _failed(reason: str) -> SandboxFailed:
    failure = SandboxFailed(
        "the sandbox could not be started, and the command did not run; the gateway's log says why"
    )
    failure.add_note(reason)
    return failure


def _existing(spec: SandboxSpec) -> Iterator[HiddenName]:
    """A link is left alone: what it leads to is no secret of the workspace's."""
    if spec.access is Access.NONE:
        return
    for name in spec.hidden:
        try:
            mode = os.stat(name, dir_fd=spec.workspace, follow_symlinks=False).st_mode
        except OSError:
            continue
        if not stat.S_ISLNK(mode):
            yield HiddenName(name, is_directory=stat.S_ISDIR(mode))


def _refuse_root(uid: int | None) -> None:
    if not uid:
        raise SandboxUnavailable(
            "the gateway runs as root and sandboxes must not: set sandbox.uid, or run the gateway"
            " as an ordinary user"
        )


def _make_mount_points() -> None:
    """Empty, and made once: what is mounted there is seen only by one launcher."""
    try:
        for folder in (Path(MOUNT_POINT), Path(MOUNTED_WORKSPACE)):
            folder.mkdir(mode=0o755, exist_ok=True)
            folder.chmod(0o755)
        Path(MOUNTED_EGRESS).touch(mode=0o600, exist_ok=True)
        if Path(MOUNT_POINT).lstat().st_uid != 0 or Path(MOUNT_POINT).is_symlink():
            raise SandboxUnavailable(f"{MOUNT_POINT} is not root's: remove it")
    except OSError as exc:
        raise SandboxUnavailable(
            f"{MOUNT_POINT} cannot be made ({exc.strerror}): sandboxes of a gateway that is root"
            " need it; or run the gateway as an ordinary user"
        ) from exc
