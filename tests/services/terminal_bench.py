"""A tenant with terminals in sandboxes that are none, and clients that look on."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import trio

from appliance.config.schema import GatewayConfig
from appliance.model.callers import ActorKind, Caller
from appliance.model.quotas import Quotas
from appliance.model.tokens import Scope
from appliance.services.clients import ConnectedClients
from appliance.services.meter import Meter
from appliance.services.tenant_state import TenantState
from appliance.services.terminals.life import Terminal
from appliance.services.terminals.parts import TerminalParts
from appliance.services.terminals.recordings import Recordings
from appliance.services.terminals.terminals import SpawnRequest, Terminals
from appliance.storage.paths import TenantRoot
from tests.fakes.awake import FakeClient, someone
from tests.fakes.sandboxes import FakeSandbox, FakeSandboxes, Script
from tests.services.tenancy import NOW, FakeAudit, Tenancy

OPERATOR = Caller(ActorKind.ADMIN_ON_BEHALF, "helpdesk", "acme")


@dataclass(eq=False)
class Job:
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)

    def cancel(self) -> None:
        self.scope.cancel()


class Tenant:
    """Satisfies ``TerminalTenant``; its jobs are tasks of the test."""

    def __init__(self, root: TenantRoot, nursery: trio.Nursery) -> None:
        self.id = root.tenant
        self.root = root
        self.config = GatewayConfig()
        self.state = TenantState()
        self.clients = ConnectedClients()
        self.limits = Quotas()
        self.jobs: list[tuple[Caller, Job]] = []
        self._nursery = nursery

    @property
    def meter(self) -> Meter:
        return cast("Meter", SimpleNamespace(limits=self.limits))

    def start(self, work: Callable[[], Awaitable[None]], *, caller: Caller) -> Job:
        job = Job()
        self.jobs.append((caller, job))

        async def run() -> None:
            with job.scope:
                await work()
            job.ended.set()

        self._nursery.start_soon(run)
        return job

    def settle(self, **terminal: Any) -> None:
        """Change ``defaults.sandbox.terminal``."""
        sandbox = self.config.defaults.sandbox
        changed = msgspec.structs.replace(sandbox.terminal, **terminal)
        sandbox = msgspec.structs.replace(sandbox, terminal=changed)
        defaults = msgspec.structs.replace(self.config.defaults, sandbox=sandbox)
        self.config = msgspec.structs.replace(self.config, defaults=defaults)


class MovingClock:
    """Goes as Trio's clock does."""

    def __init__(self) -> None:
        self._began = trio.current_time()

    def __call__(self) -> datetime:
        return NOW + timedelta(seconds=trio.current_time() - self._began)


class Viewer(FakeClient):
    """A client that shows what it is sent."""

    @property
    def events(self) -> list[str]:
        return [name for name, _ in self.sent]

    def heard(self, name: str) -> list[dict[str, Any]]:
        return [payload for event, payload in self.sent if event == name]

    @property
    def text(self) -> str:
        return "".join(each["data"] for each in self.heard("terminal.output"))

    @property
    def notices(self) -> list[tuple[str, str]]:
        return [(each["kind"], each["message"]) for each in self.heard("terminal.notice")]


class TerminalBench:
    def __init__(self, tenancy: Tenancy, nursery: trio.Nursery) -> None:
        self.sandboxes = FakeSandboxes()
        self.audit: FakeAudit = tenancy.audit
        self.clock = MovingClock()
        self.tenant = Tenant(tenancy.state.tenant_root("acme"), nursery)
        self.dead: set[str] = set()  # credentials that grant nothing any more
        self.recordings = Recordings(roots=tenancy.state, audit=self.audit)
        self.terminals = Terminals(
            TerminalParts(
                sandboxes=self.sandboxes,
                audit=self.audit,
                clock=self.clock,
                is_live=lambda caller: caller.credential not in self.dead,
            ),
            recordings=self.recordings,
            awake=lambda: [self.tenant],
            wake=self._wake,
        )

    async def _wake(self, tenant: str) -> Tenant:
        await trio.lowlevel.checkpoint()
        assert tenant == self.tenant.id
        return self.tenant

    def connect(self, name: str = "c1", caller: Caller | None = None) -> Viewer:
        client = Viewer(id=name, caller=caller or someone("acme"))
        self.tenant.clients.add(client)
        return client

    def support(self, name: str = "helper") -> Viewer:
        return self.connect(name, OPERATOR)

    def leave(self, client: Viewer) -> None:
        client.is_leaving = True
        self.tenant.clients.discard(client)

    async def spawn(
        self, client: Viewer, script: Script | None = None, **request: Any
    ) -> tuple[Terminal, FakeSandbox]:
        if script is not None:
            self.sandboxes.will(script)
        terminal = await self.terminals.spawn(
            self.tenant,
            client.caller,
            client,
            SpawnRequest(agent="main", **request),
            welcome=lambda opened: client.sent.append(("welcome", opened.id)),
        )
        return terminal, self.sandboxes.backend.opened[-1]

    def write(self, client: Viewer, terminal: Terminal, data: str) -> int:
        return self.terminals.write(self.tenant, client.caller, client, terminal.id, data)

    async def attach(self, client: Viewer, terminal: Terminal, **how: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def welcome(_: Terminal, replay: Any, mode: Any) -> None:
            found.update(
                data=replay.data, offset=replay.offset, truncated=replay.truncated, mode=mode
            )

        await self.terminals.attach(
            self.tenant, client.caller, client, terminal.id, welcome=welcome, **how
        )
        return found

    def ack(self, client: Viewer, terminal: Terminal, offset: int) -> int:
        return self.terminals.acknowledge(self.tenant, client, terminal.id, offset)

    def limited(self, **quotas: int) -> None:
        self.tenant.limits = replace(self.tenant.limits, **quotas)


@asynccontextmanager
async def open_bench(tenancy: Tenancy) -> AsyncIterator[TerminalBench]:
    await tenancy.make()
    async with trio.open_nursery() as nursery:
        bench = TerminalBench(tenancy, nursery)
        try:
            yield bench
        finally:
            nursery.cancel_scope.cancel()
            bench.tenant.root.close()


def program(behave: Callable[[FakeSandbox], Awaitable[int]]) -> Script:
    return Script(behave=behave)


def reader(*scopes: Scope) -> Caller:
    return someone("acme", *scopes)
