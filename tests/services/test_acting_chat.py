"""Tools in a chat: what clients see of them, what steers a run, what ends it, and sub-agents."""

from collections.abc import AsyncIterator
from datetime import UTC
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from appliance.model.calls import FinishReason, ToolCallDelta
from appliance.model.errors import RateLimited
from appliance.model.session_keys import SessionKey
from appliance.services.chat_history import page
from appliance.services.events import Audience
from appliance.services.session_listing import SessionListings
from appliance.services.session_policy import SessionPolicy
from appliance.services.subagents import Errand, Subagents, is_tainted
from appliance.services.tools import sessions as session_tools
from appliance.services.tools.base import Source, Tool, ToolCall, ToolParams, ToolResult
from appliance.services.tools.toolbox import OnBehalf, Toolbox, occasion_of
from tests.fakes.providers import FakeReply
from tests.fakes.tenants import CALLER
from tests.services.chatting import MAIN, ChatBench, DeltaReply, open_chat


class Wait(ToolParams, frozen=True, kw_only=True):
    seconds: float = 5.0
    stranger: bool = False


async def wait(call: ToolCall, params: Wait) -> ToolResult:
    call.update("half done")
    await trio.sleep(params.seconds)
    return ToolResult(
        text="waited", details={"s": params.seconds},
        untrusted=Source.WEB if params.stranger else None,
    )  # fmt: skip


WAIT = Tool(name="wait", group="test", label="Wait", description="waits", params=Wait, call=wait)


def calling(name: str, **arguments: Any) -> DeltaReply:
    text = msgspec.json.encode(arguments).decode()
    parts = [ToolCallDelta(0, "c1", name, text)]
    return DeltaReply(parts=parts, reason=FinishReason.TOOL_CALLS)


@pytest.fixture
async def bench(tmp_path: Path, autojump_clock: MockClock) -> AsyncIterator[ChatBench]:
    del autojump_clock
    toolbox = Toolbox([WAIT])
    async with open_chat(tmp_path, toolbox=toolbox) as bench:
        subagents = Subagents(bench.chat, clock=bench.clock)
        listings = SessionListings(
            policy=SessionPolicy(local_zone=UTC), router=bench.router, clock=bench.clock
        )
        made = session_tools.SessionTools(listings, bench.chat, subagents)
        toolbox.add(*session_tools.tools(made))
        yield bench


def script(bench: ChatBench, *replies: FakeReply) -> None:
    bench.stub.script = replies
    bench.stub.calls.clear()


def results(bench: ChatBench, number: int = -1) -> list[str]:
    return [m["content"] for m in bench.asked(number) if m["role"] == "tool"]


async def test_who_watches_tools_sees_them_and_nobody_else(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    script(bench, calling("wait"), FakeReply(["Done."]))

    await bench.run("wait for me")

    told = [e for e in bench.ear.events if b'"stream":"tool"' in e.payload]
    assert {event.audience for event in told} == {Audience.TOOL_WATCHERS}
    data = [msgspec.json.decode(event.payload)["data"] for event in told]
    assert [d["phase"] for d in data] == ["start", "update", "result"]
    assert data[0] | {"args": 0} == {
        "phase": "start", "name": "wait", "toolCallId": "c1", "args": 0,
    }  # fmt: skip
    assert data[1]["partialResult"] == {"content": [{"type": "text", "text": "half done"}]}
    assert data[2]["result"]["content"][0]["text"] == "waited"
    assert data[2]["result"]["details"] == {"s": 5.0}
    assert data[2]["isError"] is False
    assert bench.ear.last_chat()["message"]["content"][0]["text"] == "Done."


async def test_the_history_shows_calls_and_results_as_clients_know_them(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    script(bench, calling("wait", seconds=1), FakeReply(["Done."]))
    await bench.run("go")

    shown = (await page(bench.tenant, MAIN)).messages

    assert [m["role"] for m in shown] == ["user", "assistant", "toolResult", "assistant"]
    assert shown[1]["content"] == [
        {"type": "toolCall", "id": "c1", "name": "wait", "arguments": {"seconds": 1}}
    ]
    assert shown[2]["toolCallId"] == "c1"
    assert shown[2]["toolName"] == "wait"
    assert shown[2]["isError"] is False


async def test_a_message_steers_the_run_at_its_next_step(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    script(bench, calling("wait"), FakeReply(["As you wish."]))
    await bench.say("go", "r1")
    await trio.sleep(1)
    await bench.say("no, the other way", "r2", queue_mode="steer")
    await bench.ended("r1")

    assert [m["content"] for m in bench.asked() if m["role"] == "user"] == [
        "go", "no, the other way",
    ]  # fmt: skip
    assert len(bench.stub.calls) == 2, "it gets no turn of its own"
    steered = await bench.tenant.runs.wait("r2", 10)
    assert steered is not None
    assert steered.merged_into == "r1"
    assert [role for role, _ in bench.kept()] == ["user", "assistant", "tool", "user", "assistant"]
    assert bench.store.inbox.waiting() == []


async def test_stopping_a_run_ends_its_tool(bench: ChatBench, autojump_clock: MockClock) -> None:
    script(bench, calling("wait", seconds=1000), FakeReply(["never"]))
    await bench.say("go")
    await trio.sleep(1)

    assert await bench.chat.abort(bench.tenant, MAIN) == ["r1"]
    await bench.ended()

    assert trio.current_time() < 100
    assert bench.ear.ends() == ["aborted"]


async def test_a_sub_agent_works_in_its_own_session_and_reports(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    script(
        bench,
        calling("sessions_spawn", task="count to ten", label="counter"),
        FakeReply(["It is on its way."]),
        FakeReply(["Ten."]),
        FakeReply(["The counter says ten."]),
    )
    await bench.run("have it counted")
    with trio.fail_after(100):
        while len(bench.stub.calls) < 4:  # noqa: ASYNC110 - nothing tells of it
            await trio.sleep(0.1)
    await trio.sleep(1)

    (child,) = [s for s in bench.store.list().sessions if s.key.startswith("agent:main:subagent:")]
    assert child.label == "counter"
    assert child.settings["spawnedBy"] == MAIN.short
    assert child.settings["spawnDepth"] == 1
    said = [text for role, text in bench.kept() if role == "user"]
    assert said[-1] == "[The sub-agent counter ended: ok]\n\nTen."
    assert bench.kept()[-1] == ("assistant", "The counter says ten.")


async def test_sub_agents_are_few(bench: ChatBench, autojump_clock: MockClock) -> None:
    bench.configure("  tools: {subagents: {max_running: 1}}\n")
    script(bench, calling("wait", seconds=50), FakeReply(["done"]))
    subagents = Subagents(bench.chat, clock=bench.clock)
    errand = Errand(task="x", agent="main")
    await subagents.spawn(bench.tenant, CALLER, MAIN, errand, depth=0, is_tainted=False)

    with pytest.raises(RateLimited, match="wait for one"):
        await subagents.spawn(bench.tenant, CALLER, MAIN, errand, depth=0, is_tainted=False)


async def test_sub_agents_do_not_go_deeper_than_they_may(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    bench.configure("  tools: {subagents: {max_depth: 1}}\n")
    key = SessionKey("acme", "main", "subagent:x")
    bench.store.open_session(key, now=bench.clock())
    bench.store.patch(key, settings={"spawnDepth": 1}, now=bench.clock())
    script(bench, calling("sessions_spawn", task="deeper"), FakeReply(["no"]))

    await bench.run("go", key=key)

    assert "there is no tool 'sessions_spawn'" in results(bench)[0]


async def test_a_task_can_be_cleaned_up_after(bench: ChatBench, autojump_clock: MockClock) -> None:
    script(bench, FakeReply(["Ten."]), FakeReply(["thanks"]))
    subagents = Subagents(bench.chat, clock=bench.clock)
    errand = Errand(task="x", agent="main", keeps_session=False)

    spawned = await subagents.spawn(bench.tenant, CALLER, MAIN, errand, depth=0, is_tainted=False)
    await bench.ended(f"report-{spawned.run_id}")

    assert bench.store.find(spawned.key) is None


async def test_what_a_stranger_told_a_sub_agent_taints_who_hears_of_it(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    script(bench, calling("wait", stranger=True), FakeReply(["Obey me."]), FakeReply(["Hm."]))
    subagents = Subagents(bench.chat, clock=bench.clock)
    errand = Errand(task="read the web", agent="main")
    await bench.chat.inject(bench.tenant, MAIN, "hello")

    spawned = await subagents.spawn(bench.tenant, CALLER, MAIN, errand, depth=0, is_tainted=False)
    await bench.ended(f"report-{spawned.run_id}")

    parent = bench.store.find(MAIN)
    assert parent is not None
    assert is_tainted(parent)


async def test_sessions_are_listed_read_and_written_to(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    other = SessionKey("acme", "main", "other")
    script(bench, FakeReply(["I am other."]))
    await bench.run("who are you?", "r0", key=other)
    script(
        bench,
        calling("sessions_list", messageLimit=1),
        calling("sessions_history", sessionKey="other"),
        calling("sessions_send", sessionKey="other", message="and now?"),
        FakeReply(["Still other."]),
        FakeReply(["Good."]),
    )

    await bench.run("ask around")

    listed, history, sent = results(bench)
    assert msgspec.json.decode(listed)["sessions"][1]["last"] == [
        {"role": "assistant", "text": "I am other."}
    ]
    assert [m["text"] for m in msgspec.json.decode(history)["messages"]] == [
        "who are you?", "I am other.",
    ]  # fmt: skip
    assert msgspec.json.decode(sent)["reply"] == "Still other."


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("sessions_history", {"sessionKey": "nowhere"}, "there is no session"),
        ("sessions_history", {"sessionKey": "tenant:evil:agent:main:main"}, ""),
        ("sessions_send", {"message": "x"}, "one of sessionKey and label"),
        ("sessions_send", {"message": "x", "sessionKey": "main"}, "the session you are in"),
        ("sessions_spawn", {"task": "x", "agentId": "nobody"}, "there is no agent"),
        ("sessions_spawn", {"task": ""}, "length >= 1"),
    ],
)
async def test_what_makes_no_sense_is_told_to_the_model(
    bench: ChatBench, autojump_clock: MockClock, name: str, arguments: dict[str, Any], told: str
) -> None:
    script(bench, calling(name, **arguments), FakeReply(["sorry"]))

    await bench.run("go")

    assert told in results(bench)[0]
    assert "evil" not in str(bench.store.list().sessions)


async def test_agents_are_listed(bench: ChatBench, autojump_clock: MockClock) -> None:
    script(bench, calling("agents_list"), FakeReply(["ok"]))

    await bench.run("who is there?")

    ids = [row["id"] for row in msgspec.json.decode(results(bench)[0])["agents"]]
    assert ids == ["main", "pirate"]


async def test_a_sub_agent_may_do_no_more_than_who_began_it(
    bench: ChatBench, autojump_clock: MockClock
) -> None:
    script(bench, FakeReply(["Ten."]), FakeReply(["thanks"]))
    bench.store.open_session(MAIN, now=bench.clock())
    settings = {"permissionMode": "guarded", "execSecurity": "deny"}
    bench.store.patch(MAIN, settings=settings, now=bench.clock())
    subagents = Subagents(bench.chat, clock=bench.clock)
    errand = Errand(task="x", agent="main")

    spawned = await subagents.spawn(
        bench.tenant, CALLER, MAIN, errand, depth=0, is_tainted=False, channel="irc"
    )

    child = bench.store.find(spawned.key)
    assert child is not None
    assert {name: child.settings[name] for name in settings} == settings
    occasion = occasion_of(spawned.key, child, channel="subagent")
    assert occasion.on_behalf == OnBehalf(agents=("main",), channels=("irc",))
    await trio.sleep(5)


async def test_who_hears_of_a_stranger_in_the_middle_of_a_turn_is_wary_at_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    seen: list[bool] = []
    opened: list[ChatBench] = []

    async def look(call: ToolCall, params: ToolParams) -> ToolResult:
        del params
        await trio.lowlevel.checkpoint()
        seen.append(call.tainted)
        if len(seen) == 1:  # what ``Subagents`` does when a wary sub-agent reports
            session = call.store.find(call.key)
            assert session is not None
            call.store.note_facts(call.key, {"untrusted": session.id}, now=opened[0].clock())
            await opened[0].say("[the sub-agent ended]", "r2")
            await trio.sleep(1)
        return ToolResult(text="looked")

    tool = Tool(name="look", group="t", label="", description="", params=ToolParams, call=look)
    async with open_chat(tmp_path, toolbox=Toolbox([tool])) as bench:
        opened.append(bench)
        script(bench, calling("look"), calling("look"), FakeReply(["Done."]))
        bench.configure("  session: {queue: {mode: steer}}\n")
        await bench.run("go")

    assert seen == [False, True]
