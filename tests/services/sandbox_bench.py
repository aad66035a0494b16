"""A tenant whose sandboxes are the fakes' and whose books, files and disk watch are real."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from appliance.config.loading import parse_config
from appliance.model.quotas import Quotas
from appliance.sandboxes.base import SandboxUsage
from appliance.services.disk_usage import DiskUsage
from appliance.services.sandboxes.books import SandboxBooks
from appliance.services.sandboxes.disk_watch import DiskWatch
from appliance.services.sandboxes.egress import SandboxEgress
from appliance.services.sandboxes.sandboxes import RunResult, Sandboxes, SandboxRequest
from appliance.services.workspaces import open_workspace
from appliance.storage.paths import FreeSpace
from appliance.storage.workspace_handover import hand_over
from tests.books import HandClock
from tests.fakes.sandboxes import PROOF, FakeBackend
from tests.fakes.tenants import CONFIG, FakeTenant, open_tenant

PLENTY = FreeSpace(10**12, 10**9)


@dataclass
class Counted:
    """Satisfies ``SandboxCounters``."""

    starts: list[float] = field(default_factory=list)
    ends: list[tuple[str, str, int]] = field(default_factory=list)

    def started(self, seconds: float) -> None:
        self.starts.append(seconds)

    def ended(self, *, purpose: str, outcome: str, usage: SandboxUsage, egress_bytes: int) -> None:
        self.ends.append((purpose, outcome, egress_bytes))


@dataclass
class SandboxBench:
    tenant: FakeTenant
    backend: FakeBackend
    sandboxes: Sandboxes
    watch: DiskWatch
    home: Path  # of the tenant
    clock: HandClock
    counted: Counted
    free: list[FreeSpace]
    learned: list[DiskUsage]

    def configure(self, yaml: str) -> None:
        self.tenant.config = parse_config(CONFIG + yaml, name="config")

    def limit(self, **quotas: int | None) -> None:
        self.tenant.meter.limits = self.tenant.meter.limits.merged(quotas)

    def ready(self, *agents: str) -> None:
        """Make the workspaces now: a thread looks idle to a clock that jumps."""
        for agent in agents:
            with open_workspace(self.tenant, agent) as workspace:
                for _ in hand_over(workspace):
                    pass

    async def run(
        self,
        *command: str,
        input: bytes = b"",  # noqa: A002 - as the service calls it
        timeout: float = 60,  # noqa: ASYNC109 - as the service calls it
        most: int = 10_000,
        **more: Any,
    ) -> RunResult:
        with trio.fail_after(1000):
            return await self.sandboxes.run(
                self.tenant,
                ask(*command, **more),
                input=input,
                timeout=timeout,
                max_output_bytes=most,
            )


def ask(*command: str, **more: Any) -> SandboxRequest:
    return SandboxRequest(**{"agent": "main", "command": command or ("cat",), **more})


@asynccontextmanager
async def open_sandboxes(
    path: Path,
    *,
    limits: Quotas = Quotas(),  # noqa: B008 - a value
    egress: SandboxEgress | None = None,
    proved: bool = True,
    tenants: Sequence[Any] | None = None,
) -> AsyncIterator[SandboxBench]:
    clock, counted, backend = HandClock(), Counted(), FakeBackend()
    free: list[FreeSpace] = [PLENTY]
    learned: list[DiskUsage] = []
    async with open_tenant(path, limits=limits) as tenant:
        sandboxes = Sandboxes(
            books=SandboxBooks(clock=clock, counters=counted), clock=clock, egress=egress
        )
        watch = DiskWatch(
            tenants=lambda: [tenant] if tenants is None else tenants,
            running=sandboxes.starts.of,
            free=lambda: free[0],
            clock=clock,
            learn=lambda _, usage: learned.append(usage),
        )
        sandboxes.watch = watch
        if proved:
            sandboxes.use(backend, PROOF)
        yield SandboxBench(
            tenant, backend, sandboxes, watch, path / "tenant", clock, counted, free, learned
        )
