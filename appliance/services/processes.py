"""Commands that agents have started: what they print, what they are told, how they end."""

import codecs
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from math import inf
from typing import Protocol

import trio

from appliance.model.errors import ApplianceError, RateLimited
from appliance.model.exec_policy import ExecOrder
from appliance.sandboxes.base import Ending, Sandbox, TerminalSize
from appliance.services.command_output import OutputLog

_PIECE = 64 * 1024
# Somebody who prints without end must not keep the gateway busy reading it.
_FLOOD_PAUSE = 0.005  # seconds after each piece: about 12 MB/s
_LAST_WORDS = 2.0  # seconds for what is still in the pipes
_KILL_TAKES = 15.0  # seconds
_WRITE_TAKES = 5.0  # seconds
_KEPT_FOR = 30 * 60  # seconds
_MOST_KEPT = 50  # that have ended
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)

Opened = AbstractAsyncContextManager[Sandbox]


class StartedWork(Protocol):
    def cancel(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    """What is known of a process from the beginning."""

    id: str
    agent: str
    session: str  # the short key of the session it was started in
    order: ExecOrder
    started_at_ms: int
    has_terminal: bool
    takes_input: bool
    is_covered: bool  # the allow-list covers what it does
    limit: float = inf  # seconds


class InputRefused(Exception):
    """It cannot be told anything. The text says why."""


class Process:
    """One command. :meth:`run` is work of the tenant and ends with it.

    ``seen`` is how much of the output was given out to whoever polls.
    """

    def __init__(
        self, facts: ProcessFacts, open_sandbox: Callable[[], Opened], *, kept: int
    ) -> None:
        self.facts = facts
        self.output = OutputLog(kept)
        self.seen = 0
        self.ending: Ending | None = None
        self.failure: ApplianceError | None = None  # it could not be started, or had to be ended
        self.timed_out = False
        self.is_told = False  # the agent knows that it ended, or will not care
        self.ended_at = inf  # on Trio's clock
        self.started_at = trio.current_time()
        self.begun = trio.Event()  # it runs, or never will
        self.ended = trio.Event()
        self.work: StartedWork | None = None
        self.on_end: Callable[[Process], None] | None = None
        self._open = open_sandbox
        self._most_read = 4 * kept
        self._read = 0
        self._news = trio.Event()
        self._writing = trio.Lock()
        self._sandbox: Sandbox | None = None

    @property
    def pid(self) -> int | None:
        return None if self._sandbox is None else self._sandbox.inner_pid

    @property
    def seconds(self) -> float:
        return min(trio.current_time(), self.ended_at) - self.started_at

    async def run(self) -> None:
        """Run to the end. Cancelled, all of it is killed before this raises."""
        try:
            async with self._open() as sandbox:
                self._sandbox = sandbox
                if not self.facts.takes_input:
                    # Whoever reads shall find the end, not wait for what never comes.
                    await trio.aclose_forcefully(sandbox.input)
                self.begun.set()
                with trio.move_on_after(self.facts.limit) as limit:
                    await self._attend(sandbox)
                if limit.cancelled_caught:
                    self.timed_out = True
                    await sandbox.kill()
                    await self._attend(sandbox)
        except ApplianceError as error:
            self.failure = error
        finally:
            self.ended_at = trio.current_time()
            self.begun.set()
            self.ended.set()
            self._tell_news()
            if self.on_end is not None:
                self.on_end(self)

    async def wait_news(self, *, limit: float) -> None:
        """Wait until it prints something that was not ``seen``, or ends."""
        with trio.move_on_after(limit):
            while self.output.total <= self.seen and not self.ended.is_set():
                await self._news.wait()

    def unseen(self) -> str:
        """What was printed since this was called last."""
        text = self.output.since(self.seen)
        self.seen = self.output.total
        return text

    async def write(self, data: bytes) -> None:
        """Raises :exc:`InputRefused` if it does not want to know."""
        sandbox = self._listening()
        async with self._writing:
            try:
                with trio.move_on_after(_WRITE_TAKES) as limit:
                    await sandbox.input.send_all(data)
            except _GONE:
                raise InputRefused("its input is closed") from None
        if limit.cancelled_caught:
            raise InputRefused(f"it has not read its input for {_WRITE_TAKES:g} s")

    async def close_input(self) -> None:
        """Tell it that nothing more comes."""
        if self.facts.has_terminal:
            await self.write(b"\x04")
        else:
            await trio.aclose_forcefully(self._listening().input)

    def interrupt(self, signal: int) -> None:
        self._running().interrupt(signal)

    def resize(self, columns: int, rows: int) -> None:
        self._running().resize(TerminalSize(columns, rows))

    async def kill(self) -> None:
        """End all of it. Bounded, and not cancellable."""
        with trio.move_on_after(_KILL_TAKES, shield=True):
            if self._sandbox is not None and not self.ended.is_set():
                with trio.move_on_after(_KILL_TAKES / 2):
                    await self._sandbox.kill()
                    await self.ended.wait()
            if not self.ended.is_set() and self.work is not None:
                self.work.cancel()
                await self.ended.wait()

    def _listening(self) -> Sandbox:
        sandbox = self._running()
        if not self.facts.takes_input:
            raise InputRefused("it was started without input; start it with background or pty")
        return sandbox

    def _running(self) -> Sandbox:
        if self._sandbox is None or self.ended.is_set():
            raise InputRefused("it has ended")
        return self._sandbox

    async def _attend(self, sandbox: Sandbox) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take, sandbox.output)
            if sandbox.errors is not None:
                nursery.start_soon(self._take, sandbox.errors)
            self.ending = await sandbox.wait()
            nursery.cancel_scope.deadline = trio.current_time() + _LAST_WORDS

    async def _take(self, stream: trio.abc.ReceiveStream) -> None:
        # One decoder for each pipe: a character may be cut in two by the other one's output.
        decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        try:
            while piece := await stream.receive_some(_PIECE):
                self._add(decode(bytes(piece)))
                self._read += len(piece)
                if self._read > self._most_read:
                    await trio.sleep(_FLOOD_PAUSE)
        except _GONE:
            pass
        self._add(decode(b"", True))  # noqa: FBT003 - final=, which has no name there

    def _add(self, text: str) -> None:
        if text:
            self.output.add(text)
            self._tell_news()

    def _tell_news(self) -> None:
        self._news.set()
        self._news = trio.Event()


class ProcessTable:
    """The processes of one tenant that run in the background, or did lately."""

    def __init__(self) -> None:
        self._all: OrderedDict[str, Process] = OrderedDict()

    @property
    def running(self) -> int:
        return sum(1 for each in self._all.values() if not each.ended.is_set())

    def require_room(self, most: int) -> None:
        """Raises :exc:`RateLimited` when ``most`` run already."""
        if self.running >= most:
            raise RateLimited(
                f"{most} commands run in the background already; end one with process kill"
            )

    def add(self, process: Process) -> None:
        self._all[process.facts.id] = process
        self._tidy()

    def of(self, agent: str) -> list[Process]:
        """Those of an agent, in the order they were started."""
        self._tidy()
        return [each for each in self._all.values() if each.facts.agent == agent]

    def find(self, process_id: str, agent: str) -> Process | None:
        """Another agent's is as unknown as one that never was."""
        self._tidy()
        found = self._all.get(process_id)
        return found if found is not None and found.facts.agent == agent else None

    def discard(self, process: Process) -> None:
        self._all.pop(process.facts.id, None)

    def _tidy(self) -> None:
        now = trio.current_time()
        ended = [each for each in self._all.values() if each.ended.is_set()]
        ended.sort(key=lambda each: each.ended_at)
        for place, process in enumerate(ended):
            is_old = process.ended_at + _KEPT_FOR <= now
            if is_old or place < len(ended) - _MOST_KEPT:
                self.discard(process)
