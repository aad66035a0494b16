"""What Anthropic's dialect adds to a provider: callers of its own, and the count of tokens."""

import json
from typing import Any

import pytest
import trio

from appliance.model.calls import Dialect, ModelCall
from appliance.model.errors import InvalidRequest, ProviderFailure
from appliance.model.usage import TokenUsage
from appliance.protocols import sse
from appliance.protocols.anthropic_writer import MESSAGE_STOP, MessagesWriter
from appliance.providers.anthropic import count_tokens
from appliance.providers.errors import UpstreamFailed
from tests.providers.conftest import KEY, Bench, Wiring
from tests.stub_provider.answers import good
from tests.stub_provider.asked import Asked
from tests.stub_provider.server import StubProvider

USAGE = TokenUsage(input=1, output=20)


def native(
    *, model: str = "mock", stream: bool = True, headers: dict[str, str] | None = None, **more: Any
) -> ModelCall:
    members = {"max_tokens": 100, "messages": [{"role": "user", "content": "hello"}], **more}
    return ModelCall(
        model=model,
        body={name: json.dumps(value).encode() for name, value in members.items()},
        stream=stream,
        dialect=Dialect.ANTHROPIC,
        headers=headers or {},
    )


async def test_a_stream_is_the_providers_own_events(bench: Bench) -> None:
    asked = Asked("anthropic", "mock", stream=True, prompt_tokens=1, words=20, is_cut_off=False)
    async with bench.provider("anthropic").open(native()) as reply:
        events = [each async for each in reply.events(MessagesWriter(id="msg_1"))]

    assert b"".join(events) + MESSAGE_STOP == b"".join(good(asked).pieces)
    assert reply.finished
    assert reply.usage == USAGE


async def test_an_answer_in_one_piece_is_the_providers_own(bench: Bench) -> None:
    asked = Asked("anthropic", "mock", stream=False, prompt_tokens=1, words=20, is_cut_off=False)
    async with bench.provider("anthropic").open(native(stream=False)) as reply:
        message = await reply.whole(MessagesWriter(id="msg_1"))

    assert message == good(asked).pieces[0]
    assert reply.usage == USAGE


async def test_what_the_caller_sent_arrives_as_it_was(bench: Bench) -> None:
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    cached = [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    call = native(system=cached, tools=tools, thinking={"type": "adaptive"}, something_new={"a": 1})
    async with bench.provider("anthropic").open(call):
        pass

    sent = json.loads(bench.stub.requests[0].body)
    assert sent == {
        "model": "mock",
        "stream": True,
        **{name: json.loads(value) for name, value in call.body.items()},
    }


async def test_the_callers_version_and_features_come_in_place_of_ours(bench: Bench) -> None:
    provider = bench.provider("anthropic")
    headers = {"anthropic-version": "2026-10-21", "anthropic-beta": "a-2025-01-01,b"}
    for call in (native(headers=headers), native(), native(headers={"anthropic-beta": "c"})):
        async with provider.open(call):
            pass

    versions = [request.headers["anthropic-version"] for request in bench.stub.requests]
    betas = [request.headers.get("anthropic-beta") for request in bench.stub.requests]
    assert versions == ["2026-10-21", "2023-06-01", "2023-06-01"]
    assert betas == ["a-2025-01-01,b", None, "c"]
    assert {request.headers["x-api-key"] for request in bench.stub.requests} == {KEY}


async def test_headers_of_another_dialects_caller_go_nowhere(bench: Bench) -> None:
    async with bench.provider("openai").open(native(headers={"anthropic-beta": "a"})):
        pass

    headers = bench.stub.requests[0].headers
    assert "anthropic-beta" not in headers
    assert "anthropic-version" not in headers


@pytest.mark.parametrize(
    "headers",
    [
        {"anthropic-beta": "x\r\nhost: elsewhere"},
        {"anthropic-beta": "x\ny"},
        {"anthropic-beta": "ä"},
        {"x\r\ny": "z"},
    ],
)
async def test_a_header_that_would_begin_another_is_refused(
    bench: Bench, headers: dict[str, str]
) -> None:
    with pytest.raises(InvalidRequest, match="is not a header"):
        async with bench.provider("anthropic").open(native(headers=headers)):
            pass

    assert not bench.stub.requests


async def test_tokens_are_counted_by_the_provider(bench: Bench) -> None:
    provider = bench.provider("anthropic", base_url="http://stub.example/anthropic")
    call = native(headers={"anthropic-version": "2026-10-21"})

    assert await count_tokens(provider, call, api_key="sk-of-the-tenant") == 1

    request = bench.stub.requests[0]
    assert request.path == "/anthropic/v1/messages/count_tokens"
    assert request.headers["x-api-key"] == "sk-of-the-tenant"
    assert request.headers["anthropic-version"] == "2026-10-21"
    assert json.loads(request.body)["model"] == "mock"


@pytest.mark.parametrize(
    "body", [b"{}", b'{"input_tokens":-1}', b'{"input_tokens":"1"}', b"[]", b"<html></html>"]
)
async def test_a_provider_that_does_not_count_fails(nursery: trio.Nursery, body: bytes) -> None:
    async def serve(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    provider = Bench(StubProvider(), Wiring(nursery, serve).dial).provider("anthropic")

    with pytest.raises(UpstreamFailed, match="counted no tokens"):
        await count_tokens(provider, native())


@pytest.mark.parametrize("fault", ["html", "cut", "529"])
async def test_a_native_answer_that_fails_never_looks_whole(bench: Bench, fault: str) -> None:
    call = native(model=f"fault-{fault}", stream=False)
    with pytest.raises(ProviderFailure):
        async with bench.provider("anthropic").open(call) as reply:
            await reply.whole(MessagesWriter(id="msg_1"))


async def test_a_stream_that_stops_fails_after_what_came(bench: Bench) -> None:
    events: list[bytes] = []

    async def read() -> None:
        async with bench.provider("anthropic").open(native(model="fault-cut")) as reply:
            async for each in reply.events(MessagesWriter(id="msg_1")):
                events.append(each)  # noqa: PERF401 - what came before the failure is looked at

    with pytest.raises(UpstreamFailed):
        await read()

    assert b"content_block_delta" in b"".join(events)
    assert b"message_stop" not in b"".join(events)


async def test_a_provider_that_streams_unasked_still_answers_in_one_piece(bench: Bench) -> None:
    call = native(model="fault-stream-instead", stream=False)
    async with bench.provider("anthropic").open(call) as reply:
        message = json.loads(await reply.whole(MessagesWriter(id="msg_1")))

    assert message["type"] == "message"
    assert message["stop_reason"] == "end_turn"
    assert message["usage"]["output_tokens"] == 20


async def test_a_provider_that_does_not_stream_still_answers_in_events(bench: Bench) -> None:
    writer = MessagesWriter(id="msg_1")
    async with bench.provider("anthropic").open(native(model="fault-whole-instead")) as reply:
        stream = b"".join([each async for each in reply.events(writer)]) + writer.tail()

    events = [json.loads(payload)["type"] for payload in sse.payloads(stream)]
    assert events[0] == "message_start"
    assert events[-2:] == ["message_delta", "message_stop"]
