"""A whole gateway for the isolation suite: real services on a real disk, two tenants.

Tenant ``acme`` is the one to be left alone: everything of it holds a word that
must not turn up elsewhere. Tenant ``mallory`` has valid tokens and bad intent.
"""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import trio

from appliance.cli.api_parts import ApiFoundation, raw_routes
from appliance.config.schema import AdminKeyConfig, GatewayConfig, ProviderConfig, ServerConfig
from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import Unavailable
from appliance.model.spending import Standing
from appliance.model.tokens import AdminKey, Scope, stored_digest
from appliance.services.access import Access
from appliance.services.audit import Audit
from appliance.services.credentials import ProviderKeys
from appliance.services.registry import TenantRegistry
from appliance.services.tenant_config import Overlays
from appliance.services.tenants import TenantService
from appliance.services.tickets import TicketBook, TicketService
from appliance.services.token_index import TokenIndex
from appliance.services.usage_reports import UsageReports
from appliance.storage.audit_log import AuditLog
from appliance.storage.credentials import Vault
from appliance.storage.state import StateDirectory
from appliance.storage.tenant_records import TenantRecords
from appliance.transports.callers import Peers
from appliance.transports.control.app import build_app
from appliance.transports.control.collaborators import ControlServices, GatewayFacts
from appliance.transports.control.files_door import FilesDoor
from appliance.transports.gateway import Gateway
from appliance.transports.health import Readiness
from appliance.transports.metrics import Levels, Metrics
from appliance.transports.raw.door import RawDoor
from tests.fakes.terminals import terminals_of

CANARY = "canary-of-acme"
ADMIN = AdminKey("operator-key-of-the-tests")
CONTROL_PLANE_TOKEN = "control-plane-token-of-the-tests"
OPERATOR = Caller(ActorKind.ADMIN, "tests", None)


class Clock:
    """Every look at it is a second later than the one before."""

    def __init__(self) -> None:
        self._now = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now


class Asleep:
    """Nobody is awake: what reaches a tenant's runtime is noted and goes no further."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    async def runtime(self, tenant_id: str) -> Any:
        self.reached.append(tenant_id)
        raise Unavailable("nobody wakes up in this test")

    async def perform(self, tenant: str, work: Any, *, caller: Caller) -> Any:
        return await self.runtime(tenant)

    async def stop(self, tenant: str, *, reason: str) -> None:
        """Nothing runs."""

    async def revoke(self, tenant: str, token_id: str, *, reason: str) -> None:
        """Nothing runs."""

    def refresh(self, tenant: str) -> None:
        """Nothing is held in memory."""


class Quiet:
    """The access log and the metrics of the raw doors; this suite reads neither."""

    def write(self, event: str, **fields: object) -> None:
        """Forget it."""


@dataclass(frozen=True)
class House:
    """The gateway, and whoever may knock at it."""

    app: Any
    path: Path
    asleep: Asleep
    acme: str  # a full token
    acme_token_id: str
    mallory: str
    mallorys: dict[Scope, str]  # a token of each scope

    def client(self, token: str | None = None, **headers: str) -> httpx.AsyncClient:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            named["authorization"] = f"Bearer {token}"
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, client=("192.0.2.1", 4000)),
            base_url="http://gateway.test",
            headers=named,
        )

    def snapshot(self, tenant: str) -> dict[str, bytes]:
        """Every file of a tenant, by its name below the tenant's directory."""
        root = self.path / "tenants" / tenant
        files = (file for file in sorted(root.rglob("*")) if file.is_file())
        return {str(file.relative_to(root)): file.read_bytes() for file in files}


@asynccontextmanager
async def open_house(path: Path) -> AsyncIterator[House]:
    now = Clock()
    config = GatewayConfig(
        server=ServerConfig(
            admin_keys=[AdminKeyConfig(label="tests", hash=stored_digest(ADMIN.digest()))]
        ),
        providers={"stub": ProviderConfig(dialect="openai", base_url="http://127.0.0.1:1/v1")},
    )
    index, asleep = TokenIndex(), Asleep()
    access = Access(index, cookie_key=bytes(32), clock=now)
    access.use_admin_keys(config.server.admin_keys)
    with StateDirectory.open(path, clock=now) as state:
        registry = TenantRegistry(TenantRecords(state), index)
        registry.load()
        log = AuditLog(state, clock=now)
        audit = Audit(log, clock=now)
        book = TicketBook()
        tenants = TenantService(
            registry,
            Overlays(state, config=lambda: config),
            running=asleep,
            audit=audit,
            tickets=book,
            config=lambda: config,
            clock=now,
        )
        services = ControlServices(
            access=access,
            tenants=tenants,
            terminals=terminals_of(roots=state, audit=audit),
            tickets=TicketService(book, registry, access=access, audit=audit, clock=now),
            usage=UsageReports(roots=state, currency=lambda: "USD"),
            audit=audit,
            provider_keys=ProviderKeys(
                state, Vault.open(state), audit=audit, running=asleep, config=lambda: config
            ),
            metrics=Metrics(version="0", levels=_levels),
            access_log=Quiet(),
            config=lambda: config,
            peers=lambda: Peers(behind_proxy=False, trusted_proxies=[]),
            clock=now,
            holds=registry.__contains__,
            control_plane_digest=lambda: hashlib.sha256(CONTROL_PLANE_TOKEN.encode()).digest(),
            readiness=lambda: Readiness((), (), 0.0),
            facts=partial(_facts, registry),
            standing=_standing,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(audit.run)
            yield await _furnish(services, asleep, path)
            nursery.cancel_scope.cancel()
        log.close()


async def _furnish(services: ControlServices, asleep: Asleep, path: Path) -> House:
    tenants = services.tenants
    overlay = {"defaults": {"agents": {"main": {"instructions": CANARY}}}}
    acme = await tenants.create(
        OPERATOR, tenant_id="acme", name=CANARY, quotas={"terminals": 7}, config=overlay
    )
    await tenants.create_token(OPERATOR, "acme", label=CANARY)
    await services.provider_keys.put(OPERATOR, "acme", "stub", api_key=CANARY)
    mallory = await tenants.create(OPERATOR, tenant_id="mallory", name="Mallory")
    mallorys = {
        scope: (await tenants.create_token(OPERATOR, "mallory", scopes=[scope])).text
        for scope in Scope
    }
    return House(
        app=_app(services, asleep),
        path=path,
        asleep=asleep,
        acme=acme.token_text,
        acme_token_id=acme.token.id,
        mallory=mallory.token_text,
        mallorys=mallorys,
    )


def _app(services: ControlServices, asleep: Asleep) -> Gateway:
    nothing: Any = None  # reached by nobody who gets past the gate: they end at Asleep
    door = RawDoor(
        config=services.config,
        access=services.access,
        holds=services.holds,
        log=Quiet(),
        metrics=services.metrics,
    )
    raw = raw_routes(
        ApiFoundation(
            door=door,
            tenants=asleep,
            calls=nothing,
            turns=nothing,
            tools=nothing,
            counts=nothing,
            list_models=nothing,
            started_at=services.clock(),
            clock=services.clock,
        )
    )
    control = FilesDoor(services, tenants=asleep, contents=nothing, framework=build_app(services))
    return Gateway(raw, control, nothing)


def _levels() -> Levels:
    return Levels(
        ready=True,
        tenants_known=2,
        tenants_disabled=0,
        tenants_broken=0,
        tenants_awake=0,
        loop_lag_p99_ms=0.0,
        disk_free_bytes=10**9,
    )


def _facts(registry: TenantRegistry) -> GatewayFacts:
    return GatewayFacts(
        started_at=datetime(2026, 11, 21, tzinfo=UTC),
        tenants_known=len(registry),
        tenants_disabled=registry.disabled_count,
        tenants_awake=0,
        broken=registry.broken,
        disk_free_bytes=10**9,
        config_problem=None,
        providers=["stub"],
    )


async def _standing(_tenant: str) -> Standing:
    return Standing(quotas=())
