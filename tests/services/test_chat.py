"""Messages to an agent: taken once, answered by a run that outlives the connection, stopped."""

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from appliance.model.calls import FinishReason, ReasoningDelta, TextDelta
from appliance.model.errors import (
    ApplianceError,
    ContextTooLong,
    DiskFull,
    Forbidden,
    InvalidRequest,
    ModelUnknown,
    QuotaExceeded,
    RateLimited,
    ShuttingDown,
    UpstreamFailed,
    UpstreamUnavailable,
)
from appliance.model.quotas import Quotas
from appliance.model.session_keys import SessionKey
from appliance.storage.session_rows import RunStatus
from appliance.storage.sessions import SessionStore
from tests.books import NOON, directory
from tests.fakes.cancelling import each_cancellation
from tests.fakes.providers import FakeReply
from tests.fakes.tenants import CALLER
from tests.services.chatting import (
    MAIN,
    ChatBench,
    DeltaReply,
    SlowReply,
    open_chat,
    saying,
)

OTHER = SessionKey("acme", "main", "other")
PNG = {"mimeType": "image/png", "fileName": "dot.png", "content": "iVBORw0KGgo="}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ChatBench]:
    async with open_chat(tmp_path) as bench:
        yield bench


# What a message leads to


async def test_a_message_is_acknowledged_then_answered_in_the_order_clients_know(
    bench: ChatBench,
) -> None:
    taken = await bench.say("hi")
    assert (taken.run_id, taken.status) == ("r1", "started")

    await bench.ended()

    assert bench.ear.order() == [
        "lifecycle start",
        "lifecycle model",
        "assistant",
        "chat delta",
        "assistant",
        "lifecycle end",
        "chat delta",
        "chat final",
    ]
    deltas = [event for event in bench.ear.heard("chat") if event["state"] == "delta"]
    assert [event["deltaText"] for event in deltas] == ["Hello", " there"]
    assert deltas[-1]["message"]["content"] == [{"type": "text", "text": "Hello there"}]
    final = bench.ear.last_chat()
    assert final["message"]["content"] == [{"type": "text", "text": "Hello there"}]
    assert final["sessionKey"] == "agent:main:main"
    assert final["agentId"] == "main"
    assert final["usage"]["totalTokens"] == 15
    for name in ("chat", "agent"):
        seqs = [event["seq"] for event in bench.ear.heard(name)]
        assert seqs == list(range(1, len(seqs) + 1))


async def test_both_sides_are_kept_with_what_is_known_of_them(bench: ChatBench) -> None:
    await bench.run("hi")

    user, answer = bench.lines()
    assert bench.kept() == [("user", "hi"), ("assistant", "Hello there")]
    assert user.meta["idempotencyKey"] == "r1"
    assert answer.meta["provider"] == "stub"
    assert answer.meta["model"] == "mock"
    assert answer.meta["stopReason"] == "stop"
    assert answer.status is RunStatus.DONE
    messages = bench.ear.heard("session.message")
    assert [event["messageId"] for event in messages] == [user.id, answer.id]
    assert {event["reason"] for event in bench.ear.heard("sessions.changed")} == {
        "run-start",
        "run-end",
    }
    session = bench.store.find(MAIN)
    assert session is not None
    assert session.facts["lastChannel"] == "webchat"
    assert session.context_tokens == 15
    bench.tenant.books.assert_settled()


async def test_a_run_goes_on_when_the_connection_that_asked_is_gone(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    bench.stub.script = [SlowReply()]
    with trio.move_on_after(0) as gone:
        await bench.say("hi")
    assert not gone.cancelled_caught or bench.kept() == []

    await bench.say("hi", "r2")
    await bench.ended("r2")

    assert bench.ear.ends("r2") == ["final"]


async def test_text_is_told_at_most_every_150_ms_and_wholly_before_the_end(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    bench.stub.script = [SlowReply(pieces="abcdefghijklmnop", pause=0.06)]

    await bench.run("hi")

    deltas = [event for event in bench.ear.heard("chat") if event["state"] == "delta"]
    assert [event["deltaText"] for event in deltas] == ["a", "bcd", "efg", "hij", "klm", "nop"]
    assert all(e.droppable for e in bench.ear.events if b'"state":"delta"' in e.payload)


async def test_an_agent_that_has_nothing_to_say_ends_without_a_message(bench: ChatBench) -> None:
    bench.stub.script = [FakeReply(pieces=["NO_REPLY"])]

    await bench.run("hi")

    assert "message" not in bench.ear.last_chat()


async def test_thoughts_are_shown_to_a_session_that_wants_them(bench: ChatBench) -> None:
    reply = DeltaReply(parts=[ReasoningDelta("hm"), TextDelta("yes")])
    bench.store.open_session(MAIN, now=NOON)
    bench.store.patch(MAIN, settings={"reasoningLevel": "stream"}, now=NOON)
    bench.stub.script = [reply]

    await bench.run("hi")

    thoughts = [e["data"] for e in bench.ear.heard("agent") if e["stream"] == "thinking"]
    assert thoughts == [{"text": "hm", "delta": "hm"}]


async def test_a_sessions_model_and_thinking_level_are_used(bench: ChatBench) -> None:
    bench.store.open_session(MAIN, now=NOON)
    settings = {"model": "spare/other", "thinkingLevel": "high"}
    bench.store.patch(MAIN, settings=settings, now=NOON)
    await bench.run("hi")
    assert bench.stub.calls == [], "the other provider was asked"

    bench.store.patch(MAIN, settings={"model": None}, now=NOON)
    await bench.run("hi", "r2")
    await bench.run("hi", "r3", thinking="off")

    assert bench.stub.calls[0].body["reasoning_effort"] == b'"high"'
    assert "reasoning_effort" not in bench.stub.calls[1].body


async def test_pictures_go_along(bench: ChatBench) -> None:
    await bench.run("what is this?", attachments=[PNG])

    text, picture = bench.asked()[-1]["content"]
    assert text == {"type": "text", "text": "what is this?"}
    assert picture["image_url"]["url"] == "data:image/png;base64,iVBORw0KGgo="


async def test_the_main_session_is_the_configured_one(bench: ChatBench) -> None:
    bench.configure("  session: {main_key: home}\n")

    await bench.run("hi")

    assert bench.store.find(SessionKey("acme", "main", "home")) is not None


# What is refused


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "message or attachment required"),
        (" \n\x07", "message or attachment required"),
        ("a\x00b", "message must not contain null bytes"),
    ],
)
async def test_a_message_must_say_something(bench: ChatBench, text: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^(message: )?{reason}"):
        await bench.say(text)

    assert bench.store.requests.find("chat", "r1") is None


async def test_control_characters_are_taken_out(bench: ChatBench) -> None:
    await bench.run("a\x07b\tc")

    assert bench.kept()[0] == ("user", "ab\tc")


async def test_what_cannot_be_run_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    async with open_chat(tmp_path, limits=Quotas(concurrent_sessions=0)) as bench:
        with pytest.raises(RateLimited):
            await bench.say("hi")
        with pytest.raises(ModelUnknown):
            await bench.say("hi", key=SessionKey("acme", "nobody", "x"))
        with pytest.raises(InvalidRequest, match="thinking"):
            await bench.say("hi", thinking="very")
        bench.configure("  session: {send_policy: {default: deny}}\n")
        with pytest.raises(Forbidden, match="send blocked by session policy"):
            await bench.say("hi")
        bench.configure("")
        bench.tenant.jobs.close(lambda: ShuttingDown("soon"))
        bench.tenant.meter.limits = Quotas()
        with pytest.raises(ShuttingDown):
            await bench.say("hi")

        assert bench.store.requests.find("chat", "r1") is None
        assert len(bench.tenant.runs) == 0
        assert len(bench.tenant.turns) == 0
        assert bench.tenant.runs.for_session(MAIN.short) == []


# Idempotency


async def test_a_message_sent_again_is_answered_once(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    bench.stub.script = [SlowReply()]
    await bench.say("hi")

    assert (await bench.say("hi")).status == "in_flight"
    await bench.ended()
    assert (await bench.say("hi")).status == "ok"
    with pytest.raises(InvalidRequest, match="idempotencyKey"):
        await bench.say("something else")

    assert len(bench.stub.calls) == 1
    assert len(bench.kept()) == 2


async def test_two_at_once_are_one(bench: ChatBench) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(bench.say, "hi")
    await bench.ended()

    assert len(bench.stub.calls) == 1
    assert bench.ear.ends() == ["final"]


async def test_a_key_is_remembered_over_a_restart(bench: ChatBench, tmp_path: Path) -> None:
    await bench.run("hi")

    again = await SessionStore.open(directory(tmp_path / "tenant"), now=NOON)
    seen = again.requests.find("chat", "r1")
    await again.close()

    assert seen is not None
    assert seen.outcome is not None


async def test_a_run_that_a_restart_ended_is_told_as_failed(
    bench: ChatBench, tmp_path: Path, autojump_clock: MockClock
) -> None:
    bench.store.requests.begin(
        "chat", "r1", fingerprint=b"agent:main:main hi", run_id="r1", now=NOON
    )
    again = await SessionStore.open(directory(tmp_path / "tenant"), now=NOON)
    await again.close()

    taken = await bench.say("hi")
    outcome = await bench.chat.wait(bench.tenant, "r1", 30)

    assert taken.status == "error"
    assert outcome is not None
    assert outcome.stop_reason == "restart"
    assert trio.current_time() == 0


# Stopping


async def test_a_run_is_stopped_and_what_it_said_is_kept(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    bench.stub.script = [SlowReply(pieces=["one", "two"], pause=10)]
    await bench.say("hi")
    await trio.sleep(15)

    assert await bench.chat.abort(bench.tenant, MAIN) == ["r1"]
    await bench.ended()

    assert bench.ear.ends() == ["aborted"]
    last = bench.ear.last_chat()
    assert last["stopReason"] == "rpc"
    assert last["message"]["content"][0]["text"] == "one"
    assert bench.kept() == [("user", "hi"), ("assistant", "one")]
    assert bench.lines()[-1].meta["aborted"] == "rpc"
    assert await bench.chat.abort(bench.tenant, MAIN) == []
    assert (await bench.say("hi")).status == "aborted"
    bench.tenant.books.assert_settled()


@pytest.mark.parametrize("word", ["/stop", "stop", "Halt!", "please stop"])
async def test_a_stop_word_stops_what_runs(
    bench: ChatBench, autojump_clock: MockClock, word: str
) -> None:
    bench.stub.script = [SlowReply(pause=10)]
    await bench.say("hi")
    await bench.say("later", "r2", queue_mode="followup")

    taken = await bench.say(word, "r3")

    assert taken.stopped == ("r1", "r2")
    await bench.ended()
    assert bench.ear.ends("r1") == bench.ear.ends("r2") == ["aborted"]
    assert (await bench.say(word, "r3")).status == "ok"


async def test_a_run_of_another_session_is_not_stopped(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    bench.stub.script = [SlowReply(pause=10)]
    await bench.say("hi")

    with pytest.raises(InvalidRequest, match=r"^runId does not match sessionKey$"):
        await bench.chat.abort(bench.tenant, OTHER, "r1")
    assert await bench.chat.abort(bench.tenant, OTHER, "unknown") == []
    assert await bench.chat.abort(bench.tenant, OTHER) == []
    assert await bench.chat.abort(bench.tenant, None, "r1") == ["r1"]


# How a run can end


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (UpstreamUnavailable("down"), "unknown"),
        (FakeReply(failure=UpstreamFailed("broke")), "unknown"),
        (QuotaExceeded("used up"), "rate_limit"),
        (ContextTooLong("too long"), "context_length"),
        (FakeReply(pieces=(), reason=FinishReason.CONTENT_FILTER), "refusal"),
    ],
)
async def test_a_failure_is_told_once(bench: ChatBench, script: Any, kind: str) -> None:
    bench.stub.script = [script]

    await bench.run("hi")

    assert bench.ear.ends() == ["error"]
    assert bench.ear.last_chat()["errorKind"] == kind
    assert bench.kept()[0] == ("user", "hi")
    assert len(bench.tenant.turns) == 0
    bench.tenant.books.assert_settled()


async def test_a_run_has_its_time(bench: ChatBench, autojump_clock: MockClock) -> None:
    bench.stub.script = [SlowReply(pause=1000)]

    await bench.run("hi")
    assert trio.current_time() == pytest.approx(600)
    last = bench.ear.last_chat()
    assert (last["state"], last["errorKind"]) == ("error", "timeout")

    await bench.run("hi", "r2", timeout=5)
    assert trio.current_time() == pytest.approx(605)
    bench.stub.script = [SlowReply(pieces=["x"], pause=1000)]
    await bench.run("hi", "r3", timeout=0)
    assert bench.ear.ends("r3") == ["final"]


async def test_a_revoked_token_ends_its_runs(bench: ChatBench, autojump_clock: MockClock) -> None:
    bench.stub.script = [SlowReply(pause=10)]
    await bench.say("hi")
    await bench.say("more", "r2", queue_mode="followup")

    await bench.tenant.jobs.revoke(CALLER.credential)

    assert bench.ear.ends("r1") == bench.ear.ends("r2") == ["aborted"]
    assert len(bench.tenant.runs) == 0


async def test_a_full_disk_ends_a_run_with_an_error(
    bench: ChatBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> bool:
        raise DiskFull("the disk is full")

    monkeypatch.setattr(bench.store, "finish_run", full)
    monkeypatch.setattr(bench.store.requests, "finish", full)

    await bench.run("hi")

    assert bench.ear.ends() == ["error"]
    assert "disk is full" in bench.ear.last_chat()["errorMessage"]
    assert len(bench.tenant.turns) == 0


async def test_a_disk_that_cannot_be_synced_acknowledges_nothing(
    bench: ChatBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> None:
        await trio.lowlevel.checkpoint()
        raise DiskFull("the disk is full")

    monkeypatch.setattr(bench.store, "durable", broken)

    with pytest.raises(DiskFull):
        await bench.say("hi")
    await wait_all_tasks_blocked()

    assert len(bench.tenant.runs) == 0


async def test_a_run_cancelled_anywhere_ends_once_and_leaves_nothing_open(
    bench: ChatBench,
) -> None:
    number = 0

    async def work() -> None:
        nonlocal number
        number += 1
        run = f"r{number}"
        with suppress(ApplianceError):
            await bench.say("hi", run, key=SessionKey("acme", "main", run))
            await bench.tenant.runs.wait(run, 10)

    async for _ in each_cancellation(work):
        # Whoever asked is gone; the run goes on and ends.
        with trio.fail_after(60):
            while len(bench.tenant.runs) or len(bench.tenant.jobs):
                await trio.lowlevel.checkpoint()
        run = f"r{number}"
        began = bench.store.requests.find("chat", run) is not None
        assert bench.ear.ends(run) == (["final"] if began else [])
        assert len(bench.tenant.turns) == 0
        bench.tenant.books.assert_settled()


async def test_a_run_whose_job_is_cancelled_anywhere_tells_its_end_once(bench: ChatBench) -> None:
    for step in range(40):
        run, key = f"r{step}", SessionKey("acme", "main", f"s{step}")
        bench.stub.script = [FakeReply()]
        taken = await bench.say("hi", run, key=key)
        assert taken.status == "started"
        for _ in range(step):
            await trio.lowlevel.checkpoint()
        await bench.tenant.jobs.revoke(CALLER.credential)
        with trio.fail_after(60):
            while len(bench.tenant.jobs):
                await trio.lowlevel.checkpoint()

        assert bench.ear.ends(run) in (["aborted"], ["final"])
        assert not any(line.status is RunStatus.RUNNING for line in bench.lines(key))
        assert len(bench.tenant.turns) == len(bench.tenant.runs) == 0
        bench.tenant.books.assert_settled()


# Waiting for a run


async def test_waiting_ends_with_the_run_or_with_patience(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    bench.stub.script = [SlowReply(pieces=["x"], pause=10)]
    await bench.say("hi")

    assert await bench.chat.wait(bench.tenant, "r1", 5) is None
    outcome = await bench.chat.wait(bench.tenant, "r1", 30)
    assert outcome is not None
    assert (outcome.status, outcome.text) == ("ok", "x")
    began = trio.current_time()
    assert await bench.chat.wait(bench.tenant, "unknown", 30) is None
    assert trio.current_time() == began + 30


async def test_waiting_survives_that_the_tenant_slept(bench: ChatBench) -> None:
    await bench.run("hi")
    bench.tenant.runs = type(bench.tenant.runs)()

    outcome = await bench.chat.wait(bench.tenant, "r1", 30)

    assert outcome is not None
    assert outcome.text == "Hello there"


# Messages that come while the agent works


async def test_followups_are_answered_one_after_the_other(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    bench.stub.script = [SlowReply(pieces=["x"]) for _ in range(3)]
    for number in (1, 2, 3):
        await bench.say(f"message {number}", f"r{number}", queue_mode="followup")
    await bench.ended("r3")

    assert [text for role, text in bench.kept() if role == "user"] == [
        "message 1",
        "message 2",
        "message 3",
    ]
    assert [role for role, _ in bench.kept()] == ["user", "assistant"] * 3


async def test_collected_messages_are_answered_together_after_a_moment_of_quiet(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    bench.stub.script = [SlowReply(pieces=["x"], pause=5), FakeReply(["both"])]
    await bench.say("first")
    await bench.say("a", "r2")
    await trio.sleep(4.5)
    await bench.say("b", "r3")
    await bench.ended("r3")

    assert trio.current_time() == pytest.approx(5.5)
    question = bench.kept()[2][1]
    assert "1. a" in str(question)
    assert "2. b" in str(question)
    assert bench.ear.last_chat("r2")["message"]["content"][0]["text"] == "both"
    assert bench.ear.ends("r3") == ["final"]
    assert "message" not in bench.ear.last_chat("r3"), "it is shown once"
    outcome = bench.tenant.runs.finished("r3")
    assert outcome is not None
    assert (outcome.text, outcome.merged_into) == ("both", "r2")


async def test_an_interrupting_message_ends_the_run_before(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    bench.stub.script = [SlowReply(pause=10), FakeReply(["new"])]
    await bench.say("first")
    await trio.sleep(1)
    await bench.say("second", "r2", queue_mode="interrupt")
    await bench.ended("r2")

    assert bench.ear.ends("r1") == ["aborted"]
    assert bench.ear.last_chat("r1")["stopReason"] == "interrupt"
    assert bench.ear.ends("r2") == ["final"]
    assert trio.current_time() == 1


@pytest.mark.parametrize("mode", ["steer", "steer-backlog"])
async def test_without_a_next_round_a_steering_message_becomes_a_followup(
    bench: ChatBench, autojump_clock: MockClock, mode: str
) -> None:
    bench.stub.script = [SlowReply(), FakeReply(["second"])]
    await bench.say("first")
    await bench.say("left!", "r2", queue_mode=mode)
    await bench.ended("r2")

    assert bench.asked()[-1]["content"] == "left!"
    assert bench.ear.ends("r2") == ["final"]


async def test_too_many_waiting_messages_are_dropped_as_configured(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    bench.configure("  session: {queue: {mode: followup, cap: 1, drop: summarize}}\n")
    bench.stub.script = [SlowReply(pause=5)]
    await bench.say("first")
    await bench.say("lost", "r2")
    await bench.say("kept", "r3")
    await bench.ended("r3")

    assert bench.ear.ends("r2") == ["aborted"]
    assert bench.ear.last_chat("r2")["stopReason"] == "dropped"
    assert "- lost" in bench.asked()[-1]["content"]

    bench.configure("  session: {queue: {mode: followup, cap: 1, drop: new}}\n")
    bench.stub.script = [SlowReply(pause=5)]
    await bench.say("first", "r4")
    await bench.say("kept", "r5")
    with pytest.raises(RateLimited, match="1 messages wait"):
        await bench.say("lost", "r6")
    assert bench.store.requests.find("chat", "r6") is None


async def test_a_waiting_message_can_be_stopped_alone(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    bench.stub.script = [SlowReply(pieces=["x"], pause=5)]
    await bench.say("first")
    await bench.say("second", "r2", queue_mode="followup")

    assert await bench.chat.abort(bench.tenant, MAIN, "r2") == ["r2"]
    await bench.ended()

    assert bench.ear.ends("r2") == ["aborted"]
    assert bench.ear.ends("r1") == ["final"]
    assert len(bench.kept()) == 2


async def test_a_turn_over_http_and_a_message_take_turns(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    async with bench.tenant.turns.turn(MAIN, limit=None):
        await bench.say("hi")
        await trio.sleep(5)
        assert bench.kept() == []
    await bench.ended()

    assert len(bench.kept()) == 2


# Notes


async def test_a_note_is_added_in_the_agents_name(bench: ChatBench) -> None:
    stored = await bench.chat.inject(bench.tenant, MAIN, "remember", label="ops")

    assert bench.kept() == [("assistant", "[ops]\n\nremember")]
    assert bench.ear.heard("session.message")[0]["messageId"] == stored.id
    assert bench.ear.heard("chat")[0]["state"] == "final"
    with pytest.raises(InvalidRequest, match="message is required"):
        await bench.chat.inject(bench.tenant, MAIN, " ")


async def test_what_is_sent_again_is_delivered_once(bench: ChatBench) -> None:
    first = await bench.chat.deliver(bench.tenant, saying("news", "s1"))
    again = await bench.chat.deliver(bench.tenant, saying("news", "s1"))

    assert first == again
    assert len(bench.kept()) == 1
    with pytest.raises(InvalidRequest, match="idempotencyKey"):
        await bench.chat.deliver(bench.tenant, saying("other", "s1"))
