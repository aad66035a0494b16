"""Looks after one worker process: starts it when it is wanted, ends it when it is not.

Its death is survived: the call under way fails, the next one starts it again.
A process that cannot start is tried again after a growing pause, and until
then every call is told why at once.
"""

import logging
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

import appliance
from appliance.model.errors import UpstreamUnavailable
from appliance.providers.embedded_worker import FAILED, KEY_VARIABLE, READY

log = logging.getLogger(__name__)

LOAD_TIMEOUT = 120.0  # seconds; a large file on a slow disk
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_LONGEST_LINE = 4096
_GRACE = 2.0  # seconds for the process to leave by itself
# What the child may know of our environment: never a secret.
_INHERITED = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


def worker_command() -> list[str]:
    """How this program runs itself as a worker, frozen or from source."""
    if getattr(sys, "frozen", False):
        return [sys.executable, "model-worker"]
    return [sys.executable, "-m", "appliance", "model-worker"]


def worker_environment(environ: Mapping[str, str], *, key: str) -> dict[str, str]:
    clean = {name: environ[name] for name in _INHERITED if name in environ}
    if not getattr(sys, "frozen", False):
        clean["PYTHONPATH"] = str(Path(appliance.__file__).resolve().parents[1])
    return {**clean, "OMP_WAIT_POLICY": "passive", KEY_VARIABLE: key}


class StartFailed(Exception):
    """The worker did not come up; the text is safe to show."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a running worker listens, and the key it wants."""

    kind: str
    socket: str
    key: str


@dataclass(slots=True)
class _Life:
    """One life of the process, from the wish for it to its end."""

    begun: trio.Event = field(default_factory=trio.Event)  # it is up, or it failed
    ended: trio.Event = field(default_factory=trio.Event)
    address: Address | None = None
    failure: str = ""


class ModelWorker:
    """One supervised process. ``run`` must be running for ``use`` to get anywhere."""

    def __init__(
        self,
        name: str,
        arguments: Callable[[], Sequence[str]],
        *,
        idle_unload: float,
        ended: Callable[[], None],
        command: Sequence[str] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """``arguments`` is called for each start and may raise :exc:`StartFailed`.

        ``ended`` is called whenever the process has gone: its address is void.
        """
        self._name = name
        self._arguments = arguments
        self._idle_unload = idle_unload
        self._ended = ended
        self._command = list(command or worker_command())
        self._environ = os.environ if environ is None else environ
        self._life: _Life | None = None
        self._wanted = trio.Event()
        self._users = 0
        self._last_used = 0.0
        self.starts = 0
        self.process_id: int | None = None

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Address]:
        """The address of the running worker, which is kept while the block lasts.

        Starts it first where needed. Raises :exc:`UpstreamUnavailable` if it
        does not come up.
        """
        self._users += 1
        try:
            if self._life is None:
                self._life = _Life()
                self._wanted.set()
            life = self._life
            with trio.move_on_after(LOAD_TIMEOUT + _GRACE):
                await life.begun.wait()
            if life.address is None:
                why = life.failure or "it does not start"
                raise UpstreamUnavailable(
                    f"the embedded model ({self._name}) is not available: {why}", retry_after=5
                )
            yield life.address
        finally:
            self._users -= 1
            self._last_used = trio.current_time()

    async def wait_ended(self, address: Address, *, patience: float) -> bool:
        """Wait until the process at ``address`` is gone; return whether it is."""
        life = self._life
        if life is None or life.address != address:
            return True
        with trio.move_on_after(patience):
            await life.ended.wait()
        return life.ended.is_set()

    async def run(self) -> None:
        """Hold the process until cancelled."""
        pause = _FIRST_PAUSE
        try:
            while True:
                await self._wanted.wait()
                self._wanted = trio.Event()
                life = self._life
                if life is None:
                    continue
                try:
                    await self._live(life)
                    pause = _FIRST_PAUSE
                except (StartFailed, OSError) as exc:
                    _fail(life, exc)
                    log.warning("embedded model failed to start: %s: %s", self._name, exc)
                    await trio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                self._forget(life)
        finally:
            if self._life is not None:
                self._life.failure = "it is being shut down"
                self._life.begun.set()
                self._life = None

    def _forget(self, life: _Life) -> None:
        """The next use begins a new life."""
        life.ended.set()
        if self._life is life:
            self._life = None

    async def _live(self, life: _Life) -> None:
        # A socket's path is short by law (108 bytes), and the folder is ours alone (0700).
        # The library takes a host's name for a path only if it ends in ".sock".
        with tempfile.TemporaryDirectory(prefix="openclawmu-") as folder:
            address = Address(self._name, f"{folder}/model.sock", secrets.token_hex(32))
            process = await self._start(address)
            try:
                try:
                    await self._wait_ready(process)
                except StartFailed as exc:
                    _fail(life, exc)  # those who wait need not see the process end
                    raise
                log.info("embedded model started: %s", self._name)
                life.address = address
                life.begun.set()
                self._last_used = trio.current_time()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._cancel_at_death, process, life, nursery.cancel_scope)
                    await self._wait_idle(life)
                    nursery.cancel_scope.cancel()
            finally:
                if life.address is not None:
                    self._forget(life)
                self._ended()
                self.process_id = None
                with trio.CancelScope(shield=True):
                    await _stop(process)
                log.info("embedded model ended: %s", self._name)

    async def _start(self, address: Address) -> trio.Process:
        command = [*self._command, "--socket", address.socket, *self._arguments()]
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=worker_environment(self._environ, key=address.key),
            # Ctrl-C in the gateway's terminal must not end answers that are being drained.
            start_new_session=True,
        )
        self.starts += 1
        self.process_id = process.pid
        return process

    async def _wait_ready(self, process: trio.Process) -> None:
        line = b""
        with trio.move_on_after(LOAD_TIMEOUT) as patience:
            while not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
                assert process.stdout is not None  # noqa: S101 - for mypy: we asked for the pipe
                data = await process.stdout.receive_some(_LONGEST_LINE)
                if not data:
                    break
                line += data
        said = line.decode("utf-8", "replace").strip()
        if said == READY:
            return
        if patience.cancelled_caught:
            raise StartFailed(f"it did not load within {LOAD_TIMEOUT:g} s")
        if said.startswith(FAILED):
            log.warning("embedded model cannot be loaded: %s", said.removeprefix(FAILED).strip())
            raise StartFailed("its weights cannot be loaded; see the log")
        raise StartFailed("its process ended while loading")

    async def _cancel_at_death(
        self, process: trio.Process, life: _Life, scope: trio.CancelScope
    ) -> None:
        status = await process.wait()
        self._forget(life)
        log.warning("embedded model died: %s: status %d", self._name, status)
        scope.cancel()

    async def _wait_idle(self, life: _Life) -> None:
        while True:
            now = trio.current_time()
            rest = self._idle_unload if self._users else self._last_used + self._idle_unload - now
            if rest <= 0:
                # In one step with the check: whoever comes now begins a new life.
                self._forget(life)
                return
            await trio.sleep(rest)


def _fail(life: _Life, why: Exception) -> None:
    life.failure = str(why)
    life.begun.set()


async def _stop(process: trio.Process) -> None:
    """End the process: first kindly, by the end of its input."""
    if process.stdin is not None:
        await trio.aclose_forcefully(process.stdin)
    with trio.move_on_after(_GRACE):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
    if process.stdout is not None:
        await trio.aclose_forcefully(process.stdout)
