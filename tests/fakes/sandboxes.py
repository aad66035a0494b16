"""Sandboxes in which nothing runs: what a command prints and how it ends is written beforehand.

``FakeSandboxes`` stands for the service, ``FakeBackend`` for what is below it.
Without a script a command echoes what it is told, like ``cat`` (or a terminal),
until its input ends.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import trio
from trio.testing import memory_stream_pair

from appliance.sandboxes.base import (
    Ending,
    Probe,
    Proof,
    Sandbox,
    SandboxFailed,
    SandboxSpec,
    SandboxUnavailable,
    SandboxUsage,
    TerminalSize,
)
from appliance.services.sandboxes.output import RunResult, collect
from appliance.services.sandboxes.sandboxes import SandboxRequest, SandboxTenant

PROOF = Proof(backend="fake", probes=(Probe("nothing escapes", passed=True),), limits="cgroup v2")


@dataclass(kw_only=True)
class Script:
    """What a command does. ``behave`` does it instead, if it is given."""

    output: bytes = b""
    errors: bytes = b""
    exit_code: int = 0
    signal: int | None = None
    lasts: float = 0.0  # seconds between the last word and the end
    hangs: bool = False  # until it is killed or interrupted
    piece_bytes: int = 65_536  # of one write
    fails: str = ""  # it cannot be started, for this reason
    cpu_seconds: float = 0.01
    peak_memory_bytes: int | None = 1024 * 1024
    out_of_memory: bool = False
    behave: "Callable[[FakeSandbox], Awaitable[int]] | None" = None


ECHO = Script()


class FakeSandbox:
    """Satisfies ``sandboxes.base.Sandbox``. The command's side is ``inside``/``told``/``warn``."""

    def __init__(self, spec: SandboxSpec, script: Script) -> None:
        self.spec = spec
        self.script = script
        self.input, self._stdin = memory_stream_pair()
        self._stdout, self.output = memory_stream_pair()
        self._stderr, errors = memory_stream_pair()
        self.errors = None if spec.terminal else errors
        self.inner_pid = 2
        self.size: TerminalSize | None = spec.terminal
        self.resizes: list[TerminalSize] = []
        self.signals: list[int] = []
        self.killed = False
        self.interrupted = trio.Event()
        self._began = trio.current_time()
        self._scope = trio.CancelScope(shield=True)  # only killing ends it, as it would
        self._ended = trio.Event()
        self._ending: Ending | None = None

    # The command's side.

    async def say(self, data: bytes) -> None:
        await self._stdout.send_all(data)

    async def warn(self, data: bytes) -> None:
        await (self._stdout if self.errors is None else self._stderr).send_all(data)

    async def hear(self, most: int = 65_536) -> bytes:
        """What was written to it; b"" at the end."""
        return bytes(await self._stdin.receive_some(most))

    # The gateway's side.

    def resize(self, size: TerminalSize) -> None:
        if self.spec.terminal is not None:
            self.size = size
            self.resizes.append(size)

    def interrupt(self, signal: int) -> None:
        self.signals.append(signal)
        self.interrupted.set()

    def usage(self) -> SandboxUsage:
        return SandboxUsage(
            wall_seconds=trio.current_time() - self._began,
            cpu_seconds=self.script.cpu_seconds,
            peak_memory_bytes=self.script.peak_memory_bytes,
        )

    async def wait(self) -> Ending:
        await self._ended.wait()
        assert self._ending is not None
        return self._ending

    async def kill(self) -> None:
        if not self._ended.is_set():
            self.killed = True
        self._scope.cancel()
        await self._ended.wait()

    async def live(self) -> None:
        code = 137
        try:
            with self._scope:
                code = await self._behave()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            code = 141  # it wrote and nobody reads
        finally:
            # Also if a test is cancelled as a whole: whoever kills it waits for this.
            await self._end(code)

    async def _end(self, code: int) -> None:
        if self._scope.cancelled_caught and not self.killed and self.signals:
            code = 128 + self.signals[-1]
        self._ending = Ending(
            exit_code=137 if self.killed else code,
            signal=9 if self.killed else self.script.signal,
            killed=self.killed,
            out_of_memory=self.script.out_of_memory,
            usage=self.usage(),
        )
        with trio.CancelScope(shield=True):
            for stream in (self._stdout, self._stderr, self._stdin):
                await trio.aclose_forcefully(stream)
        self._ended.set()

    async def _behave(self) -> int:
        script = self.script
        if script.behave is not None:
            return await script.behave(self)
        if script is ECHO:
            return await self._echo()
        for data, tell in ((script.output, self.say), (script.errors, self.warn)):
            for start in range(0, len(data), script.piece_bytes):
                await tell(data[start : start + script.piece_bytes])
        if script.hangs:
            await self.interrupted.wait()
            return 128 + self.signals[-1]
        await trio.sleep(script.lasts)
        return script.exit_code

    async def _echo(self) -> int:
        while data := await self.hear():
            await self.say(data)
        return 0


@dataclass
class FakeBackend:
    """Satisfies ``sandboxes.base.SandboxBackend``.

    ``scripts`` are used up one after the other; then ``choose`` decides, if it
    is there, and after that every command echoes.
    """

    scripts: list[Script] = field(default_factory=list)
    choose: Callable[[SandboxSpec], Script] | None = None
    proof: Proof = PROOF
    name: str = "fake"
    opened: list[FakeSandbox] = field(default_factory=list)
    proved: int = 0
    swept: int = 0
    closed: bool = False

    @property
    def specs(self) -> list[SandboxSpec]:
        return [sandbox.spec for sandbox in self.opened]

    @property
    def running(self) -> int:
        return sum(not sandbox._ended.is_set() for sandbox in self.opened)

    def will(self, *scripts: Script) -> None:
        self.scripts += scripts

    @asynccontextmanager
    async def open(self, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
        script = self._next(spec)
        await trio.lowlevel.checkpoint()
        if script.fails:
            raise SandboxFailed(script.fails)
        sandbox = FakeSandbox(spec, script)
        self.opened.append(sandbox)
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sandbox.live)
            try:
                yield sandbox
            except Exception as error:  # noqa: BLE001 - raised below, outside of any group
                failure = error
            finally:
                with trio.CancelScope(shield=True):
                    await sandbox.kill()
        if failure is not None:
            raise failure

    async def prove(self) -> Proof:
        await trio.lowlevel.checkpoint()
        self.proved += 1
        return self.proof

    async def sweep(self) -> None:
        await trio.lowlevel.checkpoint()
        self.swept += 1

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.closed = True

    def _next(self, spec: SandboxSpec) -> Script:
        if self.scripts:
            return self.scripts.pop(0)
        return ECHO if self.choose is None else self.choose(spec)


class FakeSandboxes:
    """What others use of ``services.sandboxes.Sandboxes``, without quotas, files and books."""

    def __init__(self, *scripts: Script, problem: str = "") -> None:
        self.backend = FakeBackend(list(scripts))
        self.proof = Proof(backend="fake", problem=problem, limits="cgroup v2")
        self.requests: list[SandboxRequest] = []
        self.inputs: list[bytes] = []

    def will(self, *scripts: Script) -> None:
        self.backend.will(*scripts)

    def require(self) -> None:
        if not self.proof.holds:
            raise SandboxUnavailable(self.proof.problem)

    @asynccontextmanager
    async def _open(self, tenant: SandboxTenant, request: SandboxRequest) -> AsyncIterator[Sandbox]:
        self.require()
        self.requests.append(request)
        spec = SandboxSpec(
            group=tenant.id,
            workspace=-1,
            command=tuple(request.command),
            directory=request.directory,
            environment=request.environment,
            terminal=request.terminal,
        )
        async with self.backend.open(spec) as sandbox:
            yield sandbox

    def open(
        self, tenant: SandboxTenant, request: SandboxRequest
    ) -> AbstractAsyncContextManager[Sandbox]:
        return self._open(tenant, request)

    async def run(
        self,
        tenant: SandboxTenant,
        request: SandboxRequest,
        *,
        input: bytes = b"",  # noqa: A002 - as subprocess.run calls it
        timeout: float,  # noqa: ASYNC109 - the outcome tells that it passed; nothing is raised
        max_output_bytes: int,
        on_output: Callable[[bytes], None] | None = None,
    ) -> RunResult:
        self.inputs.append(input)
        async with self.open(tenant, request) as sandbox:
            return await collect(
                sandbox,
                input,
                timeout=timeout,
                max_output_bytes=max_output_bytes,
                on_output=on_output,
            )
