"""A tenant with real sessions and books, runs that are only pretended, and a fake compaction."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import trio

from appliance.config.loading import parse_config
from appliance.config.schema import GatewayConfig
from appliance.model.callers import Caller
from appliance.model.session_keys import SessionKey
from appliance.model.usage import TokenUsage
from appliance.services.events import Event, TenantEvents
from appliance.services.routing import Router
from appliance.services.session_policy import SessionPolicy
from appliance.services.sessions import SessionService
from appliance.services.turns.queue import TurnQueue
from appliance.storage.paths import ConfinedDirectory
from appliance.storage.session_rows import RunStatus
from appliance.storage.sessions import SessionStore
from tests.books import HandClock, directory

CONFIG = """
providers:
  stub: {dialect: openai, context_tokens: 8000}
  spare: {dialect: openai}
models:
  default: stub/mock
  aliases: {fast: spare/quick}
defaults:
  agents:
    pirate: {model: fast}
"""


@dataclass(eq=False)
class FakeRun:
    id: str
    session: str
    started_at: datetime | None = None
    status: str = "running"
    ends: bool = True  # when it is told to
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class FakeRuns:
    running: list[FakeRun] = field(default_factory=list)

    def for_session(self, key: str, /) -> list[FakeRun]:
        return [run for run in self.running if run.session == key]

    async def wait(self, run_id: str, timeout: float) -> object | None:  # noqa: ASYNC109 - as the run book has it
        (run,) = [run for run in self.running if run.id == run_id]
        if run.cancelled and run.ends:
            self.running.remove(run)
            return "ended"
        await trio.sleep(timeout)
        return None


@dataclass
class FakeCompaction:
    happens: bool = True
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)

    async def compact(
        self,
        tenant: object,
        caller: Caller,
        key: SessionKey,
        instructions: str | None = None,
        *,
        model: str | None = None,
    ) -> Any:
        await trio.lowlevel.checkpoint()
        self.asked.append((key.short, instructions, model))
        return SimpleNamespace(happened=self.happens)


@dataclass
class SessionsTenant:
    """Satisfies ``services.sessions.CompactableTenant`` as far as sessions go."""

    root: ConfinedDirectory
    store: SessionStore
    config: GatewayConfig
    id: str = "acme"
    events: TenantEvents = field(default_factory=TenantEvents)
    runs: FakeRuns = field(default_factory=FakeRuns)
    turns: TurnQueue = field(default_factory=TurnQueue)
    meter: Any = field(
        default_factory=lambda: SimpleNamespace(limits=SimpleNamespace(concurrent_sessions=None))
    )
    told: list[Event] = field(default_factory=list)

    def provider_key(self, provider: str) -> None:
        """It has no keys of its own."""

    def own_provider(self, provider: str) -> None:
        """Nor a provider."""

    def deliver(self, event: Event) -> None:
        self.told.append(event)

    async def sessions(self) -> SessionStore:
        await trio.lowlevel.checkpoint()
        return self.store

    def heard(self) -> list[tuple[str, str]]:
        """What was told of the list of sessions: which one, and why."""
        payloads = [
            msgspec.json.decode(e.payload) for e in self.told if e.name == "sessions.changed"
        ]
        return [(payload["sessionKey"], payload["reason"]) for payload in payloads]


def key(rest: str, agent: str = "main") -> SessionKey:
    return SessionKey("acme", agent, rest)


@dataclass
class SessionsBench:
    tenant: SessionsTenant
    policy: SessionPolicy
    service: SessionService
    compaction: FakeCompaction
    clock: HandClock

    @property
    def store(self) -> SessionStore:
        return self.tenant.store

    def say(self, to: SessionKey, question: str = "hi", answer: str = "hello") -> None:
        """A turn, a minute long."""
        run = self.store.begin_run(
            to,
            [{"role": "user", "content": question}],
            request_id="req_1",
            model="stub/mock",
            now=self.clock(),
        )
        self.clock.advance(60)
        self.store.finish_run(
            run,
            text=answer,
            usage=TokenUsage(input=10, output=5),
            status=RunStatus.DONE,
            now=self.clock(),
        )

    def configure(self, session: str) -> None:
        """Set ``defaults.session``, written as YAML in one line."""
        text = CONFIG + f"  session: {session}\n"
        self.tenant.config = parse_config(text, name="config")

    def kept(self, of: SessionKey) -> list[tuple[str, object]]:
        return [(m.role, m.message["content"]) for m in self.store.messages(of, limit=1000)]


@asynccontextmanager
async def open_sessions(
    path: Path, *, router: Callable[[HandClock], Router] | None = None
) -> AsyncIterator[SessionsBench]:
    clock = HandClock()
    root = directory(path / "tenant")
    store = await SessionStore.open(root, now=clock())
    tenant = SessionsTenant(root, store, parse_config(CONFIG, name="config"))
    policy = SessionPolicy(local_zone=UTC)
    compaction = FakeCompaction()
    made = Router(dict, clock=clock) if router is None else router(clock)
    service = SessionService(policy=policy, router=made, compaction=compaction, clock=clock)
    try:
        with tenant.events.subscribed(tenant):
            yield SessionsBench(tenant, policy, service, compaction, clock)
    finally:
        await store.close()
        root.close()
