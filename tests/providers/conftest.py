"""Providers that talk to the stub through memory: no sockets, and time that jumps."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
import trio
from trio.testing import memory_stream_pair

from appliance.config.schema import ProviderConfig
from appliance.dialling import Dial
from appliance.providers.building import build_http_provider
from appliance.providers.http_provider import HttpProvider
from tests.stub_provider.server import StubProvider

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
KEY = "sk-of-the-gateway-0123456789"


def clock() -> datetime:
    return NOW


@dataclass(slots=True)
class Wiring:
    """Connections into a server function that runs in the test's nursery."""

    nursery: trio.Nursery
    serve: Callable[[trio.abc.Stream], Awaitable[object]]
    dialled: int = 0
    patience: float = 0.0  # seconds that connecting takes
    streams: list[trio.abc.Stream] = field(default_factory=list)

    async def dial(self) -> trio.abc.Stream:
        self.dialled += 1
        await trio.sleep(self.patience)
        ours, theirs = memory_stream_pair()
        self.nursery.start_soon(self.serve, theirs)
        self.streams.append(ours)
        return ours


@dataclass(slots=True)
class Bench:
    """The stub, and providers of every dialect that reach it."""

    stub: StubProvider
    dial: Dial

    def provider(self, dialect: str = "openai", **settings: object) -> HttpProvider:
        settings.setdefault("base_url", "http://stub.example/v1")
        config = ProviderConfig(dialect=dialect, **settings)  # type: ignore[arg-type] # as YAML gives them
        return build_http_provider("stub", config, api_key=KEY, clock=clock, dial=self.dial)


@pytest.fixture
def bench(nursery: trio.Nursery) -> Bench:
    stub = StubProvider()
    return Bench(stub, Wiring(nursery, stub.serve).dial)
