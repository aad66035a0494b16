"""Methods about settings, called on a real tenancy without a connection."""

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import trio

from appliance.config.overlay import effective
from appliance.config.schema import GatewayConfig
from appliance.model.callers import ActorKind, Caller
from appliance.model.tokens import Scope
from appliance.services.agents import AgentService
from appliance.services.events import Event, TenantEvents
from appliance.services.routing import CatalogueEntry, Router
from appliance.services.tenant_state import TenantState
from appliance.services.usage_reports import UsageReports
from appliance.storage.paths import TenantRoot
from appliance.transports.rpc.method import Method, MethodCall
from appliance.transports.rpc.reading import read_params
from tests.services.tenancy import Tenancy


@dataclass
class FakeTenant:
    """As much of a tenant that is awake as settings need."""

    id: str
    tenancy: Tenancy
    root: TenantRoot
    events: TenantEvents = field(default_factory=TenantEvents)
    state: TenantState = field(default_factory=TenantState)
    keys: dict[str, str] = field(default_factory=dict)
    meter: Any = None

    @property
    def config(self) -> GatewayConfig:
        return effective(self.tenancy.gateway, self.tenancy.tenants._overlays.find(self.id))

    def provider_key(self, provider: str) -> str | None:
        return self.keys.get(provider)


class Heard:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def deliver(self, event: Event) -> None:
        self.events.append(event)


class Bench:
    """One tenant with everything that its methods are given."""

    def __init__(self, tenancy: Tenancy, methods: Sequence[Method]) -> None:
        self.tenancy = tenancy
        self.methods: Mapping[str, Method] = {method.name: method for method in methods}
        self.caller = Caller(ActorKind.TENANT, "tok_1", "acme", frozenset({Scope.FULL}))
        self.catalogue: list[CatalogueEntry] = []
        self.tenant: FakeTenant | None = None
        self.services = SimpleNamespace(
            tenants=tenancy.tenants,
            agents=AgentService(
                tenancy.tenants, gateway=lambda: tenancy.gateway, audit=tenancy.audit
            ),
            router=Router(dict, clock=tenancy.clock),
            catalogue=self._list_models,
            usage=UsageReports(roots=tenancy.state, currency=lambda: "USD"),
            config=lambda: tenancy.gateway,
            clock=tenancy.clock,
            version="1.2.3",
        )

    async def open(self, tenant: str = "acme", **wanted: Any) -> FakeTenant:
        await self.tenancy.make(tenant, **wanted)
        path = self.tenancy.state.path / "tenants" / tenant
        root = TenantRoot(tenant, os.open(path, os.O_RDONLY | os.O_DIRECTORY))
        self.tenant = FakeTenant(tenant, self.tenancy, root)
        return self.tenant

    async def call(self, name: str, /, **params: Any) -> Any:
        """The result of a method as a client reads it."""
        method = self.methods[name]
        call = MethodCall(
            method=method,
            params=read_params(method.params, params, method=name),
            caller=self.caller,
            client=cast("Any", None),
            tenant=cast("Any", self.tenant),
            services=cast("Any", self.services),
            respond=_never,
        )
        assert method.handler is not None
        answer = await method.handler(call)
        return msgspec.json.decode(msgspec.json.encode(answer))

    async def _list_models(self, tenant: FakeTenant) -> Sequence[CatalogueEntry]:
        await trio.lowlevel.checkpoint()
        return self.catalogue


@asynccontextmanager
async def open_bench(path: Path, methods: Sequence[Method], **wanted: Any) -> AsyncIterator[Bench]:
    """A bench with the tenant ``acme``."""
    tenancy = Tenancy(path / "state")
    tenant = None
    try:
        bench = Bench(tenancy, methods)
        tenant = await bench.open(**wanted)
        yield bench
    finally:
        if tenant is not None:
            tenant.root.close()
        tenancy.close()


_never = cast("Callable[[Any], None]", None)
