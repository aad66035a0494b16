"""How a tenant is, in one look: ``health``, which is polled, and ``status``, which people read.

Neither tells anything of the host or of another tenant. An admin who acts for
nobody is told of the gateway instead.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import perf_counter
from typing import Protocol
from weakref import WeakKeyDictionary

import msgspec

from appliance.config.schema import GatewayConfig
from appliance.model import session_scopes as scopes
from appliance.model.errors import Unavailable
from appliance.model.periods import to_ms
from appliance.model.session_keys import DEFAULT_AGENT
from appliance.sandboxes.base import Proof
from appliance.services.routing import Router
from appliance.services.session_views import ModelsInUse, TenantWithSessions, key_of
from appliance.services.snapshot_shapes import (
    AgentHealth,
    AgentHeartbeat,
    AgentSessions,
    CliProjection,
    GatewayHealth,
    Health,
    Heartbeat,
    Heartbeats,
    NamedAgent,
    ProjectedAgents,
    RecentSession,
    SandboxHealth,
    SessionDefaults,
    SessionLine,
    SessionSummary,
    Status,
    StatusSessions,
)
from appliance.services.tenant_state import TenantState
from appliance.storage.session_rows import Session, SessionFilter
from appliance.storage.sessions import SessionStore

LASTS = timedelta(seconds=5)
_RECENT = 5  # sessions in a health
_SHOWN = 10  # in a status
# A tenant may have two hundred agents. Each costs a look into the database, in
# the loop, so a health shows as many as a person would read.
_MOST_AGENTS = 32
_MOST_PERCENT = 999


class TenantWithHealth(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def config(self) -> GatewayConfig: ...
    async def sessions(self) -> SessionStore: ...


class TenantWithState(TenantWithSessions, Protocol):
    @property
    def state(self) -> TenantState: ...


class Facts(Protocol):
    """The gateway as its status shows it to an admin."""

    @property
    def started_at(self) -> datetime: ...
    @property
    def tenants_known(self) -> int: ...
    @property
    def tenants_disabled(self) -> int: ...
    @property
    def tenants_awake(self) -> int: ...
    @property
    def broken(self) -> Mapping[str, str]: ...
    @property
    def disk_free_bytes(self) -> int: ...
    @property
    def config_problem(self) -> str | None: ...
    @property
    def providers(self) -> Sequence[str]: ...
    @property
    def sandbox(self) -> Proof: ...


@dataclass(slots=True)
class _Known:
    store: SessionStore
    health: bytes
    until: datetime


class Snapshots:
    def __init__(
        self,
        *,
        router: Router,
        facts: Callable[[], Facts],
        clock: Callable[[], datetime],
        version: str,
    ) -> None:
        self._router = router
        self._facts = facts
        self._clock = clock
        self._version = version
        # Gone with the tenant that was awake, and so never another one's.
        self._known: WeakKeyDictionary[TenantWithHealth, _Known] = WeakKeyDictionary()
        self._gateway: tuple[bytes, datetime] | None = None

    async def health(self, tenant: TenantWithHealth, *, probe: bool = False) -> bytes:
        """JSON at most five seconds old, made now with ``probe``.

        Whoever greets a client calls it, which opens the tenant's sessions;
        from then on :meth:`health_nowait` has an answer.
        """
        known = self._known.get(tenant)
        if known is None:
            store = await tenant.sessions()
            known = self._known[tenant] = _Known(store, b"", self._clock())
        return self._fresh(tenant, known, probe=probe)

    def health_nowait(self, tenant: TenantWithHealth, *, probe: bool = False) -> bytes:
        """The same without ever waiting: a look-up, or some 0.2 ms every five seconds.

        Raises :exc:`Unavailable` before the first :meth:`health` of this tenant.
        """
        known = self._known.get(tenant)
        if known is None:
            raise Unavailable("the tenant is still waking up; ask again", retry_after=0.1)
        return self._fresh(tenant, known, probe=probe)

    def gateway_health(self, *, probe: bool = False) -> bytes:
        """The same of the gateway, for admins."""
        now = self._clock()
        if self._gateway is not None and not probe and now < self._gateway[1]:
            return self._gateway[0]
        began = perf_counter()
        facts = self._gateway_facts(now)
        health = Health(
            ok=facts.config_problem is None,
            ts=to_ms(now),
            duration_ms=_since(began),
            default_agent_id=DEFAULT_AGENT,
            agents=(),
            sessions=SessionSummary(path="gateway", count=0),
            gateway=facts,
        )
        self._gateway = msgspec.json.encode(health), now + LASTS
        return self._gateway[0]

    async def status(self, tenant: TenantWithState, *, for_cli: bool = False) -> Status:
        """``for_cli`` adds the agents' names, which a command line asks for."""
        store = await tenant.sessions()
        now, models = self._clock(), ModelsInUse(self._router, tenant)
        agents = _agents(tenant)
        listing = store.list(filters=SessionFilter(limit=_SHOWN))
        usual = models.of_agent(DEFAULT_AGENT)
        by_agent = []
        for name in agents:
            of_agent = store.list(filters=SessionFilter(limit=_SHOWN, agent=name))
            lines = _lines(tenant, of_agent.sessions, models, now)
            by_agent.append(
                AgentSessions(agent_id=name, path=_path(tenant), count=of_agent.total, recent=lines)
            )
        return Status(
            runtime_version=self._version,
            heartbeat=Heartbeats(
                default_agent_id=DEFAULT_AGENT,
                agents=[AgentHeartbeat(agent_id=name) for name in agents],
            ),
            queued_system_events=[each.text for each in tenant.state.system_texts],
            sessions=StatusSessions(
                paths=[_path(tenant)],
                count=listing.total,
                defaults=SessionDefaults(model=usual.model or None, context_tokens=usual.window),
                recent=_lines(tenant, listing.sessions, models, now),
                by_agent=by_agent,
            ),
            cli_projection=_projection(agents) if for_cli else msgspec.UNSET,
        )

    def gateway_status(self, *, for_cli: bool = False) -> Status:
        """For an admin who acts for nobody: the gateway, and no tenant's sessions."""
        return Status(
            runtime_version=self._version,
            heartbeat=Heartbeats(default_agent_id=DEFAULT_AGENT),
            sessions=StatusSessions(
                paths=(), count=0, defaults=SessionDefaults(model=None, context_tokens=None)
            ),
            cli_projection=_projection({}) if for_cli else msgspec.UNSET,
            gateway=self._gateway_facts(self._clock()),
        )

    def _fresh(self, tenant: TenantWithHealth, known: _Known, *, probe: bool) -> bytes:
        now = self._clock()
        if probe or now >= known.until:
            known.health = msgspec.json.encode(_health(tenant, known.store, now))
            known.until = now + LASTS
        return known.health

    def _gateway_facts(self, now: datetime) -> GatewayHealth:
        facts = self._facts()
        return GatewayHealth(
            version=self._version,
            started_at=to_ms(facts.started_at),
            uptime_ms=to_ms(now) - to_ms(facts.started_at),
            tenants=facts.tenants_known,
            tenants_disabled=facts.tenants_disabled,
            tenants_awake=facts.tenants_awake,
            tenants_broken=facts.broken,
            disk_free_bytes=facts.disk_free_bytes,
            config_problem=facts.config_problem,
            providers=facts.providers,
            sandbox=SandboxHealth(
                available=facts.sandbox.holds,
                backend=facts.sandbox.backend,
                limits=facts.sandbox.limits,
                problem=facts.sandbox.problem,
            ),
        )


def _health(tenant: TenantWithHealth, store: SessionStore, now: datetime) -> Health:
    began = perf_counter()
    agents = [
        AgentHealth(
            agent_id=name,
            name=shown,
            is_default=name == DEFAULT_AGENT,
            heartbeat=Heartbeat(),
            sessions=_summary(tenant, store, name, now),
        )
        for name, shown in _agents(tenant).items()
    ]
    return Health(
        ok=True,
        ts=to_ms(now),
        default_agent_id=DEFAULT_AGENT,
        agents=agents,
        sessions=_summary(tenant, store, None, now),
        duration_ms=_since(began),
    )


def _summary(
    tenant: TenantWithHealth, store: SessionStore, agent: str | None, now: datetime
) -> SessionSummary:
    listing = store.list(filters=SessionFilter(limit=_RECENT, agent=agent))
    return SessionSummary(
        path=_path(tenant),
        count=listing.total,
        recent=[
            RecentSession(
                key=each.key, updated_at=to_ms(each.updated_at), age=_age(each.updated_at, now)
            )
            for each in listing.sessions
        ],
    )


def _lines(
    tenant: TenantWithHealth, sessions: Sequence[Session], models: ModelsInUse, now: datetime
) -> list[SessionLine]:
    return [_line(tenant, session, models, now) for session in sessions]


def _line(
    tenant: TenantWithHealth, session: Session, models: ModelsInUse, now: datetime
) -> SessionLine:
    model = models.of(session)
    used, window = session.context_tokens, max(1, model.window)
    return SessionLine(
        agent_id=session.agent,
        key=session.key,
        kind=scopes.kind(key_of(tenant.id, session)),
        session_id=session.id,
        updated_at=to_ms(session.updated_at),
        age=_age(session.updated_at, now),
        system_sent=session.messages > 0,
        input_tokens=session.input_tokens,
        output_tokens=session.output_tokens,
        cache_read=session.cache_read_tokens,
        cache_write=session.cache_write_tokens,
        total_tokens=used,
        total_tokens_fresh=True,
        remaining_tokens=max(0, model.window - used),
        percent_used=min(_MOST_PERCENT, round(100 * used / window)),
        model=model.model,
        context_tokens=model.window,
        flags=["aborted"] if session.aborted else [],
        aborted_last_run=session.aborted,
    )


def _agents(tenant: TenantWithHealth) -> dict[str, str]:
    """The agents' names for people by id, the default one first."""
    found = tenant.config.defaults.agents
    ids = [DEFAULT_AGENT, *sorted(name for name in found if name != DEFAULT_AGENT)]
    return {
        name: (found[name].name if name in found else None) or name for name in ids[:_MOST_AGENTS]
    }


def _projection(agents: Mapping[str, str]) -> CliProjection:
    return CliProjection(
        agents=ProjectedAgents(
            default_id=DEFAULT_AGENT,
            rows=[NamedAgent(id=name, name=shown) for name, shown in agents.items()],
        )
    )


def _path(tenant: TenantWithHealth) -> str:
    return f"tenant:{tenant.id}"


def _age(moment: datetime, now: datetime) -> int:
    return max(0, to_ms(now) - to_ms(moment))


def _since(began: float) -> int:
    return round((perf_counter() - began) * 1000)
