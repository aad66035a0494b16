"""A gateway's tenancy on a real state directory, with nothing awake behind it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trio

from appliance.config.loading import parse_config
from appliance.config.schema import GatewayConfig
from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import AuditUnavailable
from appliance.model.tokens import Scope
from appliance.services.access import Access
from appliance.services.registry import TenantRegistry
from appliance.services.tenant_config import Overlays
from appliance.services.tenants import CreatedTenant, TenantService
from appliance.services.tickets import TicketBook, TicketService
from appliance.services.token_index import TokenIndex
from appliance.storage.state import StateDirectory
from appliance.storage.tenant_records import FILE, TenantRecords

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ADMIN = Caller(ActorKind.ADMIN, "first", None, request_id="req_1", ip="192.0.2.1")

CONFIG = """
models: {default: stub/mock}
providers: {stub: {dialect: openai, base_url: "http://127.0.0.1:9101/v1"}}
quotas: {requests_per_minute: 600, cost_per_month: "50.00"}
templates:
  trial: {name: Trial, quotas: {tokens_per_day: 1000}, config: {models: {aliases: {fast: stub/a}}}}
"""


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def go_on(self, **time: float) -> None:
        self.now += timedelta(**time)


@dataclass
class FakeRunning:
    """Notes what it was told to end, and what was true at that moment."""

    access: Access | None = None
    state: StateDirectory | None = None
    calls: list[tuple[str, ...]] = field(default_factory=list)
    seen_on_disk: list[bytes] = field(default_factory=list)

    async def stop(self, tenant: str, *, reason: str) -> None:
        self._look(tenant)
        self.calls.append(("stop", tenant, reason))
        await trio.lowlevel.checkpoint()

    async def revoke(self, tenant: str, token_id: str, *, reason: str) -> None:
        self._look(tenant)
        self.calls.append(("revoke", tenant, token_id, reason))
        await trio.lowlevel.checkpoint()

    def refresh(self, tenant: str) -> None:
        self.calls.append(("refresh", tenant))

    def _look(self, tenant: str) -> None:
        assert self.state is not None
        path = self.state.path / "tenants" / tenant / FILE
        self.seen_on_disk.append(path.read_bytes() if path.exists() else b"")


@dataclass
class FakeAudit:
    """Notes actions; can be told to be out of order."""

    actions: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    broken: bool = False

    @asynccontextmanager
    async def action(
        self,
        caller: Caller,
        action: str,
        *,
        tenant: str | None = None,
        target: str = "",
        details: Mapping[str, object] | None = None,
    ) -> AsyncIterator[None]:
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
            if self.broken:
                raise AuditUnavailable("the disk hangs")
            self.actions.append(
                {
                    "by": caller.credential,
                    "action": action,
                    "tenant": tenant,
                    "target": target,
                    "details": dict(details or {}),
                }
            )
            try:
                yield
            except Exception:
                self.failed.append(action)
                raise

    @property
    def names(self) -> list[str]:
        return [action["action"] for action in self.actions]


class Tenancy:
    """Everything of services that keeps tenants, wired as ``serve`` wires it."""

    def __init__(self, path: Path) -> None:
        self.state = StateDirectory.open(path)
        self.clock = Clock()
        self.gateway: GatewayConfig = parse_config(CONFIG, name="config.yaml")
        self.audit = FakeAudit()
        self.running = FakeRunning()
        self.index = TokenIndex()
        self.access = Access(self.index, cookie_key=b"k" * 32, clock=self.clock)
        self.registry = TenantRegistry(TenantRecords(self.state), self.index)
        self.registry.load()
        self.book = TicketBook()
        self.tenants = TenantService(
            self.registry,
            Overlays(self.state, config=lambda: self.gateway),
            running=self.running,
            audit=self.audit,
            tickets=self.book,
            config=lambda: self.gateway,
            clock=self.clock,
        )
        self.tickets = TicketService(
            self.book, self.registry, access=self.access, audit=self.audit, clock=self.clock
        )
        self.running.access = self.access
        self.running.state = self.state

    def close(self) -> None:
        self.state.close()

    def restarted(self) -> "Tenancy":
        """The same state directory after a restart."""
        self.close()
        again = Tenancy(self.state.path)
        again.clock.now = self.clock.now
        return again

    def file(self, tenant: str, name: str = FILE) -> Path:
        return self.state.path / "tenants" / tenant / name

    async def make(self, tenant: str = "acme", **wanted: Any) -> CreatedTenant:
        return await self.tenants.create(ADMIN, tenant_id=tenant, **wanted)

    async def caller(self, tenant: str, *scopes: Scope) -> Caller:
        """Somebody with a new token of ``tenant``."""
        minted = await self.tenants.create_token(ADMIN, tenant, scopes=scopes or (Scope.FULL,))
        return self.access.authenticate(minted.text)
