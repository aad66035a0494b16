"""The processes a run starts: pinned, watched, and ended with everything they started."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

REPOSITORY = Path(__file__).resolve().parents[2]
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LOG_TAIL = 2000  # characters shown of a server that failed


class MeasurementFailed(Exception):
    """A figure could not be taken; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core the measured server gets and which the load; None where there is only one."""

    server: int | None
    load: int | None

    @classmethod
    def choose(cls) -> "Cores":
        usable = sorted(os.sched_getaffinity(0))
        return cls(usable[1], usable[0]) if len(usable) > 1 else cls(None, None)

    def keep_to_load(self) -> None:
        """Move this process, and what it starts without another word, to the load's core."""
        if self.load is not None:
            os.sched_setaffinity(0, {self.load})


@contextmanager
def all_cores(cores: Cores) -> Iterator[Cores]:
    """What is started by this thread meanwhile goes to whichever core is free.

    For what comes with processes of its own, which would all be born on the server's core.
    """
    before = os.sched_getaffinity(0)
    both = {core for core in (cores.server, cores.load) if core is not None}
    os.sched_setaffinity(0, both or before)
    try:
        yield Cores(None, None)
    finally:
        os.sched_setaffinity(0, before)


class Server:
    """A child process and what the kernel knows of it."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self._log = log
        self.pid = process.pid

    def cpu_seconds(self) -> float:
        """User and system time of all its threads so far (the kernel counts in 10 ms ticks)."""
        text = Path(f"/proc/{self.pid}/stat").read_text()
        # The second field is the command in brackets and may hold spaces.
        after_name = text.rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / _TICKS

    def rss_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE

    def pss_bytes(self) -> int:
        """Like :meth:`rss_bytes`, with its share of what several processes have in common."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
        raise MeasurementFailed("the kernel does not tell proportional memory")

    def has_ended(self) -> bool:
        """Ask without reaping: until it is reaped, its process group id cannot be reused."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, flags) is not None

    def check_alive(self) -> None:
        if self.has_ended():
            raise MeasurementFailed(f"a server ended by itself:\n{self.last_words()}")

    def last_words(self) -> str:
        return self._log.read_text(errors="replace")[-_LOG_TAIL:].strip()

    async def stop(self, *, patience: float) -> None:
        """TERM to the whole group, KILL after ``patience`` seconds. Cannot be cancelled."""
        with trio.CancelScope(shield=True):
            self._signal(signal.SIGTERM)
            with trio.move_on_after(patience):
                await self.wait_ended()
            # Also when it has ended: what it started may still be there.
            self._signal(signal.SIGKILL)
            await self.wait_ended()
            self._process.wait()

    async def wait_ended(self) -> None:
        handle = os.pidfd_open(self.pid)
        try:
            await trio.lowlevel.wait_readable(handle)
        finally:
            os.close(handle)

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return


@asynccontextmanager
async def running(
    command: Sequence[str],
    *,
    log: Path,
    core: int | None,
    environment: Mapping[str, str],
    patience: float = 5.0,
) -> AsyncIterator[Server]:
    """A process group of our own around ``command``, ended when the block is left."""
    server = Server(_start(command, log=log, core=core, environment=environment), log)
    try:
        yield server
    finally:
        await server.stop(patience=patience)


def _start(
    command: Sequence[str], *, log: Path, core: int | None, environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    """Start it on ``core`` from its first instruction on: children inherit the affinity."""
    before = os.sched_getaffinity(0)
    with log.open("ab") as output:
        try:
            if core is not None:
                os.sched_setaffinity(0, {core})
            return subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=REPOSITORY,
                env=dict(environment),
                start_new_session=True,
            )
        except OSError as exc:
            raise MeasurementFailed(f"{command[0]} does not start: {exc}") from exc
        finally:
            os.sched_setaffinity(0, before)


def clean_environment(home: Path, **extra: str) -> dict[str, str]:
    """What a server gets to see: nothing of the caller's proxies, keys or gateway settings."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(home), **extra}


def find_program(name: str) -> str:
    """The path of an installed program; system folders count even when PATH lacks them."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise MeasurementFailed(f"{name} is not installed: `make bench` installs it where it may")
    return found


def free_port() -> int:
    """A loopback port that nobody listens on now; if someone takes it, the run says so."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def wait_for_port(port: int, server: Server, *, patience: float = 15.0) -> None:
    with trio.move_on_after(patience):
        while True:
            server.check_alive()
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(0.02)
                continue
            await stream.aclose()
            return
    raise MeasurementFailed(f"nothing answers on port {port}:\n{server.last_words()}")
