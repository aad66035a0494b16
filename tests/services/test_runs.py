"""The runs of a tenant's agents: who is active, who waits, what ended lately."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from appliance.model.chat_attachments import Part
from appliance.model.errors import InvalidRequest
from appliance.model.message_queue import QueueMode, QueuePolicy
from appliance.services.runs import KEPT_FOR, MOST_KEPT, ActiveRun, RunBook, RunLine, RunOutcome
from appliance.services.turns.queue import TurnQueue
from tests.books import NOON
from tests.services.chatting import MAIN


@dataclass
class Said:
    text: str
    parts: Sequence[Part] = ()


def run(number: int = 1) -> ActiveRun:
    return ActiveRun(f"r{number}", MAIN, NOON, Said(f"text {number}"))


def ended(number: int = 1, text: str = "") -> RunOutcome:
    return RunOutcome(run_id=f"r{number}", status="ok", text=text)


def offer(
    line: RunLine, offered: ActiveRun, mode: QueueMode = QueueMode.FOLLOWUP
) -> list[ActiveRun]:
    queue = TurnQueue()
    return line.offer(
        offered,
        mode=mode,
        policy=QueuePolicy(),
        join=lambda: queue.join(MAIN, limit=None),
    )


async def test_a_run_is_found_until_it_ends_and_its_outcome_for_a_while(
    autojump_clock: MockClock,
) -> None:
    book, first = RunBook(), run()
    book.start(first)
    assert book.find("r1") is first
    assert first.status == "queued"
    assert book.finished("r1") is None

    book.end(first, ended())
    book.end(first, ended(2))

    assert book.find("r1") is None
    assert book.finished("r1") == ended()
    assert first.status == "ok"
    assert not first.cancel()
    await trio.sleep(KEPT_FOR + 1)
    assert book.finished("r1") is None


async def test_only_so_much_is_kept_of_what_ended() -> None:
    book = RunBook()
    for number in range(MOST_KEPT + 1):
        book.end(run(number), ended(number))
    assert book.finished("r0") is None
    assert book.finished("r1") is not None

    book.end(run(5000), ended(5000, "x" * 3_000_000))
    book.end(run(5001), ended(5001, "x" * 3_000_000))
    assert book.finished("r5000") is None
    assert book.finished("r5001") is not None


async def test_an_id_is_one_run_at_a_time() -> None:
    book = RunBook()
    book.start(run())

    with pytest.raises(InvalidRequest, match="another run under way"):
        book.start(run())


async def test_who_waits_for_a_run_that_has_not_begun_hears_of_its_end(
    autojump_clock: MockClock,
) -> None:
    book, first = RunBook(), run()
    heard: list[RunOutcome | None] = []

    async def wait(patience: float) -> None:
        heard.append(await book.wait("r1", patience))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, 5)
        nursery.start_soon(wait, 60)
        await trio.sleep(10)
        assert heard == [None]
        book.start(first)
        await wait_all_tasks_blocked()
        book.end(first, ended())

    assert heard == [None, ended()]
    assert book._expected == {}


async def test_the_next_run_goes_ahead_in_the_same_place() -> None:
    book, queue, first, second = RunBook(), TurnQueue(), run(1), run(2)
    line = book.line(MAIN)
    for each in (first, second):
        book.start(each)
        line.offer(
            each,
            mode=QueueMode.FOLLOWUP,
            policy=QueuePolicy(),
            join=lambda: queue.join(MAIN, limit=1),
        )
    assert book.for_session(MAIN.short) == [first, second]
    assert first.ready.is_set()
    assert not second.ready.is_set()

    book.end(first, ended(1))

    assert second.ready.is_set()
    assert second.place is not None
    assert second.place.is_first
    assert len(queue) == 1
    book.end(second, ended(2))
    assert len(queue) == 0
    assert book.for_session(MAIN.short) == []
    assert book._lines == {}


async def test_a_run_that_never_began_is_taken_back() -> None:
    book, first = RunBook(), run()
    book.start(first)
    offer(book.line(MAIN), first)

    book.withdraw(first)

    assert book.find("r1") is None
    assert book.finished("r1") is None
    assert book._lines == {}


async def test_what_came_meanwhile_steers_the_next_round_once() -> None:
    line = RunLine()
    active, steering, both, later = (run(number) for number in range(4))
    offer(line, active)
    offer(line, steering, QueueMode.STEER)
    offer(line, both, QueueMode.STEER_BACKLOG)
    offer(line, later, QueueMode.FOLLOWUP)

    assert line.steer(later) == []
    assert line.steer(active) == [steering, both]
    assert line.steer(active) == []

    assert steering.carrier is active
    assert both.carrier is None
    assert line.runs() == [active, both, later]


async def test_an_interrupt_goes_before_what_waits() -> None:
    line = RunLine()
    active, waiting, urgent = (run(number) for number in range(3))
    offer(line, active)
    offer(line, waiting)
    offer(line, urgent, QueueMode.INTERRUPT)
    assert not active.scope.cancel_called, "it has not begun, and its message wants an answer"

    active.started_at = NOON
    offer(line, run(4), QueueMode.INTERRUPT)

    assert active.scope.cancel_called
    assert active.stop_reason == "interrupt"
    assert [each.id for each in line.runs()] == ["r0", "r4", "r2", "r1"]


def test_an_outcome_is_kept_as_json() -> None:
    outcome = RunOutcome(run_id="r", status="aborted", text="ä", usage={"input": 1})

    assert RunOutcome.decoded(outcome.encoded()) == outcome
    assert b'"runId":"r"' in outcome.encoded()
