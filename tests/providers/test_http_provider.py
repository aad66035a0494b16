"""Providers over HTTP: one contract for every dialect, and what each fault comes to."""

import json
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from appliance.model.calls import Delta, Dialect, Finished, FinishReason, Timeouts
from appliance.model.errors import ConfigInvalid, InvalidRequest, ProviderFailure
from appliance.model.usage import TokenUsage
from appliance.protocols import sse
from appliance.providers.base import Reply
from appliance.providers.errors import (
    ContextExceeded,
    UpstreamFailed,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from appliance.providers.http_provider import HttpProvider
from tests.fakes.writers import chat_writer
from tests.protocols.calls import call, calls_of, end_of, text_of, thoughts_of
from tests.providers.conftest import KEY, Bench, Wiring
from tests.stub_provider.answers import good
from tests.stub_provider.asked import Asked, words
from tests.stub_provider.faults import ADDRESS, FAULTS, SECRET

DIALECTS = ("openai", "anthropic", "ollama")
EVERY = pytest.mark.parametrize("dialect", DIALECTS)
WORDS = 20
TEXT = "".join(words(WORDS))
USAGE = TokenUsage(input=1, output=WORDS)

WHOLE_ANSWERS = frozenset(
    {
        "comments",
        "crlf",
        "lying-usage",
        "no-done",
        "no-usage",
        "slow",
        "split-frames",
        "stream-instead",
    }
)


async def chunks(reply: Reply, *, include_usage: bool = False) -> list[bytes]:
    return [events async for events in reply.events(chat_writer(include_usage=include_usage))]


async def deltas(reply: Reply) -> list[Delta]:
    return [delta async for several in reply.deltas() for delta in several]


def chunk_text(events: Sequence[bytes]) -> str:
    said = (json.loads(payload) for each in events for payload in sse.payloads(each))
    choices = (chunk["choices"][0]["delta"] for chunk in said if chunk["choices"])
    return "".join(delta.get("content") or "" for delta in choices)


@EVERY
async def test_an_answer_in_one_piece_is_a_chat_completion(bench: Bench, dialect: str) -> None:
    async with bench.provider(dialect).open(call(model="mock", stream=False)) as reply:
        completion = json.loads(await reply.whole(chat_writer()))

    assert completion["object"] == "chat.completion"
    assert completion["choices"][0]["message"]["content"] == TEXT
    assert completion["choices"][0]["finish_reason"] == "stop"
    assert completion["usage"]["completion_tokens"] == WORDS
    assert reply.usage == USAGE
    assert reply.finished
    assert reply.text_bytes == len(TEXT)
    assert reply.provider_request_id == "req_stub"


@EVERY
@pytest.mark.parametrize("include_usage", [True, False], ids=["usage", "no usage"])
async def test_a_streamed_answer_is_chunks_of_whole_events(
    bench: Bench, dialect: str, *, include_usage: bool
) -> None:
    async with bench.provider(dialect).open(call(model="mock")) as reply:
        events = await chunks(reply, include_usage=include_usage)

    said = [json.loads(payload) for each in events for payload in sse.payloads(each)]
    assert all(each.endswith(b"\n\n") for each in events)
    assert chunk_text(events) == TEXT
    assert said[0]["choices"][0]["delta"]["role"] == "assistant"
    assert {chunk["object"] for chunk in said} == {"chat.completion.chunk"}
    assert ("usage" in said[-1]) is include_usage
    assert all(chunk["choices"] for chunk in (said[:-1] if include_usage else said))
    assert b"[DONE]" not in b"".join(events)
    assert reply.finished
    assert reply.usage == USAGE


@EVERY
async def test_the_same_answer_is_read_as_deltas(bench: Bench, dialect: str) -> None:
    async with bench.provider(dialect).open(call(model="mock")) as reply:
        said = await deltas(reply)

    assert text_of(said) == TEXT
    assert end_of(said) == Finished(FinishReason.STOP, USAGE)


@EVERY
async def test_a_limit_reaches_the_provider_and_its_mark_comes_back(
    bench: Bench, dialect: str
) -> None:
    async with bench.provider(dialect).open(call(model="mock", output_limit=5)) as reply:
        end = end_of(await deltas(reply))

    assert end == Finished(FinishReason.LENGTH, TokenUsage(input=1, output=5))


@EVERY
async def test_a_tool_call_comes_with_its_thoughts_and_words(bench: Bench, dialect: str) -> None:
    tools = [{"type": "function", "function": {"name": "weather_of", "parameters": {}}}]
    async with bench.provider(dialect).open(call(model="fault-tool-call", tools=tools)) as reply:
        said = await deltas(reply)

    assert thoughts_of(said) == "Hm."
    assert text_of(said) == "Looking."
    (_, name, arguments), *rest = calls_of(said)
    assert (name, json.loads(arguments)) == ("weather_of", {"city": "Oslo"})
    assert all(json.loads(arguments) == {} for _, _, arguments in rest)
    assert end_of(said).reason is FinishReason.TOOL_CALLS


async def test_the_events_of_openais_dialect_are_the_providers_own_bytes(bench: Bench) -> None:
    asked = Asked(
        "openai", "mock", stream=True, prompt_tokens=1, words=WORDS, is_cut_off=False,
        include_usage=True,
    )  # fmt: skip
    async with bench.provider().open(call(model="mock")) as reply:
        events = b"".join(await chunks(reply, include_usage=True))

    assert events == b"".join(good(asked).pieces[:-1])


@EVERY
async def test_connections_are_used_again_after_every_good_answer(
    bench: Bench, dialect: str
) -> None:
    provider = bench.provider(dialect)
    for stream in (True, False, True):
        async with provider.open(call(model="mock", stream=stream)) as reply:
            await chunks(reply) if stream else await reply.whole(chat_writer())

    assert bench.stub.connections == 1
    await provider.aclose()


@EVERY
async def test_a_request_carries_the_key_of_the_gateway_or_of_the_tenant(
    bench: Bench, dialect: str
) -> None:
    provider = bench.provider(dialect, headers={"X-Team": "blue"})
    async with provider.open(call(model="mock")):
        pass
    async with provider.open(call(model="mock"), api_key="sk-of-a-tenant"):
        pass

    ours, theirs = (request.headers for request in bench.stub.requests)
    name, before = ("x-api-key", "") if dialect == "anthropic" else ("authorization", "Bearer ")
    assert ours[name] == before + KEY
    assert theirs[name] == before + "sk-of-a-tenant"
    assert ours["x-team"] == theirs["x-team"] == "blue"
    assert ours["host"] == "stub.example"
    assert ("anthropic-version" in ours) is (dialect == "anthropic")


@pytest.mark.parametrize(
    ("dialect", "path"),
    [
        ("openai", "/v1/chat/completions"),
        ("anthropic", "/v1/messages"),
        ("ollama", "/api/chat"),
    ],
)
@pytest.mark.parametrize("ending", ["", "/"])
async def test_each_dialect_has_its_path(
    bench: Bench, dialect: str, path: str, ending: str
) -> None:
    provider = bench.provider(dialect, base_url=f"http://stub.example/v1{ending}")
    async with provider.open(call(model="mock")):
        pass

    assert bench.stub.requests[0].path == path


async def test_a_request_id_goes_along_if_it_is_one(bench: Bench) -> None:
    provider = bench.provider()
    for request_id in ("req-1", "x\r\nX-Evil: 1", ""):
        async with provider.open(replace(call(model="mock"), request_id=request_id)):
            pass

    assert [r.headers.get("x-request-id") for r in bench.stub.requests] == ["req-1", None, None]
    assert all("x-evil" not in r.headers for r in bench.stub.requests)


@EVERY
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("fault", sorted(FAULTS))
async def test_every_fault_ends_in_a_whole_answer_or_a_failure_and_leaks_nothing(
    bench: Bench, dialect: str, fault: str, autojump_clock: MockClock, *, stream: bool
) -> None:
    provider = bench.provider(dialect, max_connections=1)
    reply: Reply | None = None
    try:
        async with provider.open(call(model=f"fault-{fault}", stream=stream)) as reply:
            if stream:
                await chunks(reply)
            else:
                json.loads(await reply.whole(chat_writer()))
            assert reply.finished
    except ProviderFailure as failure:
        assert not (reply is not None and reply.finished)
        assert fault not in WHOLE_ANSWERS
        for told in (failure.detail, str(failure.facts)):
            assert SECRET not in told
            assert ADDRESS not in told
            assert KEY not in told

    # Whatever happened, the only connection is free for the next call.
    async with provider.open(call(model="mock", stream=False)) as reply:
        assert json.loads(await reply.whole(chat_writer()))


FAILURES: list[tuple[str, type[ProviderFailure]]] = [
    ("400", UpstreamRefused),
    ("401", UpstreamFailed),
    ("404", UpstreamRefused),
    ("429", UpstreamRateLimited),
    ("503", UpstreamUnavailable),
    ("529", UpstreamUnavailable),
    ("context", ContextExceeded),
    ("cut", UpstreamFailed),
    ("error-in-200", UpstreamFailed),
    ("error-mid-stream", UpstreamFailed),
    ("hang", UpstreamTimeout),
    ("html", UpstreamFailed),
    ("html-502", UpstreamFailed),
    ("huge", UpstreamFailed),
    ("malformed", UpstreamFailed),
    ("no-end", UpstreamFailed),
    ("redirect", UpstreamFailed),
]


@EVERY
@pytest.mark.parametrize(("fault", "expected"), FAILURES)
async def test_what_goes_wrong_has_its_name(
    bench: Bench,
    dialect: str,
    fault: str,
    expected: type[ProviderFailure],
    autojump_clock: MockClock,
) -> None:
    if fault.startswith("error") and dialect != "ollama":
        expected = UpstreamUnavailable  # its error says "overloaded"
    for stream in (True, False):
        with pytest.raises(expected):
            async with bench.provider(dialect).open(
                call(model=f"fault-{fault}", stream=stream)
            ) as r:
                await chunks(r) if stream else await r.whole(chat_writer())


@EVERY
@pytest.mark.parametrize("fault", sorted(WHOLE_ANSWERS))
async def test_what_is_only_odd_still_gives_the_whole_answer(
    bench: Bench, dialect: str, fault: str, autojump_clock: MockClock
) -> None:
    async with bench.provider(dialect).open(call(model=f"fault-{fault}")) as reply:
        assert chunk_text(await chunks(reply)) == TEXT
    async with bench.provider(dialect).open(call(model=f"fault-{fault}")) as reply:
        assert text_of(await deltas(reply)) == TEXT
    if fault in {"lying-usage", "no-usage"} and dialect != "anthropic":
        assert reply.usage is None
    else:
        assert reply.usage == USAGE


async def test_a_whole_answer_where_a_stream_was_asked_for_becomes_one(bench: Bench) -> None:
    async with bench.provider().open(call(model="fault-whole-instead")) as reply:
        events = await chunks(reply, include_usage=True)

    assert chunk_text(events) == TEXT
    assert json.loads(list(sse.payloads(events[-1]))[-1])["usage"]["completion_tokens"] == WORDS


async def test_odd_tool_calls_are_put_right_for_agents(bench: Bench) -> None:
    for stream in (True, False):
        async with bench.provider().open(call(model="fault-odd-tools", stream=stream)) as reply:
            said = await deltas(reply)
        assert [call[1:] for call in calls_of(said)] == [("get_weather", '{"city":"Oslo"}')]
        assert end_of(said).reason is FinishReason.TOOL_CALLS


@pytest.mark.parametrize("fault", ["429", "503"])
async def test_how_long_to_wait_comes_with_the_failure(bench: Bench, fault: str) -> None:
    with pytest.raises(ProviderFailure) as caught:
        async with bench.provider().open(call(model=f"fault-{fault}")):
            pass

    assert caught.value.retry_after == {"429": 7, "503": 3}[fault]


async def test_a_redirect_is_not_followed(bench: Bench) -> None:
    with pytest.raises(UpstreamFailed, match="redirect"):
        async with bench.provider().open(call(model="fault-redirect")):
            pass

    assert len(bench.stub.requests) == 1


@EVERY
async def test_a_silent_stream_is_given_up_after_its_idle_timeout(
    bench: Bench, dialect: str, autojump_clock: MockClock
) -> None:
    provider = bench.provider(dialect, stream_idle_timeout=30)
    with pytest.raises(UpstreamTimeout, match="silent"):
        async with provider.open(call(model="fault-hang")) as reply:
            await chunks(reply)

    assert 30 <= trio.current_time() <= 30 * 1.125  # one timer for all reads, not moved for each
    assert provider._pool.unused == 64


@pytest.mark.parametrize(
    ("timeouts", "stream", "waited"),
    [
        (Timeouts(idle=7), True, 7),
        (Timeouts(request=9), False, 9),
        (Timeouts(request=9, first_token=4), False, 9),
    ],
)
async def test_a_model_may_be_given_another_time(
    bench: Bench,
    timeouts: Timeouts,
    waited: float,
    autojump_clock: MockClock,
    *,
    stream: bool,
) -> None:
    asked = replace(call(model="fault-hang", stream=stream), timeouts=timeouts)
    with pytest.raises(UpstreamTimeout):
        async with bench.provider().open(asked) as reply:
            await chunks(reply)

    assert waited <= trio.current_time() <= waited * 1.125


@EVERY
async def test_a_first_token_that_does_not_come_is_not_waited_for(
    bench: Bench, dialect: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = lambda asked: replace(good(asked), pieces=(), ending="hang")  # noqa: E731 - a script
    monkeypatch.setitem(cast("dict[str, Any]", FAULTS), "silent", silent)
    asked = replace(call(model="fault-silent"), timeouts=Timeouts(first_token=3))
    with pytest.raises(UpstreamTimeout):
        async with bench.provider(dialect).open(asked):
            pass

    assert trio.current_time() == 3


@pytest.mark.parametrize("dialect", [each for each in DIALECTS if each != "ollama"])
async def test_comments_are_no_first_token(
    bench: Bench, dialect: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = lambda asked: replace(good(asked), pieces=(b": busy\n\n",) * 50, pause=0.2)  # noqa: E731 - a script
    monkeypatch.setitem(cast("dict[str, Any]", FAULTS), "busy", busy)
    asked = replace(call(model="fault-busy"), timeouts=Timeouts(first_token=3))
    with pytest.raises(UpstreamTimeout):
        async with bench.provider(dialect).open(asked):
            pass

    assert trio.current_time() == pytest.approx(3)


@EVERY
async def test_an_error_as_the_first_event_is_a_refusal_like_any_other(
    bench: Bench, dialect: str
) -> None:
    provider = bench.provider(dialect)
    with pytest.raises(ProviderFailure, match="overloaded"):
        async with provider.open(call(model="fault-error-in-200")):
            raise AssertionError("it has not begun")

    assert provider._pool.unused == 64


@EVERY
async def test_a_stream_without_a_word_has_not_begun_where_somebody_else_can_be_asked(
    bench: Bench, dialect: str
) -> None:
    provider = bench.provider(dialect)

    with pytest.raises(UpstreamFailed, match="before it was complete"):
        async with provider.open(replace(call(model="fault-no-words"), has_next=True)):
            raise AssertionError("it has not begun")
    async with provider.open(replace(call(model="mock"), has_next=True)) as reply:
        assert text_of(await deltas(reply)) == TEXT


@EVERY
async def test_an_answer_whose_first_token_came_in_time_is_whole(
    bench: Bench, dialect: str
) -> None:
    timeouts = Timeouts(request=60, first_token=30, idle=30)
    async with bench.provider(dialect).open(replace(call(model="mock"), timeouts=timeouts)) as one:
        assert chunk_text(await chunks(one)) == TEXT
    async with bench.provider(dialect).open(replace(call(model="mock"), timeouts=timeouts)) as two:
        assert text_of(await deltas(two)) == TEXT


async def test_an_answer_that_never_begins_is_given_up_after_the_request_timeout(
    bench: Bench, autojump_clock: MockClock
) -> None:
    with pytest.raises(UpstreamTimeout):
        async with bench.provider(request_timeout=90).open(call(model="fault-hang", stream=False)):
            pass

    assert trio.current_time() == 90


@EVERY
async def test_leaving_early_closes_the_connection_and_keeps_the_count(
    bench: Bench, dialect: str
) -> None:
    provider = bench.provider(dialect)
    async with provider.open(call(model="fault-hang")) as reply, aclosing(reply.deltas()) as said:
        async for _ in said:
            break
        else:
            raise AssertionError("it ended")

    assert not reply.finished
    assert (provider._pool.idle, provider._pool.unused) == (0, 64)


@EVERY
async def test_a_cancelled_call_is_over_at_once(
    bench: Bench, dialect: str, autojump_clock: MockClock
) -> None:
    provider = bench.provider(dialect)
    for fault in ("hang", "slow"):
        with trio.move_on_after(0.2) as scope:
            async with provider.open(call(model=f"fault-{fault}")) as reply:
                await chunks(reply)
        assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(0.4)
    assert (provider._pool.idle, provider._pool.unused) == (0, 64)


@EVERY
async def test_every_read_is_passed_on_at_once(
    bench: Bench, dialect: str, autojump_clock: MockClock
) -> None:
    """A live token must not wait for the next one."""
    async with bench.provider(dialect).open(call(model="fault-slow")) as reply:
        times = [trio.current_time() async for _ in reply.events(chat_writer())]

    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(times) >= WORDS
    # The stub pauses for 0.05 s before each event; some of Anthropic's hold no text.
    assert max(gaps) <= 0.15 + 1e-6
    assert sorted(gaps)[len(gaps) // 2] == pytest.approx(0.05)


@EVERY
async def test_the_models_are_those_configured_or_those_it_tells(
    bench: Bench, dialect: str, autojump_clock: MockClock
) -> None:
    assert list(await bench.provider(dialect, models=["a", "b"]).models()) == ["a", "b"]
    assert len(bench.stub.requests) == 0

    provider = bench.provider(dialect)
    for _ in range(3):
        assert list(await provider.models()) == ["mock", "mock-300"]
    assert len(bench.stub.requests) == 1

    await trio.sleep(301)
    await provider.models()
    assert len(bench.stub.requests) == 2


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"]
)
async def test_models_are_none_when_nobody_tells_and_nothing_is_raised(
    bench: Bench, nursery: trio.Nursery, answer: bytes
) -> None:
    async def serve(stream: trio.abc.Stream) -> None:
        await stream.receive_some(1000)
        if answer:
            await stream.send_all(answer)
        await stream.aclose()

    bench.dial = Wiring(nursery, serve).dial
    assert list(await bench.provider().models()) == []


async def test_something_else_than_chat_can_be_asked(bench: Bench) -> None:
    provider = bench.provider()
    answer = json.loads(await provider.post("/embeddings", b'{"input":"a"}', limit=10_000))
    assert len(answer["data"]) == 1

    with pytest.raises(UpstreamFailed, match="more than an answer may hold"):
        await provider.post("/embeddings", b'{"input":"a"}', limit=10)
    with pytest.raises(UpstreamRefused):
        await provider.post("/no-such-path", b"{}", limit=10_000)
    assert provider._pool.unused == 64


async def test_what_a_dialect_cannot_say_is_refused_before_anything_is_sent(bench: Bench) -> None:
    with pytest.raises(InvalidRequest, match="logprobs"):
        async with bench.provider("anthropic").open(call(logprobs=True)):
            pass

    assert bench.stub.connections == 0


@pytest.mark.parametrize("key", ["a\r\nX-Evil: 1", "schlüssel", "a\x00b", " "])
async def test_a_key_no_header_can_carry_is_refused(bench: Bench, key: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        async with bench.provider().open(call(), api_key=key):
            pass

    assert key not in caught.value.detail or key == " "


@pytest.mark.parametrize("headers", [{"X-A": "b\r\nX-Evil: 1"}, {"X A": "b"}, {"X-A": "ü"}])
async def test_a_header_that_is_none_is_refused_when_the_provider_is_built(
    bench: Bench, headers: dict[str, Any]
) -> None:
    with pytest.raises(ConfigInvalid, match="headers"):
        bench.provider(headers=headers)


@pytest.fixture
async def compressing(nursery: trio.Nursery, bench: Bench) -> HttpProvider:
    async def serve(stream: trio.abc.Stream) -> None:
        await stream.receive_some(10_000)
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n"
        await stream.send_all(head + b"\x1f\x8b\x08")

    bench.dial = Wiring(nursery, serve).dial
    return bench.provider()


async def test_a_compressed_answer_nobody_asked_for_is_refused(compressing: HttpProvider) -> None:
    with pytest.raises(UpstreamFailed, match="compressed"):
        async with compressing.open(call(model="mock")):
            pass


async def test_a_provider_knows_its_dialect(bench: Bench) -> None:
    assert [bench.provider(d).dialect for d in DIALECTS] == [
        Dialect.OPENAI,
        Dialect.ANTHROPIC,
        Dialect.OLLAMA,
    ]
