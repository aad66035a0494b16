"""A request on its way to its handler and back, whatever comes of it."""

from typing import Any, cast

import msgspec
import pytest
import trio

from appliance.model.errors import NotFound
from appliance.protocols.gateway import WireError
from appliance.transports.rpc.dispatch import Dispatcher, MethodCounts, encode
from appliance.transports.rpc.method import Answer, Method, MethodCall, Params, Raw
from appliance.transports.rpc.services import RpcServices
from tests.fakes.awake import FakeClient, someone
from tests.transports.websocket.bench import FakeLog, method


class Named(Params, frozen=True):
    name: str


class Bench:
    def __init__(self) -> None:
        self.log = FakeLog()
        self.counts = MethodCounts()
        self.services = cast("RpcServices", object())
        self.client = FakeClient("conn-1", someone("acme"), protocol=4)
        self.early: list[Answer] = []
        self._dispatcher = Dispatcher(self.services, counts=self.counts, access_log=self.log)

    async def answer(self, of: Method, params: object = None) -> bytes | WireError:
        return await self._dispatcher.answer(of, params, self.client, None, self.early.append)

    def at_once(self, of: Method, params: object = None) -> bytes | WireError:
        return self._dispatcher.answer_at_once(of, params, self.client, None)


async def greet(call: MethodCall[Any]) -> dict[str, Any]:
    call.respond(Raw(b'"a moment"'))
    return {"hello": call.params.name, "request": call.caller.request_id}


async def missing(call: MethodCall[Any]) -> dict[str, Any]:
    raise NotFound("there is none")


async def broken(call: MethodCall[Any]) -> dict[str, Any]:
    raise ValueError("a bug")


async def nonsense(call: MethodCall[Any]) -> dict[str, Any]:
    return {"what": object()}


async def grouped(call: MethodCall[Any]) -> dict[str, Any]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(missing, call)
    return {}


async def test_each_request_has_an_id_of_its_own_and_a_line_in_the_log() -> None:
    bench = Bench()
    of = method("greet", greet, params=Named)

    answers = [await bench.answer(of, {"name": "you"}) for _ in range(2)]

    said = [msgspec.json.decode(cast("bytes", answer)) for answer in answers]
    assert [each["hello"] for each in said] == ["you", "you"]
    assert [each["request"] for each in said] == [line["request_id"] for line in bench.log.lines]
    assert said[0]["request"] != said[1]["request"] != bench.client.caller.request_id
    line = bench.log.lines[0]
    assert (line["tenant"], line["method"], line["connection"]) == ("acme", "greet", "conn-1")
    assert line["outcome"] == "ok"
    assert line["ms"] >= 0
    assert [encode(each) for each in bench.early] == [b'"a moment"'] * 2
    assert bench.counts.by_method == {("greet", "ok"): 2}


@pytest.mark.parametrize(
    ("handler", "params", "code", "outcome", "counted"),
    [
        (missing, {"name": "x"}, "NOT_FOUND", "NOT_FOUND", "not-found"),
        (grouped, {"name": "x"}, "NOT_FOUND", "NOT_FOUND", "not-found"),
        (greet, {"name": 7}, "INVALID_REQUEST", "INVALID_REQUEST", "invalid-request"),
        (greet, [], "INVALID_REQUEST", "INVALID_REQUEST", "invalid-request"),
        (broken, {"name": "x"}, "UNAVAILABLE", "UNAVAILABLE", "error"),
        (nonsense, {"name": "x"}, "UNAVAILABLE", "UNAVAILABLE", "error"),
    ],
)
async def test_a_failure_is_an_answer_a_count_and_a_line(
    handler: Any, params: object, code: str, outcome: str, counted: str
) -> None:
    bench = Bench()

    error = await bench.answer(method("m", handler, params=Named), params)

    assert isinstance(error, WireError)
    assert error.code == code
    assert [line["outcome"] for line in bench.log.lines] == [outcome]
    assert bench.counts.by_method == {("m", counted): 1}


async def test_what_is_cancelled_is_logged_and_ends_its_method() -> None:
    bench = Bench()
    ended = trio.Event()

    async def wait(call: MethodCall[Any]) -> dict[str, Any]:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        return {}

    with trio.move_on_after(0.01):
        await bench.answer(method("wait", wait))

    assert ended.is_set()
    assert bench.log.lines[0]["outcome"] == "cancelled"
    assert bench.counts.by_method == {}


def test_an_inline_method_answers_from_memory_and_writes_no_line() -> None:
    bench = Bench()

    assert bench.at_once(method("m", inline=lambda _: Raw(b"[1]"))) == b"[1]"
    assert bench.log.lines == []
    assert bench.counts.by_method == {("m", "ok"): 1}


def _twice(call: MethodCall[Any]) -> Answer:
    call.respond({})
    return {}


def _absent(call: MethodCall[Any]) -> Answer:
    raise NotFound("there is none")


@pytest.mark.parametrize(
    ("inline", "params", "code"),
    [
        (_absent, None, "NOT_FOUND"),
        (_twice, None, "UNAVAILABLE"),
        (_absent, {"zzz": 1}, "INVALID_REQUEST"),
    ],
)
def test_an_inline_method_that_fails_is_answered(inline: Any, params: object, code: str) -> None:
    bench = Bench()

    error = bench.at_once(method("m", inline=inline), params)

    assert isinstance(error, WireError)
    assert error.code == code
