"""A straight completion: what the sink is told, in which order, and that it is settled first."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
import trio

from appliance.model.errors import QuotaExceeded, UpstreamFailed, UpstreamUnavailable
from appliance.model.quotas import Quotas
from appliance.protocols.chat_request import ChatRequest
from appliance.services.completions import Completions
from appliance.services.model_calls import CallRequest, OpenCall
from tests.fakes.cancelling import each_cancellation
from tests.fakes.providers import FakeProvider, FakeReply
from tests.fakes.tenants import CALLER, Exchange, FakeTenant, open_tenant
from tests.fakes.writers import chat_writer


class ClientLeft(Exception):
    pass


@dataclass
class FakeSink:
    """Writes down what it is told; fails when it is told ``fails_at``."""

    tenant: FakeTenant
    fails_at: str = ""
    told: list[str] = field(default_factory=list)
    body: bytes = b""
    settled_before_finish: bool = False

    async def begin(self, call: OpenCall) -> None:
        assert call.settlement is None
        await self._note("begin")

    async def send(self, events: bytes) -> None:
        self.body += events
        await self._note("send")

    async def finish(self, call: OpenCall, rest: bytes) -> None:
        self.settled_before_finish = call.settlement is not None and not self.tenant.in_use()
        self.body += rest
        await self._note("finish")

    async def _note(self, what: str) -> None:
        await trio.lowlevel.checkpoint()
        if what == self.fails_at:
            raise ClientLeft
        self.told.append(what)


@pytest.fixture
async def tenant(tmp_path: Path) -> AsyncIterator[FakeTenant]:
    limits = Quotas(tokens_per_day=10_000, concurrent_requests=1)
    async with open_tenant(tmp_path, limits=limits) as tenant:
        yield tenant


@pytest.fixture
def stub() -> FakeProvider:
    return FakeProvider("stub")


@pytest.fixture
def complete(tenant: FakeTenant, stub: FakeProvider) -> "Complete":
    return Complete(tenant, Completions(Exchange(stub, FakeProvider("spare")).calls))


@dataclass
class Complete:
    tenant: FakeTenant
    completions: Completions

    async def __call__(self, sink: FakeSink, **more: object) -> None:
        body = {"model": "stub/mock", "messages": [{"role": "user", "content": "hi"}], **more}
        request = ChatRequest.parse(msgspec.json.encode(body), limit_bytes=10_000)
        asked = CallRequest(
            model=request.model,
            body=request.body,
            stream=request.stream,
            prompt_bytes=request.prompt_bytes,
            output_limit=request.output_limit,
            choices=request.choices,
        )
        writer = chat_writer(include_usage=request.include_usage)
        await self.completions.complete(self.tenant, CALLER, asked, writer, sink)


async def test_a_stream_begins_is_passed_on_and_finishes_settled(
    tenant: FakeTenant, complete: Complete
) -> None:
    sink = FakeSink(tenant)

    await complete(sink, stream=True)

    assert sink.told == ["begin", "send", "send", "send", "finish"]
    assert sink.body == b"data: Hello\n\ndata:  there\n\ndata: finished\n\ndata: [DONE]\n\n"
    assert sink.settled_before_finish


async def test_a_whole_answer_is_sent_once_and_settled_before(
    tenant: FakeTenant, complete: Complete
) -> None:
    sink = FakeSink(tenant)

    await complete(sink)

    assert sink.told == ["finish"]
    assert sink.body.endswith(b"data: finished\n\n")
    assert sink.settled_before_finish


async def test_usage_is_passed_on_only_if_it_was_asked_for(
    tenant: FakeTenant, complete: Complete
) -> None:
    sink = FakeSink(tenant)

    await complete(sink, stream=True, stream_options={"include_usage": True})

    assert sink.body.endswith(b"data: usage\n\ndata: [DONE]\n\n")


async def test_the_request_is_accounted_as_it_was_made(
    tenant: FakeTenant, complete: Complete, stub: FakeProvider
) -> None:
    await complete(FakeSink(tenant), max_tokens=7, n=2)

    assert tenant.entries("request_id, kind, route, token_id, session, agent") == [
        ("req_1", "chat", "stub/mock", "tok_1", None, None)
    ]
    assert [(call.output_limit, call.stream) for call in stub.calls] == [(7, False)]


async def test_a_refused_call_tells_the_sink_nothing(
    tenant: FakeTenant, complete: Complete
) -> None:
    tenant.meter.limits = Quotas(tokens_per_day=0)
    sink = FakeSink(tenant)

    with pytest.raises(QuotaExceeded):
        await complete(sink, stream=True)

    assert sink.told == []


async def test_a_failing_provider_tells_the_sink_nothing(
    tenant: FakeTenant, complete: Complete, stub: FakeProvider
) -> None:
    stub.script = [UpstreamUnavailable("down")]
    sink = FakeSink(tenant)

    with pytest.raises(UpstreamUnavailable):
        await complete(sink, stream=True)

    assert sink.told == []
    tenant.assert_settled()


@pytest.mark.parametrize("stream", [True, False])
async def test_half_an_answer_is_never_finished(
    tenant: FakeTenant, complete: Complete, stub: FakeProvider, *, stream: bool
) -> None:
    stub.script = [FakeReply(failure=UpstreamFailed("it broke off"))]
    sink = FakeSink(tenant)

    with pytest.raises(UpstreamFailed):
        await complete(sink, stream=stream)

    assert "finish" not in sink.told
    assert tenant.entries("outcome") == [("failed",)]
    tenant.assert_settled()


@pytest.mark.parametrize("moment", ["begin", "send", "finish"])
async def test_a_client_that_leaves_leaves_nothing_open(
    tenant: FakeTenant, complete: Complete, stub: FakeProvider, moment: str
) -> None:
    with pytest.raises(ClientLeft):
        await complete(FakeSink(tenant, fails_at=moment), stream=True)

    tenant.assert_settled()
    assert tenant.entries("outcome") == [("ok" if moment == "finish" else "failed",)]
    assert (stub.entered, stub.exited) == (1, 1)


NEW_SINK: dict[str, Callable[[FakeTenant], FakeSink]] = {
    "stays": FakeSink,
    "leaves at once": lambda tenant: FakeSink(tenant, fails_at="begin"),
    "leaves in mid-stream": lambda tenant: FakeSink(tenant, fails_at="send"),
}


@pytest.mark.parametrize("client", NEW_SINK)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_completion_cancelled_anywhere_is_settled_once(
    tenant: FakeTenant, complete: Complete, stub: FakeProvider, client: str, *, stream: bool
) -> None:
    async def work() -> None:
        stub.script = [FakeReply()]
        with suppress(ClientLeft):
            await complete(NEW_SINK[client](tenant), stream=stream)

    async for step in each_cancellation(work):
        tenant.assert_settled()
        assert len(tenant.entries()) == step + 1
        assert stub.entered == stub.exited
