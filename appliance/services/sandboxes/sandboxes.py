"""Commands run for a tenant: within its quotas, in its workspace, on its books.

Nothing in here isolates anything; that is the backend's business. This is
where a tenant's rights become a ``SandboxSpec``, and where it is accounted
for. A sandbox lives as long as the block that opened it, which is work of the
tenant, so none outlives its tenant.
"""

import posixpath
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

import trio

from appliance.config.schema import GatewayConfig
from appliance.model.ids import new_id
from appliance.sandboxes.base import (
    WORKSPACE,
    Access,
    Bind,
    Proof,
    Sandbox,
    SandboxBackend,
    SandboxFailed,
    SandboxSpec,
    SandboxUnavailable,
    TerminalSize,
)
from appliance.services.meter import Meter
from appliance.services.sandboxes.books import Bill, SandboxBooks
from appliance.services.sandboxes.egress import Egress, SandboxEgress
from appliance.services.sandboxes.limits import limits_of_all, limits_of_one, require_quotas
from appliance.services.sandboxes.output import RunResult as RunResult
from appliance.services.sandboxes.output import collect
from appliance.services.sandboxes.running import RunningSandbox
from appliance.services.sandboxes.starts import SandboxStarts
from appliance.services.workspaces import find_workspace, hidden_from, make_ready
from appliance.storage.paths import TenantRoot
from appliance.storage.workspace import Workspace

_RESTRICTION = (Access.WRITE, Access.READ, Access.NONE)
_PROVING = 20.0  # seconds that a first sandbox waits for the self-test


class SandboxTenant(Protocol):
    """A running tenant, as far as its sandboxes need it."""

    @property
    def id(self) -> str: ...
    @property
    def root(self) -> TenantRoot: ...
    @property
    def config(self) -> GatewayConfig: ...
    @property
    def meter(self) -> Meter: ...


class DiskGuard(Protocol):
    """``DiskWatch``."""

    async def admit(self, tenant: SandboxTenant, /) -> int | None: ...
    def began(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxRequest:
    """What to run. ``run_id``, ``session`` and ``credential`` are for the books."""

    agent: str  # whose workspace
    command: Sequence[str]
    directory: str = WORKSPACE  # absolute inside, or relative to the workspace
    environment: Mapping[str, str] = field(default_factory=dict)
    purpose: str = "exec"  # exec, terminal, mcp or search
    terminal: TerminalSize | None = None
    has_egress: bool = True  # the tenant's rules apply; False: no network at all
    access: Access | None = None  # None: as configured
    session: str | None = None
    run_id: str = ""
    credential: str = ""  # the token's id


class Sandboxes:
    """``watch`` refuses who has no room on the disk, ``egress`` is the way out; None is none."""

    def __init__(
        self,
        *,
        books: SandboxBooks,
        clock: Callable[[], datetime],
        egress: SandboxEgress | None = None,
    ) -> None:
        self.starts = SandboxStarts()
        self.watch: DiskGuard | None = None  # which in turn looks at what runs here
        self._books = books
        self._clock = clock
        self._egress = egress
        self._backend: SandboxBackend | None = None
        self._proof = Proof(backend="", problem="the isolation is being tested; try again")
        self._is_proved = trio.Event()

    # What there is

    @property
    def proof(self) -> Proof:
        """What the latest self-test found."""
        return self._proof

    @property
    def is_proved(self) -> bool:
        """Whether there has been one since the start."""
        return self._is_proved.is_set()

    def use(self, backend: SandboxBackend | None, proof: Proof) -> None:
        """From now on; None is none, ``proof`` says why. What runs goes on with what it has."""
        self._backend = backend
        self._proof = proof
        self._is_proved.set()

    def require(self) -> None:
        """Raise :exc:`SandboxUnavailable`, with the reason, where nothing can be run."""
        self._require_backend()

    # Running something

    def open(
        self, tenant: SandboxTenant, request: SandboxRequest
    ) -> AbstractAsyncContextManager[Sandbox]:
        """Start a command; leaving kills what is left of it and waits for that.

        If the gateway ends it, its ``Ending`` says why. Raises ``SandboxUnavailable``,
        ``SandboxFailed``, ``QuotaExceeded``, ``RateLimited``, ``DiskFull``,
        ``PathRefused`` and, for what cannot be passed on, ``InvalidRequest``.
        """
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
        """Run a command to its end, or to ``timeout``, and return what it printed.

        Raises what :meth:`open` raises.
        """
        async with self._open(tenant, request) as sandbox:
            result = await collect(
                sandbox,
                input,
                timeout=timeout,
                max_output_bytes=max_output_bytes,
                on_output=on_output,
            )
            reason = sandbox.reason or result.reason
            return replace(result, over_disk=sandbox.over_disk, reason=reason)

    @asynccontextmanager
    async def _open(
        self, tenant: SandboxTenant, request: SandboxRequest
    ) -> AsyncIterator[RunningSandbox]:
        backend = await self._proved_backend()
        require_quotas(tenant.meter.limits)
        number = new_id("sbx")
        bill = Bill(
            meter=tenant.meter,
            purpose=request.purpose,
            session=request.session,
            run_id=request.run_id,
            credential=request.credential,
        )
        async with AsyncExitStack() as stack:
            stack.enter_context(self.starts.taken(tenant.id))
            left = None if self.watch is None else await self.watch.admit(tenant)
            # Last of all on the way out, when everything is known that was used.
            stack.callback(self._books.settle, bill)
            stack.callback(tenant.root.room.changed)
            if request.has_egress and self._egress is not None:
                way_out = self._egress.open(tenant, sandbox=number, run_id=request.run_id)
                bill.egress = await stack.enter_async_context(way_out)
            workspace = stack.enter_context(await self._workspace(tenant, request.agent))
            handle = stack.enter_context(workspace.handle())
            spec = _spec(tenant, request, workspace=handle, egress=bill.egress, left=left)
            opened = await self._start(stack, backend, spec, bill)
            sandbox = bill.sandbox = RunningSandbox(
                opened,
                id=number,
                tenant=tenant.id,
                agent=request.agent,
                purpose=request.purpose,
                command=request.command[0],
                started_at=self._clock(),
            )
            stack.enter_context(self.starts.noted(sandbox))
            stack.callback(sandbox.left)
            if self.watch is not None:
                self.watch.began()
            yield sandbox

    async def _start(
        self, stack: AsyncExitStack, backend: SandboxBackend, spec: SandboxSpec, bill: Bill
    ) -> Sandbox:
        async with self.starts.turn(spec.group):
            began = trio.current_time()
            try:
                opened = await stack.enter_async_context(backend.open(spec))
            except SandboxFailed:
                self._books.failed(bill)
                raise
            self._books.started(trio.current_time() - began)
            return opened

    async def _workspace(self, tenant: SandboxTenant, agent: str) -> Workspace:
        found = find_workspace(tenant, agent)
        if found is not None and found.is_handed_over:
            return found
        if found is not None:
            found.close()
        async with self.starts.handover(tenant.id):
            return await make_ready(tenant, agent)

    async def _proved_backend(self) -> SandboxBackend:
        if not self._is_proved.is_set():
            with trio.move_on_after(_PROVING):
                await self._is_proved.wait()
        return self._require_backend()

    def _require_backend(self) -> SandboxBackend:
        if self._backend is None or not self._proof.holds:
            raise SandboxUnavailable(self._proof.problem)
        return self._backend


def _spec(
    tenant: SandboxTenant,
    request: SandboxRequest,
    *,
    workspace: int,
    egress: Egress | None,
    left: int | None,
) -> SandboxSpec:
    config, quotas = tenant.config, tenant.meter.limits
    egress = egress or Egress()
    return SandboxSpec(
        group=tenant.id,
        workspace=workspace,
        command=egress.wrap(request.command),
        directory=posixpath.normpath(posixpath.join(WORKSPACE, request.directory)),
        environment={
            **egress.environment,
            **config.defaults.sandbox.environment,
            **request.environment,
        },
        access=_access(config, request),
        hidden=sorted(hidden_from(request.agent)),
        limits=limits_of_one(config.sandbox.limits, quotas, left=left),
        group_limits=limits_of_all(quotas),
        binds=[_bind(text) for text in config.sandbox.binds],
        egress=egress.door,
        terminal=request.terminal,
    )


def _access(config: GatewayConfig, request: SandboxRequest) -> Access:
    """What is asked for, and never more than is configured."""
    configured = Access(config.defaults.sandbox.workspace)
    return max(configured, request.access or configured, key=_RESTRICTION.index)


def _bind(text: str) -> Bind:
    """As ``BindMount`` has checked it: ``/SOURCE:/TARGET`` or ``/SOURCE:/TARGET:rw``."""
    source, target, *mode = text.split(":")
    return Bind(source, target, is_writable=mode == ["rw"])
