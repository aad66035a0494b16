"""Tenants: made, looked at, changed, ended; and what a broken one does to the others."""

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import trio

from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import (
    AlreadyExists,
    ApplianceError,
    AuditUnavailable,
    DiskFull,
    Forbidden,
    InvalidRequest,
    ScopeMissing,
    TenantBroken,
    TenantUnknown,
    TokenRejected,
)
from appliance.model.tokens import Scope
from appliance.services.last_use import LastUse
from appliance.services.tenants import TenantService
from appliance.storage.tenant_records import TenantRecords
from tests.services.tenancy import ADMIN, NOW, Tenancy

Verb = Callable[[TenantService, Caller], Awaitable[object]]

ADMIN_VERBS: dict[str, Verb] = {
    "create": lambda tenants, caller: tenants.create(caller, tenant_id="new"),
    "list": lambda tenants, caller: tenants.list(caller),
    "rename": lambda tenants, caller: tenants.update(caller, "acme", name="x"),
    "disable": lambda tenants, caller: tenants.update(caller, "acme", disabled=True),
    "put_quotas": lambda tenants, caller: tenants.put_quotas(caller, "acme", {}),
}
READ_VERBS: dict[str, Verb] = {
    "get": lambda tenants, caller: tenants.get(caller, "acme"),
    "list_tokens": lambda tenants, caller: tenants.list_tokens(caller, "acme"),
    "quotas": lambda tenants, caller: tenants.quotas(caller, "acme"),
    "config": lambda tenants, caller: tenants.config(caller, "acme"),
    "config_version": lambda tenants, caller: tenants.config_version(caller, "acme"),
}
MANAGE_VERBS: dict[str, Verb] = {
    "put_config": lambda tenants, caller: tenants.put_config(caller, "acme", {}),
    "patch_config": lambda tenants, caller: tenants.patch_config(caller, "acme", {}),
    "change_config": lambda tenants, caller: tenants.change_config(caller, "acme", dict),
    "create_token": lambda tenants, caller: tenants.create_token(caller, "acme", scopes=["manage"]),
    "revoke_token": lambda tenants, caller: tenants.revoke_token(caller, "acme", caller.credential),
    "rotate": lambda tenants, caller: tenants.rotate(caller, "acme"),
}
FULL_VERBS: dict[str, Verb] = {
    "delete": lambda tenants, caller: tenants.delete(caller, "acme"),
}
TENANT_VERBS = READ_VERBS | MANAGE_VERBS | FULL_VERBS


def test_every_verb_is_in_a_table() -> None:
    verbs = {name for name in vars(TenantService) if not name.startswith("_")}
    tested = {*ADMIN_VERBS, *TENANT_VERBS} - {"rename", "disable"} | {"update"}
    assert verbs - tested == {"broken", "reload"}


@pytest.mark.parametrize("verb", ADMIN_VERBS)
async def test_what_is_the_operators_a_tenant_may_not_do(tenancy: Tenancy, verb: str) -> None:
    await tenancy.make()
    caller = await tenancy.caller("acme", Scope.FULL)
    before = tenancy.file("acme").read_bytes()

    with pytest.raises(Forbidden):
        await ADMIN_VERBS[verb](tenancy.tenants, caller)

    assert tenancy.file("acme").read_bytes() == before
    assert tenancy.audit.names == ["tenant.create", "token.mint"]


@pytest.mark.parametrize("verb", TENANT_VERBS)
@pytest.mark.parametrize("exists", [True, False])
async def test_a_foreign_tenant_is_refused_whether_it_exists_or_not(
    tenancy: Tenancy, verb: str, *, exists: bool
) -> None:
    await tenancy.make("other")
    if exists:
        await tenancy.make("acme")
    caller = await tenancy.caller("other", Scope.FULL)

    with pytest.raises(Forbidden, match="another tenant"):
        await TENANT_VERBS[verb](tenancy.tenants, caller)


@pytest.mark.parametrize(
    ("verb", "scopes"),
    [
        *((verb, {Scope.FULL, Scope.READ, Scope.MANAGE}) for verb in READ_VERBS),
        *((verb, {Scope.FULL, Scope.MANAGE}) for verb in MANAGE_VERBS),
        *((verb, {Scope.FULL}) for verb in FULL_VERBS),
    ],
)
async def test_a_tenants_own_verbs_need_the_right_scope(
    tenancy: Tenancy, verb: str, scopes: set[Scope]
) -> None:
    await tenancy.make()
    for scope in reversed(Scope):  # full last: the tenant may be gone then
        caller = await tenancy.caller("acme", scope)
        if scope in scopes:
            await TENANT_VERBS[verb](tenancy.tenants, caller)
        else:
            with pytest.raises(ScopeMissing):
                await TENANT_VERBS[verb](tenancy.tenants, caller)


@pytest.mark.parametrize("verb", sorted({*ADMIN_VERBS, *TENANT_VERBS} - {"create", "list"}))
async def test_an_unknown_tenant_is_not_found(tenancy: Tenancy, verb: str) -> None:
    with pytest.raises(TenantUnknown):
        await (ADMIN_VERBS | TENANT_VERBS)[verb](tenancy.tenants, ADMIN)


async def test_a_tenant_is_made_with_a_token_that_works(tenancy: Tenancy) -> None:
    created = await tenancy.make("acme", name=" Acme ", quotas={"cost_per_day": "1.50"})

    assert created.record.name == "Acme"
    assert created.record.quotas == {"cost_per_day": 1_500_000_000}
    assert created.record.created_at == NOW
    assert created.token_text.startswith("tenant:acme:")
    assert created.token.scopes == {Scope.FULL}
    assert tenancy.access.authenticate(created.token_text).tenant == "acme"
    assert await tenancy.tenants.get(ADMIN, "acme") == tenancy.registry.require("acme")
    assert created.token_text.rpartition(":")[2] not in tenancy.file("acme").read_text()
    assert tenancy.audit.actions == [
        {
            "by": "first",
            "action": "tenant.create",
            "tenant": "acme",
            "target": "",
            "details": {"name": "Acme", "quotas": {"cost_per_day": "1.50"}, "template": None},
        }
    ]


async def test_a_tenant_and_its_token_are_there_after_a_restart(tenancy: Tenancy) -> None:
    created = await tenancy.make("acme", config={"models": {"aliases": {"fast": "stub/mock"}}})

    again = tenancy.restarted()

    assert again.access.authenticate(created.token_text).tenant == "acme"
    document = await again.tenants.config(ADMIN, "acme")
    assert document.overlay == {"models": {"aliases": {"fast": "stub/mock"}}}
    again.close()


async def test_without_an_id_one_is_made_up(tenancy: Tenancy) -> None:
    first = await tenancy.tenants.create(ADMIN)
    second = await tenancy.tenants.create(ADMIN)

    assert first.record.id != second.record.id
    assert tenancy.access.authenticate(first.token_text).tenant == first.record.id


async def test_a_template_is_below_what_is_given(tenancy: Tenancy) -> None:
    plain = await tenancy.make("plain", template="trial")
    own = await tenancy.make(
        "own",
        template="trial",
        name="Own",
        quotas={"tokens_per_day": None, "channels": 1},
        config={"models": {"aliases": {"smart": "stub/b"}}},
    )

    assert plain.record.name == "Trial"
    assert plain.record.quotas == {"tokens_per_day": 1000}
    assert own.record.name == "Own"
    assert own.record.quotas == {"tokens_per_day": None, "channels": 1}
    document = await tenancy.tenants.config(ADMIN, "own")
    assert document.overlay == {"models": {"aliases": {"fast": "stub/a", "smart": "stub/b"}}}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"tenant_id": "../acme"}, "id"),
        ({"tenant_id": "ACME"}, "id"),
        ({"tenant_id": ""}, "id"),
        ({"tenant_id": "a" * 33}, "id"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\x1b[2J"}, "name"),
        ({"quotas": {"tokens_per_day": -1}}, "tokens_per_day"),
        ({"quotas": {"token_per_day": 1}}, "did you mean 'tokens_per_day'"),
        ({"quotas": {"cost_per_day": 1.5}}, "cost_per_day"),
        ({"config": {"modles": {}}}, "models"),
        ({"template": "trail"}, "did you mean 'trial'"),
    ],
)
async def test_bad_input_makes_no_tenant(
    tenancy: Tenancy, wanted: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        await tenancy.tenants.create(ADMIN, **wanted)  # type: ignore[arg-type] # bad on purpose

    assert tenancy.audit.names == []
    assert list((tenancy.state.path / "tenants").iterdir()) == []


async def test_only_one_of_many_who_want_an_id_gets_it(tenancy: Tenancy) -> None:
    made: list[str] = []

    async def make() -> None:
        with suppress(AlreadyExists):
            made.append((await tenancy.make()).token_text)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(make)

    assert len(made) == 1
    tenancy.access.authenticate(made[0])
    assert tenancy.audit.names == ["tenant.create"]


@pytest.mark.parametrize("tenant", ["constructor", "prototype", "null", "0"])
async def test_an_odd_name_is_a_name_like_any_other(tenancy: Tenancy, tenant: str) -> None:
    created = await tenancy.make(tenant)

    assert tenancy.access.authenticate(created.token_text).tenant == tenant
    await tenancy.tenants.delete(ADMIN, tenant)
    with pytest.raises(TenantUnknown):
        await tenancy.tenants.delete(ADMIN, tenant)


async def test_a_list_comes_in_pages_in_order_of_id(tenancy: Tenancy) -> None:
    for tenant in ("delta", "alpha", "charlie", "bravo", "echo"):
        await tenancy.make(tenant, name=f"The {tenant.upper()}")

    seen: list[str] = []
    cursor = None
    while True:
        page = await tenancy.tenants.list(ADMIN, limit=2, cursor=cursor)
        seen += [record.id for record in page.records]
        cursor = page.next_cursor
        if cursor is None:
            break

    assert seen == ["alpha", "bravo", "charlie", "delta", "echo"]
    found = await tenancy.tenants.list(ADMIN, query="the d")
    assert [record.id for record in found.records] == ["delta"]
    found = await tenancy.tenants.list(ADMIN, query="ALPH")
    assert [record.id for record in found.records] == ["alpha"]
    assert (await tenancy.tenants.list(ADMIN, limit=0)).records[0].id == "alpha"


async def test_renaming_is_durable_and_counts_the_version(tenancy: Tenancy) -> None:
    await tenancy.make()

    renamed = await tenancy.tenants.update(ADMIN, "acme", name="New")
    same = await tenancy.tenants.update(ADMIN, "acme", name="New")

    assert (renamed.name, renamed.version) == ("New", 2)
    assert same == renamed
    assert tenancy.audit.names == ["tenant.create", "tenant.update"]
    assert json.loads(tenancy.file("acme").read_text())["name"] == "New"
    assert [r.id for r in (await tenancy.tenants.list(ADMIN, query="new")).records] == ["acme"]


async def test_disabling_refuses_then_is_durable_then_ends_what_runs(tenancy: Tenancy) -> None:
    created = await tenancy.make()

    record = await tenancy.tenants.update(ADMIN, "acme", disabled=True, reason="unpaid")

    assert (record.disabled, record.disabled_reason) == (True, "unpaid")
    assert tenancy.running.calls == [("stop", "acme", "disabled")]
    assert json.loads(tenancy.running.seen_on_disk[0])["disabled"] is True
    with pytest.raises(TokenRejected):
        tenancy.access.authenticate(created.token_text)
    with pytest.raises(TokenRejected):
        tenancy.restarted().access.authenticate(created.token_text)


async def test_enabling_lets_the_same_tokens_in_again(tenancy: Tenancy) -> None:
    created = await tenancy.make()
    await tenancy.tenants.update(ADMIN, "acme", disabled=True, reason="unpaid")

    record = await tenancy.tenants.update(ADMIN, "acme", disabled=False)

    assert (record.disabled, record.disabled_reason) == (False, "")
    assert tenancy.access.authenticate(created.token_text).tenant == "acme"
    assert tenancy.audit.names == ["tenant.create", "tenant.disable", "tenant.enable"]
    await tenancy.tenants.update(ADMIN, "acme", disabled=False)
    assert len(tenancy.audit.names) == 3


async def test_a_deleted_tenant_is_gone_and_its_data_is_kept_aside(tenancy: Tenancy) -> None:
    created = await tenancy.make()
    tenancy.file("acme", "notes").write_text("of the first")

    await tenancy.tenants.delete(ADMIN, "acme")

    with pytest.raises(TokenRejected):
        tenancy.access.authenticate(created.token_text)
    with pytest.raises(TenantUnknown):
        await tenancy.tenants.get(ADMIN, "acme")
    assert tenancy.running.calls == [("stop", "acme", "deleted")]
    (kept,) = tenancy.state.retired()
    assert (tenancy.state.path / "deleted" / kept / "notes").read_text() == "of the first"


async def test_an_id_used_again_adopts_nothing(tenancy: Tenancy) -> None:
    created = await tenancy.make(config={"models": {"default": "stub/old"}})
    await tenancy.tenants.delete(ADMIN, "acme")

    again = await tenancy.make()

    with pytest.raises(TokenRejected):
        tenancy.access.authenticate(created.token_text)
    assert tenancy.access.authenticate(again.token_text).tenant == "acme"
    assert (await tenancy.tenants.config(ADMIN, "acme")).overlay == {}


async def test_delete_data_leaves_nothing(tenancy: Tenancy) -> None:
    await tenancy.make()

    await tenancy.tenants.delete(ADMIN, "acme", delete_data=True)

    assert tenancy.state.retired() == []
    assert tenancy.state.tenants() == []


async def test_while_a_tenant_is_being_deleted_nobody_can_wake_it(tenancy: Tenancy) -> None:
    await tenancy.make()
    answers: list[str] = []

    async def stop(tenant: str, *, reason: str) -> None:
        try:
            tenancy.registry.require(tenant)
        except TenantUnknown:
            answers.append("unknown")

    tenancy.running.stop = stop  # type: ignore[method-assign] # looks from the other side

    await tenancy.tenants.delete(ADMIN, "acme")

    assert answers == ["unknown"]


async def test_a_tenant_that_cannot_be_moved_away_is_still_there(
    tenancy: Tenancy, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = await tenancy.make()

    def fail(_: object, __: str) -> str:
        raise OSError("no")

    monkeypatch.setattr(TenantRecords, "remove", fail)
    with pytest.raises(OSError, match="no"):
        await tenancy.tenants.delete(ADMIN, "acme")

    assert tenancy.access.authenticate(created.token_text).tenant == "acme"
    assert tenancy.audit.failed == ["tenant.delete"]


async def test_quotas_are_replaced_whole_and_lie_on_the_gateways(tenancy: Tenancy) -> None:
    await tenancy.make(quotas={"tokens_per_day": 5})

    quotas = await tenancy.tenants.put_quotas(
        ADMIN, "acme", {"cost_per_month": None, "channels": 0}
    )

    assert quotas.explicit == {"cost_per_month": None, "channels": 0}
    assert quotas.effective.cost_per_month is None
    assert quotas.effective.requests_per_minute == 600
    assert quotas.effective.tokens_per_day is None
    assert await tenancy.tenants.quotas(ADMIN, "acme") == quotas
    assert tenancy.running.calls == [("refresh", "acme")]
    assert tenancy.audit.actions[-1]["details"] == {
        "before": {"tokens_per_day": 5},
        "after": {"cost_per_month": None, "channels": 0},
    }


@pytest.mark.parametrize(
    "raw", [{"tokens_per_day": -1}, {"tokens_per_day": "5"}, {"tokens_per_day": True}, {"x": 1}]
)
async def test_bad_quotas_change_nothing(tenancy: Tenancy, raw: dict[str, object]) -> None:
    await tenancy.make(quotas={"tokens_per_day": 5})

    with pytest.raises(InvalidRequest):
        await tenancy.tenants.put_quotas(ADMIN, "acme", raw)

    assert (await tenancy.tenants.quotas(ADMIN, "acme")).explicit == {"tokens_per_day": 5}


CHANGES: dict[str, Verb] = {
    **{name: verb for name, verb in ADMIN_VERBS.items() if name != "list"},
    **MANAGE_VERBS,
    "revoke_token": lambda tenants, caller: _revoke_first(tenants, caller),
}


async def _revoke_first(tenants: TenantService, caller: Caller) -> None:
    (first, *_) = await tenants.list_tokens(caller, "acme")
    await tenants.revoke_token(caller, "acme", first.id)


@pytest.mark.parametrize("verb", CHANGES)
async def test_what_cannot_be_audited_is_not_done(tenancy: Tenancy, verb: str) -> None:
    created = await tenancy.make()
    before = tenancy.file("acme").read_bytes()
    tenancy.audit.broken = True

    with pytest.raises(AuditUnavailable):
        await CHANGES[verb](tenancy.tenants, ADMIN)

    assert tenancy.file("acme").read_bytes() == before
    assert tenancy.running.calls == []
    assert tenancy.state.tenants() == ["acme"]
    assert tenancy.access.authenticate(created.token_text).tenant == "acme"


@pytest.mark.parametrize("verb", CHANGES)
async def test_every_change_is_audited_once(tenancy: Tenancy, verb: str) -> None:
    await tenancy.make()

    await CHANGES[verb](tenancy.tenants, ADMIN)

    assert len(tenancy.audit.names) == 2
    assert tenancy.audit.failed == []


@pytest.mark.parametrize("verb", CHANGES)
async def test_no_secret_reaches_the_audit_log(tenancy: Tenancy, verb: str) -> None:
    created = await tenancy.make()

    result = await CHANGES[verb](tenancy.tenants, ADMIN)

    texts = [getattr(result, name, "") for name in ("text", "token_text")]
    for text in (created.token_text, *texts):
        assert not text or text.rpartition(":")[2] not in repr(tenancy.audit.actions)


async def test_a_full_disk_refuses_a_change_and_loses_nothing(
    tenancy: Tenancy, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = await tenancy.make()

    def full(*_: object, **__: object) -> None:
        raise DiskFull("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(TenantRecords, "write", full)
        with pytest.raises(DiskFull):
            await tenancy.tenants.put_quotas(ADMIN, "acme", {"channels": 1})
        with pytest.raises(DiskFull):
            await tenancy.tenants.create_token(ADMIN, "acme")

    assert tenancy.audit.failed == ["quota.write", "token.mint"]
    assert (await tenancy.tenants.quotas(ADMIN, "acme")).explicit == {}
    assert tenancy.access.authenticate(created.token_text).tenant == "acme"


async def test_a_revocation_that_cannot_be_written_still_keeps_out_and_ends(
    tenancy: Tenancy, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = await tenancy.make()

    def full(*_: object, **__: object) -> None:
        raise DiskFull("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(TenantRecords, "write", full)
        with pytest.raises(DiskFull):
            await tenancy.tenants.revoke_token(ADMIN, "acme", created.token.id)
    with pytest.raises(TokenRejected):
        tenancy.access.authenticate(created.token_text)
    assert tenancy.running.calls == [("revoke", "acme", created.token.id, "revoked")]

    # The disk has room again, and the same request goes through.
    await tenancy.tenants.revoke_token(ADMIN, "acme", created.token.id)
    assert tenancy.registry.require("acme").tokens == ()


async def test_a_client_that_leaves_in_the_middle_leaves_nothing_half_done(
    tenancy: Tenancy,
) -> None:
    created = await tenancy.make()

    with trio.CancelScope() as scope:
        scope.cancel()
        await tenancy.tenants.revoke_token(ADMIN, "acme", created.token.id)
    tenancy.access.authenticate(created.token_text)

    # Cancelled behind the audit line, it is carried through.
    with trio.CancelScope() as scope:
        action = tenancy.audit.action

        def cancelling(*args: object, **kwargs: object) -> object:
            scope.cancel()
            return action(*args, **kwargs)  # type: ignore[arg-type] # handed through

        tenancy.audit.action = cancelling  # type: ignore[method-assign, assignment] # as above
        await tenancy.tenants.revoke_token(ADMIN, "acme", created.token.id)

    assert tenancy.running.calls == [("revoke", "acme", created.token.id, "revoked")]
    assert tenancy.registry.require("acme").tokens == ()


async def test_many_changes_at_once_lose_none(tenancy: Tenancy) -> None:
    await tenancy.make()

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(
                partial(tenancy.tenants.create_token, ADMIN, "acme", label=f"{number}")
            )
            nursery.start_soon(tenancy.tenants.put_quotas, ADMIN, "acme", {"channels": number})
            nursery.start_soon(partial(tenancy.tenants.update, ADMIN, "acme", name=f"n{number}"))

    record = tenancy.registry.require("acme")
    assert len(record.tokens) == 11
    assert record.version == 31
    assert tenancy.restarted().registry.require("acme") == record


# -- broken tenants --------------------------------------------------------


def corrupt(path: Path, how: str) -> None:
    data = path.read_bytes()
    match how:
        case "cut":
            path.write_bytes(data[:-40])
        case "empty":
            path.write_bytes(b"")
        case "foreign":
            path.write_bytes(data.replace(b'"acme"', b'"other"'))
        case "misspelt":
            path.write_bytes(data.replace(b'"disabled"', b'"disbled"'))
        case "missing":
            path.unlink()


@pytest.mark.parametrize("how", ["cut", "empty", "foreign", "misspelt", "missing"])
async def test_a_broken_tenant_is_named_and_kept_out_and_the_others_serve(
    tenancy: Tenancy, how: str
) -> None:
    broken, good = await tenancy.make("acme"), await tenancy.make("other")
    corrupt(tenancy.file("acme"), how)
    before = {path.name: path.read_bytes() for path in tenancy.file("acme").parent.iterdir()}

    again = tenancy.restarted()

    assert list(again.tenants.broken()) == ["acme"]
    page = await again.tenants.list(ADMIN)
    assert [record.id for record in page.records] == ["other"]
    assert list(page.broken) == ["acme"]
    with pytest.raises(TokenRejected):
        again.access.authenticate(broken.token_text)
    assert again.access.authenticate(good.token_text).tenant == "other"
    assert "acme" in again.registry
    for name, verb in (ADMIN_VERBS | TENANT_VERBS).items():
        if name not in {"create", "list", "delete"}:
            with pytest.raises(TenantBroken):
                await verb(again.tenants, ADMIN)
    with pytest.raises(AlreadyExists):
        await again.make("acme")
    after = {path.name: path.read_bytes() for path in again.file("acme").parent.iterdir()}
    assert after == before
    again.close()


async def test_a_record_that_breaks_while_we_run_is_not_written_over(tenancy: Tenancy) -> None:
    await tenancy.make()
    corrupt(tenancy.file("acme"), "cut")
    before = tenancy.file("acme").read_bytes()

    for change in (
        tenancy.tenants.put_quotas(ADMIN, "acme", {}),
        tenancy.tenants.create_token(ADMIN, "acme"),
        tenancy.tenants.update(ADMIN, "acme", disabled=True),
    ):
        with pytest.raises(TenantBroken):
            await change

    assert tenancy.file("acme").read_bytes() == before
    assert (await tenancy.tenants.list(ADMIN)).records == ()


async def test_a_broken_tenant_can_be_deleted(tenancy: Tenancy) -> None:
    await tenancy.make()
    corrupt(tenancy.file("acme"), "cut")
    again = tenancy.restarted()

    await again.tenants.delete(ADMIN, "acme")

    assert again.tenants.broken() == {}
    await again.make("acme")
    again.close()


# -- edits by hand ---------------------------------------------------------


def edit(tenancy: Tenancy, **changes: object) -> None:
    path = tenancy.file("acme")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


async def test_an_edit_by_hand_counts_from_the_reload_on(tenancy: Tenancy) -> None:
    created = await tenancy.make()
    edit(tenancy, disabled=True)
    tenancy.access.authenticate(created.token_text)

    await tenancy.tenants.reload()

    with pytest.raises(TokenRejected):
        tenancy.access.authenticate(created.token_text)
    assert tenancy.running.calls == [("stop", "acme", "its record changed")]
    assert tenancy.registry.disabled_count == 1


async def test_a_token_taken_out_by_hand_ends_with_what_it_runs(tenancy: Tenancy) -> None:
    created = await tenancy.make()
    second = await tenancy.tenants.create_token(ADMIN, "acme")
    stored = json.loads(tenancy.file("acme").read_text())
    edit(tenancy, tokens=stored["tokens"][1:])

    await tenancy.tenants.reload()

    with pytest.raises(TokenRejected):
        tenancy.access.authenticate(created.token_text)
    assert tenancy.access.authenticate(second.text).tenant == "acme"
    assert tenancy.running.calls == [
        ("revoke", "acme", created.token.id, "its record changed"),
        ("refresh", "acme"),
    ]


async def test_a_reload_finds_what_came_and_what_went(tenancy: Tenancy) -> None:
    first, second = await tenancy.make("acme"), await tenancy.make("gone")
    tenancy.file("gone").parent.rename(tenancy.state.path / "elsewhere")
    corrupt(tenancy.file("acme"), "cut")

    await tenancy.tenants.reload()

    for created in (first, second):
        with pytest.raises(TokenRejected):
            tenancy.access.authenticate(created.token_text)
    assert list(tenancy.tenants.broken()) == ["acme"]
    assert "gone" not in tenancy.registry

    (tenancy.state.path / "elsewhere").rename(tenancy.file("gone").parent)
    await tenancy.tenants.reload()
    assert tenancy.access.authenticate(second.token_text).tenant == "gone"


async def test_a_change_keeps_what_was_edited_by_hand(tenancy: Tenancy) -> None:
    await tenancy.make()
    edit(tenancy, name="By hand")

    await tenancy.tenants.put_quotas(ADMIN, "acme", {"channels": 1})

    assert tenancy.registry.require("acme").name == "By hand"


# -- last use --------------------------------------------------------------


async def test_the_last_use_is_known_at_once_and_written_when_flushed(tenancy: Tenancy) -> None:
    created = await tenancy.make()
    before = tenancy.file("acme").read_bytes()
    tenancy.clock.go_on(hours=5)
    tenancy.access.authenticate(created.token_text)

    (token,) = await tenancy.tenants.list_tokens(ADMIN, "acme")
    assert token.last_used_at == NOW + timedelta(hours=5)
    assert tenancy.file("acme").read_bytes() == before

    await LastUse(tenancy.registry).flush("acme")

    again = tenancy.restarted()
    assert again.registry.require("acme").tokens[0].last_used_at == NOW + timedelta(hours=5)
    again.close()


async def test_the_last_use_goes_along_with_a_change(tenancy: Tenancy) -> None:
    created = await tenancy.make()
    tenancy.clock.go_on(hours=5)
    tenancy.access.authenticate(created.token_text)

    await tenancy.tenants.update(ADMIN, "acme", disabled=True)

    stored = json.loads(tenancy.file("acme").read_text())
    assert stored["tokens"][0]["last_used_at"] == "2026-11-21T17:00:00Z"
    assert tenancy.index.used() == frozenset()


async def test_last_uses_are_written_once_an_hour(
    tenancy: Tenancy, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    created = await tenancy.make()
    unused = await tenancy.make("unused")
    await nursery.start(LastUse(tenancy.registry).run)
    for _ in range(100):
        await trio.sleep(30)
        tenancy.clock.go_on(seconds=30)
        tenancy.access.authenticate(created.token_text)
    assert tenancy.registry.require("acme").version == 1

    await trio.sleep(1000)
    # The clock jumps ahead of the thread that writes.
    async with tenancy.registry.locked("acme"):
        pass

    assert tenancy.registry.require("acme").version == 2
    assert tenancy.registry.require("unused").version == unused.record.version


async def test_a_last_use_that_cannot_be_written_hurts_nobody(
    tenancy: Tenancy, caplog: pytest.LogCaptureFixture
) -> None:
    created = await tenancy.make()
    tenancy.access.authenticate(created.token_text)
    corrupt(tenancy.file("acme"), "cut")

    await LastUse(tenancy.registry).flush_all()

    assert "not written down" in caplog.text
    await LastUse(tenancy.registry).flush("nobody")


async def test_a_hundred_tenants_are_counted(tenancy: Tenancy) -> None:
    for number in range(5):
        await tenancy.make(f"t{number}")
    await tenancy.tenants.update(ADMIN, "t1", disabled=True)

    assert len(tenancy.registry) == 5
    assert tenancy.registry.disabled_count == 1


async def test_whoever_acts_is_named(tenancy: Tenancy) -> None:
    await tenancy.make()
    on_behalf = replace(ADMIN, kind=ActorKind.ADMIN_ON_BEHALF, tenant="acme", credential="second")

    await tenancy.tenants.put_config(on_behalf, "acme", {})

    assert tenancy.audit.actions[-1]["by"] == "second"


async def test_every_refusal_is_an_expected_one(tenancy: Tenancy) -> None:
    await tenancy.make()
    nobody = Caller(ActorKind.TENANT, "tok_0", None)

    for verb in (ADMIN_VERBS | TENANT_VERBS).values():
        with pytest.raises(ApplianceError):
            await verb(tenancy.tenants, nobody)
