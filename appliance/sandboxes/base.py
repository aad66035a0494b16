"""What a sandbox is to the rest of the appliance."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Protocol

import trio

from appliance.model.errors import ApplianceError, Kind

# Seen from inside
WORKSPACE = "/workspace"
EGRESS_SOCKET = "/run/egress.sock"
EGRESS_CERTIFICATES = "/run/egress-certificates.pem"  # the system's and the door's, if it has any
MIB = 1024 * 1024


class SandboxUnavailable(ApplianceError):
    """Isolation is not available here, so nothing is run. The text says why and what to do."""

    code: ClassVar[str] = "sandbox-unavailable"
    title: ClassVar[str] = "No sandbox is available"
    kind: ClassVar[Kind] = Kind.UNAVAILABLE


class SandboxFailed(ApplianceError):
    """The sandbox itself could not be started; the command never ran."""

    code: ClassVar[str] = "sandbox-failed"
    title: ClassVar[str] = "The sandbox could not be started"
    kind: ClassVar[Kind] = Kind.UNAVAILABLE


class Access(StrEnum):
    """What may be done in the workspace."""

    WRITE = "rw"
    READ = "ro"
    NONE = "none"  # an empty directory that is gone afterwards stands in its place


@dataclass(frozen=True, slots=True)
class TerminalSize:
    columns: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one sandbox may use. None is what the machine has."""

    memory_bytes: int | None = 512 * MIB
    pids: int | None = 128
    cpu_percent: int | None = 100  # of one core
    file_bytes: int | None = None  # of one file it writes
    open_files: int = 1024  # of one process
    scratch_bytes: int = 64 * MIB  # of /tmp, and again of /dev/shm; both are memory


@dataclass(frozen=True, slots=True)
class Bind:
    """A directory or file of the operator's, shown at the same or another path."""

    source: str
    target: str
    is_writable: bool = False


@dataclass(frozen=True, slots=True)
class EgressDoor:
    """The one way out: a Unix socket that takes CONNECT and absolute-form requests.

    ``socket`` is an O_PATH descriptor of it, shown as ``/run/egress.sock``;
    ``path`` names the same socket for a backend that takes no descriptors.
    ``certificates`` (PEM, "" for none) are trusted inside besides the system's.
    """

    socket: int
    path: str
    certificates: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """One command to run. Descriptors stay their owner's, who keeps them open until the end."""

    group: str  # those of one group (a tenant) share its limits; opaque, never shown inside
    workspace: int  # an O_PATH descriptor of the directory
    command: Sequence[str]  # absolute program or a name found on PATH inside; no NUL
    directory: str = WORKSPACE  # absolute, inside
    environment: Mapping[str, str] = field(default_factory=dict)  # on top of a fixed small one
    access: Access = Access.WRITE
    hidden: Sequence[str] = ()  # names in the workspace that are shown empty and read-only
    limits: Limits = Limits()
    group_limits: Limits | None = None  # of all sandboxes of the group together
    binds: Sequence[Bind] = ()
    egress: EgressDoor | None = None
    terminal: TerminalSize | None = None  # None: three pipes


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxUsage:
    wall_seconds: float
    cpu_seconds: float  # of all its processes
    peak_memory_bytes: int | None  # None: nobody counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How the command ended: with ``exit_code`` (128 + n for a signal, as a shell says it)."""

    exit_code: int
    signal: int | None = None
    killed: bool = False  # by us
    out_of_memory: bool = False
    reason: str = ""  # why we ended it, for people; empty if we did not, or nobody need ask
    usage: SandboxUsage


class Sandbox(Protocol):
    """A running sandbox. Streams raise ``trio.BrokenResourceError`` as Trio's own do.

    With a terminal, ``input`` and ``output`` are its two directions and
    ``errors`` is None; else they are pipes. Reading slowly stops the writer
    inside; nothing is buffered here.
    """

    @property
    def input(self) -> trio.abc.SendStream:
        """Closing it is the end of the command's input (with a terminal: it hangs up)."""

    @property
    def output(self) -> trio.abc.ReceiveStream: ...
    @property
    def errors(self) -> trio.abc.ReceiveStream | None: ...
    @property
    def inner_pid(self) -> int | None:
        """The command's process id as it is seen inside; None where nobody knows."""

    def resize(self, size: TerminalSize) -> None:
        """Set the terminal's size; the foreground job gets SIGWINCH. Nothing without one."""

    def interrupt(self, signal: int) -> None:
        """Send a signal to the command (not to all of the sandbox)."""

    def usage(self) -> SandboxUsage:
        """What it has used so far."""

    async def wait(self) -> Ending:
        """Wait until the command has ended; everything it started has ended too then."""

    async def kill(self) -> None:
        """End everything in it now. Returns when nothing is left; may be called twice."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing that was tried to prove the isolation, and what came of it."""

    name: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a backend can do here. ``problem`` is empty if it may be used."""

    backend: str  # "bubblewrap" or "podman"
    problem: str = ""  # why it may not, with the remedy
    probes: Sequence[Probe] = ()
    limits: str = "none"  # who enforces memory and pids: "cgroup v2", "cgroup v1", "rlimits"
    warnings: Sequence[str] = ()

    @property
    def holds(self) -> bool:
        return not self.problem


class SandboxBackend(Protocol):
    @property
    def name(self) -> str: ...

    def open(self, spec: SandboxSpec) -> AbstractAsyncContextManager[Sandbox]:
        """Start it. Leaving, in whatever way, kills what is left of it and waits for that.

        Raises :exc:`SandboxFailed` if it cannot be started, and ``InvalidRequest``
        for a command, variable or directory that cannot be passed on.
        """

    async def prove(self) -> Proof:
        """Try the isolation from inside. Raises nothing; a failed probe is a ``problem``."""

    async def sweep(self) -> None:
        """End what a former gateway of this state directory left behind."""

    async def aclose(self) -> None:
        """Give back what belongs to no sandbox (groups, images)."""
