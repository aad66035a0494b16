"""The control plane in memory: the real app and gate, behind services made of dictionaries."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from appliance.config.schema import AdminKeyConfig, GatewayConfig, ServerConfig
from appliance.model.audit import Actor, AuditEntry, Result
from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import AlreadyExists, PreconditionFailed, TenantUnknown, TicketRejected
from appliance.model.quotas import Quotas, parse_quotas
from appliance.model.spending import QuotaStanding, Standing
from appliance.model.tenants import TenantRecord
from appliance.model.tokens import (
    AdminKey,
    Scope,
    TenantToken,
    TokenRecord,
    stored_digest,
)
from appliance.model.usage import TokenUsage
from appliance.services.access import Access
from appliance.services.tenants import (
    ConfigDocument,
    CreatedTenant,
    MintedToken,
    TenantPage,
    TenantQuotas,
    TenantService,
    Unset,
)
from appliance.services.token_index import TokenIndex
from appliance.services.usage_reports import UsageLine, UsageSums, UsageTable
from appliance.storage.credentials import ProviderEntry
from appliance.storage.usage import Granularity
from appliance.transports.callers import Peers
from appliance.transports.control.app import build_app
from appliance.transports.control.collaborators import ControlServices, GatewayFacts
from appliance.transports.control.route import Route
from appliance.transports.control.table import ROUTES
from appliance.transports.health import Readiness
from appliance.transports.metrics import Levels, Metrics
from tests.fakes.terminals import terminals_of

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ADMIN = AdminKey("operator-key-of-the-tests")
CONTROL_PLANE_TOKEN = "control-plane-token-of-the-tests"


def clock() -> datetime:
    return NOW


class FakeTenants(TenantService):
    """Remembers; refuses nothing that the gate should have refused."""

    def __init__(self, index: TokenIndex) -> None:
        self.index = index
        self.records: dict[str, TenantRecord] = {}
        self.overlays: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, Caller, str]] = []

    def add(self, tenant: str, *scopes: Scope) -> str:
        """Make a tenant with one token and return the token."""
        token = TenantToken.generate(tenant)
        record = self.records.get(tenant) or TenantRecord(tenant, "", NOW)
        entry = TokenRecord(
            id=f"tok_{tenant}_{len(record.tokens)}",
            label="",
            digest=token.digest(),
            scopes=frozenset(scopes or (Scope.FULL,)),
            created_at=NOW,
        )
        self._keep(replace(record, tokens=(*record.tokens, entry)))
        return token.text

    async def create(
        self,
        caller: Caller,
        *,
        tenant_id: str | None = None,
        name: str = "",
        quotas: Mapping[str, object] | None = None,
        config: Mapping[str, object] | None = None,
        template: str | None = None,
    ) -> CreatedTenant:
        tenant = tenant_id or "made-up"
        self._note("create", caller, tenant)
        if tenant in self.records:
            raise AlreadyExists(f"there is a tenant {tenant!r} already")
        limits = parse_quotas(quotas or {})
        self._keep(TenantRecord(tenant, name, NOW, quotas=limits))
        self.overlays[tenant] = dict(config or {})
        text = self.add(tenant)
        record = self.records[tenant]
        return CreatedTenant(record, record.tokens[0], text)

    async def list(
        self, caller: Caller, *, limit: int = 100, cursor: str | None = None, query: str = ""
    ) -> TenantPage:
        self._note("list", caller, "")
        found = [self.records[name] for name in sorted(self.records) if query in name]
        found = [record for record in found if cursor is None or record.id > cursor]
        more = found[limit - 1].id if len(found) > limit else None
        return TenantPage(tuple(found[:limit]), more, {"torn": "tenant.json is cut off"})

    async def get(self, caller: Caller, tenant_id: str) -> TenantRecord:
        return self._require("get", caller, tenant_id)

    async def update(
        self,
        caller: Caller,
        tenant_id: str,
        *,
        name: str | Unset = Unset.UNSET,
        disabled: bool | Unset = Unset.UNSET,
        reason: str = "",
    ) -> TenantRecord:
        record = self._require("update", caller, tenant_id)
        if not isinstance(name, Unset):
            record = replace(record, name=name)
        if not isinstance(disabled, Unset):
            record = replace(record, disabled=disabled, disabled_reason=reason)
        return self._keep(record)

    async def delete(self, caller: Caller, tenant_id: str, *, delete_data: bool = False) -> None:
        self._require(f"delete {delete_data}", caller, tenant_id)
        del self.records[tenant_id]
        self.index.drop(tenant_id)

    async def rotate(
        self, caller: Caller, tenant_id: str, *, grace: timedelta = timedelta()
    ) -> MintedToken:
        self._require(f"rotate {grace.total_seconds():.0f}", caller, tenant_id)
        text = self.add(tenant_id)
        return MintedToken(self.records[tenant_id].tokens[-1], text)

    async def create_token(
        self,
        caller: Caller,
        tenant_id: str,
        *,
        label: str = "",
        scopes: Iterable[Scope | str] = (Scope.FULL,),
        expires_in: timedelta | None = None,
        models: Iterable[str] = (),
    ) -> MintedToken:
        self._require("create_token", caller, tenant_id)
        text = self.add(tenant_id, *(Scope(scope) for scope in scopes))
        expires = None if expires_in is None else NOW + expires_in
        token = self.records[tenant_id].tokens[-1]
        changed = replace(token, label=label, expires_at=expires, models=tuple(models))
        return MintedToken(changed, text)

    async def list_tokens(self, caller: Caller, tenant_id: str) -> tuple[TokenRecord, ...]:
        return self._require("list_tokens", caller, tenant_id).tokens

    async def revoke_token(self, caller: Caller, tenant_id: str, token_id: str) -> None:
        self._require(f"revoke {token_id}", caller, tenant_id)

    async def quotas(self, caller: Caller, tenant_id: str) -> TenantQuotas:
        record = self._require("quotas", caller, tenant_id)
        return TenantQuotas(record.limits(Quotas(requests_per_minute=600)), record.quotas)

    async def put_quotas(
        self, caller: Caller, tenant_id: str, raw: Mapping[str, object]
    ) -> TenantQuotas:
        record = self._require("put_quotas", caller, tenant_id)
        self._keep(replace(record, quotas=parse_quotas(raw)))
        return await self.quotas(caller, tenant_id)

    async def config(self, caller: Caller, tenant_id: str) -> ConfigDocument:
        self._require("config", caller, tenant_id)
        overlay = self.overlays.setdefault(tenant_id, {})
        etag = hashlib.sha256(repr(sorted(overlay)).encode()).hexdigest()[:16]
        return ConfigDocument(overlay, {"defaults": {}, **overlay}, etag)

    async def put_config(
        self, caller: Caller, tenant_id: str, raw: object, *, if_match: str | None = None
    ) -> ConfigDocument:
        now = await self.config(caller, tenant_id)
        if if_match not in {None, now.etag}:
            raise PreconditionFailed("the configuration changed since it was read")
        assert isinstance(raw, dict)
        self.overlays[tenant_id] = raw
        return await self.config(caller, tenant_id)

    async def patch_config(
        self, caller: Caller, tenant_id: str, patch: object, *, if_match: str | None = None
    ) -> ConfigDocument:
        assert isinstance(patch, dict)
        merged = self.overlays.get(tenant_id, {}) | patch
        return await self.put_config(caller, tenant_id, merged, if_match=if_match)

    def _keep(self, record: TenantRecord) -> TenantRecord:
        self.records[record.id] = record
        self.index.put(record)
        return record

    def _note(self, verb: str, caller: Caller, tenant: str) -> None:
        self.calls.append((verb, caller, tenant))

    def _require(self, verb: str, caller: Caller, tenant: str) -> TenantRecord:
        self._note(verb, caller, tenant)
        if tenant not in self.records:
            raise TenantUnknown("there is no such tenant")
        return self.records[tenant]


@dataclass(frozen=True)
class FakeTicket:
    text: str
    expires_at: datetime


@dataclass(frozen=True)
class FakeSession:
    cookie: str
    expires_at: datetime


class FakeTickets:
    def __init__(self, access: Access, tenants: FakeTenants) -> None:
        self._access = access
        self._tenants = tenants
        self.open: dict[str, str] = {}
        self.ended: list[str] = []

    async def end(self, caller: Caller) -> None:
        self.ended.append(caller.credential)

    async def issue(self, caller: Caller, tenant_id: str, *, ttl: timedelta | None) -> FakeTicket:
        text = f"ticket_{len(self.open)}"
        self.open[text] = tenant_id
        return FakeTicket(text, NOW + (ttl or timedelta(minutes=5)))

    async def redeem(
        self, text: str, *, tenant: str | None, request_id: str, ip: str
    ) -> FakeSession:
        tenant = self.open.pop(text, None)
        if tenant is None:
            raise TicketRejected("the ticket was used, has expired or never was one")
        session = self._tenants.records[tenant].tokens[0].id
        return FakeSession(self._access.cookie(tenant, session), NOW + timedelta(hours=12))


class FakeAudit:
    def __init__(self) -> None:
        self.asked: list[tuple[str | None, int, int | None]] = []

    async def tail(
        self, caller: Caller, *, limit: int, tenant: str | None, before: int | None
    ) -> Sequence[AuditEntry]:
        self.asked.append((tenant, limit, before))
        last = 40 if before is None else before - 1
        lines = [_line(seq, tenant) for seq in range(last, max(0, last - limit), -1)]
        return lines if caller.is_admin else [line.for_tenant() for line in lines]


def _line(seq: int, tenant: str | None) -> AuditEntry:
    return AuditEntry(
        ts=NOW,
        seq=seq,
        actor=Actor(ActorKind.ADMIN, "first"),
        tenant=tenant,
        action="tenant.update",
        target="",
        result=Result.OK,
        ip="192.0.2.9",
        request_id="req_1",
        details={},
        prev="0" * 64,
        hash="1" * 64,
    )


class FakeKeys:
    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}

    async def list(self, caller: Caller, tenant_id: str) -> Sequence[ProviderEntry]:
        return [
            ProviderEntry(name, None, None) for tenant, name in self.kept if tenant == tenant_id
        ]

    async def put(
        self,
        caller: Caller,
        tenant_id: str,
        provider: str,
        *,
        api_key: str,
        dialect: str | None = None,
        base_url: str | None = None,
    ) -> ProviderEntry:
        self.kept[tenant_id, provider] = api_key
        return ProviderEntry(provider, dialect, base_url)

    async def delete(self, caller: Caller, tenant_id: str, provider: str) -> None:
        self.kept.pop((tenant_id, provider), None)


SUMS = UsageSums(
    requests=3,
    usage=TokenUsage(input=10, output=20, reasoning=5),
    tool_calls=0,
    sandbox_ms=0,
    cost_nano=1_500_000_000,
    unpriced_requests=1,
    estimated_requests=0,
)
LINE = UsageLine(3, SUMS.usage, 0, 0, SUMS.cost_nano, 1, 0, NOW, "acme", None, "USD")


class FakeUsage:
    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def report(self, caller: Caller, **wanted: Any) -> UsageTable:
        self.asked.append(wanted)
        return UsageTable(
            wanted["start"], wanted["end"], Granularity.DAY, None, "USD", (LINE,), SUMS, ("torn",)
        )

    def csv(self, table: Any) -> str:
        return "period,tenant\r\n" + "".join(f"x,{line.tenant}\r\n" for line in table.lines)


class Lines:
    """The access log."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []

    def write(self, event: str, **fields: object) -> None:
        self.written.append({"event": event, **fields})


class Bench:
    """One gateway's control plane; change its parts before the first request."""

    def __init__(self, **server: Any) -> None:
        key = AdminKeyConfig(label="first", hash=stored_digest(ADMIN.digest()))
        self.config = GatewayConfig(server=ServerConfig(admin_keys=[key], **server))
        self.index = TokenIndex()
        self.access = Access(self.index, cookie_key=bytes(32), clock=clock)
        self.access.use_admin_keys(self.config.server.admin_keys)
        self.tenants = FakeTenants(self.index)
        self.tickets = FakeTickets(self.access, self.tenants)
        self.audit = FakeAudit()
        self.keys = FakeKeys()
        self.usage = FakeUsage()
        self.lines = Lines()
        self.readiness = Readiness((), (), 1.5)
        self.metrics = Metrics(
            version="0", levels=self._levels, routes=[route.path for route in ROUTES]
        )
        self.services = ControlServices(
            access=self.access,
            tenants=self.tenants,
            terminals=terminals_of(),
            tickets=self.tickets,
            usage=self.usage,
            audit=self.audit,
            provider_keys=self.keys,
            metrics=self.metrics,
            access_log=self.lines,
            config=lambda: self.config,
            peers=self._peers,
            clock=clock,
            holds=lambda tenant: tenant in self.tenants.records,
            control_plane_digest=lambda: hashlib.sha256(CONTROL_PLANE_TOKEN.encode()).digest(),
            readiness=lambda: self.readiness,
            facts=self._facts,
            standing=self._standing,
        )
        self.routes: tuple[Route, ...] = ROUTES

    def app(self) -> Any:
        return build_app(self.services, routes=self.routes)

    def client(
        self,
        token: str | None = None,
        *,
        route_tenant: str | None = None,
        peer: tuple[str, int] = ("192.0.2.1", 40000),
        scheme: str = "http",
        **headers: str,
    ) -> httpx.AsyncClient:
        """A client at the gateway; ``route_tenant`` is what a /t/<id>/ prefix would have left."""
        app = self.app()

        async def door(scope: Any, receive: Any, send: Any) -> None:
            if route_tenant is not None:
                scope["openclaw.route_tenant"] = route_tenant
            await app(scope, receive, send)

        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            named["authorization"] = f"Bearer {token}"
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(door, client=peer),
            base_url=f"{scheme}://gateway.test",
            headers=named,
        )

    def admin(self, **options: Any) -> httpx.AsyncClient:
        return self.client(ADMIN.text, **options)

    def _peers(self) -> Peers:
        server = self.config.server
        return Peers(behind_proxy=server.behind_proxy, trusted_proxies=server.trusted_proxies)

    def _levels(self) -> Levels:
        return Levels(
            ready=self.readiness.ready,
            tenants_known=len(self.tenants.records),
            tenants_disabled=0,
            tenants_broken=1,
            tenants_awake=0,
            loop_lag_p99_ms=1.5,
            disk_free_bytes=10**9,
        )

    def _facts(self) -> GatewayFacts:
        return GatewayFacts(
            started_at=NOW - timedelta(minutes=5),
            tenants_known=len(self.tenants.records),
            tenants_disabled=0,
            tenants_awake=0,
            broken={"torn": "tenant.json is cut off"},
            disk_free_bytes=10**9,
            config_problem=None,
            providers=["stub"],
        )

    async def _standing(self, tenant: str) -> Standing:
        quota = QuotaStanding("cost_per_day", 5 * 10**9, None, 10**9, 0, NOW)
        return Standing(quotas=(quota,))
