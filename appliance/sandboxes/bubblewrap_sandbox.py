"""One running sandbox: what bwrap says of it, waiting for it, and its end."""

import json
import logging
import os
import resource
import signal
from contextlib import suppress
from pathlib import Path

import trio
from trio.lowlevel import FdStream

from appliance.model.errors import InvalidRequest
from appliance.sandboxes.base import Ending, SandboxUsage, TerminalSize
from appliance.sandboxes.groups import Group, GroupUsage
from appliance.sandboxes.launcher import GO, NO_DIRECTORY
from appliance.sandboxes.orphans import cpu_seconds, reap_adopted
from appliance.sandboxes.sandbox_streams import Terminal, TerminalInput, TerminalOutput
from appliance.sandboxes.spawning import (
    Spawned,
    open_process,
    read_available,
    read_greeting,
    set_terminal_size,
)

log = logging.getLogger(__name__)

START_TIMEOUT = 20.0  # seconds; it takes 10 ms on an idle machine
END_TIMEOUT = 10.0  # seconds that the kernel has to end what was killed
_STATUS_TIMEOUT = 5.0  # seconds that bwrap has to say whom to kill, if it starts at all
_LONGEST_STATUS = 4096
_LONGEST_DIAGNOSIS = 2000
_SIGNALLED = 128  # exit codes above are of signals, as a shell says it


class StartFailed(Exception):
    """The launcher ended before the sandbox stood. The text is the operator's to read."""


class BubblewrapSandbox:
    """Implements ``Sandbox``. Whoever has made it calls :meth:`close`."""

    def __init__(self, spawned: Spawned, group: Group) -> None:
        self._launched = spawned
        self._group = group
        self._init: int | None = None  # pidfd of process 1
        self._init_pid = 0
        self._command: int | None = None  # pidfd
        self.inner_pid: int | None = None
        self.outer_pid: int | None = None  # of the command, as the host sees it
        self._status = b""
        self._launcher_status: int | None = None
        self._counted = 0.0  # CPU seconds, where there is no group
        self._is_killed = False
        self._ending: Ending | None = None
        self._reaping = trio.Lock()
        self._started_at = trio.current_time()
        self._terminal: Terminal | None = None
        self.input: trio.abc.SendStream
        self.output: trio.abc.ReceiveStream
        self.errors: trio.abc.ReceiveStream | None = None
        if spawned.input is None or spawned.errors is None:
            self._terminal = Terminal(spawned.output)
            self.input, self.output = TerminalInput(self._terminal), TerminalOutput(self._terminal)
        else:
            self.input, self.output = FdStream(spawned.input), FdStream(spawned.output)
            self.errors = FdStream(spawned.errors)

    # Start

    async def meet(self) -> None:
        """Wait until it stands and take hold of it; the command is not running yet.

        Raises :exc:`StartFailed`, or ``InvalidRequest`` where the directory is missing.
        """
        greeting = None
        with trio.move_on_after(START_TIMEOUT) as patience:
            await trio.lowlevel.wait_readable(self._launched.handshake)
            greeting = read_greeting(self._launched.handshake)
        if patience.cancelled_caught:
            raise StartFailed(f"it did not stand after {START_TIMEOUT:.0f} seconds")
        if greeting is None:
            raise StartFailed(self._diagnosis())
        if greeting.text == NO_DIRECTORY:
            raise InvalidRequest.at("directory", "there is no such directory in the sandbox")
        self._read_status()
        # Both wait for us, so neither number can have passed to somebody else.
        self._init = open_process(self._init_pid) if self._init_pid else None
        self._command = open_process(greeting.pid)
        if self._init is None or self._command is None:
            raise StartFailed("it ended while it was started")
        self.outer_pid = greeting.pid
        # A library that the command's own variables load could say something else.
        self.inner_pid = int(greeting.text) if greeting.text.strip().isdigit() else None

    def release(self) -> None:
        """Let the command run."""
        # A socket that is just made takes three bytes. If nobody is there, waiting will show it.
        with suppress(OSError):
            self._launched.handshake.send(GO)
        self._launched.handshake.close()
        self._started_at = trio.current_time()

    def _diagnosis(self) -> str:
        descriptor = (
            self._launched.output if self._launched.errors is None else self._launched.errors
        )
        said = read_available(descriptor, _LONGEST_DIAGNOSIS).decode(errors="replace").strip()
        return said or "the launcher ended without a word"

    # While it runs

    def resize(self, size: TerminalSize) -> None:
        if self._terminal is not None and self._terminal.stream.fileno() >= 0:
            set_terminal_size(self._terminal.stream.fileno(), size)

    def interrupt(self, number: int) -> None:
        if self._command is not None:
            _send(self._command, number)

    def usage(self) -> SandboxUsage:
        if self._ending is not None:
            return self._ending.usage
        return self._usage(self._group.usage())

    def _usage(self, counted: GroupUsage | None) -> SandboxUsage:
        wall = trio.current_time() - self._started_at
        if counted is not None:
            return SandboxUsage(
                wall_seconds=wall,
                cpu_seconds=counted.cpu_seconds,
                peak_memory_bytes=counted.peak_memory_bytes,
            )
        so_far = self._counted
        if self._launcher_status is None:
            so_far += sum(_cpu_of(pid) for pid in (self._init_pid, self.outer_pid) if pid)
        return SandboxUsage(wall_seconds=wall, cpu_seconds=so_far, peak_memory_bytes=None)

    # End

    async def wait(self) -> Ending:
        async with self._reaping:
            if self._ending is None:
                await self._wait()
                self._ending = self._judge()
        return self._ending

    async def _wait(self) -> None:
        await trio.lowlevel.wait_readable(self._launched.pidfd)
        if self._launcher_status is None:
            status, usage = _reap(self._launched.pid)
            self._launcher_status = os.waitstatus_to_exitcode(status)
            self._counted += cpu_seconds(usage)
            self._read_status()
        if self._init is not None:
            # Process 1 may outlive bwrap for a moment. It is readable when all that
            # lived in its namespace is gone.
            _send(self._init, signal.SIGKILL)
            await trio.lowlevel.wait_readable(self._init)
            if not self._group.join_files:  # nobody else counts
                self._counted += reap_adopted(self._init_pid, self._init)
            _close(self._init)
            self._init = None

    def _judge(self) -> Ending:
        code = _exit_code(self._status)
        if code is None:  # bwrap itself was killed: with its group, or by somebody
            code = self._launcher_status or 0
            code = code if code >= 0 else _SIGNALLED - code
        number = code - _SIGNALLED if code > _SIGNALLED else None
        counted = self._group.usage()
        return Ending(
            exit_code=code,
            signal=number if number in signal.valid_signals() else None,
            killed=self._is_killed and code == _SIGNALLED + signal.SIGKILL,
            out_of_memory=counted is not None and counted.out_of_memory,
            usage=self._usage(counted),
        )

    async def kill(self) -> None:
        if self._ending is not None:
            return
        self._is_killed = True
        if self._init is not None:
            # All of it goes with process 1. Killing bwrap instead is not safe while it
            # starts: process 1 does not follow it yet.
            _send(self._init, signal.SIGKILL)
        with trio.move_on_after(END_TIMEOUT) as patience:
            await self.wait()
        if patience.cancelled_caught:
            log.error("A killed sandbox has not ended", extra={"pid": self._launched.pid})
            await self._group.kill()

    async def close(self) -> None:
        """Kill it, whatever its state, wait for that (bounded), and close everything."""
        with trio.CancelScope(shield=True):
            # If the command does not run yet, it never will.
            self._launched.handshake.close()
            if self._ending is None and self._init is None:
                await self._end_unmet()
            await self.kill()
            for stream in (self.input, self.output, self.errors):
                if stream is not None:
                    await trio.aclose_forcefully(stream)
        for descriptor in (self._launched.pidfd, self._init, self._command):
            if descriptor is not None:
                _close(descriptor)
        os.close(self._launched.status)

    async def _end_unmet(self) -> None:
        """End what was interrupted before it said hello: it may be any step of the launcher."""
        with trio.move_on_after(_STATUS_TIMEOUT):
            while not self._init_pid:
                await trio.lowlevel.wait_readable(self._launched.status)
                if not self._read_status():
                    break  # it ends, or has ended
        if self._init_pid:
            self._init = open_process(self._init_pid, parent=self._launched.pid)
        elif self._launcher_status is None:
            _send(self._launched.pidfd, signal.SIGKILL)

    def _read_status(self) -> bool:
        """Take what bwrap has said by now; whether that was anything."""
        said = read_available(self._launched.status, _LONGEST_STATUS)
        self._status += said
        if not self._init_pid and b"\n" in self._status:
            self._init_pid = int(json.loads(self._status.split(b"\n", 1)[0])["child-pid"])
        return bool(said)


def _reap(pid: int) -> tuple[int, resource.struct_rusage]:
    """Of a child that has ended."""
    _, status, usage = os.wait4(pid, os.WNOHANG)
    return status, usage


def _send(pidfd: int, number: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def _close(descriptor: int) -> None:
    trio.lowlevel.notify_closing(descriptor)
    os.close(descriptor)


def _exit_code(status: bytes) -> int | None:
    """bwrap says it only if the command was started; its own status is ambiguous."""
    for line in status.splitlines():
        with suppress(ValueError):
            if "exit-code" in (said := json.loads(line)):
                return int(said["exit-code"])
    return None


def _cpu_of(pid: int) -> float:
    """CPU seconds of a process and of what it has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
