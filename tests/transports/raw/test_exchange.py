"""One request to a raw route: let in, read, done in the tenant, answered whatever happens."""

import math
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, cast

import msgspec
import pytest
import trio
from trio.testing import MockClock

from appliance.config.schema import GatewayConfig
from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import RateLimited, ScopeMissing, TenantDisabled, TokenRejected
from appliance.model.tokens import Scope
from appliance.tenants.runtime import TenantRuntime
from appliance.transports.bodies import ClientGone
from appliance.transports.callers import ACCEPTED_AT, Presented
from appliance.transports.openai_api.failures import failure_of
from appliance.transports.raw.answers import Answer
from appliance.transports.raw.exchange import Exchange, RawRoute


@dataclass
class FakeDoor:
    caller: Caller | Exception
    config: GatewayConfig = field(default_factory=GatewayConfig)
    noted: list[tuple[str, Caller | None, int]] = field(default_factory=list)
    refused: list[Exception] = field(default_factory=list)

    def admit(self, scope: dict[str, Any], presented: Presented) -> Caller:
        if isinstance(self.caller, Exception):
            raise self.caller
        return self.caller

    def count_refusal(self, error: Exception) -> None:
        self.refused.append(error)

    def note(
        self, scope: dict[str, Any], caller: Caller | None, answer: Answer, *, route: str
    ) -> None:
        self.noted.append((route, caller, answer.status))


class FakeTenants:
    async def runtime(self, tenant_id: str) -> TenantRuntime:
        await trio.lowlevel.checkpoint()
        if tenant_id != "acme":
            raise TenantDisabled("it is disabled")
        return cast("TenantRuntime", FakeRuntime())


class FakeRuntime:
    id = "acme"

    @property
    def meter(self) -> "FakeRuntime":
        return self

    def rate_headers(self) -> dict[str, str]:
        return {"x-ratelimit-limit-requests": "600"}

    def budget_headers(self) -> dict[str, str]:
        return {"x-openclaw-budget-limit-cost": "5.00"}

    async def perform(self, work: Any, *, caller: Caller, left: Any) -> Any:
        return await work()


def tenant(*scopes: Scope, name: str | None = "acme") -> Caller:
    return Caller(ActorKind.TENANT, "tok_1", name, frozenset(scopes))


@dataclass
class Asked:
    status: int
    headers: dict[bytes, bytes]
    body: bytes
    door: FakeDoor


async def ask(
    handle: Any,
    *,
    caller: Caller | Exception | None = None,
    body: bytes = b"{}",
    patience: float = math.inf,
    **scope: Any,
) -> Asked:
    door = FakeDoor(caller or tenant(Scope.FULL))
    messages: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        messages.append(message)

    route = RawRoute(handle, door=door, tenants=FakeTenants(), form=failure_of, label="/x/{id}")
    given = {"method": "POST", "path": "/x/secret", "headers": [], ACCEPTED_AT: perf_counter()}
    with trio.move_on_after(patience):
        await route({**given, **scope}, receive, send)
    if not messages:
        return Asked(0, {}, b"", door)
    said = b"".join(message["body"] for message in messages[1:])
    return Asked(messages[0]["status"], dict(messages[0]["headers"]), said, door)


def code_of(asked: Asked) -> object:
    return msgspec.json.decode(asked.body)["error"]["code"]


async def test_work_is_done_in_the_tenant_and_its_limits_are_told() -> None:
    async def handle(exchange: Exchange) -> None:
        exchange.admit(Scope.CHAT)
        body = await exchange.read()
        await exchange.wake()

        async def work() -> bytes:
            await trio.lowlevel.checkpoint()
            return body.upper()

        await exchange.answer.whole(await exchange.perform(work))

    asked = await ask(handle, body=b'"done"')

    assert (asked.status, asked.body) == (200, b'"DONE"')
    assert asked.headers[b"x-ratelimit-limit-requests"] == b"600"
    assert asked.headers[b"x-request-id"]


async def test_limits_are_told_with_a_failure_too_once_it_is_known_whose_they_are() -> None:
    async def handle(exchange: Exchange) -> None:
        exchange.admit(Scope.CHAT)
        raise RateLimited("slow down", retry_after=0.5)

    asked = await ask(handle)
    stranger = await ask(handle, caller=TokenRejected())

    assert asked.status == 429
    assert asked.headers[b"x-ratelimit-limit-requests"] == b"600"
    assert asked.headers[b"x-openclaw-budget-limit-cost"] == b"5.00"
    assert asked.headers[b"retry-after-ms"] == b"500"
    assert asked.headers[b"x-should-retry"] == b"true"
    assert stranger.status == 401
    assert not [name for name in stranger.headers if b"limit" in name or b"budget" in name]


async def test_a_request_is_noted_under_its_label_not_its_path() -> None:
    async def handle(exchange: Exchange) -> None:
        exchange.admit(Scope.CHAT)
        await exchange.answer.whole(b"{}")

    [(route, caller, status)] = (await ask(handle)).door.noted

    assert (route, status) == ("/x/{id}", 200)
    assert caller is not None


@pytest.mark.parametrize(
    ("caller", "status", "code"),
    [
        (TokenRejected(), 401, "invalid_api_key"),
        (tenant(Scope.READ), 403, "scope_missing"),
        (tenant(Scope.FULL, name="asleep"), 409, "tenant_disabled"),
    ],
)
async def test_what_is_raised_is_answered_and_counted(
    caller: Caller | Exception, status: int, code: str
) -> None:
    async def handle(exchange: Exchange) -> None:
        exchange.admit(Scope.CHAT)
        await exchange.wake()

    asked = await ask(handle, caller=caller)

    assert (asked.status, code_of(asked)) == (status, code)
    assert len(asked.door.refused) == 1


async def test_one_of_several_scopes_is_enough() -> None:
    async def handle(exchange: Exchange) -> None:
        exchange.admit(Scope.CHAT, Scope.READ)
        await exchange.answer.whole(b"{}")

    assert (await ask(handle, caller=tenant(Scope.READ))).status == 200
    refused = await ask(handle, caller=tenant(Scope.TERMINAL))
    assert isinstance(refused.door.refused[0], ScopeMissing)


async def test_another_method_is_told_which_there_are() -> None:
    async def handle(exchange: Exchange) -> None:
        exchange.require_method("GET", "HEAD")

    asked = await ask(handle, method="PUT")

    assert (asked.status, asked.headers[b"allow"]) == (405, b"GET, HEAD")


async def test_who_left_gets_no_answer_and_is_noted() -> None:
    async def handle(exchange: Exchange) -> None:
        raise ClientGone("the client left")

    asked = await ask(handle)

    assert asked.status == 0
    assert asked.door.noted == [("/x/{id}", None, 0)]


async def test_who_still_waits_when_the_gateway_ends_is_told(autojump_clock: MockClock) -> None:
    async def handle(exchange: Exchange) -> None:
        await trio.sleep_forever()

    asked = await ask(handle, patience=5)

    assert (asked.status, code_of(asked)) == (503, "shutting_down")
    assert asked.headers[b"x-request-id"]
    assert asked.headers[b"x-should-retry"] == b"true"
    assert asked.door.noted == [("/x/{id}", None, 503)]


async def test_a_stream_that_the_gateways_end_breaks_off_says_so(
    autojump_clock: MockClock,
) -> None:
    async def handle(exchange: Exchange) -> None:
        exchange.answer.streams = True
        await exchange.answer.open_stream()
        await exchange.answer.send(b"data: 1\n\n")
        await trio.sleep_forever()

    asked = await ask(handle, patience=5)

    first, failure, last = asked.body.split(b"\n\n", 2)
    assert (asked.status, first, last) == (200, b"data: 1", b"data: [DONE]\n\n")
    assert b'"code":"shutting_down"' in failure


async def test_an_answer_that_was_given_stays_as_it_was_when_the_gateway_ends(
    autojump_clock: MockClock,
) -> None:
    async def handle(exchange: Exchange) -> None:
        await exchange.answer.whole(b"{}")
        await trio.sleep_forever()

    asked = await ask(handle, patience=5)

    assert (asked.status, asked.body) == (200, b"{}")


async def test_the_last_of_several_headers_counts() -> None:
    found: list[bytes | None] = []

    async def handle(exchange: Exchange) -> None:
        found.extend([exchange.header(b"x-a"), exchange.header(b"x-b")])
        await exchange.answer.whole(b"{}")

    await ask(handle, headers=[(b"x-a", b"1"), (b"x-a", b"2")])

    assert found == [b"2", None]


@pytest.mark.parametrize("step", ["wake", "perform"])
async def test_nothing_is_done_for_nobody(step: str, caplog: pytest.LogCaptureFixture) -> None:
    async def handle(exchange: Exchange) -> None:
        await (exchange.wake() if step == "wake" else exchange.perform(trio.lowlevel.checkpoint))

    assert (await ask(handle)).status == 500
    assert caplog.records
