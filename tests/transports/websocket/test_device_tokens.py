"""Who comes with the token of its device: few at a time, and only of tenants that are here."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from appliance.model.errors import TokenRejected, Unavailable
from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import TenantToken
from appliance.protocols.connect import ConnectRequest, read_connect
from appliance.transports.websocket.device_tokens import DeviceTokenDoor
from appliance.transports.websocket.handshake import PairingNeeded
from tests.transports.websocket.bench import CLIENT, someone

READ = frozenset({OperatorScope.READ})


def token() -> TenantToken:
    parsed = TenantToken.parse("tenant:acme:" + "x" * 43)
    assert parsed is not None
    return parsed


def request(*scopes: str) -> ConnectRequest:
    proof = {"id": "d" * 64, "publicKey": "k", "signature": "s", "signedAt": 1, "nonce": "n"}
    params = {
        "minProtocol": 3,
        "maxProtocol": 4,
        "client": CLIENT,
        "scopes": list(scopes),
        "device": proof,
    }
    return read_connect(params, strict_client=True)


class FakeDevices:
    """A tenant whose devices may read."""

    def __init__(self) -> None:
        self.credentials = self
        self.asked: list[set[OperatorScope]] = []
        self.awake = self.most_awake = 0
        self.sleeps = False

    async def runtime(self, tenant: str) -> str:
        self.awake += 1
        self.most_awake = max(self.most_awake, self.awake)
        await trio.lowlevel.checkpoint()
        self.awake -= 1
        if self.sleeps:
            raise Unavailable("it sleeps")
        return tenant

    async def authenticate_device_token(self, tenant: str, text: str, **_: object) -> Any:
        await trio.lowlevel.checkpoint()
        return SimpleNamespace(caller=someone(tenant), scopes=READ)

    async def ask(self, tenant: str, grant: object, **wanted: Any) -> Any:
        await trio.lowlevel.checkpoint()
        self.asked.append(wanted["scopes"])
        return SimpleNamespace(request_id="ask-1")

    def door(self, *tenants: str) -> DeviceTokenDoor:
        services = cast("Any", self)
        return DeviceTokenDoor(services, services, holds=set(tenants).__contains__)


async def test_the_holder_of_a_good_one_is_who_the_device_belongs_to() -> None:
    devices = FakeDevices()
    caller, scopes = await devices.door("acme")(
        token(), request("operator.read"), request_id="r", ip=""
    )

    assert (caller, scopes) == (someone(), READ)
    assert devices.asked == []


async def test_who_wants_more_than_it_has_waits_for_somebody_to_agree() -> None:
    devices = FakeDevices()
    with pytest.raises(PairingNeeded) as caught:
        await devices.door("acme")(token(), request("operator.write"), request_id="r", ip="")

    assert caught.value.request_id == "ask-1"
    assert devices.asked == [{OperatorScope.READ, OperatorScope.WRITE}]


async def test_nobody_is_woken_for_a_tenant_that_is_not_here() -> None:
    devices = FakeDevices()
    with pytest.raises(TokenRejected):
        await devices.door("other")(token(), request(), request_id="r", ip="")

    assert devices.most_awake == 0


async def test_only_a_few_are_woken_at_once_for_who_proved_nothing() -> None:
    devices = FakeDevices()
    devices.sleeps = True
    door = devices.door("acme")

    async def knock() -> None:
        with pytest.raises(Unavailable):
            await door(token(), request(), request_id="r", ip="")

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(knock)
    assert devices.most_awake == 4
