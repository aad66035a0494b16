"""Devices: vouched for by a tenant's token, bound to it, and gone with it."""

import pytest
import trio

from appliance.model.callers import Caller
from appliance.model.errors import Forbidden, NotFound, TokenRejected
from appliance.model.operator_scopes import EVERYTHING, OperatorScope, Role, granted
from appliance.model.tokens import Scope
from appliance.services.clients import ClientInfo
from appliance.services.device_credentials import DeviceCredentials
from appliance.services.device_tokens import DeviceGrant, IssuedDeviceToken
from appliance.services.devices import DeviceService
from appliance.services.events import Audience
from appliance.services.paired_devices import with_device
from appliance.services.pairing import changing, read
from appliance.services.pairing_events import DevicePairRequested
from appliance.storage.paired import MOST_DEVICES, Device, Paired
from tests.fakes.awake import FakeAwake, FakeClient
from tests.services.tenancy import ADMIN, Tenancy

DEVICE = "ab" * 32
CLI = ClientInfo(id="cli", mode="cli", platform="linux", display_name="laptop")
READ, WRITE, ADMIN_SCOPE = OperatorScope.READ, OperatorScope.WRITE, OperatorScope.ADMIN


class Bench:
    def __init__(self, tenancy: Tenancy) -> None:
        self.tenancy = tenancy
        self.devices = DeviceService(tenancy.index, audit=tenancy.audit, clock=tenancy.clock)
        self.credentials: DeviceCredentials = self.devices.credentials

    async def tenant(self, name: str = "acme") -> FakeAwake:
        await self.tenancy.make(name)
        return FakeAwake(self.tenancy.state.tenant_root(name))

    async def seen(
        self,
        tenant: FakeAwake,
        caller: Caller,
        *scopes: OperatorScope,
        device: str = DEVICE,
        role: Role = Role.OPERATOR,
    ) -> IssuedDeviceToken | None:
        return await self.credentials.seen(
            tenant,
            caller,
            device_id=device,
            public_key="key",
            client=CLI,
            role=role,
            scopes=scopes or granted(caller, ()),
        )

    async def first(self, tenant: FakeAwake, caller: Caller, *scopes: OperatorScope) -> str:
        issued = await self.seen(tenant, caller, *scopes)
        assert issued is not None
        return issued.text

    async def enter(
        self, tenant: FakeAwake, text: str, *, device: str = DEVICE, role: Role = Role.OPERATOR
    ) -> DeviceGrant:
        return await self.credentials.authenticate_device_token(
            tenant, text, device_id=device, role=role, request_id="req_7", ip="192.0.2.9"
        )


@pytest.fixture
def bench(tenancy: Tenancy) -> Bench:
    return Bench(tenancy)


async def test_a_device_that_comes_with_a_tenants_token_is_paired_at_once(bench: Bench) -> None:
    tenant = await bench.tenant()
    caller = await bench.tenancy.caller("acme")

    text = await bench.first(tenant, caller)

    assert text.startswith("tenant:acme:")
    listed = await bench.devices.list(tenant.asleep_and_awake())
    (device,) = listed.paired
    assert (device.device_id, device.roles, device.platform) == (DEVICE, ("operator",), "linux")
    assert bench.tenancy.audit.actions[-1]["action"] == "device.pair"
    assert text.split(":")[2] not in bench.tenancy.file("acme", "devices.json").read_text()


async def test_a_known_device_costs_no_write_and_is_shown_no_token(bench: Bench) -> None:
    tenant = await bench.tenant()
    caller = await bench.tenancy.caller("acme")
    await bench.first(tenant, caller, READ, WRITE)
    before = bench.tenancy.file("acme", "devices.json").stat()

    assert await bench.seen(tenant, caller, READ, WRITE) is None
    assert await bench.seen(tenant, caller, READ) is None  # less than it has

    assert bench.tenancy.file("acme", "devices.json").stat().st_ino == before.st_ino


async def test_a_device_that_may_do_more_gets_one_token_for_all_of_it(bench: Bench) -> None:
    tenant = await bench.tenant()
    caller = await bench.tenancy.caller("acme")
    old = await bench.first(tenant, caller, READ)

    new = await bench.first(tenant, caller, OperatorScope.PAIRING)

    assert (await bench.enter(tenant, new)).scopes == {READ, OperatorScope.PAIRING}
    with pytest.raises(TokenRejected):
        await bench.enter(tenant, old)


async def test_a_device_token_stands_for_the_token_that_vouched_for_it(bench: Bench) -> None:
    tenant = await bench.tenant()
    caller = await bench.tenancy.caller("acme", Scope.CHAT)
    text = await bench.first(tenant, caller)

    grant = await bench.enter(tenant.asleep_and_awake(), text)

    assert grant.scopes == {READ, WRITE}
    assert grant.caller.credential == caller.credential
    assert grant.caller.scopes == {Scope.CHAT}
    assert (grant.caller.tenant, grant.caller.ip) == ("acme", "192.0.2.9")
    assert bench.tenancy.access.is_live(grant.caller)


async def test_a_device_token_dies_with_the_token_that_vouched_for_it(bench: Bench) -> None:
    tenant = await bench.tenant()
    caller = await bench.tenancy.caller("acme")
    text = await bench.first(tenant, caller)
    grant = await bench.enter(tenant, text)

    await bench.tenancy.tenants.revoke_token(ADMIN, "acme", caller.credential)

    with pytest.raises(TokenRejected):
        await bench.enter(tenant, text)
    assert not bench.tenancy.access.is_live(grant.caller)
    another = await bench.tenancy.caller("acme")
    assert await bench.first(tenant, another) != text


async def test_a_device_token_counts_for_its_device_role_and_tenant_only(bench: Bench) -> None:
    acme, other = await bench.tenant(), await bench.tenant("other")
    text = await bench.first(acme, await bench.tenancy.caller("acme"))
    await bench.first(other, await bench.tenancy.caller("other"))

    for attempt in (
        {"tenant": acme, "device": "cd" * 32},
        {"tenant": acme, "role": Role.NODE},
        {"tenant": other},
        {"tenant": acme, "text": text[:-1]},
        {"tenant": acme, "text": text.replace("acme", "other")},
        {"tenant": other, "text": text.replace("acme", "other")},
        {"tenant": acme, "text": ""},
    ):
        with pytest.raises(TokenRejected):
            await bench.enter(**{"text": text, **attempt})  # type: ignore[arg-type]  # as listed


async def test_an_admin_vouches_for_no_device(bench: Bench) -> None:
    tenant = await bench.tenant()

    assert await bench.seen(tenant, ADMIN) is None

    assert (await bench.devices.list(tenant)).paired == ()


async def test_a_device_connects_without_a_token_when_nothing_can_be_written(
    bench: Bench,
) -> None:
    tenant = await bench.tenant()
    caller = await bench.tenancy.caller("acme")
    bench.tenancy.audit.broken = True

    assert await bench.seen(tenant, caller) is None

    assert (await bench.devices.list(tenant)).paired == ()


async def test_connections_that_come_at_once_make_one_device(bench: Bench) -> None:
    tenant = await bench.tenant()
    caller = await bench.tenancy.caller("acme")
    issued: list[IssuedDeviceToken | None] = []

    async def come() -> None:
        issued.append(await bench.seen(tenant, caller))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(come)

    assert len([token for token in issued if token is not None]) == 1
    assert bench.tenancy.audit.names.count("device.pair") == 1


async def test_removing_a_device_ends_its_token_and_its_connections(bench: Bench) -> None:
    tenant = await bench.tenant()
    caller = await bench.tenancy.caller("acme")
    text = await bench.first(tenant, caller)
    mine = tenant.connect(FakeClient("c1", caller, device_id=DEVICE))
    others = tenant.connect(FakeClient("c2", caller, device_id="cd" * 32))

    await bench.devices.remove(tenant, caller, DEVICE)

    assert (mine.dropped, others.dropped) == ((1008, "device removed"), None)
    with pytest.raises(TokenRejected):
        await bench.enter(tenant.asleep_and_awake(), text)
    assert tenant.heard("device.pair.resolved")[0]["decision"] == "removed"
    assert tenant.told[-1].audience is Audience.PAIRING
    assert bench.tenancy.audit.names[-1] == "device.unpair"


async def test_another_tenants_device_is_an_unknown_one(bench: Bench) -> None:
    acme, other = await bench.tenant(), await bench.tenant("other")
    await bench.first(acme, await bench.tenancy.caller("acme"))
    mallory = await bench.tenancy.caller("other")
    answers = set()

    for device in (DEVICE, "cd" * 32):
        for attempt in (
            bench.devices.remove(other, mallory, device),
            bench.devices.rename(other, mallory, device, "mine"),
            bench.credentials.revoke(other, mallory, device, "operator"),
            bench.credentials.rotate(
                other, mallory, device, "operator", held=EVERYTHING, connection=""
            ),
        ):
            with pytest.raises(NotFound) as refused:
                await attempt
            answers.add((refused.value.code, refused.value.detail, str(refused.value.facts)))

    assert answers == {("not-found", "unknown deviceId", "{}")}
    assert len((await bench.devices.list(acme)).paired) == 1


async def test_revoking_a_device_token_ends_it_and_a_tenant_token_vouches_again(
    bench: Bench,
) -> None:
    tenant = await bench.tenant()
    caller = await bench.tenancy.caller("acme")
    text = await bench.first(tenant, caller)
    live = tenant.connect(FakeClient("c1", caller, device_id=DEVICE))

    await bench.credentials.revoke(tenant, caller, DEVICE, "operator")

    assert live.dropped == (1008, "device token revoked")
    with pytest.raises(TokenRejected):
        await bench.enter(tenant, text)
    assert await bench.first(tenant, caller) != text


async def test_rotating_a_device_token_spares_the_connection_that_asked(bench: Bench) -> None:
    tenant = await bench.tenant()
    caller = await bench.tenancy.caller("acme")
    old = await bench.first(tenant, caller)
    asking = tenant.connect(FakeClient("c1", caller, device_id=DEVICE))
    second = tenant.connect(FakeClient("c2", caller, device_id=DEVICE))

    issued = await bench.credentials.rotate(
        tenant,
        caller,
        DEVICE,
        "operator",
        scopes=["operator.read", "operator.unknown"],
        held=EVERYTHING,
        connection="c1",
    )

    assert (asking.dropped, second.dropped) == (None, (1008, "device token rotated"))
    assert (await bench.enter(tenant, issued.text)).scopes == {READ}
    with pytest.raises(TokenRejected):
        await bench.enter(tenant, old)


async def test_nobody_rotates_a_token_into_more_than_they_have(bench: Bench) -> None:
    tenant = await bench.tenant()
    caller = await bench.tenancy.caller("acme")
    await bench.first(tenant, caller, READ)

    with pytest.raises(Forbidden, match=r"operator\.admin"):
        await bench.credentials.rotate(
            tenant,
            caller,
            DEVICE,
            "operator",
            scopes=["operator.admin"],
            held=frozenset({READ, OperatorScope.PAIRING}),
            connection="c1",
        )


async def test_an_admin_rotates_on_the_voucher_there_was(bench: Bench) -> None:
    tenant = await bench.tenant()
    caller = await bench.tenancy.caller("acme")
    await bench.first(tenant, caller)

    issued = await bench.credentials.rotate(
        tenant, ADMIN, DEVICE, "operator", held=EVERYTHING, connection=""
    )
    assert (await bench.enter(tenant, issued.text)).caller.credential == caller.credential

    await bench.tenancy.tenants.revoke_token(ADMIN, "acme", caller.credential)
    with pytest.raises(Forbidden, match="vouch"):
        await bench.credentials.rotate(
            tenant, ADMIN, DEVICE, "operator", held=EVERYTHING, connection=""
        )


async def test_a_device_asks_for_more_and_is_granted_it(bench: Bench) -> None:
    tenant = await bench.tenant()
    caller = await bench.tenancy.caller("acme")
    text = await bench.first(tenant, caller, READ)
    grant = await bench.enter(tenant, text)

    request = await bench.devices.ask(
        tenant, grant, public_key="key", client=CLI, role=Role.OPERATOR, scopes=[WRITE]
    )
    again = await bench.devices.ask(
        tenant, grant, public_key="key", client=CLI, role=Role.OPERATOR, scopes=[WRITE]
    )

    assert again == request
    (asked,) = tenant.heard("device.pair.requested")
    assert (asked["deviceId"], asked["scopes"], asked["isRepair"]) == (
        DEVICE,
        ["operator.write"],
        True,
    )
    assert DevicePairRequested.of(request).request_id == asked["requestId"]
    with pytest.raises(Forbidden):
        await bench.devices.approve(tenant, caller, request.request_id, held=frozenset({READ}))
    await bench.devices.approve(tenant, caller, request.request_id, held=EVERYTHING)
    assert (await bench.enter(tenant, text)).scopes == {READ, WRITE}
    with pytest.raises(NotFound, match="unknown requestId"):
        await bench.devices.approve(tenant, caller, request.request_id, held=EVERYTHING)


async def test_a_device_is_granted_a_second_role_with_the_token_it_has(bench: Bench) -> None:
    tenant = await bench.tenant()
    text = await bench.first(tenant, await bench.tenancy.caller("acme"), READ)
    grant = await bench.enter(tenant, text)
    request = await bench.devices.ask(
        tenant, grant, public_key="key", client=CLI, role=Role.NODE, scopes=[]
    )

    await bench.devices.approve(tenant, grant.caller, request.request_id, held=EVERYTHING)

    assert (await bench.enter(tenant, text, role=Role.NODE)).scopes == frozenset()


async def test_a_request_is_rejected_once_and_expires_in_five_minutes(bench: Bench) -> None:
    tenant = await bench.tenant()
    caller = await bench.tenancy.caller("acme")
    grant = await bench.enter(tenant, await bench.first(tenant, caller, READ))
    first = await bench.devices.ask(
        tenant, grant, public_key="key", client=CLI, role=Role.OPERATOR, scopes=[WRITE]
    )
    await bench.devices.reject(tenant, caller, first.request_id)
    with pytest.raises(NotFound, match="unknown requestId"):
        await bench.devices.reject(tenant, caller, first.request_id)

    second = await bench.devices.ask(
        tenant, grant, public_key="key", client=CLI, role=Role.OPERATOR, scopes=[WRITE]
    )
    bench.tenancy.clock.go_on(minutes=5)
    with pytest.raises(NotFound, match="unknown requestId"):
        await bench.devices.approve(tenant, caller, second.request_id, held=EVERYTHING)
    assert (await bench.devices.list(tenant)).pending == ()


async def test_a_device_keeps_the_name_its_tenant_gave_it(bench: Bench) -> None:
    tenant = await bench.tenant()
    caller = await bench.tenancy.caller("acme")
    await bench.first(tenant, caller, READ)

    await bench.devices.rename(tenant, caller, DEVICE, "  my laptop ")
    await bench.seen(tenant, caller, WRITE)

    (device,) = (await bench.devices.list(tenant.asleep_and_awake())).paired
    assert device.label == "my laptop"


async def test_an_action_that_cannot_be_audited_changes_nothing(bench: Bench) -> None:
    tenant = await bench.tenant()
    caller = await bench.tenancy.caller("acme")
    text = await bench.first(tenant, caller)
    live = tenant.connect(FakeClient("c1", caller, device_id=DEVICE))
    bench.tenancy.audit.broken = True

    with pytest.raises(Exception, match="the disk hangs"):
        await bench.devices.remove(tenant, caller, DEVICE)

    assert live.dropped is None
    assert (await bench.enter(tenant, text)).device_id == DEVICE


async def test_what_is_paired_is_read_once(bench: Bench) -> None:
    tenant = await bench.tenant()
    paired = await read(tenant)
    bench.tenancy.file("acme", "devices.json").write_text("broken")

    assert await read(tenant) is paired
    async with changing(tenant) as file:
        assert file.current is paired


def test_a_full_list_loses_the_device_that_was_met_first_and_is_not_connected() -> None:
    devices = {
        str(n): Device(device_id=str(n), public_key="", created_at_ms=n, approved_at_ms=n)
        for n in range(MOST_DEVICES)
    }
    new = Device(device_id="new", public_key="", created_at_ms=999, approved_at_ms=999)

    full = with_device(Paired(devices=devices), new, connected=frozenset({"0"}))

    assert len(full.devices) == MOST_DEVICES
    assert {"0", "new"} <= set(full.devices)
    assert "1" not in full.devices
