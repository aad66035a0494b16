"""Who may call what, and what others are told."""

from typing import Any

import pytest

from appliance.model.callers import ActorKind, Caller
from appliance.model.operator_scopes import EVERYTHING, OperatorScope, Role, granted
from appliance.model.tokens import Scope
from appliance.transports.rpc.method import Method, MethodCall, Who
from appliance.transports.rpc.permissions import Permissions, Rights


async def done(call: MethodCall[Any]) -> dict[str, Any]:
    return {}


def method(
    name: str,
    who: Who = Who.TENANT,
    scope: OperatorScope | None = OperatorScope.READ,
    needs: Scope = Scope.READ,
    *,
    there: bool = True,
) -> Method:
    handler = done if there else None
    return Method(name=name, summary="", scope=scope, needs=needs, who=who, handler=handler)


METHODS = (
    method("look"),
    method("chat", scope=OperatorScope.WRITE, needs=Scope.CHAT),
    method("history", needs=Scope.CHAT),
    method("manage", scope=OperatorScope.ADMIN, needs=Scope.MANAGE),
    method("shell", scope=OperatorScope.WRITE, needs=Scope.TERMINAL),
    method("pair", scope=OperatorScope.PAIRING, needs=Scope.MANAGE),
    method("tenants", Who.ADMIN, OperatorScope.ADMIN, Scope.MANAGE),
    method("either", Who.ANYONE),
    method("work", Who.NODE, None),
    method("health", Who.MEMBER, None),
    method("later", there=False),
)
PERMISSIONS = Permissions(METHODS)


def tenant(*scopes: Scope, asked: frozenset[OperatorScope] = frozenset()) -> Rights:
    caller = Caller(ActorKind.TENANT, "tok_1", "acme", frozenset(scopes))
    return Rights.of(caller, Role.OPERATOR, granted(caller, asked))


def admin(acting_for: str | None = None) -> Rights:
    kind = ActorKind.ADMIN_ON_BEHALF if acting_for else ActorKind.ADMIN
    return Rights.of(Caller(kind, "ops", acting_for), Role.OPERATOR, EVERYTHING)


def node(*scopes: Scope) -> Rights:
    caller = Caller(ActorKind.TENANT, "tok_1", "acme", frozenset(scopes))
    return Rights.of(caller, Role.NODE, frozenset())


@pytest.mark.parametrize(
    ("rights", "allowed"),
    [
        (tenant(Scope.FULL), "look chat history manage shell pair either health"),
        (tenant(Scope.READ), "look history either health"),
        (tenant(Scope.CHAT), "chat history"),
        (tenant(Scope.MANAGE), "look history manage pair either health"),
        (tenant(Scope.TERMINAL), "shell"),
        (tenant(), ""),
        (tenant(Scope.FULL, asked=frozenset({OperatorScope.PAIRING})), "pair health"),
        (
            tenant(Scope.FULL, asked=frozenset({OperatorScope.WRITE})),
            "look chat history shell either health",
        ),
        (admin(), "tenants either"),
        (admin("acme"), "look chat history manage shell pair tenants either health"),
        (node(Scope.FULL), "work health"),
        (node(Scope.CHAT), ""),
    ],
)
def test_each_has_its_table(rights: Rights, allowed: str) -> None:
    assert set(PERMISSIONS.table(rights)) == set(allowed.split())


def test_equal_rights_share_a_table() -> None:
    assert PERMISSIONS.table(tenant(Scope.FULL)) is PERMISSIONS.table(tenant(Scope.FULL))


@pytest.mark.parametrize(
    ("rights", "name", "code", "message"),
    [
        (tenant(Scope.FULL), "no.such", "UNKNOWN_METHOD", "unknown method: no.such"),
        (tenant(Scope.FULL), "later", "METHOD_UNAVAILABLE", "not available in this release"),
        (tenant(Scope.FULL), "tenants", "ADMIN_ONLY", "not available for tenant token: tenants"),
        (tenant(Scope.FULL), "work", "ROLE", "unauthorized role: operator"),
        (node(Scope.FULL), "look", "ROLE", "unauthorized role: node"),
        (tenant(Scope.READ), "chat", "MISSING_SCOPE", "missing scope: operator.write"),
        (tenant(Scope.MANAGE), "chat", "MISSING_SCOPE", "missing scope: token scope chat"),
        (admin(), "look", "TENANT_NEEDED", "/t/<id>/ws"),
        (admin(), "later", "TENANT_NEEDED", "/t/<id>/ws"),
        (tenant(Scope.READ), "connect", None, "connect is only valid as the first request"),
    ],
)
def test_who_may_not_is_told_why(rights: Rights, name: str, code: str | None, message: str) -> None:
    error = PERMISSIONS.refusal(name, rights, protocol=4)

    assert message in error.message
    assert (error.details or {}).get("code") == code


def test_what_a_stranger_names_is_quoted_in_part() -> None:
    assert len(PERMISSIONS.refusal("x" * 10_000, tenant(), protocol=4).message) < 200


def test_the_older_generation_knows_no_forbidden() -> None:
    rights = tenant(Scope.READ)

    assert PERMISSIONS.refusal("chat", rights, protocol=4).code == "FORBIDDEN"
    assert PERMISSIONS.refusal("chat", rights, protocol=3).code == "INVALID_REQUEST"
