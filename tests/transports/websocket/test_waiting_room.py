from contextlib import ExitStack
from functools import partial

from appliance.transports.websocket.waiting_room import WaitingRoom


def test_who_leaves_makes_room() -> None:
    room = WaitingRoom(most=1)
    sent_away: list[str] = []

    with room.waiting("a", partial(sent_away.append, "first")):
        assert len(room) == 1
    with room.waiting("b", partial(sent_away.append, "second")):
        pass

    assert len(room) == 0
    assert sent_away == []


def test_a_full_room_sends_away_the_oldest_of_whoever_has_most_in_it() -> None:
    room = WaitingRoom(most=4)
    sent_away: list[str] = []
    with ExitStack() as stack:
        for address, name in [("honest", "h1"), ("flood", "f1"), ("flood", "f2"), ("flood", "f3")]:
            stack.enter_context(room.waiting(address, partial(sent_away.append, name)))

        stack.enter_context(room.waiting("honest too", partial(sent_away.append, "h2")))
        assert sent_away == ["f1"]
        stack.enter_context(room.waiting("flood", partial(sent_away.append, "f4")))
        assert sent_away == ["f1", "f2"]
        assert len(room) == 4

    assert len(room) == 0


def test_ten_thousand_that_say_nothing_do_not_keep_one_out() -> None:
    room = WaitingRoom(most=100)
    gone: list[int] = []
    with ExitStack() as stack:
        stack.enter_context(room.waiting("honest", partial(gone.append, -1)))
        for number in range(10_000):
            stack.enter_context(room.waiting("flood", partial(gone.append, number)))

        assert len(room) == 100
        assert -1 not in gone


def test_everybody_can_be_sent_away() -> None:
    room = WaitingRoom(most=4)
    gone: list[str] = []
    with ExitStack() as stack:
        for address in ("a", "b", "a"):
            stack.enter_context(room.waiting(address, partial(gone.append, address)))
        room.send_all_away()
        assert sorted(gone) == ["a", "a", "b"]
        assert len(room) == 0
