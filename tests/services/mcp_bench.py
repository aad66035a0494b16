"""A tenant with MCP servers that run as plain processes: fake sandboxes, real programs."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import trio

from appliance.config.loading import parse_config
from appliance.model.session_keys import SessionKey
from appliance.sandboxes.base import Ending, Sandbox, SandboxUsage, TerminalSize
from appliance.services.mcp.servers import McpServers
from appliance.services.sandboxes.sandboxes import Sandboxes, SandboxRequest, SandboxTenant
from appliance.services.tools.base import AnyParams, Tool, ToolCall, ToolResult
from appliance.storage.credentials import Vault
from tests.fakes import mcp_server
from tests.fakes.tenants import CALLER, FakeTenant, open_tenant

SCRIPT = Path(mcp_server.__file__)
MAIN = SessionKey("acme", "main", "main")
_CONFIG = {"providers": {"stub": {"dialect": "openai"}}, "models": {"default": "stub/mock"}}
_USAGE = SandboxUsage(wall_seconds=0, cpu_seconds=0, peak_memory_bytes=None)


class PlainSandbox:
    """Satisfies ``sandboxes.base.Sandbox`` around a process of this machine."""

    inner_pid = None

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self.input: trio.abc.SendStream = process.stdin
        self.output: trio.abc.ReceiveStream = process.stdout
        self.errors: trio.abc.ReceiveStream | None = process.stderr

    def resize(self, size: TerminalSize) -> None: ...

    def interrupt(self, signal: int) -> None: ...

    def usage(self) -> SandboxUsage:
        return _USAGE

    async def wait(self) -> Ending:
        return Ending(exit_code=await self.process.wait(), usage=_USAGE)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@dataclass
class PlainSandboxes:
    """What MCP uses of ``services.sandboxes.Sandboxes``."""

    requests: list[SandboxRequest] = field(default_factory=list)
    running: int = 0

    @asynccontextmanager
    async def _open(self, tenant: SandboxTenant, request: SandboxRequest) -> AsyncIterator[Sandbox]:
        self.requests.append(request)
        process = await trio.lowlevel.open_process(
            list(request.command), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env={"PATH": "/usr/bin", **request.environment},
        )  # fmt: skip
        sandbox = PlainSandbox(process)
        self.running += 1
        try:
            yield sandbox
        finally:
            with trio.CancelScope(shield=True):
                await sandbox.kill()
                for stream in (sandbox.input, sandbox.output, sandbox.errors):
                    await cast("Any", stream).aclose()
            self.running -= 1

    def open(
        self, tenant: SandboxTenant, request: SandboxRequest
    ) -> AbstractAsyncContextManager[Sandbox]:
        return self._open(tenant, request)


@dataclass
class McpBench:
    tenant: FakeTenant
    servers: McpServers
    sandboxes: PlainSandboxes
    vault: Vault

    def configure(self, servers: dict[str, Any], **more: Any) -> None:
        """``servers`` are ``defaults.tools.mcp``; ``more`` are other sections."""
        config = {**_CONFIG, "defaults": {"tools": {"mcp": servers}}, **more}
        # JSON is YAML.
        self.tenant.config = parse_config(json.dumps(config), name="config")

    async def tools(self) -> dict[str, Tool[Any]]:
        found = await self.servers.tools(cast("Any", self.tenant), "main")
        return {tool.name: tool for tool in found}

    async def call(self, name: str, **arguments: Any) -> ToolResult:
        tool = (await self.tools())[name]
        call = ToolCall(
            tenant=cast("Any", self.tenant), caller=CALLER, key=MAIN, store=self.tenant.store,
            call_id="call_1", name=name,
        )  # fmt: skip
        return await tool.call(call, AnyParams(arguments=arguments))


def vault() -> Vault:
    return Vault(b"k" * 32)


def stdio(mode: str = "good", **more: Any) -> dict[str, Any]:
    return {"command": [sys.executable, "-I", str(SCRIPT), mode], **more}


@asynccontextmanager
async def open_mcp(path: Path) -> AsyncIterator[McpBench]:
    sandboxes = PlainSandboxes()
    async with open_tenant(path) as tenant, trio.open_nursery() as nursery:
        nursery.start_soon(tenant.state.mcp.run)
        servers = McpServers(cast("Sandboxes", sandboxes), vault=vault())
        with trio.fail_after(60):
            yield McpBench(tenant, servers, sandboxes, vault())
        nursery.cancel_scope.cancel()
    assert sandboxes.running == 0
