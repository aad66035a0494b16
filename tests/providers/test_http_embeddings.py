"""Embeddings over HTTP: the dialects that have them, and what each fault comes to."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from appliance.model.embeddings import EmbeddingCall, Encoding, Packed
from appliance.model.errors import InvalidRequest, ProviderFailure
from appliance.model.usage import TokenUsage
from appliance.protocols.embeddings import numbers_of
from appliance.providers.base import EmbeddingProvider
from appliance.providers.errors import (
    EmbeddingRefused,
    UpstreamFailed,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from tests.providers.conftest import Bench, Wiring
from tests.stub_provider import embedding

CALL = EmbeddingCall(model="mock", texts=("one", "two words"), request_id="req_" + "a" * 20)
EACH = pytest.mark.parametrize("dialect", ["openai", "openai-responses", "ollama"])


@EACH
async def test_texts_become_vectors_in_order(bench: Bench, dialect: str) -> None:
    provider = bench.provider(dialect)
    found = await provider.embed(CALL)

    assert isinstance(provider, EmbeddingProvider)
    assert [list(numbers_of(vector)) for vector in found.vectors] == [
        embedding.vector("one"),
        embedding.vector("two words"),
    ]
    assert found.usage == TokenUsage(input=3)
    assert found.dimensions == embedding.DIMENSIONS
    assert found.provider_request_id == "req_stub"


async def test_the_key_and_the_path_are_the_providers(bench: Bench) -> None:
    await bench.provider().embed(CALL)
    await bench.provider("ollama", base_url="http://stub.example").embed(CALL, api_key="sk-mine")

    openai, ollama = bench.stub.requests
    assert openai.path == "/v1/embeddings"
    assert openai.headers["authorization"].startswith("Bearer sk-of-the-gateway")
    assert openai.headers["x-request-id"] == CALL.request_id
    assert ollama.path == "/api/embed"
    assert ollama.headers["authorization"] == "Bearer sk-mine"


async def test_the_encoding_is_asked_for_and_tokens_are_passed_on(bench: Bench) -> None:
    asked = EmbeddingCall(model="mock", tokens=((1, 2), (3,)), encoding=Encoding.BASE64)

    found = await bench.provider().embed(asked)

    assert json.loads(bench.stub.requests[-1].body) == {
        "model": "mock",
        "input": [[1, 2], [3]],
        "encoding_format": "base64",
    }
    assert all(isinstance(vector, Packed) for vector in found.vectors)
    assert found.usage == TokenUsage(input=3)


async def test_a_large_answer_is_read_in_a_thread(bench: Bench) -> None:
    asked = EmbeddingCall(model="mock", texts=tuple(map(str, range(300))), dimensions=100)

    found = await bench.provider().embed(asked)

    assert (len(found.vectors), found.dimensions) == (300, 100)


async def test_a_dialect_without_embeddings_names_the_model(bench: Bench) -> None:
    with pytest.raises(EmbeddingRefused, match="has no embeddings") as refused:
        await bench.provider("anthropic").embed(CALL)

    assert isinstance(refused.value, InvalidRequest)
    assert refused.value.fields[0].field == "model"
    assert refused.value.retryable
    assert not bench.stub.requests


async def test_ollama_takes_no_tokens(bench: Bench) -> None:
    with pytest.raises(EmbeddingRefused, match="check_embedding_ctx_length") as refused:
        await bench.provider("ollama").embed(EmbeddingCall(model="mock", tokens=((1,),)))

    assert refused.value.fields[0].field == "input"


def http(status: int, body: bytes, *more: str) -> bytes:
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *more]
    return "\r\n".join([*head, "", ""]).encode() + body


async def answering(stream: trio.abc.Stream, *, answer: bytes) -> None:
    await stream.receive_some(65536)
    await stream.send_all(answer)
    await stream.aclose()


def vectors(*found: Any) -> bytes:
    return json.dumps({"data": [{"embedding": each} for each in found]}).encode()


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (http(200, vectors([1])), UpstreamFailed),
        (http(200, vectors([1], [1, 2])), UpstreamFailed),
        (http(200, vectors([1], ["a"])), UpstreamFailed),
        (http(200, b"<html>no</html>"), UpstreamFailed),
        (http(200, b'{"data": [{"embedding"'), UpstreamFailed),
        (http(200, vectors([1], [1]))[:-9], UpstreamFailed),
        (http(200, b'{"error":{"message":"x","code":429}}'), UpstreamRateLimited),
        (http(200, b" " * 5_000_000), UpstreamFailed),
        (http(302, b"", "Location: http://10.0.0.1/"), UpstreamFailed),
        (http(400, b'{"error":{"message":"no such encoding"}}'), UpstreamRefused),
        (http(401, b"{}"), UpstreamFailed),
        (http(429, b"{}", "Retry-After: 3"), UpstreamRateLimited),
        (http(500, b"sorry"), UpstreamFailed),
        (http(503, b"{}"), UpstreamUnavailable),
        (b"", UpstreamFailed),
        (b"HTTP/1.1 nonsense\r\n\r\n", UpstreamFailed),
    ],
    ids=lambda value: value[:60].decode() if isinstance(value, bytes) else "",
)
async def test_what_is_no_answer_fails(
    nursery: trio.Nursery, answer: bytes, failure: type[ProviderFailure]
) -> None:
    serve: Callable[[trio.abc.Stream], Awaitable[object]] = partial(answering, answer=answer)
    bench = Bench(None, Wiring(nursery, _tolerant(serve)).dial)  # type: ignore[arg-type] # no stub

    with pytest.raises(failure) as failed:
        await bench.provider().embed(CALL)

    assert "10.0.0.1" not in failed.value.detail


def _tolerant(
    serve: Callable[[trio.abc.Stream], Awaitable[object]],
) -> Callable[[trio.abc.Stream], Awaitable[object]]:
    async def run(stream: trio.abc.Stream) -> None:
        try:
            await serve(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.aclose_forcefully(stream)  # the provider had enough

    return run


async def test_a_silent_provider_is_left(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async def silent(stream: trio.abc.Stream) -> None:
        await stream.receive_some(65536)
        await trio.sleep_forever()

    bench = Bench(None, Wiring(nursery, silent).dial)  # type: ignore[arg-type] # no stub
    with pytest.raises(UpstreamTimeout):
        await bench.provider(request_timeout=5.0).embed(CALL)
    assert trio.current_time() == 5
    with pytest.raises(UpstreamTimeout):
        await bench.provider(request_timeout=5.0).embed(replace(CALL, patience=2.0))
    assert trio.current_time() == 7
    nursery.cancel_scope.cancel()


async def test_a_size_that_is_not_what_was_asked_for_is_an_answer_that_was_paid_for(
    nursery: trio.Nursery,
) -> None:
    serve = partial(answering, answer=http(200, vectors([1, 2, 3])))
    bench = Bench(None, Wiring(nursery, serve).dial)  # type: ignore[arg-type] # no stub

    answer = await bench.provider().embed(EmbeddingCall(model="mock", texts=("a",), dimensions=2))

    assert answer.dimensions == 3
