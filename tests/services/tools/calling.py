"""Calling a tool as the agent loop does, of a tenant that is awake."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from appliance.config.loading import parse_config
from appliance.model.callers import Caller
from appliance.model.session_keys import SessionKey
from appliance.services.tools.base import AnyParams, Tool, ToolCall, ToolResult
from appliance.services.workspaces import open_workspace, workspace_of
from tests.fakes.tenants import CALLER, CONFIG, FakeTenant, open_tenant


@dataclass
class ToolBench:
    """``home`` is the tenant's directory; ``workspace`` is that of the agent ``main``."""

    tenant: FakeTenant
    home: Path
    updates: list[str] = field(default_factory=list)

    @property
    def workspace(self) -> Path:
        return self.place_of("main")

    def place_of(self, agent: str) -> Path:
        """The directory of an agent's workspace."""
        with open_workspace(self.tenant, agent):
            return self.home / workspace_of(agent)

    def configure(self, yaml: str) -> None:
        """Put ``yaml`` behind the fake tenant's usual config; ``defaults`` is its last section."""
        self.tenant.config = parse_config(CONFIG + yaml, name="config")

    def made(
        self, name: str = "", *, agent: str = "main", caller: Caller = CALLER, **more: Any
    ) -> ToolCall:
        key = SessionKey(self.tenant.id, agent, more.pop("rest", "main"))
        given: dict[str, Any] = {"call_id": "call_1", "run_id": "run_1", "channel": "webchat"}
        return ToolCall(
            tenant=self.tenant,
            caller=caller,
            key=key,
            store=self.tenant.store,
            name=name,
            update=self.updates.append,
            **{**given, **more},
        )

    async def call(
        self, tool: Tool[Any], arguments: dict[str, Any], *, agent: str = "main", **more: Any
    ) -> ToolResult:
        """Read ``arguments`` as the agent loop would, and run the tool."""
        if issubclass(tool.params, AnyParams):
            params: Any = tool.params(arguments=arguments)
        else:
            params = msgspec.convert(arguments, tool.params, strict=False)
        return await tool.call(self.made(tool.name, agent=agent, **more), params)


@asynccontextmanager
async def open_bench(path: Path) -> AsyncIterator[ToolBench]:
    async with open_tenant(path) as tenant:
        yield ToolBench(tenant, path / "tenant")
