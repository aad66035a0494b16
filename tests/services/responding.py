"""What tests of the responses' services share: a tenant with a store, requests, a sink."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import trio

from appliance.config.loading import parse_config
from appliance.model.calls import Delta, TextDelta
from appliance.model.quotas import Quotas
from appliance.protocols.responses.request import ResponsesRequest
from appliance.services.model_calls import OpenCall
from appliance.services.responses.chains import ChainMemory
from appliance.services.responses.responses import Responses
from appliance.services.responses.runs import Asked, ResponseRun
from appliance.services.turns.turns import Turns
from appliance.storage.responses import ResponseStore
from appliance.transports.openai_api.responses import described
from tests.books import HandClock
from tests.fakes.providers import FakeProvider, FakeReply
from tests.fakes.tenants import CALLER, CONFIG, Exchange, FakeTenant, open_tenant


class ClientLeft(Exception):
    pass


@dataclass
class FakeSink:
    """Writes down what it is told; fails when it is told ``fails_at``."""

    fails_at: str = ""
    told: list[str] = field(default_factory=list)
    body: bytes = b""

    async def begin(self, call: OpenCall) -> None:
        await self._note("begin")

    async def send(self, events: bytes) -> None:
        self.body += events
        await self._note("send")

    async def finish(self, call: OpenCall, rest: bytes) -> None:
        self.body += rest
        await self._note("finish")

    async def _note(self, what: str) -> None:
        await trio.lowlevel.checkpoint()
        if what == self.fails_at:
            raise ClientLeft
        self.told.append(what)

    @property
    def response(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self.body)
        return found

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = self.body.decode().splitlines()
        return [
            msgspec.json.decode(line.removeprefix("data: "))
            for line in lines
            if line.startswith("data: {")
        ]


class Endless(FakeReply):
    """Says one word and nothing more."""

    async def deltas(self) -> AsyncGenerator[Sequence[Delta], None]:
        yield [TextDelta("Hello")]
        await trio.sleep_forever()


@dataclass
class Tenant(FakeTenant):
    """Satisfies ``services.responses.runs.ResponsesTenant``."""

    kept: ResponseStore | None = None

    async def responses(self) -> ResponseStore:
        await trio.lowlevel.checkpoint()
        return self.found

    @property
    def found(self) -> ResponseStore:
        assert self.kept is not None
        return self.kept


@dataclass
class House:
    """A tenant, and the services that answer it."""

    tenant: Tenant
    exchange: Exchange
    clock: HandClock
    service: Responses

    def run(self, said: object = "hi", *, agent: str | None = None, **more: Any) -> ResponseRun:
        memory: ChainMemory | None = more.pop("memory", None)
        asked = Asked(request=request(said, **more), agent=agent, memory=memory)
        return self.service.begin(asked)

    async def answer(self, said: object = "hi", **more: Any) -> dict[str, Any]:
        sink = FakeSink()
        await self.service.answer(self.tenant, CALLER, self.run(said, **more), sink)
        return sink.response

    async def start(self, said: object = "hi", **more: Any) -> str:
        body = await self.service.start(
            self.tenant, CALLER, self.run(said, background=True, **more)
        )
        found: str = msgspec.json.decode(body)["id"]
        return found

    def shown(self, response_id: str) -> dict[str, Any] | None:
        found = self.tenant.found.find(response_id, now=self.clock())
        return None if found is None else msgspec.json.decode(found.body)

    @property
    def stub(self) -> FakeProvider:
        assert isinstance(self.exchange.stub, FakeProvider)
        return self.exchange.stub

    def asked(self, number: int = -1) -> list[Any]:
        """The input of a call of the model."""
        found: list[Any] = msgspec.json.decode(self.stub.calls[number].body["input"])
        return found


def allow_tools(house: House, more: str = "") -> None:
    """As an operator does."""
    text = CONFIG.replace("stub: {dialect: openai}", "stub: {dialect: openai, extras: true}")
    house.tenant.config = parse_config(text + more, name="config")


def request(said: object = "hi", **more: Any) -> ResponsesRequest:
    body: Mapping[str, Any] = {"model": "stub/mock", "input": said, **more}
    return ResponsesRequest.parse(msgspec.json.encode(body), limit_bytes=1_000_000)


@asynccontextmanager
async def open_house(path: Path, *script: FakeReply | Exception) -> AsyncIterator[House]:
    clock = HandClock()
    limits = Quotas(tokens_per_day=1_000_000)
    async with open_tenant(path, limits=limits) as plain:
        store = await ResponseStore.open(plain.root, now=clock())
        tenant = Tenant(plain.meter, plain.store, plain.database, plain.root, kept=store)
        exchange = Exchange(FakeProvider(script=script or [FakeReply()]), FakeProvider("spare"))
        service = Responses(
            exchange.calls,
            Turns(exchange.calls, clock=clock),
            clock=clock,
            describe=described,
        )
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(tenant.jobs.run)
                yield House(tenant, exchange, clock, service)
                nursery.cancel_scope.cancel()
        finally:
            await store.close()
