"""Every part of one gateway, built bottom-up: the only place where concrete classes meet."""

import hashlib
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import SystemRandom

import appliance
from appliance.cli.api_parts import ApiFoundation, raw_routes
from appliance.cli.init import key_from
from appliance.cli.sandbox_parts import SandboxFoundation, SandboxParts
from appliance.cli.state import CONFIG
from appliance.cli.tool_parts import add_web_tools
from appliance.cli.websocket_parts import Foundation, WebSocketParts
from appliance.config.live import LiveConfig
from appliance.config.rules import exposure_problem
from appliance.config.schema import AdminKeyConfig, GatewayConfig, ProviderConfig
from appliance.config.secrets import resolve
from appliance.log import LineWriter, configure, set_level
from appliance.model.errors import ConfigInvalid
from appliance.model.money import Price
from appliance.model.spending import Standing
from appliance.model.tokens import stored_digest
from appliance.providers.building import build_http_provider
from appliance.providers.embedded import EmbeddedProvider
from appliance.providers.provider_set import ProviderSet
from appliance.services.access import Access
from appliance.services.approvals.approvals import Approvals
from appliance.services.audit import Audit
from appliance.services.checks import Finding, Vitals, run_checks
from appliance.services.credentials import ProviderKeys
from appliance.services.disk_usage import DiskSizes
from appliance.services.key_rings import KeyRings
from appliance.services.last_use import LastUse
from appliance.services.loop_lag import LoopLag
from appliance.services.mcp.servers import McpServers
from appliance.services.model_calls import ModelCalls
from appliance.services.rate_card import RateCard
from appliance.services.registry import TenantRegistry
from appliance.services.response_cache import ResponseCache
from appliance.services.routing import CatalogueEntry, Router
from appliance.services.tenant_config import Overlays
from appliance.services.tenants import TenantService
from appliance.services.terminals.parts import TerminalParts
from appliance.services.terminals.recordings import Recordings
from appliance.services.terminals.terminals import Terminals
from appliance.services.tickets import TicketBook, TicketService
from appliance.services.token_counts import TokenCounts
from appliance.services.token_index import TokenIndex
from appliance.services.tools.toolbox import Toolbox
from appliance.services.turns.prompts import Prompts
from appliance.services.turns.turns import Turns
from appliance.services.usage_reports import UsageReports
from appliance.storage.audit_log import AuditLog
from appliance.storage.credentials import ProviderCredential, Vault
from appliance.storage.state import SECRETS, StateDirectory
from appliance.storage.tenant_records import TenantRecords
from appliance.tenants.directory import Supervisor
from appliance.tenants.resources import OwnProvider, TenantOpener, provider_config
from appliance.tenants.runtime import Conditions, TenantRuntime
from appliance.tenants.supervision import RestartPolicy
from appliance.transports.callers import Peers
from appliance.transports.control.app import build_app
from appliance.transports.control.collaborators import ControlServices, GatewayFacts
from appliance.transports.control.files_door import FilesDoor
from appliance.transports.control.table import ROUTES
from appliance.transports.gateway import Gateway
from appliance.transports.health import Health
from appliance.transports.metrics import Levels, Metrics
from appliance.transports.raw.door import RawDoor

log = logging.getLogger(__name__)

_COOKIE_KEY = f"{SECRETS}/cookie-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How a gateway is started."""

    state_dir: Path
    config: Path | None = None  # None: config.yaml of the state directory
    bind: str | None = None  # overrides server.bind
    environ: Mapping[str, str]


def now() -> datetime:
    return datetime.now(UTC)


class Parts:
    """The parts, wired up; running them is the caller's business."""

    def __init__(self, setup: Setup, state: StateDirectory) -> None:
        self._setup = setup
        self._state = state
        self._started_at = now()
        self._given_key = key_from(setup.environ)
        path = setup.config or setup.state_dir / CONFIG
        self.live = LiveConfig(path, checks=(self._check_config,))
        self.log = _configured_log(self.live.current)
        self.bind = setup.bind or self.live.current.server.bind
        _refuse_exposure(self.live.current, self.bind)

        self.lag = LoopLag()
        self._audit_log = AuditLog(state, clock=now)
        self.audit = Audit(self._audit_log, clock=now)
        self.index = TokenIndex()
        self.registry = TenantRegistry(TenantRecords(state), self.index)
        self.registry.load()
        for tenant, reason in self.registry.broken.items():
            log.error("the tenant is kept out", extra={"tenant": tenant, "reason": reason})
        self.access = Access(self.index, cookie_key=_cookie_key(state), clock=now)
        self.vault = Vault.open(state)
        self._build_services()
        self._build_doors()
        self._use_config(self.live.current)
        self.live.subscribe(self._use_config)
        self.live.subscribe(self.sandbox.use_config)

    def _build_services(self) -> None:
        self.providers = ProviderSet(
            self.live.current,
            resolve=self._resolve,
            build_embedded=self._build_embedded,
            clock=now,
        )
        self.router = Router(self.providers.current, clock=now)
        self.rate_card = RateCard.from_config(self.live.current, clock=now)
        self.supervisor = Supervisor(
            TenantOpener(
                registry=self.registry,
                roots=self._state,
                vault=self.vault,
                config=lambda: self.live.current,
                build_provider=self._build_own,
                clock=now,
            ),
            limits=lambda: self.live.current.server,
            conditions=Conditions(
                is_live=self.access.is_live, policy=RestartPolicy(), random=SystemRandom()
            ),
            clock=now,
            fell_asleep=LastUse(self.registry).flush,
        )
        book = TicketBook()
        self.tickets = TicketService(
            book, self.registry, access=self.access, audit=self.audit, clock=now
        )
        self.tenants = TenantService(
            self.registry,
            Overlays(self._state, config=lambda: self.live.current),
            running=self.supervisor,
            audit=self.audit,
            tickets=book,
            config=lambda: self.live.current,
            clock=now,
        )
        self.metrics = Metrics(
            version=appliance.__version__,
            levels=self._levels,
            routes=sorted({route.path for route in ROUTES}),
            per_tenant=self.live.current.metrics.per_tenant,
            holds=self.registry.__contains__,
        )
        self.calls = ModelCalls(
            router=self.router,
            providers=self.providers.current,
            price=self._price,
            count=self.metrics.model_call,
            keys=KeyRings(self.providers.keys, clock=now),
            cache=ResponseCache(lambda: self.live.current.server.response_cache_bytes),
        )
        self.toolbox = Toolbox()
        add_web_tools(self.toolbox, vault=self.vault)
        self.approvals = Approvals(audit=self.audit, clock=now)
        self.turns = Turns(
            self.calls,
            clock=now,
            toolbox=self.toolbox,
            prompts=Prompts(clock=now),
            gate=self.approvals,
        )
        self.disk_sizes = DiskSizes(self._state, clock=now)
        self.sandbox = SandboxParts(
            SandboxFoundation(
                state=self._state,
                vault=self.vault,
                config=lambda: self.live.current,
                clock=now,
                counters=self.metrics.sandboxes,
                awake=lambda: self.supervisor.awake_tenants,
                disk_sizes=self.disk_sizes,
            )
        )
        self.sandboxes = self.sandbox.sandboxes
        self.toolbox.add_source(McpServers(self.sandboxes, vault=self.vault))
        self.usage = UsageReports(
            roots=self._state, currency=lambda: self.live.current.billing.currency
        )
        self.terminals = Terminals(
            TerminalParts(
                sandboxes=self.sandboxes,
                audit=self.audit,
                clock=now,
                is_live=self.access.is_live,
            ),
            recordings=Recordings(roots=self._state, audit=self.audit),
            awake=lambda: self.supervisor.awake_tenants,
            wake=self.supervisor.runtime,
        )
        self.health = Health(lag=self.lag, vitals=self._vitals)

    def _build_doors(self) -> None:
        door = RawDoor(
            config=lambda: self.live.current,
            access=self.access,
            holds=self.registry.__contains__,
            log=self.log,
            metrics=self.metrics,
        )
        self.websocket = WebSocketParts(self._foundation())
        raw = raw_routes(
            ApiFoundation(
                door=door,
                tenants=self.supervisor,
                calls=self.calls,
                turns=self.turns,
                tools=self.websocket.services.tools,
                counts=TokenCounts(self.router, self.providers.current, self.calls.rules),
                list_models=self._list_models,
                started_at=self._started_at,
                clock=now,
            )
        )
        services = self._control_services()
        control = FilesDoor(
            services,
            tenants=self.supervisor,
            contents=self.websocket.services.workspaces,
            framework=build_app(services),
        )
        self.app = Gateway(raw, control, self.websocket.door)

    def _foundation(self) -> Foundation:
        return Foundation(
            state=self._state,
            config=lambda: self.live.current,
            clock=now,
            log=self.log,
            access=self.access,
            index=self.index,
            audit=self.audit,
            registry=self.registry,
            supervisor=self.supervisor,
            tenants=self.tenants,
            usage=self.usage,
            router=self.router,
            calls=self.calls,
            turns=self.turns,
            terminals=self.terminals,
            toolbox=self.toolbox,
            approvals=self.approvals,
            sandboxes=self.sandboxes,
            disk_sizes=self.disk_sizes,
            metrics=self.metrics,
            peers=self._current_peers,
            facts=self._facts,
            standing=self._standing,
            catalogue=self._list_models,
            started_at=self._started_at,
        )

    def _control_services(self) -> ControlServices:
        return ControlServices(
            access=self.access,
            tenants=self.tenants,
            terminals=self.terminals,
            tickets=self.tickets,
            usage=self.usage,
            audit=self.audit,
            provider_keys=ProviderKeys(
                self._state,
                self.vault,
                audit=self.audit,
                running=self.supervisor,
                config=lambda: self.live.current,
            ),
            metrics=self.metrics,
            access_log=self.log,
            config=lambda: self.live.current,
            peers=self._current_peers,
            clock=now,
            holds=self.registry.__contains__,
            control_plane_digest=lambda: self._control_plane_digest,
            readiness=self.health.readiness,
            facts=self._facts,
            standing=self._standing,
        )

    def close(self) -> None:
        """Let go of the files. Nothing runs any more."""
        self._audit_log.close()

    async def reload(self) -> None:
        """SIGHUP: read config and records again, go on in a rotated audit log."""
        self.audit.reopen()
        self.live.reload()
        await self.tenants.reload()

    # -- configuration ---------------------------------------------------

    def _check_config(self, config: GatewayConfig) -> None:
        """Refuse a config that could not be used: before it is taken, and at the start."""
        if config.server.control_plane_token is not None:
            self._resolve(config.server.control_plane_token, key="server.control_plane_token")
        if hasattr(self, "providers"):
            self.providers.check(config)

    def _use_config(self, config: GatewayConfig) -> None:
        set_level(self.log, config.logging.level, access=config.logging.access)
        self.access.use_admin_keys(self._admin_keys(config))
        self.providers.use(config)
        self.rate_card = RateCard.from_config(config, clock=now)
        server = config.server
        self._peers = Peers(
            behind_proxy=server.behind_proxy, trusted_proxies=server.trusted_proxies
        )
        self._control_plane_digest = None
        if server.control_plane_token is not None:
            token = self._resolve(server.control_plane_token, key="server.control_plane_token")
            self._control_plane_digest = hashlib.sha256(token.encode()).digest()
        self.supervisor.refresh_all()

    def _admin_keys(self, config: GatewayConfig) -> list[AdminKeyConfig]:
        keys = list(config.server.admin_keys)
        if self._given_key is not None:
            given = stored_digest(self._given_key.digest())
            if all(key.hash != given for key in keys):
                keys.append(AdminKeyConfig(label="environment", hash=given))
        return keys

    def _resolve(self, reference: str, *, key: str) -> str:
        directory = self._setup.environ.get("CREDENTIALS_DIRECTORY")
        return resolve(
            reference, environ=self._setup.environ, credentials_directory=directory, key=key
        )

    # -- answers to the doors --------------------------------------------

    def _price(self, provider: str, model: str) -> Price | None:
        return self.rate_card.price(provider, model)

    def _current_peers(self) -> Peers:
        return self._peers

    def _vitals(self) -> list[Finding]:
        return run_checks(
            Vitals(
                free_bytes=self._state.free_bytes(),
                config_problem=self.live.problem,
                audit_problem=self.audit.problem,
                broken_tenants=self.registry.broken,
                sandbox=self.sandbox.proof,
            )
        )

    async def _standing(self, tenant: str) -> Standing:
        runtime = await self.supervisor.runtime(tenant)
        return runtime.meter.standing()

    async def _list_models(self, runtime: TenantRuntime) -> list[CatalogueEntry]:
        agents = [name for name in runtime.config.defaults.agents if name != "main"]
        behind = partial(self.router.behind_agent, config=runtime.config)
        own = [CatalogueEntry("openclaw", "openclaw", behind("main"))]
        own += [CatalogueEntry(f"openclaw/{n}", "openclaw", behind(n)) for n in sorted(agents)]
        return [*own, *await self.router.catalogue(runtime.config)]

    def _levels(self) -> Levels:
        return Levels(
            ready=self.health.readiness().ready,
            tenants_known=len(self.registry),
            tenants_disabled=self.registry.disabled_count,
            tenants_broken=len(self.registry.broken),
            tenants_awake=len(self.supervisor.awake),
            loop_lag_p99_ms=self.lag.p99_ms,
            disk_free_bytes=self._state.free_bytes(),
            websocket_connections=len(self.websocket.door),
            websocket_waiting=self.websocket.door.waiting,
            gateway_requests=self.websocket.counts.by_method,
            sandboxes=len(self.sandboxes.starts),
            sandboxes_available=self.sandboxes.proof.holds,
        )

    def _facts(self) -> GatewayFacts:
        return GatewayFacts(
            started_at=self._started_at,
            tenants_known=len(self.registry),
            tenants_disabled=self.registry.disabled_count,
            tenants_awake=len(self.supervisor.awake),
            broken=self.registry.broken,
            disk_free_bytes=self._state.free_bytes(),
            config_problem=self.live.problem,
            providers=sorted(self.live.current.providers),
            sandbox=self.sandboxes.proof,
            sandboxes_running=len(self.sandboxes.starts),
        )

    def _build_embedded(self, name: str, config: ProviderConfig) -> EmbeddedProvider:
        return EmbeddedProvider(name, config, clock=now)

    def _build_own(self, credential: ProviderCredential) -> OwnProvider:
        """A tenant chose the address, so it must be a public one."""
        return build_http_provider(
            credential.provider,
            provider_config(credential),
            api_key=credential.api_key,
            clock=now,
            public_only=not self.live.current.egress.allow_private,
        )


def _configured_log(config: GatewayConfig) -> LineWriter:
    json = {"auto": None, "json": True, "text": False}[config.logging.format]
    return configure(json=json, level=config.logging.level, access=config.logging.access)


def _refuse_exposure(config: GatewayConfig, bind: str) -> None:
    problem = exposure_problem(config.server, bind=bind)
    if problem is not None:
        raise ConfigInvalid.at(problem.field, problem.reason, problem.remedy)


def _cookie_key(state: StateDirectory) -> bytes:
    """The key that signs browser sessions; made once."""
    try:
        key = state.read_bytes(_COOKIE_KEY, limit=1024)
    except FileNotFoundError:
        key = secrets.token_bytes(32)
        state.mkdir(SECRETS)
        state.write_atomic(_COOKIE_KEY, key)
    if len(key) != 32:
        raise ConfigInvalid(f"{_COOKIE_KEY} is damaged; delete it to sign everybody out")
    return key
