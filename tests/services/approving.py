"""A tenant with people at its clients who may approve what its agents ask."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import trio

from appliance.model.exec_policy import ExecOrder
from appliance.services.approvals.approvals import Approvals
from appliance.services.approvals.pending import Decision, Pending
from appliance.services.events import Event
from tests.books import HandClock
from tests.fakes.awake import FakeClient, someone
from tests.fakes.tenants import CALLER, FakeTenant
from tests.services.tenancy import FakeAudit
from tests.services.tools.calling import ToolBench, open_bench


@dataclass
class ApprovalBench:
    """``answers`` is how the user answers, if there is one; None is silence."""

    bench: ToolBench
    nursery: trio.Nursery
    approvals: Approvals
    audit: FakeAudit
    clock: HandClock
    answers: Callable[[dict[str, Any]], Decision | None] = lambda _: None
    events: list[Event] = field(default_factory=list)

    @property
    def tenant(self) -> FakeTenant:
        return self.bench.tenant

    def deliver(self, event: Event) -> None:
        self.events.append(event)
        if event.name == "exec.approval.requested":
            told = msgspec.json.decode(event.payload)
            decision = self.answers(told)
            if decision is not None:
                self.nursery.start_soon(self.answer, told["id"], decision)

    async def answer(self, approval_id: str, decision: Decision, **more: Any) -> Pending:
        return await self.approvals.resolve(
            self.tenant, CALLER, approval_id, decision, by="Ada", **more
        )

    def heard(self, name: str) -> list[dict[str, Any]]:
        found = [each for each in self.events if each.name == f"exec.approval.{name}"]
        return [msgspec.json.decode(event.payload) for event in found]

    def connect(self, **more: Any) -> FakeClient:
        """Somebody who may approve."""
        client = FakeClient(id=f"conn-{len(self.tenant.clients)}", caller=someone("acme"), **more)
        self.tenant.clients.add(client)
        return client

    def configure(self, **settings: Any) -> None:
        """Set ``defaults.tools.exec``, and ``untrusted`` for what needs approval."""
        untrusted = settings.pop("untrusted", [])
        said = msgspec.json.encode(
            {"exec": settings, "untrusted": {"needs_approval": untrusted}}
        ).decode()
        self.bench.configure(f"  tools: {said}\n")

    def always(self, decision: Decision) -> None:
        self.answers = lambda _: decision


@asynccontextmanager
async def open_approvals(path: Path) -> AsyncIterator[ApprovalBench]:
    async with open_bench(path) as bench, trio.open_nursery() as nursery:
        audit, clock = FakeAudit(), HandClock()
        approvals = Approvals(audit=audit, clock=clock)
        made = ApprovalBench(bench, nursery, approvals, audit, clock)
        await nursery.start(bench.tenant.jobs.run)
        with bench.tenant.events.subscribed(made):
            yield made
        nursery.cancel_scope.cancel()


def order(command: str = "rm -r build", **more: Any) -> ExecOrder:
    return ExecOrder(command=command, directory=more.pop("directory", "/workspace"), **more)
