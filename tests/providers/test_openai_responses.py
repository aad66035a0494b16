"""Providers that speak the Responses API, asked in any dialect."""

import json
from typing import Any

import msgspec
import pytest

from appliance.model.calls import Delta, Dialect, Finished, FinishReason, ModelCall
from appliance.model.errors import InvalidRequest, ProviderFailure
from appliance.protocols.openai_chat import ChatWriter
from appliance.protocols.responses.request import ResponsesRequest
from appliance.protocols.responses.writer import ResponseWriter
from appliance.providers.base import Reply
from tests.protocols.calls import call, text_of
from tests.protocols.responses import lifecycle
from tests.providers.conftest import Bench


def asked(model: str = "mock", *, stream: bool = True, **members: Any) -> ModelCall:
    body = {name: json.dumps(value).encode() for name, value in members.items()}
    body.setdefault("input", b'"hello"')
    return ModelCall(model=model, body=body, stream=stream, dialect=Dialect.RESPONSES)


def writer() -> ResponseWriter:
    request = ResponsesRequest.parse(b'{"model":"m","input":"hello"}', limit_bytes=100)
    return ResponseWriter(request, id="resp_ours", created_at=1, clock=lambda: 2.0)


async def told(reply: Reply) -> list[Delta]:
    return [delta async for some in reply.deltas() for delta in some]


async def test_a_stream_of_theirs_becomes_a_response_of_ours(bench: Bench) -> None:
    to = writer()
    events = b""
    async with bench.provider("openai-responses").open(asked()) as reply:
        async for some in reply.events(to):
            events += some
    events += to.tail()

    final = lifecycle.check(lifecycle.parse(events))
    assert final["id"] == "resp_ours"
    assert final["output"][0]["content"][0]["text"]
    assert final["usage"]["input_tokens"] > 0
    sent = msgspec.json.decode(bench.stub.requests[0].body)
    assert (sent["stream"], sent["store"]) == (True, False)


async def test_an_answer_in_one_piece_is_put_together_here(bench: Bench) -> None:
    async with bench.provider("openai-responses").open(asked(stream=False)) as reply:
        whole = msgspec.json.decode(await reply.whole(writer()))

    lifecycle.check_response(whole)
    assert (whole["id"], whole["status"]) == ("resp_ours", "completed")


async def test_a_chat_completion_is_asked_in_their_words(bench: Bench) -> None:
    to = ChatWriter(id="x", created=1)
    async with bench.provider("openai-responses").open(call(model="mock", stream=False)) as reply:
        whole = msgspec.json.decode(await reply.whole(to))

    assert whole["choices"][0]["message"]["content"]
    assert whole["choices"][0]["finish_reason"] == "stop"
    sent = msgspec.json.decode(bench.stub.requests[0].body)
    assert "messages" not in sent
    assert sent["input"][0]["content"] == [{"type": "input_text", "text": "hello"}]


async def test_what_has_no_word_there_is_refused_before_anything_is_sent(bench: Bench) -> None:
    with pytest.raises(InvalidRequest, match="stop"):
        async with bench.provider("openai-responses").open(call(model="mock", stop=["x"])):
            pass
    assert not bench.stub.requests


@pytest.mark.parametrize(
    "fault", ["fault-cut", "fault-error-mid-stream", "fault-malformed", "fault-no-end"]
)
async def test_half_an_answer_never_looks_whole(bench: Bench, fault: str) -> None:
    provider = bench.provider("openai-responses")
    with pytest.raises(ProviderFailure):
        async with provider.open(asked(model=fault)) as reply:
            await told(reply)
    assert provider._pool.unused == 64


async def test_the_end_says_why_and_what_it_cost(bench: Bench) -> None:
    async with bench.provider("openai-responses").open(asked()) as reply:
        deltas = await told(reply)

    assert text_of(deltas)
    assert isinstance(deltas[-1], Finished)
    assert deltas[-1].reason is FinishReason.STOP
    assert deltas[-1].usage is not None
