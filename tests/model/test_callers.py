"""Callers: what each kind may do, and for whom."""

from dataclasses import replace

import pytest

from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import Forbidden, ScopeMissing
from appliance.model.tokens import Scope

ADMIN = Caller(ActorKind.ADMIN, "first", None)
ON_BEHALF = Caller(ActorKind.ADMIN_ON_BEHALF, "first", "acme")
SYSTEM = Caller(ActorKind.SYSTEM, "cron", "acme")


def tenant(*scopes: Scope, of: str = "acme") -> Caller:
    return Caller(ActorKind.TENANT, "tok_1", of, frozenset(scopes))


@pytest.mark.parametrize(
    ("held", "covered"),
    [
        (Scope.FULL, set(Scope)),
        (Scope.CHAT, {Scope.CHAT}),
        (Scope.READ, {Scope.READ}),
        (Scope.TERMINAL, {Scope.TERMINAL}),
        (Scope.MANAGE, {Scope.MANAGE, Scope.READ}),
    ],
)
def test_a_scope_covers_itself_and_who_may_change_may_look(
    held: Scope, covered: set[Scope]
) -> None:
    assert {scope for scope in Scope if tenant(held).may(scope)} == covered


def test_every_scope_but_full_can_be_held_without_the_full_one() -> None:
    assert not tenant(*(set(Scope) - {Scope.FULL})).may(Scope.FULL)


def test_a_token_without_scopes_may_nothing() -> None:
    assert not any(tenant().may(scope) for scope in Scope)


@pytest.mark.parametrize("caller", [ADMIN, ON_BEHALF, SYSTEM])
def test_the_operator_and_the_gateway_itself_may_everything_without_scopes(caller: Caller) -> None:
    caller.require_admin()
    for scope in Scope:
        caller.require(scope)
        caller.require_access("globex", scope)


def test_a_missing_scope_is_named() -> None:
    with pytest.raises(ScopeMissing, match="'manage'"):
        tenant(Scope.READ).require(Scope.MANAGE)


def test_a_full_token_of_a_tenant_is_no_admin_key() -> None:
    caller = tenant(Scope.FULL)

    assert not caller.is_admin
    with pytest.raises(Forbidden, match="admin key"):
        caller.require_admin()


def test_a_token_acts_on_its_own_tenant_as_far_as_its_scopes_go() -> None:
    tenant(Scope.READ).require_access("acme", Scope.READ)
    with pytest.raises(ScopeMissing):
        tenant(Scope.READ).require_access("acme", Scope.CHAT)


@pytest.mark.parametrize("other", ["globex", "acme2", "acm", "", "ACME"])
def test_another_tenant_is_refused_before_any_scope_and_always_in_the_same_words(
    other: str,
) -> None:
    answers = set()
    for caller in (tenant(), tenant(Scope.FULL)):
        with pytest.raises(Forbidden) as refused:
            caller.require_access(other, Scope.READ)
        answers.add((type(refused.value), refused.value.detail))

    assert answers == {(Forbidden, "the token belongs to another tenant")}


def test_a_call_is_about_the_callers_tenant_and_an_admin_must_name_one() -> None:
    assert tenant().require_tenant() == "acme"
    assert ON_BEHALF.require_tenant() == "acme"
    with pytest.raises(Forbidden, match="X-OpenClaw-Tenant"):
        ADMIN.require_tenant()


@pytest.mark.parametrize(
    ("pattern", "agents"),
    [
        ("openclaw", {"main"}),
        ("openclaw/default", {"main"}),
        ("openclaw:main", {"main"}),
        ("openclaw/pirate", {"pirate"}),
        ("openclaw:pirate", {"pirate"}),
        ("openclaw:*", {"main", "pirate"}),
        ("openclaw/p*", {"pirate"}),
        ("*", {"main", "pirate"}),
        ("stub/*", set()),
        ("openclaw2", set()),
    ],
)
def test_a_token_is_for_an_agent_by_any_of_its_names(pattern: str, agents: set[str]) -> None:
    caller = replace(tenant(Scope.CHAT), models=(pattern,))

    for name, agent in {
        "openclaw": "main", "openclaw/main": "main", "openclaw:default": "main",
        "openclaw:pirate": "pirate", "openclaw/pirate": "pirate",
    }.items():  # fmt: skip
        assert caller.may_ask(name) is (agent in agents), name


def test_a_token_for_all_models_behind_an_agent_is_for_the_agent() -> None:
    caller = replace(tenant(Scope.CHAT), models=("stub/*",))

    assert caller.may_ask("openclaw", ["stub/mock", "stub/other"])
    assert not caller.may_ask("openclaw", ["stub/mock", "spare/other"])
