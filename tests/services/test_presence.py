"""Who is there: seen by its tenant alone, told once a second at most."""

import pytest
import trio
from trio.testing import MockClock

from appliance.services.clients import ClientInfo
from appliance.services.events import Audience, StateVersion
from appliance.services.heartbeats import last_heartbeat, set_heartbeats
from appliance.services.presence import MOST_ENTRIES, Presence
from appliance.services.presence_beacons import Beacons, PresenceEntry
from appliance.services.tenant_state import SystemText, TenantState
from tests.fakes.awake import FakeAwake, FakeClient, someone
from tests.services.tenancy import ADMIN, Clock, Tenancy


@pytest.fixture
def presence() -> Presence:
    return Presence(version="1.2.3", clock=Clock())


@pytest.fixture
async def tenant(tenancy: Tenancy) -> FakeAwake:
    await tenancy.make()
    return FakeAwake(tenancy.state.tenant_root("acme"))


async def test_the_gateways_own_row_says_nothing_of_the_machine(
    presence: Presence, tenant: FakeAwake
) -> None:
    (own,) = presence.entries(tenant)

    assert (own.host, own.ip, own.mode, own.reason) == ("openclawmu", None, "gateway", "self")
    assert own.text == "Gateway: openclawmu · app 1.2.3 · mode gateway · reason self"


async def test_a_connection_has_a_row_and_the_operators_has_no_address(
    presence: Presence, tenant: FakeAwake
) -> None:
    info = ClientInfo(id="cli", mode="cli", version="9", instance_id="i1")
    tenant.connect(FakeClient("c1", someone("acme"), info=info, device_id="d1"))
    tenant.connect(FakeClient("c2", ADMIN))

    rows = {row.device_id: row for row in presence.entries(tenant)[1:]}

    assert rows["d1"].ip == "198.51.100.7"
    assert (rows["d1"].instance_id, rows["d1"].roles) == ("i1", ("operator",))
    assert rows[None].ip is None


async def test_the_list_has_a_hundred_rows_at_most(presence: Presence, tenant: FakeAwake) -> None:
    for number in range(MOST_ENTRIES + 20):
        tenant.connect(FakeClient(f"c{number}", someone("acme")))

    assert len(presence.entries(tenant)) == MOST_ENTRIES


async def test_many_changes_are_one_event_a_second(
    presence: Presence, tenant: FakeAwake, autojump_clock: MockClock
) -> None:
    for _ in range(5):
        presence.touch(tenant)
    assert presence.publish_due(tenant)
    presence.touch(tenant)
    assert not presence.publish_due(tenant)
    await trio.sleep(1)
    assert presence.publish_due(tenant)
    assert not presence.publish_due(tenant)

    first, second = tenant.told
    assert (first.state_version, second.state_version) == (StateVersion(6, 1), StateVersion(7, 1))
    assert (first.audience, first.droppable) == (Audience.READERS, True)
    assert tenant.heard("presence")[0]["presence"][0]["mode"] == "gateway"


async def test_a_tenant_hears_of_its_own_connections_only(
    presence: Presence, tenant: FakeAwake, tenancy: Tenancy
) -> None:
    await tenancy.make("other")
    other = FakeAwake(tenancy.state.tenant_root("other"))
    other.connect(FakeClient("c1", someone("other")))
    presence.touch(other)

    assert presence.publish_due(other)
    assert not presence.publish_due(tenant)
    assert len(presence.entries(tenant)) == 1
    assert tenant.told == []


async def test_what_a_client_says_is_a_row_and_a_text_for_the_agent(
    presence: Presence, tenant: FakeAwake
) -> None:
    now_ms = presence.now_ms()
    presence.note(tenant, PresenceEntry(ts=now_ms, text="Node: mac", host="mac", version="1"))
    presence.note(tenant, PresenceEntry(ts=now_ms, text="the door bell rang", host="MAC"))

    row = presence.entries(tenant)[1]
    assert (row.text, row.version) == ("the door bell rang", "1")
    assert list(tenant.state.system_texts) == [SystemText(now_ms, "the door bell rang")]


def test_a_beacon_fades_after_five_minutes_and_there_are_thirty_two() -> None:
    beacons = Beacons()
    for number in range(40):
        beacons.put(PresenceEntry(ts=number, text=f"t{number}"))

    assert [entry.ts for entry in beacons.recent(0)] == list(range(39, 7, -1))
    assert [entry.ts for entry in beacons.recent(300_038)] == [39]


async def test_heartbeats_are_switched_off_for_one_tenant(
    tenant: FakeAwake,
) -> None:
    set_heartbeats(tenant, enabled=False)

    assert not tenant.state.heartbeats_enabled
    assert TenantState().heartbeats_enabled
    assert last_heartbeat(tenant) is None
