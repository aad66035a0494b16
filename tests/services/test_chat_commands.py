"""What commands in a chat do."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from appliance.services.chat_commands import GREETING
from appliance.services.chat_notes import note_exchange
from appliance.storage.session_rows import MessageKind
from tests.books import NOON
from tests.fakes.providers import FakeReply
from tests.services.chatting import MAIN, ChatBench, SlowReply, open_chat


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ChatBench]:
    async with open_chat(tmp_path) as bench:
        yield bench


def answered(bench: ChatBench, run: str = "r1") -> str:
    last = bench.ear.last_chat(run)
    assert last["state"] == "final"
    return str(last["message"]["content"][0]["text"])


async def test_a_command_is_answered_at_once_without_a_model(bench: ChatBench) -> None:
    taken = await bench.run("/status")

    assert taken.status == "started"
    assert "Model: stub/mock" in answered(bench)
    assert "Working: no" in answered(bench)
    assert bench.stub.calls == []
    assert (await bench.say("/status")).status == "ok"


async def test_commands_and_their_answers_are_kept_but_not_shown_to_the_model(
    bench: ChatBench,
) -> None:
    await bench.run("/help")
    await bench.run("hi", "r2")

    assert [line.kind for line in bench.lines()][:2] == [MessageKind.NOTE] * 2
    assert [message["content"] for message in bench.asked()] == ["hi"]


async def test_an_unknown_command_is_a_message(bench: ChatBench) -> None:
    await bench.run("/etc/hosts is what?")

    assert bench.asked()[-1]["content"] == "/etc/hosts is what?"


async def test_commands_can_be_turned_off_for_a_message(bench: ChatBench) -> None:
    await bench.run("/status", has_commands=False)

    assert bench.asked()[-1]["content"] == "/status"


async def test_a_session_is_begun_anew_and_greets(bench: ChatBench) -> None:
    await bench.run("hi")
    before = bench.store.find(MAIN)

    await bench.run("/new", "r2")

    after = bench.store.find(MAIN)
    assert before is not None
    assert after is not None
    assert after.id != before.id
    assert [message["content"] for message in bench.asked()] == [GREETING]
    assert bench.ear.heard("sessions.changed")[-3]["reason"] == "new"


async def test_a_new_session_takes_a_first_message_and_a_model(bench: ChatBench) -> None:
    await bench.run("/reset tell me a joke")
    assert bench.asked()[-1]["content"] == "tell me a joke"

    await bench.run("/new spare/other what now?", "r2")

    session = bench.store.find(MAIN)
    assert session is not None
    assert session.settings["model"] == "spare/other"
    assert bench.kept()[0] == ("user", "what now?")


async def test_beginning_anew_ends_what_runs(bench: ChatBench, autojump_clock: MockClock) -> None:
    bench.stub.script = [SlowReply(pause=10), FakeReply(["fresh"])]
    await bench.say("hi")
    await trio.sleep(1)

    await bench.run("/new", "r2")

    assert bench.ear.ends("r1") == ["aborted"]
    assert bench.ear.last_chat("r1")["stopReason"] == "reset"
    assert answered(bench, "r2") == "fresh"
    assert bench.kept()[-1] == ("assistant", "fresh")
    assert len(bench.kept()) == 2


async def test_the_model_is_shown_and_changed(bench: ChatBench) -> None:
    await bench.run("/model")
    assert answered(bench) == "Model: stub/mock"
    await bench.run("/model nonsense", "r2")
    assert "There is no model 'nonsense'" in answered(bench, "r2")
    await bench.run("/model spare/other", "r3")
    session = bench.store.find(MAIN)
    assert session is not None
    assert session.settings == {"model": "spare/other"}
    await bench.run("/model default", "r4")
    session = bench.store.find(MAIN)
    assert session is not None
    assert session.settings == {}


@pytest.mark.parametrize(
    ("said", "setting", "value"),
    [
        ("/think high", "thinkingLevel", "high"),
        ("/think loud", "thinkingLevel", None),
        ("/usage full", "responseUsage", "full"),
        ("/usage much", "responseUsage", None),
        ("/queue steer", "queueMode", "steer"),
        ("/queue never", "queueMode", None),
    ],
)
async def test_settings_are_made_for_the_session(
    bench: ChatBench, said: str, setting: str, value: str | None
) -> None:
    await bench.run(said)

    session = bench.store.find(MAIN)
    assert session is not None
    assert session.settings.get(setting) == value


@pytest.mark.parametrize("said", ["/think", "/usage", "/queue", "/help", "/usage off"])
async def test_without_an_argument_a_command_tells(bench: ChatBench, said: str) -> None:
    await bench.run(said)

    assert answered(bench)


@pytest.mark.parametrize("said", ["/think default", "/queue default"])
async def test_settings_can_be_taken_back(bench: ChatBench, said: str) -> None:
    bench.store.open_session(MAIN, now=NOON)
    bench.store.patch(MAIN, settings={"thinkingLevel": "low", "queueMode": "steer"}, now=NOON)

    await bench.run(said)

    session = bench.store.find(MAIN)
    assert session is not None
    assert len(session.settings) == 1


async def test_answers_end_with_what_they_used_if_wanted(bench: ChatBench) -> None:
    await bench.run("/usage full")
    await bench.run("hi", "r2")
    await bench.run("/usage tokens", "r3")
    await bench.run("hi", "r4")

    assert "Usage: 10 in / 5 out / cost 0.00002" in answered(bench, "r2")
    assert answered(bench, "r4").endswith("Usage: 10 in / 5 out")
    assert "Usage" not in str(bench.lines()[-1].message), "the model does not see it"


async def test_settings_may_be_made_while_the_agent_works(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    bench.stub.script = [SlowReply(pause=10)]
    await bench.say("hi")

    await bench.run("/status", "r2")

    assert trio.current_time() == 0
    assert "Working: yes" in answered(bench, "r2")


async def test_compacting_an_empty_session_says_so(bench: ChatBench) -> None:
    await bench.run("/compact")

    assert answered(bench) == "There is nothing to compact yet."
    assert bench.stub.calls == []


async def test_a_noted_exchange_has_both_sides(bench: ChatBench) -> None:
    stored = note_exchange(bench.store, MAIN, "/x", "done", run_id="r9", now=NOON)

    assert bench.kept() == [("user", "/x"), ("assistant", "done")]
    assert stored.meta["idempotencyKey"] == "r9"
