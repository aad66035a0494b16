"""A message that waits behind another is kept until it is said, however the gateway ends."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from appliance.config.loading import parse_config
from appliance.model.errors import DiskFull, ShuttingDown
from appliance.services import chat_history
from appliance.services.runs import RunBook
from appliance.services.turns.queue import TurnQueue
from appliance.storage.inbox import WaitingMessage
from appliance.storage.session_rows import MessageKind, RunStatus
from appliance.storage.sessions import SessionStore
from tests.books import NOON, directory
from tests.fakes.providers import FakeReply
from tests.fakes.tenants import CALLER
from tests.services.chatting import MAIN, ChatBench, SlowReply, open_chat

PNG = {"mimeType": "image/png", "fileName": "dot.png", "content": "iVBORw0KGgo="}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ChatBench]:
    async with open_chat(tmp_path) as bench:
        bench.stub.script = [SlowReply(pieces=["x"], pause=100), *(FakeReply() for _ in range(9))]
        yield bench


@asynccontextmanager
async def next_process(bench: ChatBench, tmp_path: Path) -> AsyncIterator[SessionStore]:
    """The tenant as it is found after ``kill -9``: its files as they are now."""
    shutil.copytree(tmp_path / "tenant", tmp_path / "copy")
    copy = await SessionStore.open(directory(tmp_path / "copy"), now=NOON)
    setattr(copy, "durable", trio.lowlevel.checkpoint)  # noqa: B010 - as that of the live one
    books, runs = bench.tenant.books, bench.tenant.runs
    live, turns = books.store, books.turns
    books.store, books.turns, bench.tenant.runs = copy, TurnQueue(), RunBook()
    try:
        yield copy
    finally:
        books.store, books.turns, bench.tenant.runs = live, turns, runs
        await copy.close()


async def busy(bench: ChatBench) -> None:
    await bench.say("first")
    await wait_all_tasks_blocked()


@pytest.mark.parametrize("mode", ["followup", "collect", "steer", "steer-backlog"])
async def test_what_was_acknowledged_while_the_agent_was_busy_survives_a_crash(
    bench: ChatBench, tmp_path: Path, mode: str
) -> None:
    await busy(bench)
    await bench.say("second", "r2", queue_mode=mode)
    await bench.say("third", "r3", queue_mode="followup")
    assert bench.store.inbox.waiting() == ["r2", "r3"]

    async with next_process(bench, tmp_path) as store:
        assert bench.kept() == [("user", "first"), ("user", "second"), ("user", "third")]
        page = await chat_history.page(bench.tenant, MAIN)
        assert [message.get("stopReason") for message in page.messages] == [
            None, "restart", "restart",
        ]  # fmt: skip
        assert store.history(MAIN, limit_tokens=1000) == [
            {"role": "user", "content": "second"},
            {"role": "user", "content": "third"},
        ]
        for run in ("r1", "r2", "r3"):
            outcome = await bench.chat.wait(bench.tenant, run, 30)
            assert outcome is not None
            assert (outcome.status, outcome.stop_reason) == ("error", "restart")
        assert (await bench.say("second", "r2", queue_mode=mode)).status == "error"
        assert len(bench.stub.calls) == 1, "nothing is run again by itself"


async def test_an_interrupting_message_waits_for_the_end_of_what_it_interrupts(
    bench: ChatBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, put = list[str](), bench.store.inbox.put

    def noted(waiting: WaitingMessage) -> None:
        kept.append(waiting.run_id)
        put(waiting)

    monkeypatch.setattr(bench.store.inbox, "put", noted)
    await busy(bench)
    await bench.say("second", "r2", queue_mode="interrupt")
    await bench.ended("r2")

    assert kept == ["r2"]
    assert bench.store.inbox.waiting() == []
    assert [text for _, text in bench.kept()] == ["first", "second", "Hello there"]


async def test_what_is_said_next_after_a_crash_follows_what_waited(
    bench: ChatBench, tmp_path: Path
) -> None:
    await busy(bench)
    await bench.say("second", "r2")

    async with next_process(bench, tmp_path):
        await bench.run("so?", "r9")
        assert [message["content"] for message in bench.asked()] == ["second", "so?"]
        assert bench.kept()[-1] == ("assistant", "Hello there")


async def test_the_inbox_is_empty_when_all_is_said(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    await busy(bench)
    for run in ("r2", "r3"):
        await bench.say(run, run, attachments=[PNG])
    await bench.say("/compact", "r4")
    assert bench.store.inbox.waiting() == ["r2", "r3", "r4"]
    await bench.ended("r4")

    content = bench.asked()[-1]["content"]
    assert [part["type"] for part in content] == ["text", "image_url", "image_url"]
    assert bench.store.inbox.waiting() == []
    assert [line.kind for line in bench.lines()[-2:]] == [MessageKind.NOTE] * 2


async def test_a_message_that_need_not_wait_is_not_written_twice(
    bench: ChatBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it is in the transcript already")

    monkeypatch.setattr(bench.store.inbox, "put", never)

    await busy(bench)
    assert bench.kept() == [("user", "first")]


async def test_what_was_stopped_or_dropped_is_not_said_later(
    bench: ChatBench, tmp_path: Path
) -> None:
    bench.configure("  session: {queue: {mode: followup, cap: 2, drop: old}}\n")
    await busy(bench)
    for run in ("r2", "r3", "r4"):
        await bench.say(run, run)
    assert await bench.chat.abort(bench.tenant, MAIN, "r4") == ["r4"]
    for run in ("r2", "r4"):
        await bench.ended(run)
    assert bench.store.inbox.waiting() == ["r3"]

    async with next_process(bench, tmp_path):
        assert bench.kept() == [("user", "first"), ("user", "r3")]
        outcome = await bench.chat.wait(bench.tenant, "r2", 30)
        assert outcome is not None
        assert (outcome.status, outcome.stop_reason) == ("aborted", "dropped")


async def test_a_gateway_that_shuts_down_leaves_what_waits_in_the_transcript(
    bench: ChatBench,
) -> None:
    await busy(bench)
    await bench.say("second", "r2", queue_mode="followup")

    await bench.tenant.jobs.revoke(CALLER.credential)

    assert bench.kept() == [("user", "first"), ("user", "second")]
    assert bench.lines()[-1].status is RunStatus.CANCELLED
    assert bench.lines()[-1].meta["unanswered"]
    assert bench.store.inbox.waiting() == []


async def test_what_fails_before_its_turn_is_kept_like_what_fails_in_it(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    await busy(bench)
    await bench.say("second", "r2", queue_mode="followup")
    bench.tenant.books.config = parse_config("models: {}\n", name="config")
    await bench.ended("r2")

    assert bench.ear.ends("r2") == ["error"]
    assert ("user", "second") in bench.kept()
    assert bench.store.inbox.waiting() == []


async def test_what_is_refused_does_not_stay(bench: ChatBench) -> None:
    bench.configure("  session: {queue: {mode: followup, cap: 1, drop: old}}\n")
    await busy(bench)
    await bench.say("second", "r2")
    bench.tenant.jobs.close(lambda: ShuttingDown("soon"))
    with pytest.raises(ShuttingDown):
        await bench.say("third", "r3")

    assert bench.store.requests.find("chat", "r3") is None
    assert "r3" not in bench.store.inbox.waiting()
    await bench.ended("r2")
    assert bench.ear.last_chat("r2")["stopReason"] == "dropped", "it had made room"


async def test_a_full_disk_refuses_what_would_have_to_wait(
    bench: ChatBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Any) -> None:
        raise DiskFull("the disk is full")

    await busy(bench)
    monkeypatch.setattr(bench.store.inbox, "put", full)

    with pytest.raises(DiskFull):
        await bench.say("second", "r2")

    assert bench.store.requests.find("chat", "r2") is None
    assert [run.id for run in bench.tenant.runs] == ["r1"]
