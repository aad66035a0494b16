"""Tokens are counted by whoever can, and by nobody else."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import pytest
import trio

from appliance.config.loading import parse_config
from appliance.config.schema import GatewayConfig
from appliance.model.calls import Dialect
from appliance.model.errors import InvalidRequest, ModelForbidden, ModelUnknown, ProviderFailure
from appliance.providers.base import Provider
from appliance.providers.errors import ContextExceeded, UpstreamRefused
from appliance.services.call_requests import AwakeTenant, CallRequest
from appliance.services.guardrails.rules import RuleBook
from appliance.services.routing import Router
from appliance.services.token_counts import TokenCounts
from tests.books import HandClock
from tests.fakes.providers import FakeProvider
from tests.fakes.tenants import CALLER
from tests.providers.conftest import Bench, Wiring
from tests.stub_provider.server import StubProvider

CONFIG = """
providers:
  claude: {dialect: anthropic}
  stub: {dialect: openai}
models:
  default: stub/mock
  aliases: {sonnet: claude/mock}
"""


@dataclass
class Tenant:
    own: Mapping[str, Provider] = field(default_factory=dict)
    key: str | None = None
    id: str = "acme"
    config: GatewayConfig = field(default_factory=lambda: parse_config(CONFIG, name="config"))

    def provider_key(self, provider: str) -> str | None:
        return self.key

    def own_provider(self, provider: str) -> Provider | None:
        return self.own.get(provider)


def asked(model: str) -> CallRequest:
    return CallRequest(
        model=model,
        body={"model": b'"x"', "messages": b'[{"role":"user","content":"one two"}]'},
        stream=False,
        prompt_bytes=40,
        output_limit=None,
        dialect=Dialect.ANTHROPIC,
        headers={"anthropic-beta": "a"},
    )


def counts(**providers: Provider) -> TokenCounts:
    return TokenCounts(Router(lambda: providers, clock=HandClock()), lambda: providers, RuleBook())


def awake(tenant: Tenant) -> AwakeTenant:
    return cast("AwakeTenant", tenant)  # counting needs no meter


def asked_items(model: str, said: str = "one two three") -> CallRequest:
    return replace(
        asked(model),
        body={"input": b'"%s"' % said.encode(), "temperature": b"0.5"},
        dialect=Dialect.RESPONSES,
        headers={},
    )


def answering(
    nursery: trio.Nursery, status: int, body: bytes, dialect: str = "anthropic"
) -> Provider:
    async def serve(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        await stream.send_all(head % (status, len(body)) + body)

    return Bench(StubProvider(), Wiring(nursery, serve).dial).provider(dialect)


@pytest.mark.parametrize("said", ["one two three", "one two " + "3" * 200_000])
@pytest.mark.parametrize(
    ("dialect", "path"),
    [("anthropic", "/v1/messages/count_tokens"), ("openai-responses", "/responses/input_tokens")],
)
async def test_each_dialect_is_counted_in_the_providers_words(
    nursery: trio.Nursery, dialect: str, path: str, said: str
) -> None:
    stub = StubProvider()
    claude = Bench(stub, Wiring(nursery, stub.serve).dial).provider(dialect)
    tenant = awake(Tenant(key="sk-of-the-tenant"))

    assert (
        await counts(claude=claude).count(tenant, CALLER, asked_items("sonnet", said))
    ).tokens == 3
    assert (await counts(claude=claude).count(tenant, CALLER, asked("sonnet"))).tokens == 2

    for request in stub.requests:
        assert request.path.endswith(path)
        assert "sk-of-the-tenant" in str(request.headers)
        assert request.json()["model"] == "mock"
        assert "temperature" not in request.json()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b'{"error":{"message":"unknown parameter","type":"invalid_request_error"}}'),
        (404, b"{}"),
        (405, b"<html>"),
        (429, b"{}"),
        (503, b"{}"),
        (200, b"{}"),
        (200, b'{"input_tokens":-4}'),
        (200, b"<html>"),
    ],
)
@pytest.mark.parametrize("request_of", [asked, asked_items])
async def test_who_speaks_like_openai_and_does_not_count_is_no_failure(
    nursery: trio.Nursery, status: int, body: bytes, request_of: Callable[[str], CallRequest]
) -> None:
    provider = counts(claude=answering(nursery, status, body, "openai-responses"))

    assert (await provider.count(awake(Tenant()), CALLER, request_of("sonnet"))).tokens is None


async def test_what_the_provider_has_no_word_for_is_not_counted(nursery: trio.Nursery) -> None:
    provider = counts(claude=answering(nursery, 200, b'{"input_tokens":7}'))
    request = asked_items("sonnet")
    moderated = replace(request, body={**request.body, "moderation": b'{"model":"x"}'})

    own = awake(Tenant(key="sk-of-the-tenant"))
    assert (await provider.count(own, CALLER, moderated)).tokens is None


async def test_what_is_not_for_the_gateways_key_is_not_counted_with_it(
    nursery: trio.Nursery,
) -> None:
    provider = counts(claude=answering(nursery, 200, b'{"input_tokens":7}'))
    stored = (
        b'[{"role":"user","content":[{"type":"document","source":{"type":"file","file_id":"f"}}]}]'
    )
    request = asked("sonnet")

    with pytest.raises(InvalidRequest, match="file_id"):
        await provider.count(
            awake(Tenant()), CALLER, replace(request, body={**request.body, "messages": stored})
        )


async def test_a_provider_of_the_dialect_counts(nursery: trio.Nursery) -> None:
    stub = StubProvider()
    claude = Bench(stub, Wiring(nursery, stub.serve).dial).provider("anthropic")
    tenant = awake(Tenant(key="sk-of-the-tenant"))

    found = await counts(claude=claude).count(tenant, CALLER, asked("sonnet"))

    assert found.tokens == 2
    assert found.waited > 0
    request = stub.requests[0]
    assert request.path.endswith("/v1/messages/count_tokens")
    assert request.headers["x-api-key"] == "sk-of-the-tenant"
    assert request.headers["anthropic-beta"] == "a"
    assert request.json()["model"] == "mock"


async def test_what_is_guarded_does_not_leave_for_counting(nursery: trio.Nursery) -> None:
    stub = StubProvider()
    claude = Bench(stub, Wiring(nursery, stub.serve).dial).provider("anthropic")
    guarded = CONFIG + "guardrails: [{name: own, pii: [email], action: block}]\n"
    tenant = awake(Tenant(config=parse_config(guarded, name="config")))

    assert (await counts(claude=claude).count(tenant, CALLER, asked("sonnet"))).tokens is None
    assert not stub.requests


async def test_rules_for_answers_do_not_keep_a_prompt_from_being_counted(
    nursery: trio.Nursery,
) -> None:
    stub = StubProvider()
    claude = Bench(stub, Wiring(nursery, stub.serve).dial).provider("anthropic")
    guarded = CONFIG + "guardrails: [{name: own, on: answer, pii: [email], action: block}]\n"
    tenant = awake(Tenant(config=parse_config(guarded, name="config")))

    assert (await counts(claude=claude).count(tenant, CALLER, asked("sonnet"))).tokens == 2


async def test_no_other_is_asked() -> None:
    stub = FakeProvider()
    providers = counts(stub=stub, claude=FakeProvider(dialect=Dialect.EMBEDDED))

    assert (await providers.count(awake(Tenant()), CALLER, asked("stub/mock"))).tokens is None
    assert (await providers.count(awake(Tenant()), CALLER, asked("claude/mock"))).tokens is None
    assert (await counts().count(awake(Tenant()), CALLER, asked("claude/mock"))).tokens is None
    assert stub.calls == []


async def test_a_tenants_own_provider_comes_first(nursery: trio.Nursery) -> None:
    own = answering(nursery, 200, b'{"input_tokens":7}')
    tenant = awake(Tenant(own={"claude": own}))

    assert (await counts(claude=FakeProvider()).count(tenant, CALLER, asked("sonnet"))).tokens == 7


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b"{}"), (429, b"{}"), (500, b"{}"), (529, b"{}"), (401, b"{}"), (200, b"{}")],
)
async def test_a_provider_that_cannot_count_is_no_failure(
    nursery: trio.Nursery, status: int, body: bytes
) -> None:
    claude = answering(nursery, status, body)

    found = await counts(claude=claude).count(awake(Tenant()), CALLER, asked("sonnet"))

    assert found.tokens is None
    assert found.waited > 0


@pytest.mark.parametrize(
    ("message", "failure"),
    [(b"messages: bad", UpstreamRefused), (b"prompt is too long: 2 > 1", ContextExceeded)],
)
async def test_a_fault_of_the_request_is_told(
    nursery: trio.Nursery, message: bytes, failure: type[Exception]
) -> None:
    body = b'{"type":"error","error":{"type":"invalid_request_error","message":"%s"}}' % message
    claude = answering(nursery, 400, body)

    with pytest.raises(failure) as failed:
        await counts(claude=claude).count(awake(Tenant()), CALLER, asked("sonnet"))

    assert isinstance(failed.value, ProviderFailure)
    assert failed.value.trail is not None
    assert failed.value.waited > 0


async def test_a_model_there_is_not_and_one_not_allowed_are_refused() -> None:
    caller = replace(CALLER, models=("stub/*",))

    with pytest.raises(ModelUnknown):
        await counts().count(awake(Tenant()), CALLER, asked("nowhere/x"))
    with pytest.raises(ModelForbidden):
        await counts().count(awake(Tenant()), caller, asked("sonnet"))
