"""Every method of the registry, and everybody who has no business there.

The registry is the application's own, so a new method is in here the moment it
exists; :mod:`tests.isolation.method_examples` then has to show how its
rightful caller uses it, and its parameters have to say what they name.
"""

import copy
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Any

import trio

from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope
from appliance.transports.rpc.method import Method, Who
from appliance.transports.rpc.table import METHODS
from tests.gateway.conftest import ADMIN_KEY, Gateway
from tests.isolation.homes import Ear, Home, listening, open_home
from tests.isolation.intruder import Guess, guesses, steady, unsaid
from tests.isolation.method_examples import EXAMPLES, Example, filled
from tests.isolation.named_parameters import Parameter, named, put, take_out

CANARY = "canary-of-acme"
AVAILABLE = [method for method in METHODS if method.is_available]
LOOKS = [m for m in AVAILABLE if OperatorScope.READ is m.scope or m.needs is Scope.READ]
# A tenant's log tells what it asked for, and so changes with every look.
SHOWN = [m for m in LOOKS if m.who is not Who.ADMIN and m.name != "logs.tail"]

HomeFor = Callable[[Method], AbstractAsyncContextManager[Home]]


@asynccontextmanager
async def homes(
    gateway: Gateway, name: str, word: str, *, alone: Callable[[Method], bool]
) -> AsyncIterator[HomeFor]:
    """A home of its own for each method that needs it, and one for all others."""
    numbers = count()
    async with open_home(gateway, name, word) as shared:

        @asynccontextmanager
        async def home_for(method: Method) -> AsyncIterator[Home]:
            if not alone(method):
                yield shared
                return
            async with open_home(gateway, f"{name}{next(numbers)}", word) as own:
                yield own

        yield home_for


def _ruins(method: Method) -> bool:
    return EXAMPLES[method.name].is_ruinous


def _changes(method: Method) -> bool:
    return method not in LOOKS


async def prepared(home: Home, example: Example) -> dict[str, Any]:
    took = None
    for name, params in example.before:
        took = await home.operator.call(name, **filled(params, home.things, took))
    params = filled(example.params, home.things, took)
    assert isinstance(params, dict)
    return params


def rightful(home: Home, admin: Ear, method: Method) -> Ear:
    match method.who:
        case Who.ADMIN:
            return admin
        case Who.NODE:
            return home.node
        case _:
            return home.operator


async def answer_next_invoke(node: Ear) -> None:
    invoke = (await node.event("node.invoke.request"))["payload"]
    await node.call("node.invoke.result", id=invoke["id"], nodeId=invoke["nodeId"], ok=True)


def test_every_method_is_in_this_suite() -> None:
    assert set(EXAMPLES) == {method.name for method in AVAILABLE}


async def test_its_rightful_caller_gets_an_answer(gateway: Gateway) -> None:
    refused = {}
    async with (
        homes(gateway, "acme", CANARY, alone=_ruins) as home_for,
        listening(gateway.port, ADMIN_KEY) as admin,
    ):
        for method in AVAILABLE:
            example = EXAMPLES[method.name]
            async with home_for(method) as home:
                params = await prepared(home, example)
                async with trio.open_nursery() as nursery:
                    if example.is_answered_by_node:
                        nursery.start_soon(answer_next_invoke, home.node)
                    told = await rightful(home, admin, method).tell(method.name, params)
            if not all(json.loads(each)["ok"] for each in told.splitlines()):
                refused[method.name] = told
    assert refused == {}


# -- names of another tenant's things ----------------------------------------


class Intruder:
    """A tenant that hands in another's names, to one method."""

    def __init__(self, home: Home, victim: Home, method: Method, *, port: int) -> None:
        self._home = home
        self._victim = victim
        self._method = method
        self._port = port
        self._heard: list[str] = []  # by connections of its own
        self._heard_before = (len(home.operator.heard), len(home.node.heard))
        self._sent: set[str] = set()

    async def findings(self) -> list[str]:
        found = []
        for parameter in named(self._method):
            for guess in self._guesses(parameter):
                found += await self._compare([parameter], [guess])
        given = EXAMPLES[self._method.name].params
        together = [each for each in named(self._method) if each.path.split(".")[0] in given]
        if len(together) > 1:
            found += await self._compare(together, [next(self._guesses(p)) for p in together])
        return found + self._leaks()

    def _guesses(self, parameter: Parameter) -> Any:
        assert parameter.kind is not None
        values = self._victim.things[parameter.kind]
        return guesses(parameter.kind, values, own_tenant=self._home.tenant.id)

    async def _compare(self, parameters: list[Parameter], tried: list[Guess]) -> list[str]:
        what = ", ".join(map(str, parameters))
        there = await self._answer(parameters, [guess.real for guess in tried])
        nowhere = await self._answer(parameters, [guess.nowhere for guess in tried])
        found = []
        if there != nowhere:
            found.append(f"{what} tells {tried} apart:\n  {there}\n  {nowhere}")
        is_refused = "FOREIGN_SESSION" in there
        if tried[0].is_foreign_key and not is_refused:
            found.append(f"{what} takes {tried[0].real!r}:\n  {there}")
        return found

    async def _answer(self, parameters: list[Parameter], values: list[str]) -> str:
        example = EXAMPLES[self._method.name]
        params = copy.deepcopy(await prepared(self._home, example))
        if example.is_answered_by_node:
            params["timeoutMs"] = 20  # nobody answers
        for parameter, value in zip(parameters, values, strict=True):
            for other in example.without.get(parameter.path, ()):
                take_out(params, other)
            put(params, parameter.path, value)
        if [parameter.kind for parameter in parameters] == ["agent-id"]:
            # A key that names an agent itself would be what is refused.
            own = self._home.things["session-key"]
            params = {name: "main" if text in own else text for name, text in params.items()}
        texts = (text for name, text in params.items() if name != "baseHash")
        sent = {*values, *(text for text in texts if isinstance(text, str))}
        self._sent |= sent
        async with self._speaking(example) as ear:
            return steady(unsaid(await ear.tell(self._method.name, params), sent))

    @asynccontextmanager
    async def _speaking(self, example: Example) -> AsyncIterator[Ear]:
        if not example.is_throttled:
            yield self._home.node if self._method.who is Who.NODE else self._home.operator
            return
        minted = await self._home.operator.call("tokens.create", tenantId=self._home.tenant.id)
        async with listening(self._port, minted["token"]) as ear:
            yield ear
            self._heard += ear.heard

    def _leaks(self) -> list[str]:
        by_operator, by_node = self._heard_before
        frames = [
            *self._home.operator.heard[by_operator:],
            *self._home.node.heard[by_node:],
            *self._heard,
        ]
        heard = unsaid("\n".join(frames), self._sent)
        words = (CANARY, "acme", *self._victim.unguessable)
        return [f"{self._method.name} tells {word!r}" for word in words if word in heard]


async def everything_about(home: Home, own: Ear) -> dict[str, str]:
    """What every method that looks shows to a tenant."""
    shown = {}
    for method in SHOWN:
        params = await prepared(home, EXAMPLES[method.name])
        shown[method.name] = steady(await own.tell(method.name, params))
    return shown


async def test_a_name_of_anothers_thing_is_a_name_of_nothing(gateway: Gateway) -> None:
    findings = []
    async with (
        open_home(gateway, "acme", CANARY) as acme,
        listening(gateway.port, acme.tenant.token) as own,
        # What a method made under a guessed name must not be there for the next one.
        homes(gateway, "mallory", "word-of-mallory", alone=_changes) as home_for,
    ):
        before = await everything_about(acme, own)
        for method in AVAILABLE:
            if method.who is not Who.ADMIN:
                async with home_for(method) as mallory:
                    findings += await Intruder(mallory, acme, method, port=gateway.port).findings()
        after = await everything_about(acme, own)
    findings += [
        f"{name} of acme changed:\n  {before[name]}\n  {after[name]}"
        for name in before
        if before[name] != after[name]
    ]
    assert not findings, "\n".join(findings)
