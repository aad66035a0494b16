"""Answers that are kept: for the very same request, of the same tenant, and for nobody else."""

import contextlib
import gc
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from appliance.config.loading import parse_config
from appliance.model.cache_use import CacheUse, CacheWish
from appliance.model.calls import (
    Delta,
    Dialect,
    Finished,
    FinishReason,
    LogprobsDelta,
    ReasoningDelta,
    ReasoningSeal,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from appliance.model.errors import RateLimited, UpstreamFailed
from appliance.model.quotas import Quotas
from appliance.protocols.responses.asides import HostedCall
from appliance.services.model_calls import CallRequest, OpenCall
from appliance.services.response_cache import RecordingReply, ResponseCache
from appliance.services.routing import Target
from tests.fakes.providers import FakeProvider, FakeReply
from tests.fakes.tenants import CALLER, CONFIG, Exchange, FakeTenant, open_tenant
from tests.fakes.writers import chat_writer

CACHED = CONFIG.replace(
    "defaults:\n", "defaults:\n  response_cache: {enabled: true, ttl: 60, max_bytes: 8192}\n"
)


def asking(text: str = "hi", **members: object) -> CallRequest:
    given = {"messages": [{"role": "user", "content": text}], **members}
    body = {name: json.dumps(value).encode() for name, value in given.items()}
    return CallRequest(model="stub/mock", body=body, stream=True, prompt_bytes=30, output_limit=20)


ASKED = asking()


@pytest.fixture
async def tenant(tmp_path: Path) -> AsyncIterator[FakeTenant]:
    async with open_tenant(tmp_path / "one") as tenant:
        tenant.config = parse_config(CACHED, name="config")
        yield tenant


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[FakeTenant]:
    async with open_tenant(tmp_path / "other") as tenant:
        tenant.config = parse_config(CACHED, name="config")
        yield tenant


@pytest.fixture
def stub() -> FakeProvider:
    # Each answer is another one, so that an old one is known.
    return FakeProvider("stub", [FakeReply(pieces=[f"answer {n}"]) for n in range(60)])


@pytest.fixture
def exchange(stub: FakeProvider) -> Exchange:
    return Exchange(stub, stub)


async def ask(
    exchange: Exchange,
    tenant: FakeTenant,
    request: CallRequest = ASKED,
    wish: CacheWish = CacheWish.USUAL,
) -> tuple[str, OpenCall]:
    caller = replace(CALLER, cache=wish)
    said = []
    async with (
        exchange.calls.open(tenant, caller, request) as call,
        aclosing(call.reply.deltas()) as answer,
    ):
        async for deltas in answer:
            said += [delta.text for delta in deltas if isinstance(delta, TextDelta)]
    return "".join(said), call


async def test_the_very_same_request_is_answered_from_before(
    exchange: Exchange, tenant: FakeTenant, stub: FakeProvider
) -> None:
    first, asked = await ask(exchange, tenant)
    again, kept = await ask(exchange, tenant)

    assert first == again == "answer 0"
    assert (asked.cache, kept.cache) == (CacheUse.MISS, CacheUse.HIT)
    assert len(stub.calls) == 1
    assert str(kept.target) == "stub/mock"


async def test_a_hit_is_booked_and_costs_nothing(exchange: Exchange, tenant: FakeTenant) -> None:
    await ask(exchange, tenant)
    _, kept = await ask(exchange, tenant)

    assert kept.cost_nano == 0
    columns = "kind, route, provider, model, input_tokens, output_tokens, cost_nano, outcome"
    assert tenant.entries(columns)[1] == ("cache", "stub/mock", "stub", "mock", 0, 0, 0, "ok")
    tenant.assert_settled()


async def test_a_stream_is_answered_from_a_whole_answer_and_the_other_way_round(
    exchange: Exchange, tenant: FakeTenant
) -> None:
    await ask(
        exchange, tenant, replace(ASKED, stream=False, body={**ASKED.body, "stream": b"false"})
    )
    async with exchange.calls.open(tenant, CALLER, ASKED) as call:
        events = b"".join([event async for event in call.reply.events(chat_writer())])

    assert call.cache is CacheUse.HIT
    assert b'"answer 0"' in events
    assert b'"finish_reason":"stop"' in events


@pytest.mark.parametrize(
    "same",
    [
        asking(
            user="ann", metadata={"a": "b"}, stream=True, stream_options={"include_usage": True}
        ),
        replace(ASKED, body={"messages": b' [ {"role":"user", "content" : "hi"} ]'}),
    ],
)
async def test_what_changes_no_answer_makes_no_difference(
    exchange: Exchange, tenant: FakeTenant, same: CallRequest
) -> None:
    await ask(exchange, tenant)

    assert (await ask(exchange, tenant, same))[1].cache is CacheUse.HIT


@pytest.mark.parametrize(
    "different",
    [
        asking("hello"),
        asking(temperature=0.5),
        asking(seed=1),
        replace(ASKED, model="spare/other"),
        replace(ASKED, model="both"),
        replace(ASKED, dialect=Dialect.ANTHROPIC),
        replace(ASKED, output_limit=21),
        replace(ASKED, headers={"anthropic-beta": "x"}),
        asking(stop=["x"]),
        # The order in which a model fills in a schema, and all digits of a number.
        asking(response_format={"b": 1, "a": 1}),
        asking(response_format={"a": 1, "b": 1.0}),
        asking(response_format={"a": 1, "b": 12345678901234567890123}),
    ],
)
async def test_what_may_change_an_answer_is_asked_anew(
    exchange: Exchange, tenant: FakeTenant, different: CallRequest
) -> None:
    await ask(exchange, tenant)
    await ask(exchange, tenant, asking(response_format={"a": 1, "b": 1}))
    await ask(exchange, tenant, asking(response_format={"a": 1, "b": 12345678901234567890124}))

    assert (await ask(exchange, tenant, different))[1].cache is CacheUse.MISS


@pytest.mark.parametrize(
    ("item", "uses"),
    [
        ({"type": "message", "id": "msg_2", "status": "completed", "content": "x"}, CacheUse.HIT),
        ({"type": "message", "id": "msg_1", "content": "y"}, CacheUse.MISS),
        ({"id": "msg_2"}, CacheUse.MISS),
    ],
)
async def test_the_name_of_an_item_makes_no_difference(
    exchange: Exchange, tenant: FakeTenant, item: dict[str, str], uses: CacheUse
) -> None:
    first = {"type": "message", "id": "msg_1", "content": "x"}
    for each in (first, {"id": "msg_1"}, item):
        body = {"input": json.dumps([each]).encode()}
        _, call = await ask(exchange, tenant, replace(ASKED, body=body, dialect=Dialect.RESPONSES))

    assert call.cache is uses


async def test_nothing_is_kept_for_another_tenant(
    exchange: Exchange, tenant: FakeTenant, other: FakeTenant
) -> None:
    assert other.id == tenant.id, "not even under the same name, as after a tenant is made anew"
    await ask(exchange, tenant)

    assert (await ask(exchange, other))[0] == "answer 1"
    assert (await ask(exchange, tenant))[0] == "answer 0"
    assert (await ask(exchange, other))[0] == "answer 1"


async def test_another_key_is_another_answer(exchange: Exchange, tenant: FakeTenant) -> None:
    await ask(exchange, tenant)
    tenant.keys["stub"] = "sk-own"

    assert (await ask(exchange, tenant))[1].cache is CacheUse.MISS
    tenant.keys["stub"] = "sk-of-another-account"
    assert (await ask(exchange, tenant))[1].cache is CacheUse.MISS
    assert (await ask(exchange, tenant))[1].cache is CacheUse.HIT


async def test_a_provider_that_is_set_up_anew_is_asked_anew(
    exchange: Exchange, tenant: FakeTenant
) -> None:
    await ask(exchange, tenant)
    address = "stub: {dialect: openai, base_url: 'http://127.0.0.1:9/v1'}"
    moved = CACHED.replace("stub: {dialect: openai}", address)
    tenant.config = parse_config(moved, name="config")

    assert (await ask(exchange, tenant))[1].cache is CacheUse.MISS


async def test_two_who_ask_the_same_at_once_both_ask_and_one_answer_is_kept(
    exchange: Exchange, tenant: FakeTenant, stub: FakeProvider
) -> None:
    async with exchange.calls.open(tenant, CALLER, ASKED) as first:
        said, second = await ask(exchange, tenant)
        size = exchange.cache.size
        async with aclosing(first.reply.deltas()) as answer:
            async for _ in answer:
                pass

    assert (first.cache, second.cache, said) == (CacheUse.MISS, CacheUse.MISS, "answer 1")
    assert exchange.cache.size == size
    assert (await ask(exchange, tenant))[0] == "answer 0", "the latest to end"
    assert len(stub.calls) == 2
    tenant.assert_settled()


async def test_other_guardrails_are_another_answer(exchange: Exchange, tenant: FakeTenant) -> None:
    await ask(exchange, tenant)
    rule = "guardrails: [{name: r, on: answer, deny: [answer], action: redact}]\n"
    tenant.config = parse_config(CACHED + rule, name="config")

    assert (await ask(exchange, tenant))[0] == "[redacted] 1"
    assert (await ask(exchange, tenant))[0] == "[redacted] 1"


@pytest.mark.parametrize(
    ("wish", "uses", "then"),
    [
        (CacheWish.NO_CACHE, CacheUse.MISS, "answer 1"),
        (CacheWish.NO_STORE, CacheUse.HIT, "answer 0"),
        (CacheWish.BYPASS, CacheUse.OFF, "answer 0"),
    ],
)
async def test_a_caller_may_decline(
    exchange: Exchange, tenant: FakeTenant, wish: CacheWish, uses: CacheUse, then: str
) -> None:
    await ask(exchange, tenant)

    assert (await ask(exchange, tenant, wish=wish))[1].cache is uses
    assert (await ask(exchange, tenant))[0] == then


async def test_no_store_leaves_nothing_behind(exchange: Exchange, tenant: FakeTenant) -> None:
    await ask(exchange, tenant, wish=CacheWish.NO_STORE)

    assert exchange.cache.size == 0


@pytest.mark.parametrize("request_for", [replace(ASKED, agent="main"), replace(ASKED, choices=2)])
async def test_agents_and_several_choices_are_not_kept(
    exchange: Exchange, tenant: FakeTenant, request_for: CallRequest
) -> None:
    assert (await ask(exchange, tenant, request_for))[1].cache is CacheUse.OFF
    assert (await ask(exchange, tenant, request_for))[1].cache is CacheUse.OFF


async def test_an_answer_is_good_for_a_while(
    exchange: Exchange, tenant: FakeTenant, autojump_clock: MockClock
) -> None:
    await ask(exchange, tenant)
    await trio.sleep(59)
    assert (await ask(exchange, tenant))[1].cache is CacheUse.HIT
    await trio.sleep(2)
    assert (await ask(exchange, tenant))[1].cache is CacheUse.MISS


async def test_an_answer_is_good_for_as_long_as_the_config_says_now(
    exchange: Exchange, tenant: FakeTenant, autojump_clock: MockClock
) -> None:
    await ask(exchange, tenant)
    tenant.config = parse_config(CACHED.replace("ttl: 60", "ttl: 10"), name="config")
    await trio.sleep(11)

    assert (await ask(exchange, tenant))[1].cache is CacheUse.MISS


async def test_old_answers_give_way_when_another_comes(
    exchange: Exchange, tenant: FakeTenant, autojump_clock: MockClock
) -> None:
    await ask(exchange, tenant, asking("one"))
    await ask(exchange, tenant, asking("two"))
    await trio.sleep(30)
    size = exchange.cache.size
    await ask(exchange, tenant, asking("three"))
    await trio.sleep(31)
    await ask(exchange, tenant, asking("four"))

    assert exchange.cache.size == size, "of the two first nothing is left"


VOICES = st.sampled_from(
    [
        TextDelta("text "),
        TextDelta("wörter \U0001f600"),
        ReasoningDelta("thought "),
        RefusalDelta("no "),
        ReasoningSeal(signature="s"),
        ToolCallDelta(0, "c0", "f", "{"),
        ToolCallDelta(0, arguments='"a":'),
        ToolCallDelta(1, "c1", "g", "{}"),
        ToolCallDelta(1, arguments=" "),
        ToolCallDelta(2, "c2", "run", "ls", is_custom=True),
        LogprobsDelta([{"token": "a", "logprob": -0.5}]),
    ]
)


@given(st.lists(VOICES, max_size=30), st.sampled_from([1000, 4000, 100_000]))
def test_what_is_kept_says_the_same_in_fewer_pieces(deltas: list[Delta], most_bytes: int) -> None:
    told = [*deltas, Finished(FinishReason.STOP, None)]
    recording = RecordingReply(
        _Scripted(parts=[[delta] for delta in told]), Target("stub", "m"), most_bytes=most_bytes
    )

    async def read() -> list[Delta]:
        async with aclosing(recording.deltas()) as answer:
            return [delta async for deltas in answer for delta in deltas]

    assert trio.run(read) == told
    kept = list(recording.recorded)
    if kept:
        assert _in_words(kept) == _in_words(told)
        assert not [a for a, b in pairwise(kept) if type(a) is type(b) is TextDelta]
    else:
        assert most_bytes < 100_000


@dataclass
class _Scripted(FakeReply):
    parts: Sequence[Sequence[Delta]] = ()

    async def deltas(self) -> AsyncGenerator[Sequence[Delta], None]:
        for part in self.parts:
            await trio.lowlevel.checkpoint()
            yield part


def _in_words(deltas: Sequence[Delta]) -> bytes:
    writer = chat_writer()
    writer.collect(deltas)
    return writer.whole("m", None)


async def test_what_tools_of_the_provider_found_is_counted_too(tenant: FakeTenant) -> None:
    tenant.config = parse_config(CACHED.replace("8192", "1000000"), name="config")
    found = HostedCall(key=1, item={"type": "web_search_call", "results": ["x" * 1000]})
    reply = _Scripted(parts=[[found, TextDelta("so"), Finished(FinishReason.STOP, None)]])
    stub = FakeProvider("stub", [reply])
    exchange = Exchange(stub, stub)
    await ask(exchange, tenant)

    assert exchange.cache.size > 8_000


async def test_memory_is_counted_as_it_is(tenant: FakeTenant) -> None:
    tenant.config = parse_config(CACHED.replace("8192", "1000000"), name="config")
    # One character beyond the others makes each of them take four bytes.
    stub = FakeProvider("stub", [FakeReply(pieces=["x" * 10_000, "\U0001f600"])])
    exchange = Exchange(stub, stub)
    await ask(exchange, tenant)

    assert 40_000 < exchange.cache.size < 45_000


@pytest.mark.parametrize(
    "answer",
    [
        FakeReply(failure=UpstreamFailed("it broke off")),
        FakeReply(reason=FinishReason.LENGTH),
        FakeReply(reason=FinishReason.CONTENT_FILTER),
        FakeReply(pieces=["x" * 5000]),
    ],
)
async def test_what_is_no_whole_good_answer_is_not_kept(
    tenant: FakeTenant, answer: FakeReply
) -> None:
    stub = FakeProvider("stub", [answer, FakeReply()])
    exchange = Exchange(stub, stub)
    with contextlib.suppress(UpstreamFailed):
        await ask(exchange, tenant)

    assert exchange.cache.size == 0


async def test_an_answer_that_was_not_read_to_its_end_is_not_kept(
    exchange: Exchange, tenant: FakeTenant
) -> None:
    async with exchange.calls.open(tenant, CALLER, ASKED):
        pass

    assert exchange.cache.size == 0


async def test_a_tenant_keeps_no_more_than_it_may(exchange: Exchange, tenant: FakeTenant) -> None:
    for number in range(30):
        await ask(exchange, tenant, asking(f"question {number}"))
        assert exchange.cache.size <= 8192
        await ask(exchange, tenant, asking("question 0"))

    assert (await ask(exchange, tenant, asking("question 0")))[1].cache is CacheUse.HIT
    assert (await ask(exchange, tenant, asking("question 1")))[1].cache is CacheUse.MISS


async def test_all_tenants_together_keep_no_more_than_they_may(
    stub: FakeProvider, tenant: FakeTenant, other: FakeTenant
) -> None:
    exchange = Exchange(stub, stub, cache=ResponseCache(lambda: 6000))
    await ask(exchange, other)
    for number in range(20):
        await ask(exchange, tenant, asking(f"question {number}"))
        assert exchange.cache.size <= 6000

    assert (await ask(exchange, other))[1].cache is CacheUse.HIT, "who keeps most gives way"


async def test_what_is_kept_goes_with_the_tenant(tmp_path: Path, stub: FakeProvider) -> None:
    exchange = Exchange(stub, stub)
    async with open_tenant(tmp_path) as asleep:
        asleep.config = parse_config(CACHED, name="config")
        await ask(exchange, asleep)
        assert exchange.cache.size > 0
    del asleep
    gc.collect()

    assert exchange.cache.size == 0


async def test_a_hit_counts_against_the_rates(exchange: Exchange, tenant: FakeTenant) -> None:
    await ask(exchange, tenant)
    await ask(exchange, tenant)
    tenant.meter.limits = Quotas(requests_per_minute=2)

    with pytest.raises(RateLimited):
        await ask(exchange, tenant)


async def test_a_reader_that_fails_over_a_kept_answer_is_settled(
    exchange: Exchange, tenant: FakeTenant
) -> None:
    await ask(exchange, tenant)
    with pytest.raises(ZeroDivisionError):
        async with exchange.calls.open(tenant, CALLER, ASKED):
            raise ZeroDivisionError

    assert tenant.entries("kind, outcome")[1] == ("cache", "failed")
    tenant.assert_settled()


async def test_where_it_is_not_switched_on_nothing_is_kept(
    exchange: Exchange, tenant: FakeTenant
) -> None:
    tenant.config = parse_config(CONFIG, name="config")

    assert [(await ask(exchange, tenant))[1].cache for _ in range(2)] == [CacheUse.OFF] * 2
    assert exchange.cache.size == 0
