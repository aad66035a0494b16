"""The shapes of presence, heartbeats and the user."""

from types import SimpleNamespace
from typing import Any

import pytest

from appliance.model.errors import ForeignSession, InvalidRequest
from appliance.services.presence import Presence
from appliance.transports.rpc.presence import METHODS
from tests.fakes.awake import FakeAwake, FakeClient, someone
from tests.services.tenancy import NOW, Tenancy
from tests.transports.rpc.method_calls import Methods

NOW_MS = int(NOW.timestamp() * 1000)


class Bench:
    def __init__(self, tenancy: Tenancy, tenant: FakeAwake) -> None:
        presence = Presence(version="1", clock=tenancy.clock)
        self.methods = Methods(METHODS, SimpleNamespace(presence=presence))
        self.tenant = tenant
        self.client = tenant.connect(FakeClient("c1", someone("acme")))

    async def call(self, name: str, params: object = None) -> Any:
        return await self.methods.call(self.tenant, self.client, name, params)


@pytest.fixture
async def bench(tenancy: Tenancy) -> Bench:
    await tenancy.make()
    return Bench(tenancy, FakeAwake(tenancy.state.tenant_root("acme")))


async def test_presence_is_an_array_with_the_gateway_first(bench: Bench) -> None:
    own, mine = await bench.call("system-presence")

    assert own == {
        "ts": NOW_MS,
        "host": "openclawmu",
        "version": "1",
        "mode": "gateway",
        "reason": "self",
        "text": "Gateway: openclawmu · app 1 · mode gateway · reason self",
    }
    assert (mine["host"], mine["roles"], "operator.admin" in mine["scopes"]) == (
        "cli",
        ["operator"],
        True,
    )


async def test_a_system_event_is_a_row_that_claims_no_rights(bench: Bench) -> None:
    said = {"text": "Node: mac", "host": "mac", "scopes": ["operator.admin"], "sessionKey": "main"}

    assert await bench.call("system-event", said) == {"ok": True}

    row = (await bench.call("system-presence"))[-1]
    assert (row["host"], row["text"], "scopes" in row) == ("mac", "Node: mac", False)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"text": "  "}, InvalidRequest),
        ({"text": "x", "wake": True}, InvalidRequest),
        ({"text": "x", "sessionKey": "tenant:other:agent:main:main"}, ForeignSession),
        ({"text": "x", "zzz": 1}, InvalidRequest),
    ],
)
async def test_a_system_event_that_cannot_be_taken(
    bench: Bench, said: dict[str, object], kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        await bench.call("system-event", said)


async def test_heartbeats_are_switched_and_the_last_one_is_null_at_first(bench: Bench) -> None:
    assert await bench.call("last-heartbeat") is None
    assert await bench.call("set-heartbeats", {"enabled": False}) == {"ok": True, "enabled": False}

    bench.tenant.state.last_heartbeat = {"ts": 1, "status": "skipped"}

    assert await bench.call("last-heartbeat") == {"ts": 1, "status": "skipped"}


async def test_a_tenant_is_the_one_user_there_is(bench: Bench) -> None:
    assert await bench.call("users.self") == {
        "profile": {
            "id": "acme",
            "displayName": "Acme & Sons",
            "createdAt": NOW_MS,
            "updatedAt": NOW_MS,
            "avatarMime": None,
            "mergedInto": None,
            "emails": [],
            "githubIdentity": None,
            "hasAvatar": False,
        }
    }


def test_the_gateways_identity_is_not_part_of_this_release() -> None:
    (method,) = [method for method in METHODS if method.name == "gateway.identity.get"]
    assert not method.is_available
