"""The tools of a tenant's MCP servers, for its agents."""

import importlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from appliance.config.tool_schema import McpServerConfig
from appliance.model.mcp_tools import RemoteTool
from appliance.model.tool_policy import matches
from appliance.services.mcp.results import read_result
from appliance.services.mcp.server import (
    CallTimedOut,
    Link,
    McpServer,
    ServerGone,
    ServerRefused,
)
from appliance.services.sandboxes.sandboxes import Sandboxes
from appliance.services.tools.base import (
    AnyParams,
    Effect,
    Source,
    Tool,
    ToolCall,
    ToolFailed,
    ToolResult,
    ToolTenant,
)
from appliance.storage.credentials import Vault

log = logging.getLogger(__name__)

GROUP = "mcp"
_PATIENCE = 15.0  # seconds that a turn waits for servers whose tools nobody knows yet
_MOST_ERROR = 2000  # characters of a server's own


class McpServers:
    """Satisfies ``ToolSource``. ``vault`` opens the tenants' credentials."""

    def __init__(self, sandboxes: Sandboxes, *, vault: Vault) -> None:
        self._sandboxes = sandboxes
        self._vault = vault
        self._loading = trio.Lock()

    async def tools(self, tenant: ToolTenant, agent: str, /) -> Sequence[Tool[Any]]:
        """What is known of each server; one that is not known is started and waited for."""
        del agent  # the servers are the tenant's, and run in the workspace of its main agent
        servers = self._servers(tenant)
        unknown = [server for server in servers if not server.is_listed]
        for server in unknown:
            # Who has failed before makes nobody wait once more.
            if server.failures:
                tenant.state.mcp.nudge(server)
        unknown = [server for server in unknown if not server.failures]
        if unknown:
            with trio.move_on_after(_PATIENCE):
                async with trio.open_nursery() as nursery:
                    for server in unknown:
                        nursery.start_soon(self._learn, tenant, server)
        return [
            self._tool(server, remote)
            for server in servers
            for remote in server.tools
            if not matches(server.config.deny, remote.name, GROUP)
        ]

    def _servers(self, tenant: ToolTenant) -> list[McpServer]:
        if not tenant.config.defaults.tools.mcp and not tenant.state.mcp.servers:
            return []
        return tenant.state.mcp.enabled(tenant.config, partial(self._connect, tenant))

    async def _learn(self, tenant: ToolTenant, server: McpServer) -> None:
        try:
            await tenant.state.mcp.ready(server)
        except ServerGone as error:
            log.debug("an MCP server is not there", extra={"reason": str(error)})

    def _tool(self, server: McpServer, remote: RemoteTool) -> Tool[AnyParams]:
        return Tool(
            name=remote.offered_as,
            group=GROUP,
            label=remote.title,
            description=f"[of the MCP server {server.name}] {remote.description}".rstrip(),
            params=AnyParams,
            call=partial(self._call, server.name, remote.name),
            # Nobody here knows what it does; what the server says of it would be
            # a stranger's word for its own harmlessness.
            effect=Effect.EXECUTE,
            is_parallel=server.config.url is not None,
            schema=remote.schema,
        )

    async def _call(self, name: str, remote: str, call: ToolCall, params: AnyParams) -> ToolResult:
        tenant = call.tenant
        servers = {server.name: server for server in self._servers(tenant)}
        server = servers.get(name)
        if server is None:
            raise ToolFailed(f"the MCP server {name} is not configured any more")
        config = server.config
        try:
            with server.in_use():
                link = await tenant.state.mcp.ready(server)
                answer = await link.call(
                    remote, params.arguments, limit=config.call_timeout, progress=call.update
                )
        except ServerGone as error:
            raise ToolFailed(f"the MCP server {name} is not available: {error}") from None
        except CallTimedOut:
            limit = f"{config.call_timeout:g} s"
            raise ToolFailed(f"the MCP server {name} did not answer within {limit}") from None
        except ServerRefused as error:
            return ToolResult(
                text=str(error)[:_MOST_ERROR],
                is_error=True,
                untrusted=Source.MCP,
                details={"server": name},
            )
        return read_result(
            answer,
            server=name,
            most_bytes=config.max_result_bytes,
            reads_pictures=call.model_reads_pictures,
        )

    @asynccontextmanager
    async def _connect(
        self, tenant: ToolTenant, name: str, config: McpServerConfig
    ) -> AsyncIterator[Link]:
        async with self._loading:
            # In a thread, since it takes a second or two, which nobody else shall wait.
            await trio.to_thread.run_sync(
                importlib.import_module, "appliance.services.mcp.connection"
            )
        # Here, so that only who has a server loads the SDK: some 50 MB.
        from appliance.services.mcp.connection import connect

        opened = connect(tenant, name, config, sandboxes=self._sandboxes, vault=self._vault)
        async with opened as link:
            yield link
