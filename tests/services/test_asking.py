"""Failover as a caller sees it: who answered, who did not, with which key."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.config.loading import parse_config
from appliance.model.calls import Timeouts
from appliance.model.errors import (
    InvalidRequest,
    ProviderFailure,
    UpstreamFailed,
    UpstreamUnavailable,
)
from appliance.providers.api_keys import ApiKey
from appliance.providers.errors import (
    AccountSpent,
    KeyRefused,
    Unreachable,
    UpstreamRateLimited,
    UpstreamRefused,
)
from appliance.services import embeddings
from appliance.services.model_calls import CallRequest, OpenCall
from appliance.services.routing import Target
from tests.fakes.providers import FakeProvider, FakeReply
from tests.fakes.tenants import CALLER, CONFIG, Exchange, FakeTenant, open_tenant
from tests.fakes.writers import chat_writer

STRAIGHT = CallRequest(model="stub/mock", body={}, stream=True, prompt_bytes=30, output_limit=20)
EITHER = replace(STRAIGHT, model="both")
STUB, SPARE = Target("stub", "mock"), Target("spare", "other")
DOWN = UpstreamUnavailable("it is down")
KEYS = (ApiKey("sk-1", 1), ApiKey("sk-2", 1))
BALANCED = CONFIG.replace(
    "models:",
    """models:
  balance: {mixed: [{model: stub/mock, weight: 3}, {model: spare/other, weight: 1}]}
  timeouts: {stub/mock: {request: 9, idle: 3}, both: {request: 5}}""",
)


@pytest.fixture
async def tenant(tmp_path: Path) -> AsyncIterator[FakeTenant]:
    async with open_tenant(tmp_path) as tenant:
        tenant.config = parse_config(BALANCED, name="config")
        yield tenant


async def ask(exchange: Exchange, tenant: FakeTenant, request: CallRequest = STRAIGHT) -> OpenCall:
    async with exchange.calls.open(tenant, CALLER, request) as call:
        await call.reply.whole(chat_writer())
    return call


def scripted(*answers: Exception | None, name: str = "stub") -> FakeProvider:
    return FakeProvider(name, [answer or FakeReply() for answer in answers])


async def test_a_call_that_is_answered_at_once_leaves_no_trail(tenant: FakeTenant) -> None:
    call = await ask(Exchange(scripted(None), scripted(None)), tenant)

    assert (call.trail.attempts, call.trail.missed) == (1, [])


async def test_who_failed_before_is_named_with_the_reason(tenant: FakeTenant) -> None:
    exchange = Exchange(scripted(DOWN), scripted(None, None))

    call = await ask(exchange, tenant, EITHER)

    assert str(call.target) == "spare/other"
    assert call.trail.attempts == 2
    assert call.trail.header() == "stub/mock;reason=upstream-unavailable"

    again = await ask(exchange, tenant, EITHER)
    assert again.trail.attempts == 1
    assert again.trail.header() == "stub/mock;reason=cooling"


async def test_all_but_the_last_are_told_that_somebody_else_can_be_asked(
    tenant: FakeTenant,
) -> None:
    stub, spare = scripted(DOWN), scripted(None)

    await ask(Exchange(stub, spare), tenant, EITHER)

    assert [call.has_next for call in (*stub.calls, *spare.calls)] == [True, False]


async def test_who_has_no_word_for_a_request_is_passed_over(tenant: FakeTenant) -> None:
    wordless = InvalidRequest.at("n", "cannot be expressed here", "leave it out")
    exchange = Exchange(scripted(wordless, wordless), scripted(None, DOWN))

    call = await ask(exchange, tenant, EITHER)

    assert str(call.target) == "spare/other"
    assert call.trail.attempts == 1, "nothing was sent to the first"
    assert call.trail.header() == "stub/mock;reason=invalid-request"
    with pytest.raises(UpstreamUnavailable):  # that may pass; the other will not
        await ask(exchange, tenant, EITHER)


async def test_a_request_that_nobody_has_words_for_is_refused_and_costs_nothing(
    tenant: FakeTenant,
) -> None:
    first = InvalidRequest.at("n", "cannot be expressed here", "leave it out")
    second = InvalidRequest.at("top_k", "cannot be expressed here", "leave it out")

    with pytest.raises(InvalidRequest, match="n: cannot"):
        await ask(Exchange(scripted(first), scripted(second)), tenant, EITHER)

    assert tenant.entries("outcome, input_tokens, output_tokens") == [("failed", 0, 0)]


async def test_a_failure_says_who_was_asked(tenant: FakeTenant) -> None:
    exchange = Exchange(scripted(DOWN), scripted(UpstreamFailed("500")))

    with pytest.raises(ProviderFailure) as failed:
        await ask(exchange, tenant, EITHER)

    trail = failed.value.trail
    assert trail is not None
    assert trail.attempts == 2
    assert failed.value.waited > 0
    assert trail.header() == (
        "stub/mock;reason=upstream-unavailable, spare/other;reason=upstream-failed"
    )


async def test_the_next_key_is_tried_before_the_next_target(tenant: FakeTenant) -> None:
    stub = scripted(KeyRefused("401"), None, None)
    exchange = Exchange(stub, scripted(None), keys={"stub": KEYS})

    call = await ask(exchange, tenant, EITHER)
    await ask(exchange, tenant, EITHER)

    assert str(call.target) == "stub/mock"
    assert stub.keys == ["sk-1", "sk-2", "sk-2"]
    assert call.trail.attempts == 2
    assert exchange.router.cooling(STUB) is None


async def test_a_provider_whose_keys_all_fail_cools_down_itself(tenant: FakeTenant) -> None:
    stub = scripted(UpstreamRateLimited("429"))
    exchange = Exchange(stub, scripted(None), keys={"stub": KEYS})

    call = await ask(exchange, tenant, EITHER)

    assert str(call.target) == "spare/other"
    assert call.trail.attempts == 3
    assert exchange.router.cooling(STUB) == 1


async def test_another_key_does_not_mend_a_provider_that_is_down(tenant: FakeTenant) -> None:
    stub = scripted(DOWN)

    await ask(Exchange(stub, scripted(None), keys={"stub": KEYS}), tenant, EITHER)

    assert len(stub.keys) == 1


async def test_a_request_at_fault_is_tried_with_no_other_key(tenant: FakeTenant) -> None:
    stub = scripted(UpstreamRefused("no", status=400))

    with pytest.raises(UpstreamRefused):
        await ask(Exchange(stub, scripted(None), keys={"stub": KEYS}), tenant)

    assert len(stub.keys) == 1


@pytest.mark.parametrize(
    ("change", "trail"),
    [
        ({"model": "stub/bad"}, ""),
        ({"model": "stub/mock", "kind": embeddings.KIND}, ""),
        ({"model": "stub/mock"}, "stub/mock;reason=cooling"),
        ({"model": "stub/mock", "kind": "responses"}, "stub/mock;reason=cooling"),
    ],
    ids=lambda value: str(value),
)
async def test_what_fails_of_a_provider_takes_nothing_else_from_anybody(
    tenant: FakeTenant, change: dict[str, str], trail: str
) -> None:
    stub = scripted(UpstreamFailed("500"), None)
    exchange = Exchange(stub, scripted(None))
    with pytest.raises(UpstreamFailed):
        await ask(exchange, tenant, replace(STRAIGHT, **change))  # type: ignore[arg-type]  # texts

    call = await ask(exchange, tenant, EITHER)

    assert call.trail.header() == trail


async def test_a_provider_that_cannot_be_reached_is_passed_over_for_all_it_has(
    tenant: FakeTenant,
) -> None:
    exchange = Exchange(scripted(Unreachable("no connection"), None), scripted(None))
    with pytest.raises(Unreachable):
        await ask(exchange, tenant, replace(STRAIGHT, model="stub/bad"))

    call = await ask(exchange, tenant, EITHER)

    assert call.trail.header() == "stub/mock;reason=cooling"
    await ask(exchange, tenant)
    assert exchange.router.cooling(STUB) is None, "another model of it answered"


@pytest.mark.parametrize("lasting", [KeyRefused("401"), AccountSpent("402")], ids=repr)
async def test_of_several_failures_the_one_that_may_be_over_soon_is_told(
    tenant: FakeTenant, lasting: ProviderFailure
) -> None:
    limited = UpstreamRateLimited("429", retry_after=3)

    for failures in ((limited, lasting), (lasting, limited)):
        first, second = map(scripted, failures)
        exchange = Exchange(first, second)
        with pytest.raises(UpstreamRateLimited) as failed:
            await ask(exchange, tenant, EITHER)
        assert failed.value.trail is not None
        assert failed.value.trail.attempts == 2

    with pytest.raises(type(lasting)):
        await ask(Exchange(scripted(lasting), scripted(lasting)), tenant, EITHER)


async def test_a_tenants_own_key_wins_over_the_gateways(tenant: FakeTenant) -> None:
    tenant.keys["stub"] = "sk-own"
    stub = scripted(KeyRefused("401"))

    with pytest.raises(KeyRefused):
        await ask(Exchange(stub, scripted(None), keys={"stub": KEYS}), tenant)

    assert stub.keys == ["sk-own"]


async def test_balanced_targets_take_turns_by_weight(tenant: FakeTenant) -> None:
    stub, spare = scripted(None), scripted(None)
    exchange = Exchange(stub, spare)
    for _ in range(8):
        stub.script, spare.script = [FakeReply()] * 9, [FakeReply()] * 9
        await ask(exchange, tenant, replace(STRAIGHT, model="mixed"))

    assert (len(stub.calls), len(spare.calls)) == (6, 2)


async def test_a_balanced_target_that_fails_is_replaced_by_the_other(tenant: FakeTenant) -> None:
    exchange = Exchange(scripted(DOWN), scripted(None))
    seen = []
    for _ in range(4):
        exchange.spare.script = [FakeReply()] * 9  # type: ignore[attr-defined]  # it is a fake
        call = await ask(exchange, tenant, replace(STRAIGHT, model="mixed"))
        seen.append((str(call.target), call.trail.header()))

    assert seen[0] == ("spare/other", "stub/mock;reason=upstream-unavailable")
    assert seen[1:] == [("spare/other", "stub/mock;reason=cooling")] * 3


async def test_the_time_a_model_is_given_is_the_names_before_the_targets(
    tenant: FakeTenant,
) -> None:
    stub = scripted(None, None)
    exchange = Exchange(stub, scripted(None))

    await ask(exchange, tenant)
    stub.script = [FakeReply(), FakeReply()]
    await ask(exchange, tenant, EITHER)

    assert [call.timeouts for call in stub.calls] == [
        Timeouts(request=9, idle=3),
        Timeouts(request=5, idle=3),
    ]
