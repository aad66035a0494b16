"""The Podman backend, for machines on which bubblewrap cannot be used.

A container is made, set up and looked at, and only then started: three calls of
a client of 50 to 200 ms each. Docker's client takes the same arguments, but can
do less: no groups of ours, no look before the start.
"""

import json
import logging
import os
import platform
import resource
import secrets
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import trio

from appliance.model.errors import InvalidRequest
from appliance.sandboxes.base import (
    MIB,
    WORKSPACE,
    Access,
    Limits,
    Proof,
    Sandbox,
    SandboxFailed,
    SandboxSpec,
)
from appliance.sandboxes.cgroup_files import owner_mark
from appliance.sandboxes.commands import Command
from appliance.sandboxes.container_engine import ContainerEngine
from appliance.sandboxes.groups import Group, Groups
from appliance.sandboxes.hiding import hidden_names
from appliance.sandboxes.host_layout import HostLayout
from appliance.sandboxes.podman_arguments import (
    LABEL,
    Container,
    Engine,
    create,
    variable_lines,
)
from appliance.sandboxes.podman_proof import prove
from appliance.sandboxes.podman_sandbox import PodmanSandbox
from appliance.sandboxes.seccomp_profile import profile
from appliance.sandboxes.seccomp_tables import Architecture
from appliance.sandboxes.spawning import set_terminal_size

# What the monitor of a container may use beside it, in the same group.
_MONITOR_BYTES = 32 * MIB
_MONITOR_PIDS = 16
_ENGINES_OWN = 32_768  # processes: what Podman takes for itself, so what it can give
_CLOSE_TIMEOUT = 90.0  # seconds; longer than the engine's own

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Files:
    """What the client reads from files. Variables are not for the list of processes."""

    name: str  # of the container
    variables: Path
    certificates: Path


class Podman:
    """Implements ``SandboxBackend``. ``directory`` is ours, for files a client has to read."""

    name = "podman"

    def __init__(
        self,
        *,
        engine: ContainerEngine,
        image: str,
        uid: int | None,
        groups: Groups,
        state_dir: Path,
        directory: Path,
    ) -> None:
        self._engine = engine
        self._image = image
        self._uid = uid if os.geteuid() == 0 else None
        self._groups = groups
        self._owner = owner_mark(state_dir)
        self._directory = directory
        self._seccomp = directory / "seccomp.json"

    @asynccontextmanager
    async def open(self, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
        command = Command.of(spec)
        _require_directory(spec)
        name = f"{LABEL}-{self._owner}-{secrets.token_hex(6)}"
        group = await self._groups.open(spec.group, _with_monitor(spec.limits), spec.group_limits)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_in_any_case, group.close)
            with self._files(spec, command, name) as files:
                stack.push_async_callback(_in_any_case, partial(self._remove, name))
                # Not to be cut off in the middle: a client that is killed leaves half of a
                # container, which its monitor may still start.
                with trio.CancelScope(shield=True):
                    pid = await self._make(spec, command, files, group)
                    sandbox = await self._start(spec, name, group, pid)
                stack.push_async_callback(_in_any_case, sandbox.close)
                await trio.lowlevel.checkpoint_if_cancelled()
                yield sandbox

    async def prove(self) -> Proof:
        return await prove(self, self._engine, self._image, self._groups, uid=self._uid)

    async def sweep(self) -> None:
        with suppress(SandboxFailed):
            listed = await self._engine.call(
                "ps", "--all", "--quiet", f"--filter=label={LABEL}={self._owner}"
            )
            if names := listed.decode().split():
                await self._engine.ask("rm", "--force", *names)
        await self._groups.sweep()

    async def aclose(self) -> None:
        self._seccomp.unlink(missing_ok=True)
        await self._groups.aclose()

    async def _make(
        self, spec: SandboxSpec, command: Command, files: _Files, group: Group
    ) -> int | None:
        """Make the container and set it up, short of its command. Returns its process 1."""
        container = Container(
            name=files.name,
            owner=self._owner,
            image=self._image,
            workspace=_workspace_path(spec.workspace),
            seccomp=str(self._seccomp),
            variables=str(files.variables),
            uid=self._uid,
            runtime_parent=group.runtime_parent,
            certificates=str(files.certificates) if _has_certificates(spec) else None,
            hidden=list(hidden_names(spec)),
            processes=_most_processes(),
        )
        try:
            await self._engine.call(*create(spec, command, container, engine=self._engine.kind))
        finally:
            files.variables.unlink()
        if self._engine.kind is Engine.DOCKER:
            return None
        await self._engine.call("init", files.name)
        pid = int(await self._engine.call("inspect", "--format={{.State.Pid}}", files.name))
        if spec.access is not Access.NONE:
            _check_workspace(spec.workspace, pid)
        return pid or None

    async def _start(
        self, spec: SandboxSpec, name: str, group: Group, pid: int | None
    ) -> PodmanSandbox:
        arguments = ("start", "--attach", "--interactive", "--detach-keys=", name)
        if spec.terminal is None:
            client = await self._engine.start(*arguments)
            return PodmanSandbox(self._engine, name, client, group, terminal=None, init_pid=pid)
        ours, theirs = os.openpty()
        try:
            set_terminal_size(theirs, spec.terminal)
            client = await self._engine.start(*arguments, terminal=theirs)
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return PodmanSandbox(self._engine, name, client, group, terminal=ours, init_pid=pid)

    async def _remove(self, name: str) -> None:
        # It says that a container whose monitor was killed cannot be stopped, and believes
        # that it has stopped when it is asked again.
        for _ in range(2):
            answer = await self._engine.ask("rm", "--force", name)
            if answer.returncode == 0 or b"o such container" in answer.stderr:
                return
        log.warning("a container stays behind until the next start: %s", name)

    @contextmanager
    def _files(self, spec: SandboxSpec, command: Command, name: str) -> Iterator[_Files]:
        files = _Files(name, self._directory / f"{name}.env", self._directory / f"{name}.pem")
        try:
            try:
                self._write_files(spec, command, files)
            except OSError as exc:
                raise SandboxFailed(f"the container's files cannot be written: {exc}") from exc
            yield files
        finally:
            files.variables.unlink(missing_ok=True)
            files.certificates.unlink(missing_ok=True)

    def _write_files(self, spec: SandboxSpec, command: Command, files: _Files) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._seccomp.exists():
            _write(self._seccomp, json.dumps(profile(Architecture(platform.machine()))).encode())
        _write(files.variables, variable_lines(command))
        if spec.egress is not None and _has_certificates(spec):
            trusted = HostLayout.read().certificates.rstrip() + b"\n"
            _write(files.certificates, trusted + spec.egress.certificates.encode(), mode=0o444)


async def _in_any_case(end: Callable[[], Awaitable[None]]) -> None:
    with trio.move_on_after(_CLOSE_TIMEOUT, shield=True), suppress(SandboxFailed):
        await end()


def _has_certificates(spec: SandboxSpec) -> bool:
    return spec.egress is not None and bool(spec.egress.certificates)


def _write(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _with_monitor(limits: Limits) -> Limits:
    """Room for the container's monitor beside it; the container has its own limits inside."""
    memory, pids = limits.memory_bytes, limits.pids
    return replace(
        limits,
        memory_bytes=None if memory is None else memory + _MONITOR_BYTES,
        pids=None if pids is None else pids + _MONITOR_PIDS,
    )


def _workspace_path(descriptor: int) -> str:
    """The name of a descriptor's directory.

    A descriptor cannot be mounted from another mount namespace than its own, and a
    runtime has one. No tenant can rename what is above its workspace; in any case
    :func:`_check_workspace` looks at what was mounted.
    """
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def _require_directory(spec: SandboxSpec) -> None:
    """Refuse a directory that is missing in the workspace. Links are for inside to follow."""
    inside = PurePosixPath(spec.directory)
    if spec.access is Access.NONE or not inside.is_relative_to(WORKSPACE):
        return
    here = PurePosixPath()
    for part in inside.relative_to(WORKSPACE).parts:
        here /= part
        try:
            mode = os.stat(here, dir_fd=spec.workspace, follow_symlinks=False).st_mode
        except FileNotFoundError:
            mode = 0
        if stat.S_ISLNK(mode):
            return
        if not stat.S_ISDIR(mode):
            raise InvalidRequest.at("directory", "there is no such directory in the sandbox")


def _check_workspace(descriptor: int, pid: int) -> None:
    """Compare what a container that stands, but does not run, has at its workspace."""
    try:
        mounted = os.stat(f"/proc/{pid}/root{WORKSPACE}")  # noqa: PTH116 - beside fstat
    except OSError as exc:
        raise SandboxFailed(f"the container's workspace cannot be checked: {exc}") from exc
    expected = os.fstat(descriptor)
    if (mounted.st_dev, mounted.st_ino) != (expected.st_dev, expected.st_ino):
        raise SandboxFailed("the container was shown another directory than the workspace")


def _most_processes() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    return _ENGINES_OWN if hard == resource.RLIM_INFINITY else min(hard, _ENGINES_OWN)
