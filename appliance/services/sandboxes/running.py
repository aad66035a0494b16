"""A sandbox while it runs for a tenant: who, what for, and why it was ended if it was."""

from dataclasses import replace
from datetime import datetime

import trio

from appliance.sandboxes.base import Ending, Sandbox, SandboxUsage, TerminalSize


class RunningSandbox:
    """Satisfies ``sandboxes.base.Sandbox`` around one; an ending by us says why."""

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        id: str,  # noqa: A002 - what it is
        tenant: str,
        agent: str,
        purpose: str,
        command: str,
        started_at: datetime,
    ) -> None:
        self._sandbox = sandbox
        self.id = id
        self.tenant = tenant
        self.agent = agent
        self.purpose = purpose
        self.command = command  # its first word
        self.started_at = started_at
        self.reason = ""
        self.over_disk = False
        self._is_killed = False
        self._has_ended = False
        self.input = sandbox.input
        self.output = sandbox.output
        self.errors: trio.abc.ReceiveStream | None = sandbox.errors

    @property
    def inner_pid(self) -> int | None:
        return self._sandbox.inner_pid

    def resize(self, size: TerminalSize) -> None:
        self._sandbox.resize(size)

    def interrupt(self, signal: int) -> None:
        self._sandbox.interrupt(signal)

    def usage(self) -> SandboxUsage:
        return self._sandbox.usage()

    @property
    def was_killed(self) -> bool:
        return self._is_killed

    async def wait(self) -> Ending:
        ending = await self._sandbox.wait()
        self._has_ended = True
        return replace(ending, reason=self.reason) if self.reason else ending

    async def kill(self) -> None:
        if not self._has_ended:
            self._is_killed = True
        await self._sandbox.kill()

    async def end(self, reason: str, *, over_disk: bool = False) -> None:
        """Kill it and let whoever waits for it know why; the first reason counts."""
        if not self.reason:
            self.reason = reason
            self.over_disk = over_disk
        await self.kill()

    def left(self) -> None:
        """Whoever ran it is done with it; what had not ended by then was killed."""
        if not self._has_ended:
            self._is_killed = True
