"""Who may call which method: exactly whom the registry names, over real connections."""

import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope
from appliance.transports.rpc.method import Method, Who
from appliance.transports.rpc.table import METHODS
from tests.gateway.conftest import ADMIN_KEY, Gateway
from tests.isolation.homes import Ear, Home, listening, node_client, open_home
from tests.isolation.method_examples import EXAMPLES, filled
from tests.isolation.test_methods import CANARY, everything_about, prepared

READ, WRITE = OperatorScope.READ, OperatorScope.WRITE
EVERYTHING = set(OperatorScope)
WRONG = {"nobody-has-this-parameter": 1}

# Said here once more, because a mistake in the product's table is one in both.
GRANTED: dict[Scope, set[OperatorScope]] = {
    Scope.READ: {READ},
    Scope.CHAT: {READ, WRITE},
    Scope.TERMINAL: {READ, WRITE},
    Scope.MANAGE: EVERYTHING,
    Scope.FULL: EVERYTHING,
}


def refusal(method: Method, token: Scope, asked: set[OperatorScope]) -> str | None:
    """Why a tenant's operator may not call ``method``; None if it may."""
    if method.who is Who.NODE:
        return "ROLE"
    if method.who is Who.ADMIN:
        return "ADMIN_ONLY"
    held = GRANTED[token] & asked
    if OperatorScope.ADMIN in held:
        held = EVERYTHING
    if WRITE in held:
        held = {*held, READ}
    if method.scope is not None and method.scope not in held:
        return f"MISSING_SCOPE {method.scope}"
    reads = {Scope.READ, Scope.MANAGE, Scope.FULL}
    enough = {None: set(Scope), Scope.READ: reads}.get(method.needs, {method.needs, Scope.FULL})
    if method.needs is Scope.CHAT and method.scope is READ:
        enough = {*enough, *reads}  # whoever may read all may read conversations
    return None if token in enough else f"MISSING_SCOPE token scope {method.needs}"


def told(answer: str) -> str | None:
    """The refusal in an answer, None if it is none."""
    frame = json.loads(answer.splitlines()[0])
    details = {} if frame["ok"] else frame["error"].get("details") or {}
    code = str(details.get("code"))
    if code == "MISSING_SCOPE":
        assert frame["error"]["message"] == f"missing scope: {details['missingScope']}"
        return f"{code} {details['missingScope']}"
    return code if code in {"ROLE", "ADMIN_ONLY", "TENANT_NEEDED"} else None


async def right_params(home: Home, method: Method) -> dict[str, Any]:
    if not method.is_available:
        return {}
    example = EXAMPLES[method.name]
    try:
        params = filled(example.params, home.things)
    except TypeError:  # it takes something from the call before
        return await prepared(home, example)
    assert isinstance(params, dict)
    return params


async def scoped(home: Home, scope: Scope) -> str:
    made = await home.operator.call("tokens.create", tenantId=home.tenant.id, scopes=[scope])
    return str(made["token"])


@pytest.mark.parametrize("scope", Scope)
async def test_a_token_is_refused_exactly_where_the_registry_says(
    gateway: Gateway, scope: Scope
) -> None:
    async with open_home(gateway, "acme", CANARY) as acme, AsyncExitStack() as stack:
        own = await stack.enter_async_context(listening(gateway.port, acme.tenant.token))
        ear = await stack.enter_async_context(listening(gateway.port, await scoped(acme, scope)))
        before = await everything_about(acme, own)
        allowed = []
        for method in METHODS:
            expected = refusal(method, scope, EVERYTHING)
            # Who may not call a method is not told what it takes either.
            assert told(await ear.tell(method.name, WRONG)) == expected, method.name
            if expected is None:
                allowed.append(method)
                continue
            answer = await ear.tell(method.name, await right_params(acme, method))
            assert told(answer) == expected, method.name
        shown = {method.name for method in allowed if method.is_available and not method.hidden}
        assert set(ear.hello["features"]["methods"]) == shown
        assert await everything_about(acme, own) == before


async def test_whoever_may_only_read_changes_nothing(gateway: Gateway) -> None:
    async with open_home(gateway, "acme", CANARY) as acme, AsyncExitStack() as stack:
        own = await stack.enter_async_context(listening(gateway.port, acme.tenant.token))
        token = await scoped(acme, Scope.READ)
        ear = await stack.enter_async_context(listening(gateway.port, token))
        before = await everything_about(acme, own)
        for method in METHODS:
            await ear.tell(method.name, await right_params(acme, method))
        assert await everything_about(acme, own) == before


@pytest.mark.parametrize("protocol", [3, 4])
async def test_a_connection_can_do_no_more_than_it_asked_for(
    gateway: Gateway, protocol: int
) -> None:
    async with open_home(gateway, "acme", CANARY) as acme:
        for scope in OperatorScope:
            async with listening(
                gateway.port, acme.tenant.token, scopes=[scope], maxProtocol=protocol
            ) as ear:
                for method in METHODS:
                    expected = refusal(method, Scope.FULL, {scope})
                    assert told(await ear.tell(method.name, WRONG)) == expected, method.name


async def test_nodes_and_admins_have_methods_of_their_own(gateway: Gateway) -> None:
    async with (
        open_home(gateway, "acme", CANARY) as acme,
        listening(gateway.port, ADMIN_KEY) as admin,
        listening(gateway.port, ADMIN_KEY, "/t/acme/ws") as acting,
        listening(gateway.port, ADMIN_KEY, **node_client("kettle")) as nobodys_node,
    ):
        for method in METHODS:
            is_nodes = method.who in {Who.NODE, Who.MEMBER}
            for_one = method.who in {Who.TENANT, Who.MEMBER}
            expected = {
                acme.node: None if is_nodes else "ROLE",
                admin: "ROLE" if method.who is Who.NODE else "TENANT_NEEDED" * for_one or None,
                acting: "ROLE" if method.who is Who.NODE else None,
                nobodys_node: "TENANT_NEEDED" if is_nodes else "ROLE",
            }
            for ear, reason in expected.items():
                assert told(await ear.tell(method.name, WRONG)) == reason, method.name


async def test_what_comes_with_a_later_release_says_so_and_is_advertised_to_nobody(
    gateway: Gateway,
) -> None:
    later = [method for method in METHODS if not method.is_available]
    async with open_home(gateway, "acme", CANARY) as acme, AsyncExitStack() as stack:
        ears: list[Ear] = [acme.operator, acme.node]
        for token, path, params in [
            (acme.tenant.token, "/", {"maxProtocol": 3}),
            (ADMIN_KEY, "/", {}),
            (ADMIN_KEY, "/t/acme/ws", {}),
            *[(await scoped(acme, scope), "/", {}) for scope in Scope],
        ]:
            ears.append(
                await stack.enter_async_context(listening(gateway.port, token, path, **params))
            )
        for ear in ears:
            assert not {method.name for method in later} & set(ear.hello["features"]["methods"])
            for method in later:
                answer = await ear.tell(method.name, WRONG)
                if told(answer) is None:
                    error = json.loads(answer)["error"]
                    assert error["code"] == "UNAVAILABLE", method.name
                    assert error["details"]["code"] == "METHOD_UNAVAILABLE", method.name
                    assert error["retryable"] is False, method.name
