"""Turns of an agent: one at a time in a session, and what is kept of each."""

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from appliance.config.loading import parse_config
from appliance.model.calls import Delta, Finished, FinishReason, TextDelta, ToolCallDelta
from appliance.model.errors import (
    ApplianceError,
    InvalidRequest,
    ModelUnknown,
    RateLimited,
    UpstreamFailed,
    UpstreamUnavailable,
)
from appliance.model.quotas import Quotas
from appliance.model.session_keys import SessionKey
from appliance.protocols.chat_request import ChatRequest
from appliance.services.model_calls import OpenCall
from appliance.services.turns.queue import WAITING_TURNS, TurnQueue
from appliance.services.turns.requests import ToolActivity, TurnRequest
from appliance.services.turns.turns import Turns
from appliance.storage.sessions import RunStatus, TranscriptLine
from tests.books import HandClock
from tests.fakes.cancelling import each_cancellation
from tests.fakes.providers import USED, FakeProvider, FakeReply
from tests.fakes.tenants import CALLER, Exchange, FakeTenant, open_tenant

NOTES = SessionKey("acme", "main", "notes")
PIRATE = SessionKey("acme", "pirate", "notes")


class ClientLeft(Exception):
    pass


@dataclass
class FakeSink:
    """Writes down what it is told; fails when it is told ``fails_at``."""

    fails_at: str = ""
    told: list[str] = field(default_factory=list)
    text: str = ""
    finished: Finished | None = None
    tools: list[ToolActivity] = field(default_factory=list)
    calls: list[ToolCallDelta] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)  # for others, at the begin and the end

    def tool(self, activity: ToolActivity) -> None:
        self.tools.append(activity)

    async def begin(self, call: OpenCall) -> None:
        assert call.settlement is None
        self.waited.append(call.waited)
        await self._note("begin")

    async def deltas(self, deltas: Sequence[Delta]) -> None:
        assert deltas
        self.text += "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
        self.calls += [delta for delta in deltas if isinstance(delta, ToolCallDelta)]
        await self._note("deltas")

    async def finish(self, call: OpenCall, finished: Finished) -> None:
        assert call.settlement is not None
        self.finished = finished
        self.waited.append(call.waited)
        await self._note("finish")

    async def _note(self, what: str) -> None:
        await trio.lowlevel.checkpoint()
        if what == self.fails_at:
            raise ClientLeft
        self.told.append(what)


def said(*texts: str, key: SessionKey = NOTES, keeps: bool = True, **more: Any) -> TurnRequest:
    """A request that says ``texts``; an answer's text starts with ``<``."""
    roles = ["assistant" if text.startswith("<") else "user" for text in texts]
    messages = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=True)]
    return asked(messages, key=key, keeps=keeps, **more)


def asked(
    messages: list[dict[str, Any]], *, key: SessionKey = NOTES, keeps: bool = True, **more: Any
) -> TurnRequest:
    body = msgspec.json.encode({"model": "openclaw", "messages": messages, **more})
    chat = ChatRequest.parse(body, limit_bytes=1_000_000)
    return TurnRequest(key, chat, chat.messages(), keeps_history=keeps)


@dataclass
class Bench:
    tenant: FakeTenant
    stub: FakeProvider
    turns: Turns

    async def take(self, turn: TurnRequest, sink: FakeSink | None = None) -> FakeSink:
        sink = sink or FakeSink()
        await self.turns.run(self.tenant, CALLER, turn, sink)
        return sink

    def transcript(self, key: SessionKey = NOTES) -> list[TranscriptLine]:
        return self.tenant.store.transcript(key)

    def kept(self, key: SessionKey = NOTES) -> list[tuple[object, object]]:
        lines = [line.message for line in self.transcript(key)]
        return [(message["role"], message["content"]) for message in lines]

    def sent(self, number: int = -1) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = msgspec.json.decode(
            self.stub.calls[number].body["messages"]
        )
        return messages


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    limits = Quotas(tokens_per_day=100_000, concurrent_requests=1)
    async with open_tenant(tmp_path, limits=limits) as tenant:
        stub = FakeProvider("stub", [FakeReply() for _ in range(50)])
        exchange = Exchange(stub, FakeProvider("spare"))
        yield Bench(tenant, stub, Turns(exchange.calls, clock=HandClock()))


def assert_whole(lines: Sequence[TranscriptLine]) -> None:
    """Every answer follows what it answers, and belongs to the same run."""
    for before, line in zip([None, *lines], lines, strict=False):
        if line.message["role"] == "assistant":
            assert before is not None
            assert before.message["role"] == "user"
            assert before.run == line.run


# What a turn does


async def test_a_turn_answers_keeps_both_sides_and_is_accounted_to_its_session(
    bench: Bench,
) -> None:
    sink = await bench.take(said("hi"))

    assert sink.told == ["begin", "deltas", "deltas", "finish"]
    assert sink.finished == Finished(FinishReason.STOP, USED)
    assert bench.kept() == [("user", "hi"), ("assistant", "Hello there")]
    assert {line.status for line in bench.transcript()} == {RunStatus.DONE}
    bench.tenant.assert_settled()
    assert bench.tenant.entries("session, agent, route, outcome") == [
        ("tenant:acme:agent:main:notes", "main", "stub/mock", "ok")
    ]


async def test_a_session_goes_on_with_its_history(bench: Bench) -> None:
    await bench.take(said("one"))
    await bench.take(said("two"))

    assert [m["content"] for m in bench.sent()] == ["one", "Hello there", "two"]


async def test_a_conversation_sent_again_adds_what_follows_the_last_answer(bench: Bench) -> None:
    await bench.take(said("one"))
    await bench.take(said("one", "<Hello there", "two", "three"))

    texts = [text for _, text in bench.kept()]
    assert texts == ["one", "Hello there", "two", "three", "Hello there"]


async def test_without_history_the_caller_sends_it_all(bench: Bench) -> None:
    await bench.take(said("one", keeps=False))
    await bench.take(said("one", "<answer", "two", keeps=False))

    assert [m["content"] for m in bench.sent()] == ["one", "<answer", "two"]


@pytest.mark.parametrize("turn", [said("one", "<answer"), asked([{"role": "system"}])])
async def test_nothing_new_is_refused_before_anything_is_spent(
    bench: Bench, turn: TurnRequest
) -> None:
    with pytest.raises(InvalidRequest, match="nothing new was said"):
        await bench.take(turn)

    assert bench.tenant.entries() == []
    assert len(bench.tenant.turns) == 0


async def test_a_picture_is_not_reserved_as_if_it_were_text(bench: Bench) -> None:
    bench.tenant.meter.limits = Quotas(tokens_per_day=5_000)
    url = "data:image/png;base64," + "A" * 300_000
    parts = [{"type": "image_url", "image_url": {"url": url}}]

    sink = await bench.take(asked([{"role": "user", "content": parts}], max_tokens=10))

    assert sink.text == "Hello there"


async def test_an_agents_instructions_come_first_then_the_callers(bench: Bench) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "No jokes."},
        {"role": "user", "content": "hi"},
    ]

    await bench.take(asked(messages, key=PIRATE))

    system = bench.sent()[0]
    assert system["role"] == "system"
    assert system["content"] == "Speak like a pirate.\n\nBe brief.\n\nNo jokes."
    assert bench.stub.calls[0].output_limit == 7
    assert [role for role, _ in bench.kept(PIRATE)] == ["user", "assistant"]


async def test_the_callers_limit_wins_over_the_agents(bench: Bench) -> None:
    await bench.take(said("hi", key=PIRATE, max_tokens=3, temperature=0.5, metadata={"a": "b"}))

    call = bench.stub.calls[0]
    assert call.output_limit == 3
    assert call.body["temperature"] == b"0.5"
    assert "metadata" not in call.body
    assert call.stream
    assert call.body["stream"] == b"true"


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"tools": [{}]}, "tools[0]"),
        ({"functions": [{}]}, "functions"),
        ({"logprobs": True}, "logprobs"),
        ({"n": 2}, "n"),
    ],
)
async def test_what_an_agent_cannot_do_is_refused(
    bench: Bench, more: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        await bench.take(said("hi", **more))

    assert refusal.value.fields[0].field == field
    assert bench.stub.calls == []


@pytest.mark.parametrize("more", [{"tools": []}, {"tools": None}, {"logprobs": False}, {"n": 1}])
async def test_what_asks_for_nothing_special_is_not_refused(
    bench: Bench, more: dict[str, Any]
) -> None:
    assert (await bench.take(said("hi", **more))).text == "Hello there"


async def test_an_unknown_agent_and_a_missing_model_are_refused(bench: Bench) -> None:
    with pytest.raises(ModelUnknown, match="no agent 'nobody'"):
        await bench.take(said("hi", key=SessionKey("acme", "nobody", "x")))

    bench.tenant.config = parse_config("{}", name="config")
    with pytest.raises(ModelUnknown, match=r"models\.default"):
        await bench.take(said("hi"))


# What is kept of a turn that does not go well


async def test_a_provider_that_refuses_leaves_no_trace(bench: Bench) -> None:
    bench.stub.script = [UpstreamUnavailable("down")]

    with pytest.raises(UpstreamUnavailable):
        await bench.take(said("hi"))

    assert bench.transcript() == []
    bench.tenant.assert_settled()


async def test_an_answer_that_breaks_off_is_kept_as_failed(bench: Bench) -> None:
    bench.stub.script = [FakeReply(failure=UpstreamFailed("it broke off"))]
    sink = FakeSink()

    with pytest.raises(UpstreamFailed):
        await bench.take(said("hi"), sink)

    assert sink.finished is None
    assert bench.kept() == [("user", "hi"), ("assistant", "Hello there")]
    assert {line.status for line in bench.transcript()} == {RunStatus.FAILED}


async def test_an_answer_without_an_end_is_no_answer(bench: Bench) -> None:
    bench.stub.script = [FakeReply(reason=None)]

    with pytest.raises(UpstreamFailed, match="broke off"):
        await bench.take(said("hi"))

    assert {line.status for line in bench.transcript()} == {RunStatus.FAILED}
    assert bench.tenant.entries("outcome") == [("failed",)]


async def test_what_was_never_answered_is_no_part_of_the_conversation(bench: Bench) -> None:
    bench.stub.script = [FakeReply(pieces=(), failure=UpstreamFailed("x")), FakeReply()]
    with pytest.raises(UpstreamFailed):
        await bench.take(said("one"))

    await bench.take(said("two"))

    assert [m["content"] for m in bench.sent()] == ["two"]
    assert len(bench.transcript()) == 3


@pytest.mark.parametrize("moment", ["begin", "deltas", "finish"])
async def test_a_client_that_leaves_leaves_nothing_open(bench: Bench, moment: str) -> None:
    with pytest.raises(ClientLeft):
        await bench.take(said("hi"), FakeSink(fails_at=moment))

    bench.tenant.assert_settled()
    assert len(bench.tenant.turns) == 0
    expected = RunStatus.DONE if moment == "finish" else RunStatus.FAILED
    assert {line.status for line in bench.transcript()} == {expected}
    assert (bench.stub.entered, bench.stub.exited) == (1, 1)


@pytest.mark.parametrize(
    "script",
    [
        FakeReply(),
        FakeReply(final=None),
        FakeReply(pieces=()),
        FakeReply(failure=UpstreamFailed("x")),
        UpstreamUnavailable("down"),
    ],
    ids=["answers", "tells no usage", "says nothing", "breaks off", "is down"],
)
async def test_a_turn_cancelled_anywhere_is_settled_and_stored_as_what_it_was(
    bench: Bench, script: FakeReply | Exception
) -> None:
    numbers = iter(range(1_000))
    latest = NOTES

    async def work() -> None:
        nonlocal latest
        latest = SessionKey("acme", "main", f"number-{next(numbers)}")
        again = script
        if isinstance(script, FakeReply):
            again = FakeReply(script.pieces, script.final, script.failure)
        bench.stub.script = [again]
        with suppress(ApplianceError):
            await bench.take(said("hi", key=latest))

    seen = []
    async for _ in each_cancellation(work):
        bench.tenant.assert_settled()
        assert len(bench.tenant.turns) == 0
        assert bench.stub.entered == bench.stub.exited
        lines = bench.transcript(latest)
        assert_whole(lines)
        assert not any(line.status is RunStatus.RUNNING for line in lines)
        seen.append(lines[0].status if lines else None)
        outcome = bench.tenant.entries("outcome")[-1:]
        if lines and lines[0].status is RunStatus.CANCELLED:
            assert outcome == [("cancelled",)]

    assert seen[0] is None, "cancelled before the provider answered"
    if bench.stub.entered:
        assert RunStatus.CANCELLED in seen
        # Once it is stored as it ended, a cancellation changes nothing any more.
        assert seen == sorted(
            seen, key=[None, RunStatus.CANCELLED, RunStatus.FAILED, RunStatus.DONE].index
        )


async def test_a_session_deleted_in_mid_turn_stays_deleted(bench: Bench) -> None:
    class Deleting(FakeSink):
        async def begin(self, call: OpenCall) -> None:
            await super().begin(call)
            assert bench.tenant.store.delete(NOTES)

    await bench.take(said("hi"), Deleting())

    assert bench.transcript() == []
    bench.tenant.assert_settled()


async def test_turns_of_a_session_follow_each_other_in_the_order_they_came(bench: Bench) -> None:
    queue = bench.tenant.turns
    async with trio.open_nursery() as nursery, queue.turn(NOTES, limit=None):
        for number in range(6):
            nursery.start_soon(bench.take, said(f"message {number}"))
            await wait_all_tasks_blocked()

    roles = [role for role, _ in bench.kept()]
    assert roles == ["user", "assistant"] * 6
    assert [t for r, t in bench.kept() if r == "user"] == [f"message {n}" for n in range(6)]
    assert_whole(bench.transcript())


async def test_a_waiting_turn_that_is_cancelled_leaves_the_others_in_line(bench: Bench) -> None:
    queue = bench.tenant.turns
    impatient = trio.CancelScope()

    async def give_up() -> None:
        with impatient:
            await bench.take(said("impatient"))

    async with trio.open_nursery() as nursery, queue.turn(NOTES, limit=None):
        nursery.start_soon(bench.take, said("first"))
        await wait_all_tasks_blocked()
        nursery.start_soon(give_up)
        await wait_all_tasks_blocked()
        nursery.start_soon(bench.take, said("last"))
        await wait_all_tasks_blocked()
        impatient.cancel()

    assert [t for r, t in bench.kept() if r == "user"] == ["first", "last"]
    assert len(bench.tenant.entries()) == 2, "who waits spends nothing"
    assert len(queue) == 0


# The queue


def key(name: str) -> SessionKey:
    return SessionKey("acme", "main", name)


async def hold(queue: TurnQueue, name: str, log: list[str], *, limit: int | None = None) -> None:
    async with queue.turn(key(name), limit=limit):
        log.append(f"{name} in")
        await trio.sleep(1)
        log.append(f"{name} out")


async def test_sessions_run_side_by_side(autojump_clock: MockClock) -> None:
    queue, log = TurnQueue(), list[str]()

    async with trio.open_nursery() as nursery:
        for name in ("a", "b", "a"):
            nursery.start_soon(hold, queue, name, log)

    assert trio.current_time() == 2
    assert sorted(log[:2]) == ["a in", "b in"]
    assert log.count("a out") == 2
    assert len(queue) == 0


async def test_one_turn_runs_and_so_many_wait(autojump_clock: MockClock) -> None:
    queue, log = TurnQueue(), list[str]()

    async with trio.open_nursery() as nursery:
        for _ in range(1 + WAITING_TURNS):
            nursery.start_soon(hold, queue, "a", log)
        await wait_all_tasks_blocked()
        with pytest.raises(RateLimited, match=f"{WAITING_TURNS} turns"):
            await hold(queue, "a", log)

    assert log == ["a in", "a out"] * (1 + WAITING_TURNS)
    assert len(queue) == 0


async def test_the_limit_counts_sessions_not_turns(
    autojump_clock: MockClock,
) -> None:
    queue, log = TurnQueue(), list[str]()

    async with trio.open_nursery() as nursery:
        for name in ("a", "b", "a", "b"):
            nursery.start_soon(partial(hold, queue, name, log, limit=2))
        await wait_all_tasks_blocked()
        with pytest.raises(RateLimited, match="concurrent_sessions is limited to 2"):
            await hold(queue, "c", log, limit=2)
        assert len(queue) == 2

    await hold(queue, "c", log, limit=1)
    assert log[-1] == "c out"


async def test_a_limit_of_none_at_all_lets_nobody_in() -> None:
    with pytest.raises(RateLimited):
        await hold(TurnQueue(), "a", [], limit=0)


async def test_a_line_is_given_up_wherever_its_turn_is_cancelled() -> None:
    queue = TurnQueue()

    async def work() -> None:
        async with queue.turn(key("a"), limit=1):
            await trio.lowlevel.checkpoint()

    async for _ in each_cancellation(work):
        assert len(queue) == 0


async def test_a_turn_that_fails_gives_the_line_to_the_next() -> None:
    queue, log = TurnQueue(), list[str]()

    async def fail() -> None:
        with suppress(ValueError):
            async with queue.turn(key("a"), limit=None):
                await wait_all_tasks_blocked()
                raise ValueError

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        await wait_all_tasks_blocked(0)
        nursery.start_soon(partial(hold_briefly, queue, log))

    assert log == ["in"]
    assert len(queue) == 0


async def hold_briefly(queue: TurnQueue, log: list[str]) -> None:
    async with queue.turn(key("a"), limit=None):
        log.append("in")
