"""What becomes of messages that come while the agent works."""

import pytest

from appliance.model.message_queue import (
    Backlog,
    Drop,
    Placing,
    QueueMode,
    QueuePolicy,
    Waiting,
    batch_text,
    place,
)


def backlog(*modes: QueueMode) -> Backlog[str]:
    filled: Backlog[str] = Backlog()
    for number, mode in enumerate(modes):
        filled.add(Waiting(f"m{number}", mode, f"text {number}"), QueuePolicy())
    return filled


@pytest.mark.parametrize("mode", list(QueueMode))
def test_nothing_waits_while_nothing_runs(mode: QueueMode) -> None:
    assert place(mode, busy=False) is Placing.RUN
    expected = Placing.INTERRUPT if mode is QueueMode.INTERRUPT else Placing.WAIT
    assert place(mode, busy=True) is expected


def test_collected_messages_go_together_until_another_kind_comes() -> None:
    line = backlog(*[QueueMode.COLLECT] * 3, QueueMode.FOLLOWUP, QueueMode.COLLECT)

    first = line.pop()
    assert first is not None
    assert first.item == "m0"
    assert [waiting.item for waiting in line.collected()] == ["m1", "m2"]
    assert line.items() == ["m3", "m4"]
    assert line.collected() == []


def test_the_oldest_goes_when_too_many_wait_and_is_told_of_once() -> None:
    line: Backlog[str] = Backlog()
    policy = QueuePolicy(cap=2, drop=Drop.SUMMARIZE)
    gone = [line.add(Waiting(c, QueueMode.FOLLOWUP, f"text\n{c}"), policy) for c in "abc"]

    assert gone == [[], [], ["a"]]
    assert line.items() == ["b", "c"]
    assert line.take_lost() == ["text a"]
    assert line.take_lost() == []


def test_dropping_old_ones_tells_nothing_and_dropping_new_ones_refuses_them() -> None:
    line = backlog(QueueMode.FOLLOWUP)
    assert line.add(Waiting("n", QueueMode.FOLLOWUP, "x"), QueuePolicy(cap=1, drop=Drop.OLD)) == [
        "m0"
    ]
    assert line.take_lost() == []
    assert line.is_full(QueuePolicy(cap=1, drop=Drop.NEW))
    assert not line.is_full(QueuePolicy(cap=2, drop=Drop.NEW))
    assert not line.is_full(QueuePolicy(cap=1, drop=Drop.OLD))


def test_steered_messages_are_taken_out_and_those_of_the_backlog_stay_once() -> None:
    line = backlog(QueueMode.STEER, QueueMode.FOLLOWUP, QueueMode.STEER_BACKLOG)

    assert line.steered() == ["m0", "m2"]
    assert line.items() == ["m1", "m2"]
    assert line.steered() == []


def test_a_message_can_be_put_first_and_taken_back() -> None:
    line = backlog(QueueMode.FOLLOWUP)
    line.add_first(Waiting("first", QueueMode.INTERRUPT, "x"))

    assert line.items() == ["first", "m0"]
    assert line.discard("m0")
    assert not line.discard("m0")
    assert len(line) == 1
    line.pop()
    assert line.pop() is None


def test_one_text_is_itself_and_several_are_numbered() -> None:
    assert batch_text(["a"], []) == "a"
    assert batch_text(["a", "b"], []).endswith("1. a\n\n2. b")
    assert "- lost" in batch_text(["a"], ["lost"])
    assert batch_text(["a"], ["lost"]).endswith("a")
