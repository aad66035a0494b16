"""A tenant that is awake, with real books and real sessions, and nobody who supervises it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from appliance.config.loading import parse_config
from appliance.config.schema import GatewayConfig
from appliance.model.callers import ActorKind, Caller
from appliance.model.money import Price
from appliance.model.quotas import Quotas
from appliance.model.spending import OutcomeStatus
from appliance.model.tokens import Scope
from appliance.model.usage import TokenUsage
from appliance.providers.api_keys import ApiKey
from appliance.providers.base import Provider
from appliance.services.clients import ConnectedClients
from appliance.services.events import TenantEvents
from appliance.services.key_rings import KeyRings
from appliance.services.meter import Meter
from appliance.services.model_calls import ModelCalls
from appliance.services.response_cache import ResponseCache
from appliance.services.routing import Router
from appliance.services.runs import RunBook
from appliance.services.tenant_state import TenantState
from appliance.services.turns.queue import TurnQueue
from appliance.storage.database import Database
from appliance.storage.ledger import FILE, LedgerStore
from appliance.storage.ledger_schema import SCHEMA
from appliance.storage.paths import TenantRoot
from appliance.storage.sessions import SessionStore
from appliance.tenants.jobs import Jobs, Started
from tests.books import PRICE, HandClock, tenant_root

CONFIG = """
providers:
  stub: {dialect: openai}
  spare: {dialect: openai}
models:
  default: stub/mock
  failover: {both: [stub/mock, spare/other]}
defaults:
  agents:
    pirate: {instructions: "Speak like a pirate.", max_output_tokens: 7}
"""
CALLER = Caller(ActorKind.TENANT, "tok_1", "acme", frozenset({Scope.FULL}), request_id="req_1")


@dataclass
class FakeTenant:
    """Satisfies ``services.turns.requests.TenantWithSessions``."""

    meter: Meter
    store: SessionStore
    database: Database
    root: TenantRoot
    config: GatewayConfig = field(default_factory=lambda: parse_config(CONFIG, name="config"))
    turns: TurnQueue = field(default_factory=TurnQueue)
    keys: dict[str, str] = field(default_factory=dict)
    own: dict[str, Provider] = field(default_factory=dict)
    id: str = "acme"
    events: TenantEvents = field(default_factory=TenantEvents)
    runs: RunBook = field(default_factory=RunBook)
    state: TenantState = field(default_factory=TenantState)
    clients: ConnectedClients = field(default_factory=ConnectedClients)
    jobs: Jobs = field(default_factory=lambda: Jobs("acme", is_live=lambda _: True))

    def start(self, work: Callable[[], Awaitable[None]], *, caller: Caller) -> Started:
        return self.jobs.start(work, caller=caller)

    def provider_key(self, provider: str) -> str | None:
        return self.keys.get(provider)

    def own_provider(self, provider: str) -> Provider | None:
        return self.own.get(provider)

    async def sessions(self) -> SessionStore:
        await trio.lowlevel.checkpoint()
        return self.store

    def entries(self, columns: str = "id") -> list[tuple[object, ...]]:
        query = f"SELECT {columns} FROM entries ORDER BY id"  # noqa: S608 - names of columns
        return list(self.database.read(lambda tx: tx.execute(query).fetchall()))

    def reservations(self) -> list[tuple[object, ...]]:
        query = "SELECT id FROM reservations ORDER BY id"
        return list(self.database.read(lambda tx: tx.execute(query).fetchall()))

    def in_use(self) -> dict[str, int]:
        """What is held at the moment; nothing when no call is under way."""
        quotas = self.meter.standing().quotas
        held = {quota.key: quota.reserved for quota in quotas}
        held |= {quota.key: quota.used for quota in quotas if quota.key == "concurrent_requests"}
        return {key: number for key, number in held.items() if number}

    def assert_settled(self) -> None:
        """Whatever was reserved has one entry, and nothing is held any more."""
        assert self.entries() == self.reservations()
        assert self.in_use() == {}


@asynccontextmanager
async def open_tenant(path: Path, *, limits: Quotas = Quotas()) -> AsyncIterator[FakeTenant]:  # noqa: B008 - a value
    clock = HandClock()
    root = tenant_root(path / "tenant")
    database = await Database.open(root, FILE, SCHEMA)
    store = await SessionStore.open(root, now=clock())
    meter = await Meter.open(
        LedgerStore(database), limits=limits, clock=clock, currency="USD", assumed_output=100
    )
    try:
        yield FakeTenant(meter, store, database, root)
    finally:
        await store.close()
        await database.close()


@dataclass
class Exchange:
    """Model calls over fake providers, with what is known of them."""

    stub: Provider
    spare: Provider
    prices: dict[str, Price] = field(
        default_factory=lambda: {"stub/mock": PRICE, "spare/other": PRICE}
    )
    counted: list[tuple[str, OutcomeStatus, int | None]] = field(default_factory=list)
    providers: dict[str, Provider] = field(init=False)
    keys: dict[str, tuple[ApiKey, ...]] = field(default_factory=dict)
    cache: ResponseCache = field(default_factory=lambda: ResponseCache(lambda: 1_000_000))
    router: Router = field(init=False)
    calls: ModelCalls = field(init=False)

    def __post_init__(self) -> None:
        self.providers = {"stub": self.stub, "spare": self.spare}
        current: Callable[[], Mapping[str, Provider]] = lambda: self.providers  # noqa: E731 - typed
        clock = HandClock()
        self.router = Router(current, clock=clock)
        self.calls = ModelCalls(
            router=self.router,
            providers=current,
            price=lambda provider, model: self.prices.get(f"{provider}/{model}"),
            count=self._count,
            keys=KeyRings(lambda name: self.keys.get(name, ()), clock=clock),
            cache=self.cache,
        )

    def _count(
        self,
        *,
        provider: str,
        outcome: OutcomeStatus,
        usage: TokenUsage,
        cost_nano: int | None,
        tenant: str,
    ) -> None:
        self.counted.append((provider, outcome, cost_nano))
