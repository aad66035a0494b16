"""Operator scopes: what covers what, what a token may have, and what a client gets of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.callers import ActorKind, Caller
from appliance.model.operator_scopes import (
    EVERYTHING,
    OperatorScope,
    covers,
    grantable,
    granted,
)
from appliance.model.tokens import Scope

ADMIN = OperatorScope.ADMIN
READ = OperatorScope.READ
WRITE = OperatorScope.WRITE
APPROVALS = OperatorScope.APPROVALS
PAIRING = OperatorScope.PAIRING


def tenant(*scopes: Scope) -> Caller:
    return Caller(ActorKind.TENANT, "tok_1", "acme", frozenset(scopes))


@pytest.mark.parametrize(
    ("held", "covered"),
    [
        (ADMIN, set(OperatorScope)),
        (WRITE, {WRITE, READ}),
        (READ, {READ}),
        (APPROVALS, {APPROVALS}),
        (PAIRING, {PAIRING}),
    ],
)
def test_admin_covers_all_and_write_covers_read(
    held: OperatorScope, covered: set[OperatorScope]
) -> None:
    assert {scope for scope in OperatorScope if covers({held}, scope)} == covered


def test_nothing_covers_nothing() -> None:
    assert not any(covers((), scope) for scope in OperatorScope)


@pytest.mark.parametrize(
    ("scopes", "possible"),
    [
        ({Scope.FULL}, EVERYTHING),
        ({Scope.MANAGE}, EVERYTHING),
        ({Scope.CHAT}, {READ, WRITE}),
        ({Scope.TERMINAL}, {READ, WRITE}),
        ({Scope.READ}, {READ}),
        ({Scope.READ, Scope.CHAT}, {READ, WRITE}),
        (set(), set()),
    ],
)
def test_a_token_bounds_what_its_connections_may_have(
    scopes: set[Scope], possible: set[OperatorScope]
) -> None:
    assert grantable(tenant(*scopes)) == possible


@pytest.mark.parametrize("kind", [ActorKind.ADMIN, ActorKind.ADMIN_ON_BEHALF, ActorKind.SYSTEM])
def test_an_admin_may_have_everything(kind: ActorKind) -> None:
    assert grantable(Caller(kind, "first", None)) == EVERYTHING


def test_every_kind_of_token_is_thought_of() -> None:
    for scope in Scope:
        assert grantable(tenant(scope))


@pytest.mark.parametrize(
    ("scopes", "asked", "gets"),
    [
        ({Scope.FULL}, [], EVERYTHING),
        ({Scope.FULL}, ["operator.admin", "operator.approvals", "operator.pairing"], EVERYTHING),
        ({Scope.FULL}, ["operator.read"], {READ}),
        ({Scope.FULL}, ["operator.write"], {READ, WRITE}),
        ({Scope.FULL}, ["operator.pairing"], {PAIRING}),
        ({Scope.FULL}, ["operator.read", "operator.questions", "operator.talk"], {READ}),
        ({Scope.CHAT}, [], {READ, WRITE}),
        ({Scope.CHAT}, ["operator.admin"], {READ, WRITE}),
        ({Scope.CHAT}, ["operator.read"], {READ}),
        ({Scope.CHAT}, ["operator.pairing"], set()),
        ({Scope.READ}, ["operator.write"], {READ}),
        ({Scope.READ}, ["operator.admin", "operator.write"], {READ}),
    ],
)
def test_a_client_gets_what_it_asks_for_as_far_as_its_token_goes(
    scopes: set[Scope], asked: list[str], gets: set[OperatorScope]
) -> None:
    assert granted(tenant(*scopes), asked) == gets


@given(
    st.frozensets(st.sampled_from(Scope)),
    st.lists(st.sampled_from([scope.value for scope in OperatorScope]) | st.text(), max_size=6),
)
def test_nobody_gets_more_than_the_token_has(scopes: frozenset[Scope], asked: list[str]) -> None:
    caller = tenant(*scopes)

    assert granted(caller, asked) <= grantable(caller)


@given(st.sets(st.sampled_from(OperatorScope), min_size=1))
def test_a_full_token_gives_exactly_what_covers_the_request(asked: set[OperatorScope]) -> None:
    gets = granted(tenant(Scope.FULL), asked)

    for scope in OperatorScope:
        assert (scope in gets) == covers(asked, scope)
