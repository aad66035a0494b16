"""The answer of a raw route: one writer at a time, and a quiet stream is kept alive."""

from dataclasses import replace
from time import perf_counter
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from appliance.model.errors import QuotaExceeded, UpstreamFailed
from appliance.services.model_calls import OpenCall
from appliance.services.routing import Target
from appliance.transports.openai_api.failures import failure_of
from appliance.transports.raw.answers import Answer

KEEP_ALIVE = 15.0
SEND_TIMEOUT = 30.0


class Client:
    """The far end: keeps what arrives, reads as long as it likes, leaves when told."""

    def __init__(self) -> None:
        self.head: dict[str, Any] = {}
        self.body = b""
        self.ended = False
        self.left = trio.Event()
        self.reads = True

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if not self.reads:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            assert not self.head, "one head an answer"
            self.head = message
            return
        self.body += message["body"]
        self.ended = not message["more_body"]

    def header(self, name: bytes) -> bytes:
        return bytes(dict(self.head["headers"])[name])


@pytest.fixture
def client() -> Client:
    return Client()


def answer_to(client: Client, *, streams: bool, received_at: float = 0.0) -> Answer:
    return Answer(
        client.send,
        client.receive,
        request_id="req_1",
        received_at=received_at,
        streams=streams,
        keep_alive=KEEP_ALIVE,
        send_timeout=SEND_TIMEOUT,
        limits=tuple,
    )


NOBODY: Any = None
CALL = OpenCall(NOBODY, NOBODY, Target("stub", "mock"), NOBODY, NOBODY, 0.5, cost_nano=1_500_000)


async def test_a_whole_answer_says_how_long_it_is(client: Client) -> None:
    await answer_to(client, streams=False).finish(CALL, b'{"ok":true}')

    assert client.head["status"] == 200
    assert client.header(b"content-length") == b"11"
    assert client.header(b"x-request-id") == b"req_1"
    assert client.body == b'{"ok":true}'
    assert client.ended


async def test_a_whole_answer_says_who_gave_it_and_what_it_cost(client: Client) -> None:
    await answer_to(client, streams=False).finish(CALL, b"{}")

    assert client.header(b"x-openclaw-model") == b"stub/mock"
    assert client.header(b"x-openclaw-cost") == b"0.0015"


async def test_a_stream_says_who_gives_it_before_the_cost_is_known(client: Client) -> None:
    await answer_to(client, streams=True).begin(CALL)

    assert client.header(b"x-openclaw-model") == b"stub/mock"
    assert b"x-openclaw-cost" not in dict(client.head["headers"])


async def test_a_stream_ends_with_what_its_dialect_ends_with(client: Client) -> None:
    answer = answer_to(client, streams=True)
    await answer.begin(CALL)
    await answer.send(b"data: 1\n\n")
    await answer.finish(CALL, b"data: [DONE]\n\n")

    assert client.header(b"content-type").startswith(b"text/event-stream")
    assert client.body == b"data: 1\n\ndata: [DONE]\n\n"
    assert client.ended


async def test_a_failure_before_the_first_byte_has_its_status(client: Client) -> None:
    answer = answer_to(client, streams=True)
    refusal = QuotaExceeded("cost_per_day is used up", retry_after=90.5)

    await answer.fail(failure_of(refusal, "req_1"))

    assert client.head["status"] == 429
    assert client.header(b"retry-after") == b"91"
    assert client.header(b"x-should-retry") == b"false"
    assert msgspec.json.decode(client.body)["error"] == {
        "message": "cost_per_day is used up",
        "type": "insufficient_quota",
        "param": None,
        "code": "insufficient_quota",
    }


async def test_a_failure_in_mid_stream_is_an_error_event_and_no_finish_reason(
    client: Client,
) -> None:
    answer = answer_to(client, streams=True)
    await answer.begin(CALL)
    await answer.send(b"data: 1\n\n")
    await answer.fail(failure_of(UpstreamFailed("the stream broke off"), "req_1"))

    assert client.head["status"] == 200
    assert b'data: {"error":{"message":"the stream broke off"' in client.body
    assert client.body.endswith(b"data: [DONE]\n\n")
    assert b"finish_reason" not in client.body


async def test_a_client_that_leaves_is_noticed(client: Client, autojump_clock: MockClock) -> None:
    answer = answer_to(client, streams=False)
    client.left.set()

    await answer.wait_left()

    assert trio.current_time() == 0


async def test_a_quiet_stream_gets_a_comment_now_and_then(
    client: Client, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    answer = answer_to(client, streams=True)
    await answer.begin(CALL)
    nursery.start_soon(answer.wait_left)

    await trio.sleep(KEEP_ALIVE * 3 + 1)

    assert client.body == b": keep-alive\n\n" * 3
    client.left.set()


async def test_a_provider_that_thinks_long_does_not_let_the_connection_idle_out(
    client: Client, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    answer = answer_to(client, streams=True)
    nursery.start_soon(answer.wait_left)

    await trio.sleep(KEEP_ALIVE + 1)
    await answer.begin(CALL)
    await answer.send(b"data: 1\n\n")
    await answer.finish(CALL, b"data: [DONE]\n\n")

    assert client.body == b": keep-alive\n\ndata: 1\n\ndata: [DONE]\n\n"
    client.left.set()


async def test_the_silence_before_a_comment_is_not_the_gateways(
    client: Client, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    # By the clock that was not jumped, too, it was as long ago.
    answer = answer_to(client, streams=True, received_at=perf_counter() - KEEP_ALIVE)
    nursery.start_soon(answer.wait_left)

    await trio.sleep(KEEP_ALIVE + 1)

    assert client.body == b": keep-alive\n\n"
    assert float(client.header(b"x-openclaw-overhead-ms")) < KEEP_ALIVE * 1000 / 2
    client.left.set()


async def test_a_busy_stream_gets_no_comment(
    client: Client, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    answer = answer_to(client, streams=True)
    nursery.start_soon(answer.wait_left)
    await answer.begin(CALL)
    for _ in range(10):
        await answer.send(b"data: 1\n\n")
        await trio.sleep(5)

    assert b"keep-alive" not in client.body
    client.left.set()


async def test_a_reader_that_stops_reading_counts_as_gone(
    client: Client, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    answer = answer_to(client, streams=True)
    await answer.begin(CALL)
    client.reads = False
    nursery.start_soon(answer.send, b"data: 1\n\n")

    await answer.wait_left()

    assert SEND_TIMEOUT <= trio.current_time() <= SEND_TIMEOUT + KEEP_ALIVE
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("fails", [True, False])
async def test_the_time_of_a_provider_is_not_the_gateways(client: Client, *, fails: bool) -> None:
    answer = answer_to(client, streams=False)  # it is as if accepted when the machine was started
    waited = perf_counter() + 60

    if fails:
        await answer.fail(replace(failure_of(UpstreamFailed("no"), "req_1"), waited=waited))
    else:
        await answer.whole(b"{}", waited=waited)

    assert client.header(b"x-openclaw-overhead-ms") == b"0.00"
