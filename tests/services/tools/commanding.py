"""Agents that run commands: the two tools over sandboxes in which nothing runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.model.session_keys import DEFAULT_AGENT
from appliance.services.processes import Process
from appliance.services.tools import exec as exec_tool
from appliance.services.tools import processes as process_tool
from appliance.services.tools.base import Tool, ToolResult
from appliance.services.tools.exec import Commands
from tests.fakes.sandboxes import FakeSandbox, FakeSandboxes
from tests.services.approving import ApprovalBench, open_approvals


@dataclass
class CommandBench:
    people: ApprovalBench
    sandboxes: FakeSandboxes
    exec: Tool[Any]
    process: Tool[Any]

    async def run(self, command: str = "make", **more: Any) -> ToolResult:
        about = {name: more.pop(name) for name in ("agent", "tainted", "rest") if name in more}
        return await self.people.bench.call(self.exec, {"command": command, **more}, **about)

    async def follow(self, action: str, process_id: str | None = None, **more: Any) -> ToolResult:
        about = {name: more.pop(name) for name in ("agent", "tainted", "rest") if name in more}
        arguments = {"action": action, **more}
        if process_id is not None:
            arguments["sessionId"] = process_id
        return await self.people.bench.call(self.process, arguments, **about)

    async def left_running(self, command: str = "serve", **more: Any) -> str:
        """Start it in the background; return what it is called."""
        result = await self.run(command, background=True, **more)
        assert result.details["status"] == "running", result
        return str(result.details["sessionId"])

    @property
    def inside(self) -> FakeSandbox:
        """The latest sandbox, from within."""
        return self.sandboxes.backend.opened[-1]

    def found(self, process_id: str, agent: str = DEFAULT_AGENT) -> Process:
        process = self.people.tenant.state.processes.find(process_id, agent)
        assert process is not None
        return process

    @property
    def told(self) -> list[tuple[str | None, str]]:
        """What the agent is to be told, by session."""
        return [(each.session, each.text) for each in self.people.tenant.state.system_texts]


@asynccontextmanager
async def open_commands(
    path: Path, sandboxes: Commands | None = None
) -> AsyncIterator[CommandBench]:
    async with open_approvals(path) as people:
        fake = FakeSandboxes()
        clock = people.clock
        (run,) = exec_tool.tools(sandboxes or fake, people.approvals, clock=clock)
        (follow,) = process_tool.tools(people.approvals)
        # Read now: a thread would let a clock jump that jumps.
        await people.approvals.policy.rules(people.tenant, DEFAULT_AGENT)
        yield CommandBench(people, fake, run, follow)
