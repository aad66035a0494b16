"""Every method of the registry, and everybody who has no business there.

The registry is the application's own, so a new method is in here the moment it
exists; :mod:`tests.isolation.method_examples` then has to show how its
rightful caller uses it, and its parameters have to say what they name.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import trio

from appliance.model.operator_scopes import OperatorScope, Role
from appliance.model.tokens import Scope
from appliance.transports.rpc.method import Method, Who
from appliance.transports.rpc.table import METHODS
from tests.gateway.conftest import ADMIN_KEY, Gateway
from tests.isolation.homes import Ear, Home, listening, node_client, open_home
from tests.isolation.intruder import Guess, guesses, plain
from tests.isolation.method_examples import EXAMPLES, Example, filled
from tests.isolation.named_parameters import Parameter, named, put

CANARY = "canary-of-acme"
AVAILABLE = [method for method in METHODS if method.is_available]


def rightful(home: Home, admin: Ear, method: Method) -> Ear:
    match method.who:
        case Who.ADMIN:
            return admin
        case Who.NODE:
            return home.node
        case _:
            return home.operator


async def prepared(home: Home, example: Example) -> dict[str, Any]:
    took = None
    for name, params in example.before:
        took = await home.operator.call(name, **filled(params, home.things, took))
    params = filled(example.params, home.things, took)
    assert isinstance(params, dict)
    return params


async def answer_next_invoke(node: Ear) -> None:
    asked = await node.event("node.invoke.request")
    invoke = asked["payload"]
    await node.call("node.invoke.result", id=invoke["id"], nodeId=invoke["nodeId"], ok=True)


def test_every_method_is_in_this_suite() -> None:
    assert set(EXAMPLES) == {method.name for method in AVAILABLE}


async def test_its_rightful_caller_gets_an_answer(gateway: Gateway) -> None:
    refused = {}
    async with listening(gateway.port, ADMIN_KEY) as admin:
        for number, method in enumerate(AVAILABLE):
            example = EXAMPLES[method.name]
            async with open_home(gateway, f"acme{number}", CANARY) as home:
                params = await prepared(home, example)
                caller = rightful(home, admin, method)
                async with trio.open_nursery() as nursery:
                    if example.is_answered_by_node:
                        nursery.start_soon(answer_next_invoke, home.node)
                    told = await caller.tell(method.name, params)
                if not all(json.loads(each)["ok"] for each in told.splitlines()):
                    refused[method.name] = told
    assert refused == {}
