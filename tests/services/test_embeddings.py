"""Embeddings are metered as every other call: reserved, asked for, settled once."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pytest
import trio

from appliance.config.loading import parse_config
from appliance.model.embeddings import EmbeddingAnswer, EmbeddingCall, Encoding, Numbers
from appliance.model.errors import (
    InvalidRequest,
    ModelUnknown,
    QuotaExceeded,
    UpstreamFailed,
    UpstreamUnavailable,
)
from appliance.model.money import Price
from appliance.model.quotas import Quotas
from appliance.model.usage import TokenUsage
from appliance.protocols.embeddings import EmbeddingRequest
from appliance.providers.errors import EmbeddingRefused
from appliance.services.embeddings import Embeddings, embedding_entries, model_for_agents
from appliance.services.model_calls import OpenCall
from tests.fakes.cancelling import each_cancellation
from tests.fakes.providers import FakeProvider
from tests.fakes.tenants import CALLER, CONFIG, Exchange, FakeTenant, open_tenant

DOWN = UpstreamUnavailable("it is down")
USED = TokenUsage(input=10)
COLUMNS = "kind, outcome, provider, model, input_tokens, output_tokens, cost_nano, estimated"


@dataclass
class FakeEmbedder(FakeProvider):
    """Each call gets the next of ``answers``, then the last: a usage, or an exception."""

    answers: Sequence[TokenUsage | Exception | None] = (USED,)
    embedded: list[EmbeddingCall] = field(default_factory=list)

    async def embed(self, call: EmbeddingCall, *, api_key: str | None = None) -> EmbeddingAnswer:
        self.embedded.append(call)
        self.keys.append(api_key)
        await trio.lowlevel.checkpoint()
        answer = self.answers[min(len(self.embedded), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return EmbeddingAnswer(call.model, [Numbers(b"[1,2]")] * call.size, answer, 2, "up_1")


@dataclass
class FakeSink:
    tenant: FakeTenant
    answers: list[bytes] = field(default_factory=list)

    async def begin(self, call: OpenCall) -> None:
        raise AssertionError("embeddings are no stream")

    async def send(self, events: bytes) -> None:
        raise AssertionError("embeddings are no stream")

    async def finish(self, call: OpenCall, rest: bytes) -> None:
        self.tenant.assert_settled()
        assert call.settlement is not None
        await trio.lowlevel.checkpoint()
        self.answers.append(rest)


@pytest.fixture
async def tenant(tmp_path: Path) -> AsyncIterator[FakeTenant]:
    async with open_tenant(tmp_path, limits=Quotas(tokens_per_day=10_000)) as tenant:
        yield tenant


def request(model: str = "stub/mock", **fields: object) -> EmbeddingRequest:
    call = replace(EmbeddingCall(model=model, texts=("a" * 40,)), **fields)  # type: ignore[arg-type] # a table's
    said = msgspec.json.encode(call.texts) if call.texts else b""
    return EmbeddingRequest(call, said, prompt_bytes=40)


async def embed(
    tenant: FakeTenant,
    stub: FakeProvider,
    asked: EmbeddingRequest | None = None,
    *,
    spare: FakeProvider | None = None,
    exchange: Exchange | None = None,
) -> bytes:
    exchange = exchange or Exchange(stub, spare or FakeEmbedder("spare"))
    sink = FakeSink(tenant)
    await Embeddings(exchange.calls).embed(tenant, CALLER, asked or request(), sink)
    [answer] = sink.answers
    return answer


async def test_an_answer_is_booked_by_its_input_alone(tenant: FakeTenant) -> None:
    stub = FakeEmbedder("stub")
    answer = msgspec.json.decode(await embed(tenant, stub))

    assert answer["usage"] == {"prompt_tokens": 10, "total_tokens": 10}
    assert answer["data"] == [{"object": "embedding", "index": 0, "embedding": [1, 2]}]
    assert stub.embedded == [replace(request().call, model="mock", request_id="req_1")]
    assert not stub.calls
    [entry] = tenant.entries(COLUMNS)
    assert entry == ("embedding", "ok", "stub", "mock", 10, 0, 10_000, 0)


async def test_the_caller_gets_the_encoding_it_asked_for(tenant: FakeTenant) -> None:
    answer = await embed(tenant, FakeEmbedder("stub"), request(encoding=Encoding.BASE64))

    assert b'"embedding":"AACAPwAAAEA="' in answer


async def test_vectors_of_another_size_are_refused_and_booked(tenant: FakeTenant) -> None:
    with pytest.raises(EmbeddingRefused, match="stub answered with 2 numbers") as refused:
        await embed(tenant, FakeEmbedder("stub"), request(dimensions=3))

    assert refused.value.fields[0].field == "dimensions"
    assert tenant.entries("outcome, input_tokens") == [("ok", 10)]


async def test_a_usage_that_is_not_told_is_estimated(tenant: FakeTenant) -> None:
    stub = FakeEmbedder("stub", answers=[None])
    answer = msgspec.json.decode(await embed(tenant, stub))

    assert answer["usage"]["prompt_tokens"] == 10
    assert tenant.entries("input_tokens, output_tokens, estimated") == [(10, 0, 1)]


@pytest.mark.parametrize("failure", [DOWN, EmbeddingRefused.at("input", "no tokens")])
async def test_the_next_in_the_chain_is_asked(tenant: FakeTenant, failure: Exception) -> None:
    spare = FakeEmbedder("spare")
    await embed(tenant, FakeEmbedder("stub", answers=[failure]), request("both"), spare=spare)

    assert spare.embedded[0].model == "other"
    assert tenant.entries(COLUMNS)[0][1:4] == ("ok", "spare", "other")


async def test_a_provider_that_was_down_is_asked_last_for_a_while(tenant: FakeTenant) -> None:
    stub, spare = FakeEmbedder("stub", answers=[DOWN, USED]), FakeEmbedder("spare")
    exchange = Exchange(stub, spare)

    for _ in range(2):
        await embed(tenant, stub, request("both"), exchange=exchange)

    assert (len(stub.embedded), len(spare.embedded)) == (1, 2)


async def test_what_a_provider_cannot_embed_says_nothing_about_it(tenant: FakeTenant) -> None:
    stub = FakeEmbedder("stub", answers=[EmbeddingRefused.at("input", "no tokens"), USED])
    exchange = Exchange(stub, FakeEmbedder("spare"))

    for _ in range(2):
        await embed(tenant, stub, request("both"), exchange=exchange)

    assert len(stub.embedded) == 2


@pytest.mark.parametrize(
    "stub", [FakeProvider("stub"), FakeEmbedder("stub", answers=[EmbeddingRefused.at("model", "")])]
)
async def test_a_model_without_embeddings_is_refused_by_name(
    tenant: FakeTenant, stub: FakeProvider
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await embed(tenant, stub)

    assert refused.value.fields[0].field == "model"
    tenant.assert_settled()
    assert tenant.entries("outcome, input_tokens, cost_nano") == [("failed", 0, 0)]


async def test_a_failure_is_settled_and_costs_nothing(tenant: FakeTenant) -> None:
    with pytest.raises(UpstreamFailed):
        await embed(tenant, FakeEmbedder("stub", answers=[UpstreamFailed("x")]))

    tenant.assert_settled()
    assert tenant.entries("outcome, input_tokens, cost_nano") == [("failed", 0, 0)]


async def test_a_budget_that_is_used_up_is_told_before_anybody_is_asked(
    tenant: FakeTenant,
) -> None:
    stub = FakeEmbedder("stub")
    tenant.meter.limits = Quotas(tokens_per_day=12)

    with pytest.raises(QuotaExceeded):
        await embed(tenant, stub)

    assert not stub.embedded
    tenant.meter.limits = Quotas(tokens_per_day=21)  # as much as is reserved for the input
    assert await embed(tenant, stub)


async def test_an_input_is_reserved_at_the_price_of_reading(tenant: FakeTenant) -> None:
    stub = FakeEmbedder("stub")
    exchange = Exchange(stub, FakeEmbedder("spare"))
    exchange.prices["stub/mock"] = Price(
        input=1_000_000, output=10**15, cache_read=0, cache_write=0, reasoning=0
    )
    tenant.meter.limits = Quotas(cost_per_day=100_000)

    await embed(tenant, stub, exchange=exchange)

    assert tenant.entries("cost_nano") == [(10,)]


async def test_guardrails_look_through_the_texts(tenant: FakeTenant) -> None:
    stub = FakeEmbedder("stub")
    tenant.config = parse_config(
        CONFIG + "guardrails: [{name: own, pii: [email], action: redact}]\n", name="config"
    )

    await embed(tenant, stub, request(texts=("write to joe@example.com", "plain")))

    assert stub.embedded[0].texts == ("write to [email]", "plain")


async def test_tokens_do_not_get_past_guardrails_that_cannot_read_them(tenant: FakeTenant) -> None:
    stub = FakeEmbedder("stub")
    tenant.config = parse_config(
        CONFIG + "guardrails: [{name: own, pii: [email], action: redact}]\n", name="config"
    )

    with pytest.raises(InvalidRequest, match="tokens"):
        await embed(tenant, stub, request(tokens=((1, 2, 3),), texts=()))

    assert stub.embedded == []


async def test_no_answer_is_taken_for_another(tenant: FakeTenant) -> None:
    stub = FakeEmbedder("stub")
    tenant.config = parse_config(CONFIG + "  response_cache: {enabled: true}\n", name="config")
    exchange = Exchange(stub, FakeEmbedder("spare"))

    for text in ("one", "one", "other"):
        await embed(tenant, stub, request(texts=(text,)), exchange=exchange)

    assert len(stub.embedded) == 3


async def test_an_unknown_model_is_not_booked(tenant: FakeTenant) -> None:
    with pytest.raises(ModelUnknown):
        await embed(tenant, FakeEmbedder("stub"), request("nobody/x"))

    assert not tenant.entries()


async def test_a_tenants_own_key_is_used(tenant: FakeTenant) -> None:
    stub = FakeEmbedder("stub")
    tenant.keys["stub"] = "sk-own"

    await embed(tenant, stub)

    assert stub.keys == ["sk-own"]


async def test_wherever_it_is_cancelled_it_is_settled(tenant: FakeTenant) -> None:
    async for _ in each_cancellation(lambda: embed(tenant, FakeEmbedder("stub"))):
        tenant.assert_settled()


def test_an_agent_means_the_model_for_embeddings() -> None:
    with pytest.raises(InvalidRequest, match=r"models\.embedding") as refused:
        model_for_agents(parse_config(CONFIG, name="config"))

    assert refused.value.fields[0].field == "model"
    named = CONFIG.replace("default: stub/mock", "default: stub/mock\n  embedding: spare/small")
    assert model_for_agents(parse_config(named, name="config")) == "spare/small"


def test_the_config_tells_of_models_for_embeddings() -> None:
    config = parse_config(
        "providers: {stub: {dialect: openai}, b: {dialect: embedded},"
        " a: {dialect: embedded, embedding_model_path: /models/tiny.gguf}}\n"
        "models: {embedding: small, failover: {small: [stub/e, b/x]}}",
        name="config",
    )

    listed = [(entry.id, entry.owned_by) for entry in embedding_entries(config)]

    assert listed == [("small", "stub"), ("a/tiny", "a"), ("b/all-minilm-l6-v2", "b")]
    assert not embedding_entries(parse_config(CONFIG, name="config"))
