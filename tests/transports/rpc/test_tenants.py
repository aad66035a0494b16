from collections.abc import Mapping
from typing import Any

import pytest

from appliance.model.errors import (
    AlreadyExists,
    ApplianceError,
    Forbidden,
    InvalidRequest,
    TenantUnknown,
)
from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope
from appliance.transports.rpc import tenant_usage, tenants, tokens
from appliance.transports.rpc.method import Who
from tests.services.tenancy import ADMIN, Tenancy
from tests.transports.rpc.operator_bench import ON_BEHALF, OperatorBench

METHODS = (*tenants.METHODS, *tenant_usage.METHODS, *tokens.METHODS)
# What is needed beside tenantId.
MORE: Mapping[str, Mapping[str, Any]] = {
    "tenants.delete": {"confirm": True},
    "tenants.quota.update": {"quotas": {}},
    "tokens.revoke": {"tokenId": "tok_1"},
}
OWN = [method.name for method in METHODS if method.who is Who.ANYONE]


@pytest.fixture
def bench(tenancy: Tenancy) -> OperatorBench:
    return OperatorBench(tenancy, METHODS)


async def test_a_tenant_is_made_shown_changed_and_removed(bench: OperatorBench) -> None:
    made = await bench.call(
        "tenants.create",
        {"tenantId": "acme", "displayName": "Acme", "quotas": {"tokens_per_day": 5}},
    )
    assert made["token"].startswith("tenant:acme:")
    assert (made["stateDir"], made["createdAt"]) == ("tenant:acme", "2026-11-21T12:00:00Z")

    shown = await bench.call("tenants.get", {"tenantId": "acme"})
    assert shown == {
        "tenantId": "acme",
        "displayName": "Acme",
        "createdAt": "2026-11-21T12:00:00Z",
        "disabled": False,
        "tokens": 1,
        "stateDir": "tenant:acme",
    }

    changed = await bench.call(
        "tenants.update", {"tenantId": "acme", "displayName": "", "disabled": True}
    )
    assert (changed["updated"], changed["disabled"], "displayName" in changed) == (
        True,
        True,
        False,
    )

    gone = await bench.call("tenants.delete", {"tenantId": "acme"})
    assert gone == {"deleted": True, "tenantId": "acme", "dataDeleted": False}
    with pytest.raises(TenantUnknown):
        await bench.call("tenants.get", {"tenantId": "acme"})
    assert len(bench.tenancy.state.retired()) == 1


async def test_a_taken_and_an_impossible_id_are_told_apart(bench: OperatorBench) -> None:
    await bench.call("tenants.create", {"tenantId": "acme"})

    with pytest.raises(AlreadyExists):
        await bench.call("tenants.create", {"tenantId": "acme"})
    with pytest.raises(InvalidRequest, match="a tenant id is"):
        await bench.call("tenants.create", {"tenantId": "../etc"})


async def test_tenants_are_listed_in_pages(bench: OperatorBench) -> None:
    for name in ("acme", "globex", "initech"):
        await bench.call("tenants.create", {"tenantId": name})
    page = await bench.call("tenants.list", {"limit": 2})

    assert [row["tenantId"] for row in page["tenants"]] == ["acme", "globex"]
    rest = await bench.call("tenants.list", {"cursor": page["nextCursor"]})
    assert [row["tenantId"] for row in rest["tenants"]] == ["initech"]
    assert "nextCursor" not in rest


@pytest.mark.parametrize(
    "name", [name for name in (m.name for m in METHODS) if name != "tenants.list"]
)
async def test_a_tenant_id_is_required_in_the_words_clients_know(
    bench: OperatorBench, name: str
) -> None:
    with pytest.raises(InvalidRequest, match=r"^tenantId is required$"):
        await bench.call(name, MORE.get(name))
    with pytest.raises(InvalidRequest, match="/tenantId"):
        await bench.call(name, {**MORE.get(name, {}), "tenantId": 7})


@pytest.mark.parametrize("name", OWN)
async def test_a_foreign_tenant_is_refused_whether_it_exists_or_not(
    bench: OperatorBench, name: str
) -> None:
    caller = await bench.caller("acme")
    await bench.tenancy.make("globex")
    refusals = []
    for foreign in ("globex", "nobody", "../etc", "constructor"):
        with pytest.raises(ApplianceError) as refused:
            await bench.call(name, {**MORE.get(name, {}), "tenantId": foreign}, caller=caller)
        refusals.append((type(refused.value), refused.value.detail, refused.value.fields))

    assert set(refusals) == {(Forbidden, "the token belongs to another tenant", ())}
    assert bench.woken == []


def test_what_may_end_its_own_credential_runs_outside_the_tenant() -> None:
    outside = {method.name for method in METHODS if method.outside}
    assert outside == {"tenants.update", "tenants.rotate", "tenants.delete", "tokens.revoke"}


def test_what_changes_something_is_audited_and_needs_more_than_looking() -> None:
    for method in METHODS:
        changes = bool(method.audited)
        assert changes == (method.needs in {Scope.MANAGE, Scope.FULL}), method.name
        if method.who is not Who.ADMIN:
            assert changes == (method.scope is OperatorScope.ADMIN), method.name


@pytest.mark.parametrize("confirm", [{}, {"confirm": False}])
async def test_a_tenant_ends_itself_only_with_confirm(
    bench: OperatorBench, confirm: dict[str, Any]
) -> None:
    caller = await bench.caller("acme")
    with pytest.raises(InvalidRequest, match="confirm"):
        await bench.call("tenants.delete", {"tenantId": "acme", **confirm}, caller=caller)
    assert "acme" in bench.tenancy.registry


async def test_a_tenant_that_ends_itself_leaves_nothing_behind(bench: OperatorBench) -> None:
    caller = await bench.caller("acme")
    gone = await bench.call("tenants.delete", {"tenantId": "acme", "confirm": True}, caller=caller)

    assert gone["dataDeleted"] is True
    assert bench.tenancy.state.retired() == []
    assert bench.tenancy.audit.actions[-1]["by"] == caller.credential


async def test_a_tenant_that_ends_itself_may_have_its_data_kept(bench: OperatorBench) -> None:
    caller = await bench.caller("acme")
    params = {"tenantId": "acme", "confirm": True, "deleteData": False}
    await bench.call("tenants.delete", params, caller=caller)

    assert len(bench.tenancy.state.retired()) == 1


async def test_managing_is_not_enough_to_end_a_tenant(bench: OperatorBench) -> None:
    caller = await bench.caller("acme", Scope.MANAGE)
    with pytest.raises(Forbidden):
        await bench.call("tenants.delete", {"tenantId": "acme", "confirm": True}, caller=caller)


async def test_an_admin_acting_for_a_tenant_is_an_admin(bench: OperatorBench) -> None:
    await bench.tenancy.make("acme")
    gone = await bench.call("tenants.delete", {"tenantId": "acme"}, caller=ON_BEHALF)

    assert gone["dataDeleted"] is False


async def test_rotating_replaces_the_token(bench: OperatorBench) -> None:
    caller = await bench.caller("acme")
    rotated = await bench.call("tenants.rotate", {"tenantId": "acme"}, caller=caller)

    access = bench.tenancy.access
    assert access.authenticate(rotated["token"]).credential == rotated["tokenId"]
    assert not access.is_live(caller)


async def test_a_grace_period_that_is_none_is_refused(bench: OperatorBench) -> None:
    await bench.tenancy.make("acme")
    with pytest.raises(InvalidRequest, match="grace"):
        await bench.call("tenants.rotate", {"tenantId": "acme", "grace": "soon"})


async def test_tokens_are_made_listed_and_ended(bench: OperatorBench) -> None:
    caller = await bench.caller("acme")
    made = await bench.call(
        "tokens.create",
        {"tenantId": "acme", "label": "ci", "scopes": ["chat"], "expiresIn": "30d"},
        caller=caller,
    )
    assert made["expiresAt"] == "2026-12-21T12:00:00Z"
    assert bench.tenancy.access.authenticate(made["token"]).scopes == {Scope.CHAT}

    listed = await bench.call("tokens.list", {"tenantId": "acme"}, caller=caller)
    (row,) = [row for row in listed["tokens"] if row["id"] == made["id"]]
    assert (row["label"], row["scopes"], "token" in row) == ("ci", ["chat"], False)

    params = {"tenantId": "acme", "tokenId": made["id"]}
    ended = await bench.call("tokens.revoke", params, caller=caller)
    assert ended == {"tenantId": "acme", "tokenId": made["id"], "revoked": True}
    listed = await bench.call("tokens.list", {"tenantId": "acme"}, caller=ADMIN)
    assert made["id"] not in [row["id"] for row in listed["tokens"]]


async def test_nobody_hands_on_more_than_they_have(bench: OperatorBench) -> None:
    caller = await bench.caller("acme", Scope.MANAGE)
    with pytest.raises(Forbidden, match="cannot grant"):
        await bench.call("tokens.create", {"tenantId": "acme"}, caller=caller)
