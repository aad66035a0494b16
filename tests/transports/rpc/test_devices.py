"""The shapes of ``device.*``; ``tests/services/test_devices.py`` has the rules."""

from types import SimpleNamespace

import pytest

from appliance.model.errors import InvalidRequest, NotFound
from appliance.model.operator_scopes import OperatorScope, Role
from appliance.services.clients import ClientInfo
from appliance.services.devices import DeviceService
from appliance.transports.rpc.devices import METHODS
from tests.fakes.awake import FakeAwake, FakeClient
from tests.services.tenancy import NOW, Tenancy
from tests.transports.rpc.method_calls import Methods

DEVICE = "ab" * 32
NOW_MS = int(NOW.timestamp() * 1000)


class Bench:
    def __init__(self, tenancy: Tenancy) -> None:
        self.tenancy = tenancy
        self.devices = DeviceService(tenancy.index, audit=tenancy.audit, clock=tenancy.clock)
        self.methods = Methods(METHODS, SimpleNamespace(devices=self.devices))

    async def client(self, name: str = "acme") -> tuple[FakeAwake, FakeClient]:
        """A tenant, and a client of it on a device that was seen."""
        await self.tenancy.make(name)
        tenant = FakeAwake(self.tenancy.state.tenant_root(name))
        caller = await self.tenancy.caller(name)
        client = tenant.connect(FakeClient(f"conn-{name}", caller, device_id=DEVICE))
        await self.devices.credentials.seen(
            tenant,
            caller,
            device_id=DEVICE,
            public_key="key",
            client=ClientInfo(id="cli", mode="cli", platform="linux"),
            role=Role.OPERATOR,
            scopes=[OperatorScope.READ],
        )
        return tenant, client


@pytest.fixture
def bench(tenancy: Tenancy) -> Bench:
    return Bench(tenancy)


async def test_the_list_has_no_token_values(bench: Bench) -> None:
    tenant, client = await bench.client()

    listed = await bench.methods.call(tenant, client, "device.pair.list")

    assert listed == {
        "pending": [],
        "paired": [
            {
                "deviceId": DEVICE,
                "publicKey": "key",
                "role": "operator",
                "roles": ["operator"],
                "scopes": ["operator.read"],
                "createdAtMs": NOW_MS,
                "approvedAtMs": NOW_MS,
                "tokens": [
                    {"role": "operator", "scopes": ["operator.read"], "createdAtMs": NOW_MS}
                ],
                "platform": "linux",
                "clientId": "cli",
                "clientMode": "cli",
                "connected": True,
                "lastSeenAtMs": NOW_MS,
            }
        ],
    }


async def test_a_token_is_rotated_and_revoked(bench: Bench) -> None:
    tenant, client = await bench.client()
    named = {"deviceId": DEVICE, "role": "operator"}

    rotated = await bench.methods.call(tenant, client, "device.token.rotate", named)
    revoked = await bench.methods.call(tenant, client, "device.token.revoke", named)

    assert rotated.pop("token").startswith("tenant:acme:")
    assert rotated == {
        "deviceId": DEVICE,
        "role": "operator",
        "scopes": ["operator.read"],
        "rotatedAtMs": NOW_MS,
        "tokenDelivery": "in-band",
    }
    assert revoked == {"deviceId": DEVICE, "role": "operator", "revokedAtMs": NOW_MS}


async def test_a_request_is_approved_or_rejected(bench: Bench) -> None:
    tenant, client = await bench.client()
    issued = await bench.methods.call(
        tenant, client, "device.token.rotate", {"deviceId": DEVICE, "role": "operator"}
    )
    grant = await bench.devices.credentials.authenticate_device_token(
        tenant, issued["token"], device_id=DEVICE, role=Role.OPERATOR
    )
    for decision in ("approve", "reject"):
        request = await bench.devices.ask(
            tenant,
            grant,
            public_key="key",
            client=client.info,
            role=Role.OPERATOR,
            scopes=[OperatorScope.WRITE],
        )
        listed = await bench.methods.call(tenant, client, "device.pair.list")
        assert [pending["deviceId"] for pending in listed["pending"]] == [DEVICE]
        asked = {"requestId": request.request_id}

        decided = await bench.methods.call(tenant, client, f"device.pair.{decision}", asked)

        assert decided["requestId"] == request.request_id
        assert (decided.get("device") or decided)["deviceId"] == DEVICE
        with pytest.raises(NotFound, match=r"^unknown requestId$"):
            await bench.methods.call(tenant, client, f"device.pair.{decision}", asked)


async def test_a_device_is_renamed_and_removed(bench: Bench) -> None:
    tenant, client = await bench.client()
    named = {"deviceId": DEVICE}

    renamed = await bench.methods.call(
        tenant, client, "device.pair.rename", {**named, "label": "mine"}
    )
    removed = await bench.methods.call(tenant, client, "device.pair.remove", named)

    assert (renamed, removed) == ({**named, "label": "mine"}, named)
    assert client.dropped is not None
    with pytest.raises(NotFound, match=r"^unknown deviceId$"):
        await bench.methods.call(tenant, client, "device.pair.remove", named)


async def test_another_tenants_device_is_out_of_reach(bench: Bench) -> None:
    acme, client = await bench.client()
    await bench.tenancy.make("other")
    other = FakeAwake(bench.tenancy.state.tenant_root("other"))
    mallory = FakeClient("c", await bench.tenancy.caller("other"))

    with pytest.raises(NotFound, match=r"^unknown deviceId$"):
        await bench.methods.call(other, mallory, "device.pair.remove", {"deviceId": DEVICE})

    assert (await bench.methods.call(other, mallory, "device.pair.list"))["paired"] == []
    assert len((await bench.methods.call(acme, client, "device.pair.list"))["paired"]) == 1


async def test_wrong_params_are_named(bench: Bench) -> None:
    tenant, client = await bench.client()

    with pytest.raises(InvalidRequest, match=r"invalid device\.pair\.remove params: .*deviceId"):
        await bench.methods.call(tenant, client, "device.pair.remove", {"deviceId": 1})
