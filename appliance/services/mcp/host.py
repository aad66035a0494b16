"""The MCP servers of one tenant, as long as it is awake.

Their connections are a service of the tenant: they begin when somebody needs
them, keep nobody awake, and end with the tenant. A call of a tool is the work
of whoever calls.
"""

from collections.abc import Mapping

import trio

from appliance.config.schema import GatewayConfig
from appliance.services.mcp.server import Connect, Link, McpServer, ServerGone

_STARTING = 5.0  # seconds for the tenant's services to begin


class McpHost:
    def __init__(self) -> None:
        self._servers: dict[str, McpServer] = {}
        self._nursery: trio.Nursery | None = None
        self._runs = trio.Event()

    @property
    def servers(self) -> Mapping[str, McpServer]:
        return self._servers

    async def run(self) -> None:
        """Keep the connections until cancelled."""
        async with trio.open_nursery() as self._nursery:
            self._runs.set()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery, self._runs = None, trio.Event()

    def use(self, config: GatewayConfig) -> None:
        """End what is not configured any more, or differently."""
        for name, server in list(self._servers.items()):
            if _settings(config, name) != server.settings:
                server.retire()
                del self._servers[name]

    def enabled(self, config: GatewayConfig, connect: Connect) -> list[McpServer]:
        """The servers that are configured now."""
        self.use(config)
        for name, wanted in config.defaults.tools.mcp.items():
            if wanted.enabled and name not in self._servers:
                self._servers[name] = McpServer(
                    name, wanted, connect, settings=_settings(config, name)
                )
        return list(self._servers.values())

    def nudge(self, server: McpServer) -> None:
        """Try one again that has failed, for whoever comes later."""
        if self._nursery is not None:
            server.nudge(self._nursery)

    async def ready(self, server: McpServer) -> Link:
        """Raises :exc:`ServerGone`."""
        with trio.move_on_after(_STARTING):
            await self._runs.wait()
        if self._nursery is None:
            raise ServerGone("the tenant is going to sleep")
        return await server.ready(self._nursery)


def _settings(config: GatewayConfig, name: str) -> object:
    """All that a connection is made from; None for one that shall not be."""
    wanted = config.defaults.tools.mcp.get(name)
    if wanted is None or not wanted.enabled:
        return None
    egress = config.egress
    return wanted, egress.allow_private, egress.only, egress.allow
