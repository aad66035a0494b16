"""The older part of a conversation, replaced by a summary."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from appliance.model.callers import Caller
from appliance.model.errors import ContextTooLong, UpstreamFailed, UpstreamUnavailable
from appliance.model.session_keys import SessionKey
from appliance.model.usage import TokenUsage
from appliance.services.compaction import TenantToCompact, pieces, split, spoken
from appliance.storage.session_rows import ContextLine, MessageKind
from tests.fakes.cancelling import each_cancellation
from tests.fakes.providers import FakeReply
from tests.fakes.tenants import CALLER
from tests.services.chatting import MAIN, ChatBench, open_chat


@dataclass
class Flush:
    """Notes what was there when it was called."""

    seen: list[int] = field(default_factory=list)

    async def before_compaction(
        self, tenant: TenantToCompact, caller: Caller, key: SessionKey, /
    ) -> None:
        store = await tenant.sessions()
        self.seen.append(len(store.history(key, limit_tokens=10**6)))


@dataclass
class Told:
    phases: list[str] = field(default_factory=list)

    def compaction(self, phase: str, *, will_retry: bool = False) -> None:
        self.phases.append(f"{phase}{' retry' if will_retry else ''}")


FLUSH = Flush()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ChatBench]:
    FLUSH.seen.clear()
    async with open_chat(tmp_path, hooks=[FLUSH]) as bench:
        yield bench


async def talk(bench: ChatBench, *said: str) -> None:
    for number, text in enumerate(said):
        await bench.run(text, f"talk-{number}")


SMALL = "  session: {compaction: {keep_recent_tokens: 30}}\n"


async def test_the_older_part_becomes_a_summary_and_the_latest_stays(bench: ChatBench) -> None:
    bench.configure(SMALL)
    await talk(bench, "first " * 30, "second " * 30, "third")
    bench.stub.script = [*[FakeReply()] * 3, FakeReply(["They ", "talked."]), FakeReply()]
    told = Told()

    done = await bench.compactor.compact(bench.tenant, CALLER, MAIN, "names", progress=told)

    assert done.happened
    assert done.summary == "They talked."
    assert done.replaced == 4
    assert done.tokens_after < done.tokens_before
    assert told.phases == ["start", "end"]
    assert FLUSH.seen == [6], "the hook saw all of it"
    assert "Above all: names" in bench.asked()[0]["content"]
    assert "user: first" in bench.asked()[1]["content"]
    assert bench.lines()[-1].kind is MessageKind.COMPACTION
    assert ("compaction",) in bench.tenant.books.entries("kind")
    bench.tenant.books.assert_settled()

    await bench.run("and now?", "later")
    texts = [str(message["content"]) for message in bench.asked()]
    assert "They talked." in texts[0]
    assert texts[1:] == ["third", "Hello there", "and now?"]


async def test_a_summary_carries_the_one_before(bench: ChatBench) -> None:
    bench.configure("  session: {compaction: {keep_recent_tokens: 0}}\n")
    bench.stub.script = [FakeReply(), FakeReply(["one"]), FakeReply(), FakeReply(["two"])]
    await talk(bench, "hi")
    await bench.compactor.compact(bench.tenant, CALLER, MAIN)
    await bench.run("more", "r2")

    await bench.compactor.compact(bench.tenant, CALLER, MAIN)

    assert "as you wrote it down:\none" in bench.asked()[1]["content"]
    context = bench.store.context(MAIN, limit_tokens=10**6)
    assert (context.summary, context.lines) == ("two", ())


async def test_a_command_compacts_and_tells(bench: ChatBench) -> None:
    bench.configure("  session: {compaction: {keep_recent_tokens: 0}}\n")
    await talk(bench, "hi", "you")

    await bench.run("/compact keep names", "r2")

    assert bench.ear.order("r2") == [
        "lifecycle start",
        "compaction start",
        "compaction end",
        "lifecycle end",
        "chat final",
    ]
    assert bench.ear.last_chat("r2")["message"]["content"][0]["text"].startswith("Compacted 4")


async def test_nothing_to_compact_asks_no_model(bench: ChatBench) -> None:
    await talk(bench, "hi")
    calls = len(bench.stub.calls)

    done = await bench.compactor.compact(bench.tenant, CALLER, MAIN)

    assert not done.happened
    assert len(bench.stub.calls) == calls


async def test_a_full_context_is_compacted_before_the_turn(bench: ChatBench) -> None:
    bench.configure("  session: {compaction: {keep_recent_tokens: 0}}\n")
    used = TokenUsage(input=127_000, output=100)
    bench.stub.script = [FakeReply(final=used), FakeReply(["so far"]), FakeReply(["answer"])]
    await talk(bench, "hi")

    await bench.run("go on", "r2")

    assert [m["content"] for m in bench.asked()][-1] == "go on"
    assert "so far" in str(bench.asked()[0]["content"])
    assert bench.ear.order("r2")[:3] == ["lifecycle start", "compaction start", "compaction end"]
    assert bench.ear.ends("r2") == ["final"]


async def test_a_conversation_that_is_too_long_is_compacted_and_tried_once_more(
    bench: ChatBench,
) -> None:
    bench.configure("  session: {compaction: {keep_recent_tokens: 0}}\n")
    bench.stub.script = [FakeReply(), ContextTooLong("x"), FakeReply(["so far"]), FakeReply(["ok"])]
    await talk(bench, "hi")

    await bench.run("go on", "r2")

    assert bench.ear.ends("r2") == ["final"]
    assert bench.kept()[-1] == ("assistant", "ok")
    starts = [e["data"] for e in bench.ear.heard("agent", "r2") if e["stream"] == "compaction"]
    assert starts[-1]["willRetry"] is True

    bench.stub.script = [
        *bench.stub.script,
        ContextTooLong("x"),
        FakeReply(["s"]),
        ContextTooLong("y"),
    ]
    await bench.run("again", "r3")
    assert bench.ear.last_chat("r3")["errorKind"] == "context_length"


async def test_without_compaction_too_long_is_too_long(bench: ChatBench) -> None:
    bench.configure("  session: {compaction: {enabled: false}}\n")
    bench.stub.script = [FakeReply(), ContextTooLong("x")]
    await talk(bench, "hi")

    await bench.run("go on", "r2")

    assert bench.ear.last_chat("r2")["errorKind"] == "context_length"


@pytest.mark.parametrize(
    "script", [FakeReply(["  "]), FakeReply(failure=UpstreamFailed("x")), UpstreamUnavailable("x")]
)
async def test_a_failed_compaction_leaves_the_session_as_it_was(
    bench: ChatBench, script: FakeReply | Exception
) -> None:
    bench.configure("  session: {compaction: {keep_recent_tokens: 0}}\n")
    await talk(bench, "hi")
    bench.stub.script = [FakeReply(), script]
    before = bench.lines()
    told = Told()

    with pytest.raises((UpstreamFailed, UpstreamUnavailable)):
        await bench.compactor.compact(bench.tenant, CALLER, MAIN, progress=told)

    assert bench.lines() == before
    assert told.phases == ["start", "end"]
    bench.tenant.books.assert_settled()


async def test_a_compaction_cancelled_anywhere_happened_or_did_not(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    bench.configure("  session: {compaction: {keep_recent_tokens: 0}}\n")
    numbers = iter(range(100))
    latest = MAIN

    async def work() -> None:
        nonlocal latest
        latest = SessionKey("acme", "main", f"number-{next(numbers)}")
        bench.store.append(
            latest, role="user", message={"role": "user", "content": "x"}, now=bench.clock()
        )
        bench.stub.script = [FakeReply(["summary"])]
        await bench.compactor.compact(bench.tenant, CALLER, latest)

    async for _ in each_cancellation(work):
        session = bench.store.find(latest)
        if session is not None:
            context = bench.store.context(latest, limit_tokens=10**6)
            assert (context.summary is None) == (len(context.lines) == 1)
        bench.tenant.books.assert_settled()
        await trio.lowlevel.checkpoint()


def line(seq: int, run: str | None, tokens: int) -> ContextLine:
    return ContextLine(seq, run, tokens, {"role": "user", "content": f"m{seq}"})


def test_turns_are_kept_whole() -> None:
    lines = [line(1, "a", 10), line(2, "a", 10), line(3, "b", 10), line(4, "b", 10)]

    assert split(lines, keep_tokens=100) == ([], lines)
    assert split(lines, keep_tokens=35) == (lines[:2], lines[2:])
    assert split(lines, keep_tokens=15) == (lines, [])
    assert split([], keep_tokens=5) == ([], [])


def test_long_conversations_are_read_in_pieces() -> None:
    assert pieces(["aaa", "bbb", "c"], limit_bytes=6) == ["aaa\nbbb", "c"]
    assert pieces(["ä" * 10], limit_bytes=5) == ["ää"]
    assert pieces([], limit_bytes=5) == []


def test_a_message_of_parts_is_read_out() -> None:
    parts = [{"type": "text", "text": "look"}, {"type": "image_url"}, "?"]
    spoken_line = ContextLine(1, None, 1, {"role": "user", "content": parts})

    assert spoken(spoken_line) == "user: look [image_url] "
