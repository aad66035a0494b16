"""One container that runs: its client's streams, its signals and its end."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import trio

from appliance.sandboxes.base import Ending, SandboxFailed, SandboxUsage, TerminalSize
from appliance.sandboxes.container_engine import ContainerEngine
from appliance.sandboxes.groups import Group
from appliance.sandboxes.sandbox_streams import Terminal, TerminalInput, TerminalOutput
from appliance.sandboxes.spawning import open_process, set_terminal_size

END_TIMEOUT = 20.0  # seconds for a killed container to be gone
_FLUSH_TIMEOUT = 1.0  # seconds for the client to hand on what it has
_SIGNALLED = 128  # exit codes above are of signals, as a shell says it
_STATE = "{{.State.Status}} {{.State.OOMKilled}} {{.State.ExitCode}}"


class PodmanSandbox:
    """Implements ``Sandbox``. Whoever has made it calls :meth:`close`."""

    def __init__(
        self,
        engine: ContainerEngine,
        name: str,
        client: trio.Process,
        group: Group,
        *,
        terminal: int | None,
        init_pid: int | None,
    ) -> None:
        self._engine = engine
        self._name = name
        self._client = client
        self._group = group
        self._init_pid = init_pid  # of process 1, as the host sees it
        self._init = None if init_pid is None else open_process(init_pid)
        self._is_killed = False
        self._ending: Ending | None = None
        self._judging = trio.Lock()
        self._started_at = trio.current_time()
        self._terminal: Terminal | None = None
        self.input: trio.abc.SendStream
        self.output: trio.abc.ReceiveStream
        self.errors: trio.abc.ReceiveStream | None = None
        if terminal is not None:
            self._terminal = Terminal(terminal)
            self.input, self.output = TerminalInput(self._terminal), TerminalOutput(self._terminal)
        else:
            if client.stdin is None or client.stdout is None or client.stderr is None:
                raise ValueError("a client without a terminal has three pipes")
            self.input, self.output, self.errors = client.stdin, client.stdout, client.stderr

    @property
    def inner_pid(self) -> int | None:
        pid = self._command_pid()
        if pid is None:
            return None
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("NSpid:"):
                    return int(line.split()[-1])
        return None

    def resize(self, size: TerminalSize) -> None:
        if self._terminal is None or self._terminal.stream.fileno() < 0:
            return
        set_terminal_size(self._terminal.stream.fileno(), size)
        # It is not the terminal's foreground job, for which the kernel would do this.
        self._client.send_signal(signal.SIGWINCH)

    def interrupt(self, number: int) -> None:
        pid = self._command_pid()
        pidfd = None if pid is None else open_process(pid, parent=self._init_pid)
        if pidfd is None:  # not of this machine, or not ours to see: the client hands it on
            self._client.send_signal(number)
            return
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            pass
        except PermissionError:
            self._client.send_signal(number)
        finally:
            os.close(pidfd)

    def usage(self) -> SandboxUsage:
        if self._ending is not None:
            return self._ending.usage
        counted = self._group.usage()
        return SandboxUsage(
            wall_seconds=trio.current_time() - self._started_at,
            cpu_seconds=counted.cpu_seconds if counted else 0.0,
            peak_memory_bytes=counted.peak_memory_bytes if counted else None,
        )

    async def wait(self) -> Ending:
        status = await self._client.wait()
        async with self._judging:
            if self._ending is None:
                self._ending = await self._judge(status)
        return self._ending

    async def kill(self) -> None:
        if self._ending is not None:
            return
        with trio.CancelScope(shield=True):
            if self._client.returncode is None:
                self._is_killed = True
                await self._kill()
            await self.wait()

    async def _kill(self) -> None:
        if self._init is None:
            with suppress(SandboxFailed):
                await self._engine.ask("kill", "--signal=KILL", self._name)
        else:
            # Not by the engine, which refuses to kill what it has not quite started yet.
            # All of the sandbox goes with its process 1.
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self._init, signal.SIGKILL)
            with trio.move_on_after(END_TIMEOUT) as patience:
                await trio.lowlevel.wait_readable(self._init)
            if patience.cancelled_caught:
                # With the monitor, which is why the engine is late to believe it.
                await self._group.kill()
        # Nothing runs any more. The client may still have output that nobody reads.
        with trio.move_on_after(_FLUSH_TIMEOUT):
            await self._client.wait()
        if self._client.returncode is None:
            self._client.kill()
            with trio.move_on_after(END_TIMEOUT):
                await self._client.wait()

    async def close(self) -> None:
        """Kill it, and close everything. The container is its maker's to remove."""
        with trio.CancelScope(shield=True):
            if self._client.returncode is None:
                # Nobody reads any more, and a client that waits for that ends late.
                await self._close_output()
            await self.kill()
            await self._close_output()
            await trio.aclose_forcefully(self.input)
            if self._init is not None:
                trio.lowlevel.notify_closing(self._init)
                os.close(self._init)
                self._init = None

    async def _close_output(self) -> None:
        await trio.aclose_forcefully(self.output)
        if self.errors is not None:
            await trio.aclose_forcefully(self.errors)

    def _command_pid(self) -> int | None:
        """The child of process 1 that is no orphan: the one it started first."""
        if self._init_pid is None:
            return None
        children = Path(f"/proc/{self._init_pid}/task/{self._init_pid}/children")
        try:
            found = [int(word) for word in children.read_text().split()]
        except OSError:
            return None
        return found[0] if found else None

    async def _judge(self, status: int) -> Ending:
        is_oom = False
        code = status if status >= 0 else _SIGNALLED - status
        with suppress(SandboxFailed, ValueError):
            state, oom, exit_code = (
                (await self._engine.call("inspect", f"--format={_STATE}", self._name))
                .decode()
                .split()
            )
            is_oom = oom == "true"
            if state == "exited":
                code = int(exit_code)
        counted = self._group.usage()
        number = code - _SIGNALLED if code > _SIGNALLED else None
        return Ending(
            exit_code=code,
            signal=number if number in signal.valid_signals() else None,
            killed=self._is_killed and code == _SIGNALLED + signal.SIGKILL,
            out_of_memory=is_oom or (counted is not None and counted.out_of_memory),
            usage=self.usage(),
        )
