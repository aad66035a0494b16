"""Starting a program with exactly the descriptors it shall have.

In the calling thread, and that is Trio's: a sandbox dies with the *thread*
that started it (PR_SET_PDEATHSIG), and Trio's own way to start a process does
it in a thread that ends after ten idle seconds.
"""

import errno
import fcntl
import os
import pty
import signal
import socket
import struct
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from appliance.sandboxes.base import TerminalSize
from appliance.sandboxes.bubblewrap_arguments import Invocation
from appliance.sandboxes.launcher import Descriptor

_ABOVE = 64  # no number of a Descriptor or of a file is as high
_MOST_FILES = 16  # kept open; those of one layout, and some doors' certificates
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_DEFAULTS = [
    number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)
]


def seal_inherited_descriptors() -> None:
    """Keep what this process was started with to itself.

    To be called once, before anything is started: bwrap closes nothing, and
    Python marks only what it opens itself.
    """
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - the names are numbers
        if int(name) > 2:
            # The listing's own descriptor is closed by now.
            with suppress(OSError):
                os.set_inheritable(int(name), False)  # noqa: FBT003 - Python's own signature


class SharedFiles:
    """Contents that many sandboxes read, each in memory once.

    Opened anew for every sandbox, because a descriptor that is passed on
    shares its position with everyone.
    """

    def __init__(self) -> None:
        self._open: dict[bytes, int] = {}

    def path(self, contents: bytes) -> str:
        """Where the process being started can open it."""
        descriptor = self._open.pop(contents, None)
        if descriptor is None:
            if len(self._open) >= _MOST_FILES:
                os.close(self._open.pop(next(iter(self._open))))
            descriptor = _memory_file(contents)
        self._open[contents] = descriptor  # last: it was just used
        return f"/proc/self/fd/{descriptor}"

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def __del__(self) -> None:
        self.close()  # of a self-test that was interrupted, which nobody holds any more


def _memory_file(contents: bytes) -> int:
    descriptor = _raise_above(os.memfd_create("sandbox", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(contents)
        fcntl.fcntl(
            descriptor,
            fcntl.F_ADD_SEALS,
            fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL,
        )
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _raise_above(descriptor: int) -> int:
    """The same open file under a number that no dup2 of the child overwrites."""
    if descriptor >= _ABOVE:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _ABOVE)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Spawned:
    """A launcher that runs. Everything here is its owner's to close."""

    pid: int
    pidfd: int
    handshake: socket.socket
    status: int
    input: int | None  # None: a terminal, and output takes input as well
    output: int
    errors: int | None


def spawn(
    invocation: Invocation, *, files: SharedFiles, terminal: TerminalSize | None, owner: int | None
) -> Spawned:
    """Start it; raises ``OSError``. ``owner`` is whose the terminal shall be."""
    with ExitStack() as ours, ExitStack() as theirs:
        if terminal is None:
            streams = _pipes(ours, theirs)
        else:
            streams = _terminal(terminal, owner, ours, theirs)
        handshake, far = socket.socketpair()
        ours.callback(handshake.close)
        # So that the kernel says who has written.
        handshake.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        handshake.setblocking(False)  # noqa: FBT003 - Python's own signature
        status, status_far = os.pipe2(os.O_CLOEXEC)
        ours.callback(os.close, status)
        arguments = os.memfd_create("arguments", os.MFD_CLOEXEC)
        passed = {
            **dict(enumerate(streams.theirs)),
            Descriptor.HANDSHAKE: _lend(theirs, far.detach()),
            Descriptor.STATUS: _lend(theirs, status_far),
            Descriptor.STATUS_READER: _lend(theirs, os.dup(status)),
            Descriptor.ARGUMENTS: _lend(theirs, arguments),
        }
        _write_all(passed[Descriptor.ARGUMENTS], invocation.arguments)
        for number, descriptor in invocation.descriptors.items():
            passed[number] = _lend(theirs, os.dup(descriptor))
        pid = os.posix_spawn(
            invocation.argv[0],
            list(invocation.argv),
            {},  # bwrap's own environment can be read inside
            file_actions=[*_passing(passed), *_opening(invocation.files, files)],
            setsid=True,
            setsigmask=[],
            setsigdef=_DEFAULTS,
        )
        pidfd = os.pidfd_open(pid)  # it cannot be anybody else: nobody has waited for it
        ours.pop_all()
    return Spawned(pid, pidfd, handshake, status, streams.input, streams.output, streams.errors)


@dataclass(frozen=True, slots=True)
class _Streams:
    input: int | None
    output: int
    errors: int | None
    theirs: Sequence[int]


def _lend(theirs: ExitStack, descriptor: int) -> int:
    high = _raise_above(descriptor)
    theirs.callback(os.close, high)
    return high


def _pipes(ours: ExitStack, theirs: ExitStack) -> _Streams:
    ends = []
    for is_input in (True, False, False):
        reading, writing = os.pipe2(os.O_CLOEXEC)
        mine, lent = (writing, reading) if is_input else (reading, writing)
        ours.callback(os.close, mine)
        ends.append((mine, _lend(theirs, lent)))
    return _Streams(ends[0][0], ends[1][0], ends[2][0], [lent for _, lent in ends])


def _terminal(
    size: TerminalSize, owner: int | None, ours: ExitStack, theirs: ExitStack
) -> _Streams:
    output, slave = pty.openpty()
    ours.callback(os.close, output)
    lent = _lend(theirs, slave)
    set_terminal_size(lent, size)
    os.fchmod(lent, 0o600)  # the group tty could write to it
    if owner is not None:
        os.fchown(lent, owner, -1)
    return _Streams(None, output, None, [lent] * 3)


def set_terminal_size(descriptor: int, size: TerminalSize) -> None:
    packed = struct.pack("4H", size.rows, size.columns, 0, 0)
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, packed)


def _write_all(descriptor: int, contents: bytes) -> None:
    with open(descriptor, "wb", closefd=False) as file:
        file.write(contents)
    os.lseek(descriptor, 0, os.SEEK_SET)


_FileAction = tuple[int, int, int] | tuple[int, int, str, int, int]


def _passing(descriptors: Mapping[int, int]) -> Iterator[_FileAction]:
    for number, descriptor in descriptors.items():
        yield (os.POSIX_SPAWN_DUP2, descriptor, number)


def _opening(contents: Mapping[int, bytes], files: SharedFiles) -> Iterator[_FileAction]:
    for number, text in contents.items():
        yield (os.POSIX_SPAWN_OPEN, number, files.path(text), os.O_RDONLY, 0)


@dataclass(frozen=True, slots=True)
class Greeting:
    """What the sandbox says when it stands."""

    text: bytes
    pid: int  # of the writer, as this process sees it; the kernel says so


def read_greeting(handshake: socket.socket) -> Greeting | None:
    """None if the sandbox has ended instead. Raises ``BlockingIOError`` if it is too early."""
    text, control, _, _ = handshake.recvmsg(64, socket.CMSG_SPACE(_CREDENTIALS.size))
    if not text:
        return None
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            return Greeting(text, _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0])
    raise OSError(errno.EPROTO, "the kernel did not say who is in the sandbox")


def read_available(descriptor: int, most: int) -> bytes:
    """What can be read without waiting, at most ``most`` bytes; of a terminal and of a pipe."""
    os.set_blocking(descriptor, False)
    read = b""
    with suppress(BlockingIOError, OSError):
        while len(read) < most and (more := os.read(descriptor, most - len(read))):
            read += more
    return read


def open_process(pid: int, *, parent: int | None = None) -> int | None:
    """A descriptor of the process; None if it is gone, or is not ``parent``'s child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if parent is not None and _parent(pid) != parent:
        os.close(descriptor)
        return None
    return descriptor


def _parent(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1])
