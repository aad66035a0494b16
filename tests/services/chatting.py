"""A tenant that chats: real sessions, books and jobs, a scripted model, an ear on its events."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import Any

import msgspec
import trio

from appliance.config.loading import parse_config
from appliance.config.schema import GatewayConfig
from appliance.model.callers import Caller
from appliance.model.calls import Delta, TextDelta
from appliance.model.quotas import Quotas
from appliance.model.session_keys import SessionKey
from appliance.providers.base import Provider
from appliance.services.chat import ChatService, Message, Taken
from appliance.services.chat_commands import ChatCommands
from appliance.services.chat_notes import ChatNotes
from appliance.services.chat_turns import ChatTurns
from appliance.services.compaction import BeforeCompaction, Compactor
from appliance.services.events import Event
from appliance.services.meter import Meter
from appliance.services.routing import Router
from appliance.services.session_policy import SessionPolicy
from appliance.services.tools.toolbox import Toolbox
from appliance.services.turns.queue import TurnQueue
from appliance.services.turns.turns import Turns
from appliance.storage.session_rows import StoredMessage
from appliance.storage.sessions import SessionStore
from appliance.tenants.jobs import Started
from tests.books import HandClock
from tests.fakes.providers import FakeProvider, FakeReply
from tests.fakes.tenants import CALLER, CONFIG, Exchange, FakeTenant, open_tenant

MAIN = SessionKey("acme", "main", "main")


@dataclass
class SlowReply(FakeReply):
    """Waits ``pause`` seconds before each piece."""

    pause: float = 1.0

    async def deltas(self) -> Any:
        for piece in self.pieces:
            await trio.sleep(self.pause)
            self.text_bytes += len(piece.encode())
            yield [TextDelta(piece)]
        self.pieces = ()
        async for rest in super().deltas():
            yield rest


@dataclass
class DeltaReply(FakeReply):
    """Gives ``parts`` out as they are, before its end."""

    parts: Sequence[Delta] = ()

    async def deltas(self) -> Any:
        for part in self.parts:
            await trio.lowlevel.checkpoint()
            yield [part]
        self.pieces = ()
        async for rest in super().deltas():
            yield rest


class ChattingFake:
    """Satisfies ``services.chat_tasks.ChattingTenant`` around a :class:`FakeTenant`."""

    def __init__(self, tenant: FakeTenant) -> None:
        self.books = tenant
        self.events = tenant.events
        self.runs = tenant.runs
        self.jobs = tenant.jobs
        self.root = tenant.root
        self.state = tenant.state
        self.clients = tenant.clients

    @property
    def id(self) -> str:
        return self.books.id

    @property
    def config(self) -> GatewayConfig:
        return self.books.config

    @property
    def meter(self) -> Meter:
        return self.books.meter

    @property
    def turns(self) -> TurnQueue:
        return self.books.turns

    @property
    def store(self) -> SessionStore:
        return self.books.store

    def provider_key(self, provider: str) -> str | None:
        return self.books.provider_key(provider)

    def own_provider(self, provider: str) -> Provider | None:
        return self.books.own_provider(provider)

    async def sessions(self) -> SessionStore:
        return await self.books.sessions()

    def start(self, work: Callable[[], Awaitable[None]], *, caller: Caller) -> Started:
        return self.jobs.start(work, caller=caller)


@dataclass
class Ear:
    """Hears every event of the tenant."""

    events: list[Event] = field(default_factory=list)

    def deliver(self, event: Event) -> None:
        self.events.append(event)

    def heard(self, name: str, run: str | None = None) -> list[dict[str, Any]]:
        found = [msgspec.json.decode(event.payload) for event in self.events if event.name == name]
        return [payload for payload in found if run is None or payload.get("runId") == run]

    def order(self, run: str = "r1") -> list[str]:
        """What was told of a run: ``chat delta``, ``agent lifecycle start`` and so on."""
        told = []
        for event in self.events:
            payload = msgspec.json.decode(event.payload)
            if payload.get("runId") != run:
                continue
            if event.name == "chat":
                told.append(f"chat {payload['state']}")
            elif event.name == "agent":
                phase = payload["data"].get("phase", "")
                told.append(f"{payload['stream']} {phase}".strip())
        return told

    def last_chat(self, run: str = "r1") -> dict[str, Any]:
        return self.heard("chat", run)[-1]

    def ends(self, run: str = "r1") -> list[str]:
        states = [payload["state"] for payload in self.heard("chat", run)]
        return [state for state in states if state in {"final", "aborted", "error"}]


@dataclass
class ChatBench:
    tenant: ChattingFake
    stub: FakeProvider
    chat: ChatService
    compactor: Compactor
    router: Router
    clock: HandClock
    ear: Ear

    @property
    def store(self) -> SessionStore:
        return self.tenant.store

    def configure(self, yaml: str) -> None:
        self.tenant.books.config = parse_config(CONFIG + yaml, name="config")

    async def say(self, text: str, run: str = "r1", **more: Any) -> Taken:
        def acknowledge(taken: Taken) -> None:
            assert self.ear.order(taken.run_id) == [], "the acknowledgement comes first"

        return await self.chat.send(
            self.tenant, CALLER, saying(text, run, **more), acknowledge=acknowledge
        )

    async def run(self, text: str, run: str = "r1", **more: Any) -> Taken:
        """Say it and wait for the answer."""
        taken = await self.say(text, run, **more)
        await self.ended(run)
        return taken

    async def ended(self, run: str = "r1") -> None:
        with trio.fail_after(3600):
            assert await self.tenant.runs.wait(run, 3600) is not None
        # The acknowledgement lets the events out a moment later.
        for _ in range(4):
            await trio.lowlevel.checkpoint()

    def kept(self, key: SessionKey = MAIN) -> list[tuple[str, object]]:
        return [(line.role, line.message["content"]) for line in self.lines(key)]

    def lines(self, key: SessionKey = MAIN) -> list[StoredMessage]:
        return self.store.messages(key, limit=1000)

    def asked(self, number: int = -1) -> list[dict[str, Any]]:
        """The messages of a call that the model got."""
        messages: list[dict[str, Any]] = msgspec.json.decode(
            self.stub.calls[number].body["messages"]
        )
        return messages


def saying(text: str, run: str = "r1", *, key: SessionKey = MAIN, **more: Any) -> Message:
    fingerprint = more.pop("fingerprint", f"{key.short} {text}".encode())
    return Message(key=key, text=text, idempotency_key=run, fingerprint=fingerprint, **more)


@asynccontextmanager
async def open_chat(
    path: Path,
    *,
    limits: Quotas = Quotas(),  # noqa: B008 - a value
    hooks: Sequence[BeforeCompaction] = (),
    toolbox: Toolbox | None = None,
) -> AsyncIterator[ChatBench]:
    async with open_tenant(path, limits=limits) as books, trio.open_nursery() as nursery:
        # A thread that syncs looks idle to the autojump clock, which would jump to the
        # next deadline meanwhile. What is durable when is tested with the turns.
        setattr(books.store, "durable", trio.lowlevel.checkpoint)  # noqa: B010 - replaces a method
        setattr(books.meter, "durable", trio.lowlevel.checkpoint)  # noqa: B010 - replaces a method
        tenant = ChattingFake(books)
        clock = HandClock()
        stub = FakeProvider("stub", [FakeReply() for _ in range(50)])
        exchange = Exchange(stub, FakeProvider("spare"))
        turns = Turns(exchange.calls, clock=clock, toolbox=toolbox)
        compactor = Compactor(exchange.calls, clock=clock, before_compaction=hooks)
        chat = ChatService(
            ChatTurns(turns, compactor, clock=clock),
            ChatCommands(exchange.router, clock=clock),
            ChatNotes(clock=clock),
            SessionPolicy(local_zone=UTC),
            clock=clock,
        )
        ear = Ear()
        await nursery.start(tenant.jobs.run)
        with tenant.events.subscribed(ear):
            yield ChatBench(tenant, stub, chat, compactor, exchange.router, clock, ear)
        nursery.cancel_scope.cancel()
