"""A tenant's events: told at once, numbered without gaps, kept for a while."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.services import events
from appliance.services.events import Audience, Event, StateVersion, TenantEvents


class Listener:
    def __init__(self) -> None:
        self.heard: list[Event] = []

    def deliver(self, event: Event) -> None:
        self.heard.append(event)

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.heard]


class Tick(msgspec.Struct):
    ts: int


def test_everybody_who_listens_is_told_the_same_event() -> None:
    told = TenantEvents()
    first, second = Listener(), Listener()
    with told.subscribed(first), told.subscribed(second):
        event = told.publish("tick", {"ts": 1})

    assert first.heard == second.heard == [event]
    assert first.heard[0] is second.heard[0]


def test_whoever_left_is_not_told() -> None:
    told = TenantEvents()
    listener = Listener()
    with told.subscribed(listener):
        told.publish("a", {})
        assert len(told) == 1
    told.publish("b", {})

    assert listener.names == ["a"]
    assert len(told) == 0


def test_one_may_leave_while_an_event_is_told() -> None:
    told = TenantEvents()
    last = Listener()

    class Leaver(Listener):
        def deliver(self, event: Event) -> None:
            super().deliver(event)
            leaving.__exit__(None, None, None)

    leaver = Leaver()
    leaving = told.subscribed(leaver)
    leaving.__enter__()
    with told.subscribed(last):
        told.publish("a", {})
        told.publish("b", {})

    assert leaver.names == ["a"]
    assert last.names == ["a", "b"]


def test_a_listener_that_fails_is_still_unsubscribed() -> None:
    told = TenantEvents()
    with pytest.raises(ZeroDivisionError), told.subscribed(Listener()):
        raise ZeroDivisionError

    assert len(told) == 0


@pytest.mark.parametrize("payload", [{"ts": 1}, Tick(ts=1), b'{"ts":1}'])
def test_a_payload_is_json_whatever_it_was_made_of(payload: dict[str, int] | Tick | bytes) -> None:
    assert json.loads(TenantEvents().publish("tick", payload).payload) == {"ts": 1}


def test_an_event_is_for_readers_and_matters_unless_it_says_otherwise() -> None:
    told = TenantEvents()

    plain = told.publish("chat", b"{}")
    special = told.publish(
        "presence",
        b"{}",
        audience=Audience.EVERYONE,
        droppable=True,
        session="agent:main:main",
        state_version=StateVersion(1, 2),
    )

    assert plain == Event(1, "chat", b"{}", Audience.READERS, False, None, None)  # noqa: FBT003 - a whole event
    assert (special.audience, special.droppable) == (Audience.EVERYONE, True)
    assert special.session == "agent:main:main"
    assert special.state_version == StateVersion(1, 2)


def test_events_are_counted_from_one_even_if_nobody_listens() -> None:
    told = TenantEvents()

    assert [told.publish("tick", b"{}").number for _ in range(3)] == [1, 2, 3]
    assert told.last == 3


def test_what_was_missed_can_be_had_again() -> None:
    told = TenantEvents()
    published = [told.publish("tick", b"{}") for _ in range(5)]

    assert told.since(2) == published[2:]
    assert told.since(0) == published
    assert told.since(5) == []


@pytest.mark.parametrize("number", [1, 7, -1])
def test_a_number_of_another_life_is_not_answered(number: int) -> None:
    assert TenantEvents().since(number) is None


def test_a_new_tenant_has_nothing_to_catch_up_with() -> None:
    assert TenantEvents().since(0) == []


def test_what_is_no_longer_kept_is_not_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_MOST_KEPT", 3)
    told = TenantEvents()
    published = [told.publish("tick", b"{}") for _ in range(10)]

    assert told.since(6) is None
    assert told.since(7) == published[7:]


def test_long_events_push_out_earlier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_MOST_KEPT_BYTES", 10)
    told = TenantEvents()
    for _ in range(3):
        told.publish("chat", b"1234")

    assert told.since(0) is None
    assert told.since(1) is not None

    told.publish("chat", b"an event above the limit")
    assert told.since(3) is None
    assert told.since(4) == []


@given(st.lists(st.integers(0, 8), max_size=30), st.integers(-2, 32))
def test_catching_up_gives_all_that_was_missed_or_says_that_it_cannot(
    sizes: list[int], number: int
) -> None:
    told = TenantEvents()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(events, "_MOST_KEPT", 6)
        patched.setattr(events, "_MOST_KEPT_BYTES", 20)
        published = [told.publish("x", b"1" * size) for size in sizes]

    missed = told.since(number)
    if missed is not None:
        assert missed == published[number:]
    if number == len(sizes):
        assert missed == []
