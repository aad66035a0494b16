"""The greeting: what a client may call and hear, and how things stand."""

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from appliance.config.loading import parse_config
from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import TokenRejected, Unavailable
from appliance.model.operator_scopes import OperatorScope, Role
from appliance.model.tokens import TenantToken
from appliance.services.tenant_state import TenantState
from appliance.tenants.runtime import TenantRuntime
from appliance.transports.rpc.method import Who
from appliance.transports.websocket.device_tokens import DeviceTokenDoor
from appliance.transports.websocket.dialects import OpenClawDialect
from appliance.transports.websocket.handshake import Admitted
from appliance.transports.websocket.hello import EVENTS, Hello
from tests.transports.websocket.bench import (
    START,
    ConnectionBench,
    FakeSocket,
    admission,
    method,
    someone,
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

    def entries(self, tenant: object) -> list[Any]:
        return []

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


# -- tokens of devices -------------------------------------------------------

TOKEN = TenantToken.parse("tenant:acme:" + "x" * 43)


async def test_only_a_few_tenants_are_woken_at_once_for_who_proved_nothing() -> None:
    awake = most = 0

    class Waking:
        async def runtime(self, tenant: str) -> None:
            nonlocal awake, most
            awake += 1
            most = max(most, awake)
            await trio.lowlevel.checkpoint()
            awake -= 1
            raise Unavailable("it sleeps")

    assert TOKEN is not None
    door = DeviceTokenDoor(cast("Any", None), cast("Any", Waking()), holds={"acme"}.__contains__)

    async def knock() -> None:
        assert TOKEN is not None
        with pytest.raises(Unavailable):
            await door(TOKEN, device_id="d", role=Role.OPERATOR, request_id="r", ip="")

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(knock)
    assert most == 4


async def test_nobody_is_woken_for_a_tenant_that_is_not_here() -> None:
    assert TOKEN is not None
    door = DeviceTokenDoor(cast("Any", None), cast("Any", None), holds=set[str]().__contains__)

    with pytest.raises(TokenRejected):
        await door(TOKEN, device_id="d", role=Role.OPERATOR, request_id="r", ip="")


async def test_the_holder_of_a_good_one_is_who_the_device_belongs_to() -> None:
    async def runtime(tenant: str) -> str:
        await trio.lowlevel.checkpoint()
        return tenant

    async def authenticate(tenant: str, text: str, **_: object) -> Any:
        await trio.lowlevel.checkpoint()
        return SimpleNamespace(caller=someone(tenant), scopes=frozenset({OperatorScope.READ}))

    assert TOKEN is not None
    door = DeviceTokenDoor(
        cast("Any", SimpleNamespace(authenticate_device_token=authenticate)),
        cast("Any", SimpleNamespace(runtime=runtime)),
        holds={"acme"}.__contains__,
    )
    caller, scopes = await door(TOKEN, device_id="d", role=Role.OPERATOR, request_id="r", ip="")

    assert (caller, scopes) == (someone(), {OperatorScope.READ})
