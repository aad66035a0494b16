"""Tokens of a tenant: minted, listed, rotated, revoked; and what ends with what."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import (
    InvalidRequest,
    ModelForbidden,
    NotFound,
    ScopeMissing,
    TokenRejected,
)
from appliance.model.tenants import TenantRecord
from appliance.model.tokens import Scope
from appliance.services import tokens as rules
from tests.services.tenancy import ADMIN, NOW, Tenancy

SCOPES = st.frozensets(st.sampled_from(Scope), min_size=1)


async def test_a_minted_token_grants_what_it_was_minted_for(tenancy: Tenancy) -> None:
    await tenancy.make()

    minted = await tenancy.tenants.create_token(
        ADMIN, "acme", label="ci", scopes=["chat", "read"], expires_in=timedelta(days=30)
    )

    caller = tenancy.access.authenticate(minted.text)
    assert caller.scopes == minted.token.scopes == {Scope.CHAT, Scope.READ}
    assert caller.credential == minted.token.id
    assert minted.token.expires_at == NOW + timedelta(days=30)


async def test_a_token_may_be_for_some_models_only(tenancy: Tenancy) -> None:
    await tenancy.make()
    minted = await tenancy.tenants.create_token(ADMIN, "acme", models=["stub/*", "fast"])

    caller = tenancy.access.authenticate(minted.text)

    assert caller.may_ask("stub/mock")
    assert caller.may_ask("fast")
    assert caller.may_ask("smart", ["stub/mock", "stub/other"])
    assert not caller.may_ask("smart", ["stub/mock", "spare/other"])
    assert not caller.may_ask("spare/other")
    with pytest.raises(ModelForbidden, match="spare/other"):
        caller.require_model("spare/other")


async def test_a_token_for_some_models_hands_on_no_others(tenancy: Tenancy) -> None:
    await tenancy.make()
    minted = await tenancy.tenants.create_token(ADMIN, "acme", models=["stub/*"])
    caller = tenancy.access.authenticate(minted.text)

    same = await tenancy.tenants.create_token(caller, "acme")
    fewer = await tenancy.tenants.create_token(caller, "acme", models=["stub/mock"])
    with pytest.raises(ScopeMissing, match="models"):
        await tenancy.tenants.create_token(caller, "acme", models=["*"])
    rotated = await tenancy.tenants.rotate(caller, "acme")

    assert same.token.models == rotated.token.models == ("stub/*",)
    assert fewer.token.models == ("stub/mock",)


async def test_a_token_is_listed_without_its_text(tenancy: Tenancy) -> None:
    await tenancy.make()
    minted = await tenancy.tenants.create_token(ADMIN, "acme", label="ci")

    listed = await tenancy.tenants.list_tokens(ADMIN, "acme")

    assert [token.label for token in listed] == ["first", "ci"]
    assert minted.text.rpartition(":")[2] not in repr(listed)


async def test_a_token_ends_when_its_time_is_over(tenancy: Tenancy) -> None:
    await tenancy.make()
    minted = await tenancy.tenants.create_token(ADMIN, "acme", expires_in=timedelta(minutes=5))
    tenancy.access.authenticate(minted.text)

    tenancy.clock.go_on(minutes=5)

    with pytest.raises(TokenRejected):
        tenancy.access.authenticate(minted.text)


@pytest.mark.parametrize("has", Scope)
@pytest.mark.parametrize("wants", Scope)
async def test_no_token_mints_what_it_cannot_do_itself(
    tenancy: Tenancy, has: Scope, wants: Scope
) -> None:
    await tenancy.make()
    caller = await tenancy.caller("acme", has)
    allowed = has is Scope.FULL or (has is Scope.MANAGE and wants in {Scope.MANAGE, Scope.READ})

    if allowed:
        minted = await tenancy.tenants.create_token(caller, "acme", scopes=[wants])
        assert tenancy.access.authenticate(minted.text).scopes == {wants}
    else:
        with pytest.raises(ScopeMissing):
            await tenancy.tenants.create_token(caller, "acme", scopes=[wants])
        assert len(await tenancy.tenants.list_tokens(ADMIN, "acme")) == 2


@given(has=SCOPES, wants=SCOPES)
def test_handing_on_never_widens(has: frozenset[Scope], wants: frozenset[Scope]) -> None:
    giver = Caller(ActorKind.TENANT, "tok_1", "acme", has)
    taker = Caller(ActorKind.TENANT, "tok_2", "acme", wants)
    try:
        rules.require_grantable(giver, wants)
    except ScopeMissing:
        return
    assert all(giver.may(scope) for scope in Scope if taker.may(scope))


async def test_who_may_only_manage_cannot_rotate_itself_into_more(tenancy: Tenancy) -> None:
    await tenancy.make()
    caller = await tenancy.caller("acme", Scope.MANAGE)

    minted = await tenancy.tenants.rotate(caller, "acme")

    assert minted.token.scopes == frozenset({Scope.MANAGE})


async def test_who_may_not_manage_cannot_rotate(tenancy: Tenancy) -> None:
    await tenancy.make()
    caller = await tenancy.caller("acme", Scope.CHAT)

    with pytest.raises(ScopeMissing):
        await tenancy.tenants.rotate(caller, "acme")


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"label": "x" * 101}, "label"),
        ({"label": "a\nb"}, "label"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["root"]}, "scopes"),
        ({"expires_in": timedelta()}, "expires_in"),
        ({"expires_in": timedelta(seconds=-1)}, "expires_in"),
        ({"expires_in": timedelta(days=9999)}, "expires_in"),
    ],
)
async def test_bad_input_mints_nothing(
    tenancy: Tenancy, wanted: dict[str, object], field: str
) -> None:
    await tenancy.make()

    with pytest.raises(InvalidRequest) as caught:
        await tenancy.tenants.create_token(ADMIN, "acme", **wanted)  # type: ignore[arg-type] # bad on purpose

    assert [error.field for error in caught.value.fields] == [field]
    assert tenancy.audit.names == ["tenant.create"]


async def test_there_is_an_end_to_how_many(tenancy: Tenancy) -> None:
    await tenancy.make()
    record = tenancy.registry.require("acme")
    for _ in range(rules.MOST_TOKENS - 1):
        minted = rules.mint("acme", label="", scopes=frozenset(Scope), now=NOW)
        record = rules.with_token(record, minted.token, now=NOW)
    async with tenancy.registry.locked("acme"):
        await tenancy.registry.write(record)

    with pytest.raises(InvalidRequest, match="at most 200 tokens"):
        await tenancy.tenants.create_token(ADMIN, "acme")

    assert tenancy.file("acme").stat().st_size < 100_000


async def test_what_has_expired_makes_room(tenancy: Tenancy) -> None:
    await tenancy.make()
    await tenancy.tenants.create_token(ADMIN, "acme", label="old", expires_in=timedelta(hours=1))
    tenancy.clock.go_on(hours=1)

    await tenancy.tenants.create_token(ADMIN, "acme", label="new")

    listed = await tenancy.tenants.list_tokens(ADMIN, "acme")
    assert [token.label for token in listed] == ["first", "new"]


async def test_a_revoked_token_is_refused_and_what_it_runs_ends(tenancy: Tenancy) -> None:
    created = await tenancy.make()
    other = await tenancy.tenants.create_token(ADMIN, "acme")

    await tenancy.tenants.revoke_token(ADMIN, "acme", created.token.id)

    with pytest.raises(TokenRejected):
        tenancy.access.authenticate(created.token_text)
    assert tenancy.access.authenticate(other.text).tenant == "acme"
    assert tenancy.running.calls == [("revoke", "acme", created.token.id, "revoked")]
    # By then it was on disk already.
    assert created.token.id.encode() not in tenancy.running.seen_on_disk[0]
    with pytest.raises(TokenRejected):
        tenancy.restarted().access.authenticate(created.token_text)


async def test_an_unknown_token_is_not_found_also_if_another_tenant_has_it(
    tenancy: Tenancy,
) -> None:
    await tenancy.make()
    other = await tenancy.make("other")

    for token_id in ("", "tok_0", "../x", other.token.id):
        with pytest.raises(NotFound):
            await tenancy.tenants.revoke_token(ADMIN, "acme", token_id)

    assert tenancy.access.authenticate(other.token_text).tenant == "other"
    assert "token.revoke" not in tenancy.audit.names


async def test_rotation_leaves_one_full_token(tenancy: Tenancy) -> None:
    created = await tenancy.make()
    second = await tenancy.tenants.create_token(ADMIN, "acme", scopes=["chat"])

    minted = await tenancy.tenants.rotate(ADMIN, "acme")

    for text in (created.token_text, second.text):
        with pytest.raises(TokenRejected):
            tenancy.access.authenticate(text)
    assert tenancy.access.authenticate(minted.text).scopes == {Scope.FULL}
    listed = await tenancy.tenants.list_tokens(ADMIN, "acme")
    assert [token.id for token in listed] == [minted.token.id]
    ended = {call[2] for call in tenancy.running.calls}
    assert ended == {created.token.id, second.token.id}
    assert set(tenancy.audit.actions[-1]["details"]["ended"]) == ended


async def test_a_tenant_may_rotate_the_token_it_does_it_with(tenancy: Tenancy) -> None:
    created = await tenancy.make()
    caller = tenancy.access.authenticate(created.token_text)

    minted = await tenancy.tenants.rotate(caller, "acme")

    assert not tenancy.access.is_live(caller)
    assert tenancy.access.authenticate(minted.text).tenant == "acme"


async def test_with_grace_the_old_tokens_work_until_it_is_over(tenancy: Tenancy) -> None:
    created = await tenancy.make()
    short = await tenancy.tenants.create_token(ADMIN, "acme", expires_in=timedelta(minutes=1))

    minted = await tenancy.tenants.rotate(ADMIN, "acme", grace=timedelta(minutes=10))

    assert tenancy.running.calls == []
    caller = tenancy.access.authenticate(created.token_text)
    assert tenancy.registry.require("acme").token(short.token.id) == short.token
    tenancy.clock.go_on(minutes=10)
    with pytest.raises(TokenRejected):
        tenancy.access.authenticate(created.token_text)
    assert not tenancy.access.is_live(caller)
    assert tenancy.access.authenticate(minted.text).tenant == "acme"


@pytest.mark.parametrize("grace", [timedelta(seconds=-1), timedelta(days=31)])
async def test_a_grace_without_an_end_is_refused(tenancy: Tenancy, grace: timedelta) -> None:
    created = await tenancy.make()

    with pytest.raises(InvalidRequest, match="grace"):
        await tenancy.tenants.rotate(ADMIN, "acme", grace=grace)

    assert tenancy.access.authenticate(created.token_text).tenant == "acme"


def session(record: TenantRecord, *, parent: str | None = None, minutes: int = 0) -> TenantRecord:
    opened = rules.open_session(
        record.id,
        scopes=frozenset({Scope.CHAT}),
        now=NOW + timedelta(minutes=minutes),
        expires_at=NOW + timedelta(hours=12),
        parent=parent,
    )
    return rules.with_token(record, opened, now=NOW)


def test_a_session_ends_with_the_token_it_was_opened_with_and_all_it_opened() -> None:
    first = rules.mint("acme", label="", scopes=frozenset(Scope), now=NOW).token
    second = rules.mint("acme", label="", scopes=frozenset(Scope), now=NOW).token
    record = TenantRecord("acme", "", NOW, tokens=(first, second))
    record = session(record, parent=first.id)
    record = session(record, parent=record.tokens[-1].id)
    record = session(record, parent=second.id)

    left = rules.without_token(record, first.id)

    assert left.tokens == (second, record.tokens[-1])
    assert len(rules.family(record, first.id)) == 3


def test_the_oldest_browser_session_makes_room_for_a_new_one() -> None:
    token = rules.mint("acme", label="", scopes=frozenset(Scope), now=NOW).token
    record = TenantRecord("acme", "", NOW, tokens=(token,))
    for minute in range(rules.MOST_SESSIONS + 2):
        record = session(record, minutes=minute)

    sessions = [token for token in record.tokens if rules.is_session(token)]

    assert len(sessions) == rules.MOST_SESSIONS
    assert sessions[0].created_at == NOW + timedelta(minutes=2)
    assert token in record.tokens
