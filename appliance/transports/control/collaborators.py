"""What the control plane is given to work with. Nothing in it is global."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from appliance.config.schema import GatewayConfig
from appliance.model.audit import AuditEntry
from appliance.model.callers import Caller
from appliance.model.spending import Standing
from appliance.sandboxes.base import Proof
from appliance.services.tenants import TenantService
from appliance.services.terminals.terminals import Terminals
from appliance.services.usage_reports import UsageTable
from appliance.transports.callers import Authenticator, Peers
from appliance.transports.health import Readiness
from appliance.transports.metrics import Metrics


class LiveAuthenticator(Authenticator, Protocol):
    def is_live(self, caller: Caller) -> bool:
        """Whether the credential that made ``caller`` still grants anything."""


class IssuedTicket(Protocol):
    @property
    def text(self) -> str: ...
    @property
    def expires_at(self) -> datetime: ...


class OpenedSession(Protocol):
    @property
    def cookie(self) -> str: ...
    @property
    def expires_at(self) -> datetime: ...


class Tickets(Protocol):
    """Tickets, each good for one browser session."""

    async def issue(
        self, caller: Caller, tenant_id: str, *, ttl: timedelta | None
    ) -> IssuedTicket: ...

    async def redeem(
        self, text: str, *, tenant: str | None, request_id: str, ip: str
    ) -> OpenedSession:
        """Use the ticket up. Raises ``TicketRejected``."""

    async def end(self, caller: Caller) -> None:
        """End the session that ``caller`` is. Raises ``InvalidRequest`` if it is none."""


class AuditTrail(Protocol):
    async def tail(
        self, caller: Caller, *, limit: int, tenant: str | None, before: int | None
    ) -> Sequence[AuditEntry]:
        """The newest entries, newest first; ``before`` is the number of one."""


class ProviderKeyInfo(Protocol):
    @property
    def provider(self) -> str: ...
    @property
    def dialect(self) -> str | None: ...
    @property
    def base_url(self) -> str | None: ...


class ProviderKeys(Protocol):
    """A tenant's own keys for model providers. Their text never comes out."""

    async def list(self, caller: Caller, tenant_id: str) -> Sequence[ProviderKeyInfo]: ...
    async def put(
        self,
        caller: Caller,
        tenant_id: str,
        provider: str,
        *,
        api_key: str,
        dialect: str | None = None,
        base_url: str | None = None,
    ) -> ProviderKeyInfo: ...
    async def delete(self, caller: Caller, tenant_id: str, provider: str) -> None: ...


class UsageReports(Protocol):
    async def report(
        self,
        caller: Caller,
        *,
        tenant: str | None,
        start: datetime,
        end: datetime,
        granularity: str,
        group_by: str | None,
    ) -> UsageTable:
        """What was used from ``start`` to before ``end``; of all tenants if none is named."""

    def csv(self, table: UsageTable) -> str: ...


class AccessLog(Protocol):
    def write(self, event: str, **fields: object) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayFacts:
    """The gateway as its status shows it to an admin."""

    started_at: datetime
    tenants_known: int
    tenants_disabled: int
    tenants_awake: int
    broken: Mapping[str, str]
    disk_free_bytes: int
    config_problem: str | None
    providers: Sequence[str]
    sandbox: Proof = field(default_factory=lambda: Proof(backend=""))
    sandboxes_running: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlServices:
    access: LiveAuthenticator
    tenants: TenantService
    terminals: Terminals
    tickets: Tickets
    usage: UsageReports
    audit: AuditTrail
    provider_keys: ProviderKeys
    metrics: Metrics
    access_log: AccessLog
    config: Callable[[], GatewayConfig]
    peers: Callable[[], Peers]
    clock: Callable[[], datetime]
    holds: Callable[[str], bool]  # whether a tenant is this gateway's
    control_plane_digest: Callable[[], bytes | None]  # SHA-256 of the token; None: not set
    readiness: Callable[[], Readiness]
    facts: Callable[[], GatewayFacts]
    standing: Callable[[str], Awaitable[Standing]]  # wakes the tenant
