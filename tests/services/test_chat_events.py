"""What clients are told of a run, and in which order."""

from pathlib import Path

import trio
from trio.testing import MockClock

from appliance.services.chat_events import RunReporter, text_message
from appliance.services.chat_outcomes import shown
from appliance.services.chat_tasks import Prompt, RunTask
from appliance.services.events import Audience, TenantEvents
from appliance.services.runs import ActiveRun, RunOutcome
from tests.books import NOON, HandClock
from tests.fakes.tenants import CALLER
from tests.services.chatting import MAIN, ChatBench, Ear, open_chat


def reporter(ear: Ear) -> tuple[TenantEvents, RunReporter]:
    events = TenantEvents()
    run = ActiveRun("r1", MAIN, NOON, Prompt(text="hi"))
    return events, RunReporter(events, run, clock=HandClock())


OK = RunOutcome(run_id="r1", status="ok", text="hello", ended_at=7)


def test_nothing_is_told_before_the_request_is_answered() -> None:
    ear = Ear()
    events, told = reporter(ear)
    with events.subscribed(ear):
        told.started()
        assert ear.events == []
        told.release()
        assert ear.order() == ["lifecycle start"]
        told.release()
        assert ear.order() == ["lifecycle start"]


async def test_a_run_ends_once() -> None:
    ear = Ear()
    events, told = reporter(ear)
    told.release()
    with events.subscribed(ear):
        told.started()
        told.add_text("hello")
        told.end(OK, message=text_message("hello", 7))
        told.end(OK, message=None)

    assert ear.ends() == ["final"]
    assert ear.order()[-3:] == ["chat delta", "lifecycle end", "chat final"]


async def test_who_sees_what(autojump_clock: MockClock) -> None:
    ear = Ear()
    events, told = reporter(ear)
    told.release()
    with events.subscribed(ear):
        told.started()
        told.add_text("a")
        await trio.sleep(1)
        told.add_text("b")
        told.end(OK, message=None)

    audiences = {event.name: event.audience for event in ear.events}
    assert audiences == {
        "agent": Audience.READERS,
        "chat": Audience.READERS,
        "sessions.changed": Audience.SESSION_LIST,
    }
    assert {event.session for event in ear.events} == {"agent:main:main"}
    ends = [event for event in ear.events if b'"final"' in event.payload]
    assert [event.droppable for event in ends] == [False]


async def test_a_footer_stands_below_the_answer_and_merged_runs_show_none(tmp_path: Path) -> None:
    async with open_chat(tmp_path) as bench:
        task = _task(bench)
        task.footer = "Usage: 1"
        message = shown(task, OK)
        assert message is not None
        assert message["content"] == [{"type": "text", "text": "hello\n\nUsage: 1"}]
        assert shown(task, RunOutcome(run_id="r", status="ok", text="x", merged_into="y")) is None
        assert shown(task, RunOutcome(run_id="r", status="ok", text=" NO_REPLY ")) is None


def _task(bench: ChatBench) -> RunTask:
    prompt = Prompt(text="hi")
    run = ActiveRun("r1", MAIN, NOON, prompt)
    told = RunReporter(bench.tenant.events, run, clock=bench.clock)
    return RunTask(
        run=run, prompt=prompt, caller=CALLER, store=bench.store, reporter=told, space="chat"
    )
