"""The greeting: what a client may call and hear, and how things stand."""

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from appliance.config.loading import parse_config
from appliance.model.callers import ActorKind, Caller
from appliance.model.operator_scopes import OperatorScope
from appliance.services.tenant_state import TenantState
from appliance.tenants.runtime import TenantRuntime
from appliance.transports.rpc.method import Who
from appliance.transports.websocket.dialects import OpenClawDialect
from appliance.transports.websocket.handshake import Admitted
from appliance.transports.websocket.hello import EVENTS, Hello
from tests.transports.websocket.bench import (
    START,
    ConnectionBench,
    FakeSocket,
    admission,
    method,
)

CONFIG = parse_config("server: {websocket: {tick_interval: 7}}", name="config")
METHODS = ConnectionBench(
    (
        method("look", inline=lambda _: {}),
        method("hidden", inline=lambda _: {}, hidden=True),
        method("later"),
        method("manage", inline=lambda _: {}, scope=OperatorScope.ADMIN),
        method("tenants", inline=lambda _: {}, who=Who.ADMIN),
    )
)


class FakeServices:
    """What a greeting is made of."""

    def __init__(self) -> None:
        self.seen_devices: list[str] = []
        self.touched = 0
        self.closed: list[str] = []
        self.commands = self

    async def health(self, tenant: object) -> bytes:
        await trio.lowlevel.checkpoint()
        return b'{"ok":true}'

    async def seen(self, tenant: object, caller: Caller, *, device_id: str, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        self.seen_devices.append(device_id)
        return SimpleNamespace(text="tenant:acme:of-the-device", issued_at_ms=5)

    def snapshot(self, tenant: object) -> bytes:
        return b"[]"

    def touch(self, tenant: object) -> None:
        self.touched += 1

    def connection_closed(self, tenant: object, connection: Any) -> None:
        self.closed.append(connection.id)

    def main_key(self, tenant: object) -> Any:
        return SimpleNamespace(short="agent:main:main")


class Bench:
    def __init__(self) -> None:
        self.services = FakeServices()
        services: Any = self.services
        self.hello = Hello(
            config=lambda: CONFIG,
            devices=services,
            nodes=services,
            presence=services,
            policy=services,
            health=services,
            version="1.2.3",
            clock=lambda: START,
            started_at=START,
        )
        tenant = SimpleNamespace(id="acme", config=CONFIG, state=TenantState())
        self.tenant = cast("TenantRuntime", tenant)

    async def greeting(self, *, at_large: bool = False, **admitted: Any) -> dict[str, Any]:
        given = admission(**admitted)
        dialect = OpenClawDialect(3)
        async with trio.open_nursery() as errands:
            connection = METHODS.connect(FakeSocket(), dialect, given, errands=errands)
            greeted = Admitted(admission=given, dialect=dialect, tag="c", asked_to_connect=True)
            tenant = None if at_large else self.tenant
            said: dict[str, Any] = json.loads(await self.hello.prepare(connection, greeted, tenant))
        return said


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_it_names_what_this_connection_may_call(bench: Bench) -> None:
    hello = await bench.greeting()
    assert (hello["type"], hello["protocol"]) == ("hello-ok", 3)
    assert hello["server"] == {"version": "1.2.3", "connId": "conn-1"}
    assert hello["features"]["methods"] == ["look", "manage"]
    assert hello["features"]["events"] == list(EVENTS)

    less = await bench.greeting(scopes=frozenset({OperatorScope.READ}))
    assert less["features"]["methods"] == ["look"]
    assert less["auth"] == {"role": "operator", "scopes": ["operator.read"]}


async def test_it_says_what_the_limits_are_and_how_things_stand(bench: Bench) -> None:
    hello = await bench.greeting()
    limits = CONFIG.server.websocket

    assert hello["policy"]["maxPayload"] == limits.max_frame_bytes
    assert hello["policy"]["maxBufferedBytes"] == limits.max_buffered_bytes
    assert hello["policy"]["tickIntervalMs"] == 7_000
    assert hello["snapshot"]["health"] == {"ok": True}
    assert hello["snapshot"]["stateVersion"] == {"presence": 1, "health": 1}
    assert hello["snapshot"]["sessionDefaults"]["mainSessionKey"] == "agent:main:main"
    assert bench.services.seen_devices == []


async def test_a_device_is_given_its_token(bench: Bench) -> None:
    hello = await bench.greeting(device_id="d" * 64)

    assert hello["auth"]["deviceToken"] == "tenant:acme:of-the-device"
    assert bench.services.seen_devices == ["d" * 64]


async def test_an_admin_at_large_sees_no_tenant(bench: Bench) -> None:
    admin = Caller(ActorKind.ADMIN, "ops", None)
    hello = await bench.greeting(at_large=True, caller=admin, device_id="d" * 64)

    assert hello["features"]["methods"] == ["tenants"]
    assert hello["snapshot"]["presence"] == []
    assert "sessionDefaults" not in hello["snapshot"]
    assert "deviceToken" not in hello["auth"]


async def test_who_comes_and_goes_is_noted(bench: Bench) -> None:
    async with trio.open_nursery() as errands:
        connection = METHODS.connection(FakeSocket(), errands)
        bench.hello.arrived(connection, bench.tenant)
        bench.hello.left(connection, bench.tenant)
    assert (bench.services.touched, bench.services.closed) == (2, ["conn-1"])
