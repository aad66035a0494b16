"""What a terminal says: the scrollback, the pace, who is left behind."""

import random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from appliance.model.errors import RateLimited
from appliance.model.terminals import Mode
from appliance.services.terminals.output import (
    MOST_VIEWERS,
    PATIENCE,
    WINDOW,
    Scrollback,
    TerminalOutput,
)
from tests.fakes.awake import someone
from tests.services.terminal_bench import Viewer

MIB = 1024 * 1024


def output(*, scrollback: int = 256 * 1024, most_buffered: int = 8 * MIB) -> TerminalOutput:
    return TerminalOutput("t1", scrollback_bytes=scrollback, most_buffered=lambda: most_buffered)


def viewer(name: str = "c1") -> Viewer:
    return Viewer(id=name, caller=someone("acme"))


def attached(to: TerminalOutput, name: str = "c1", **how: Any) -> Viewer:
    client = viewer(name)
    to.attach(client, Mode.WRITE, **how)
    return client


# -- the scrollback ----------------------------------------------------------


def test_all_is_kept_while_it_fits() -> None:
    kept = Scrollback(100)
    for word in ("one ", "two ", "drei € "):
        kept.append(word.encode(), len(word))

    assert kept.read(0, 1000) == (0, "one two drei € ")
    assert kept.read(4, 3) == (4, "two")
    assert kept.read(13, 1000) == (13, "€ ")
    assert kept.read(15, 10) == (15, "")
    assert kept.read(99, 10) == (15, "")


def test_what_is_kept_is_bounded_and_ends_with_the_newest() -> None:
    kept = Scrollback(100_000)
    whole = "".join(f"line {number}\n" for number in range(100_000))
    for start in range(0, len(whole), 1000):
        piece = whole[start : start + 1000]
        kept.append(piece.encode(), len(piece))

    begin, text = kept.read(0, 10**9)
    assert begin == kept.start > 0
    assert whole[begin:] == text
    assert 100_000 <= len(text) <= 100_000 + 16 * 1024


def test_a_piece_larger_than_the_scrollback_is_kept_until_the_next() -> None:
    kept = Scrollback(4096)
    kept.append(b"x" * 50_000, 50_000)
    assert kept.read(0, 10**6) == (0, "x" * 50_000)

    kept.append(b"y" * 5000, 5000)
    assert kept.read(0, 10**6) == (50_000, "y" * 5000)


def test_pieces_are_found_from_any_place() -> None:
    chance = random.Random(7)  # noqa: S311 - the same every time
    kept, whole = Scrollback(10**9), ""
    for _ in range(300):
        word = "".join(chance.choice("ab€😀\n") for _ in range(chance.randint(1, 200)))
        kept.append(word.encode(), len(word))
        whole += word
    for _ in range(300):
        at, most = chance.randint(0, len(whole)), chance.randint(1, 3000)
        assert kept.read(at, most) == (at, whole[at : at + most])


# -- characters --------------------------------------------------------------


def test_no_character_is_cut_wherever_the_bytes_are() -> None:
    whole = "aé€😀b\x00\x1b[0m".encode()
    for cut in range(len(whole) + 1):
        said, client = output(), viewer()
        said.attach(client, Mode.WRITE)
        told = said.publish(whole[:cut]) + said.publish(whole[cut:])

        assert told == client.text == whole.decode()
        assert said.end == len(whole.decode())
        assert said.attach(viewer("c2"), Mode.READ).data == whole.decode()


def test_what_is_no_text_is_replaced_and_the_replay_is_the_same() -> None:
    said = output()
    client = attached(said)
    said.publish(b"a\xffb\xe2\x82")
    said.publish(b"x\xf0\x9f")
    said.publish(b"", final=True)

    assert client.text == "a\ufffdb\ufffdx\ufffd"
    assert said.attach(viewer("c2"), Mode.READ).data == client.text


# -- attaching ---------------------------------------------------------------


def test_who_comes_later_gets_what_was_said_and_then_the_rest() -> None:
    said = output()
    said.publish(b"before ")
    client = viewer()
    replay = said.attach(client, Mode.WRITE)
    said.publish(b"after")

    assert (replay.data, replay.offset, replay.truncated) == ("before ", 7, False)
    assert client.sent == [("terminal.output", {"terminalId": "t1", "data": "after", "offset": 12})]


def test_who_comes_back_gets_what_it_missed_and_no_more() -> None:
    said = output()
    said.publish("zuerst €, ".encode())
    said.publish(b"then")

    assert said.attach(viewer(), Mode.WRITE, offset=10).data == "then"
    assert said.attach(viewer(), Mode.WRITE, offset=14).data == ""


def test_who_was_away_too_long_is_told_so() -> None:
    said = output(scrollback=4096)
    for _ in range(10):
        said.publish(b"x" * 20_000)

    replay = said.attach(viewer(), Mode.WRITE, offset=5)
    assert replay.truncated
    assert (replay.offset, len(replay.data)) == (200_000, 20_000)


def test_an_offset_that_never_was_is_passed_over() -> None:
    said = output()
    said.publish(b"hello")

    replay = said.attach(viewer(), Mode.WRITE, offset=10**9)
    assert (replay.data, replay.offset, replay.truncated) == ("hello", 5, False)


def test_a_long_replay_follows_in_pieces_as_fast_as_it_is_read() -> None:
    said = output(scrollback=16 * MIB)
    for _ in range(4 * 16):
        said.publish(b"x" * 65_536)
    client = viewer()
    replay = said.attach(client, Mode.WRITE)
    said.acknowledge(client.id, 0)
    assert len(replay.data) == WINDOW // 2
    assert len(client.text) == WINDOW // 2  # then the window is full

    while (client.heard("terminal.output")[-1]["offset"]) < said.end:
        said.acknowledge(client.id, client.heard("terminal.output")[-1]["offset"])
    assert len(replay.data) + len(client.text) == said.end
    assert max(len(each["data"]) for each in client.heard("terminal.output")) <= 65_536


def test_only_so_many_are_attached() -> None:
    said = output()
    for number in range(MOST_VIEWERS):
        attached(said, f"c{number}")

    with pytest.raises(RateLimited, match="32 connections"):
        attached(said, "late")
    attached(said, "c0")  # it is there already


def test_who_left_is_told_nothing() -> None:
    said = output()
    client = attached(said)
    said.detach(client.id)
    said.publish(b"secret")

    assert client.sent == []
    assert not said.detach(client.id)


def test_a_connection_that_is_going_away_is_let_go() -> None:
    said = output()
    client = attached(said)
    client.is_leaving = True
    said.publish(b"hello")

    assert said.viewers == {}


# -- the pace ----------------------------------------------------------------


async def takes(said: TerminalOutput, seconds: float = 1000) -> float | None:
    """When there is room; None if there is none within ``seconds``."""
    with trio.move_on_after(seconds):
        await said.wait_room()
        return trio.current_time()
    return None


async def test_nobody_there_is_nobody_to_wait_for(autojump_clock: MockClock) -> None:
    said = output()
    for _ in range(100):
        assert await takes(said) == 0
        said.publish(b"x" * 65_536)


async def test_who_acknowledges_is_never_more_than_a_window_behind(
    autojump_clock: MockClock,
) -> None:
    said, piece = output(), b"x" * 65_536
    client = attached(said)
    said.publish(b"x")
    said.acknowledge(client.id, 1)
    for _ in range(WINDOW // len(piece)):
        assert await takes(said, 1) is not None
        said.publish(piece)
    assert said.end == WINDOW + 1
    assert await takes(said, 30) is None

    said.acknowledge(client.id, 2)
    assert await takes(said, 1) is not None


async def test_it_goes_on_the_moment_it_is_acknowledged(autojump_clock: MockClock) -> None:
    said = output()
    client = attached(said)
    said.acknowledge(client.id, 0)
    for _ in range(17):
        said.publish(b"x" * 65_536)

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def acknowledge() -> None:
            await trio.sleep(10)
            said.acknowledge(client.id, said.end)

        assert await takes(said) == 10


async def test_the_slowest_sets_the_pace_and_the_others_hear_the_same(
    autojump_clock: MockClock,
) -> None:
    said = output()
    quick, slow = attached(said, "quick"), attached(said, "slow")
    for client in (quick, slow):
        said.acknowledge(client.id, 0)
    for _ in range(16):
        said.publish(b"x" * 65_536)
        said.acknowledge(quick.id, said.end)

    assert await takes(said, 5) is None
    assert quick.text == slow.text


async def test_who_never_acknowledges_is_held_to_what_its_connection_holds(
    autojump_clock: MockClock,
) -> None:
    said = output()
    client = attached(said)
    for _ in range(64):
        assert await takes(said) == 0
        said.publish(b"x" * 65_536)  # the connection takes it all

    client.buffered = MIB + 1
    assert await takes(said, 5) is None
    client.buffered = MIB
    assert await takes(said, 1) is not None


@pytest.mark.parametrize("most_buffered", [64 * 1024, MIB, 8 * MIB])
async def test_no_connection_is_filled_to_the_brim(most_buffered: int) -> None:
    said = output(most_buffered=most_buffered)
    client = attached(said)
    frame = 0
    while client.buffered <= most_buffered // 4:
        said.publish(b"\x1b" * said.piece)
        frame = len(client.heard("terminal.output")[-1]["data"]) * 6 + 200
        client.buffered += frame
        if client.buffered > MIB:
            break

    assert client.buffered < most_buffered
    with trio.move_on_after(0.05) as patience:
        await said.wait_room()
    assert patience.cancelled_caught


# -- left behind -------------------------------------------------------------


async def test_one_dead_browser_stalls_the_others_for_a_minute_at_most(
    autojump_clock: MockClock,
) -> None:
    said = output()
    dead, alive = attached(said, "dead"), attached(said, "alive")
    said.acknowledge(dead.id, 0)
    for _ in range(17):
        said.publish(b"x" * 65_536)

    went_on = await takes(said)
    assert went_on == pytest.approx(PATIENCE, abs=0.2)
    said.publish(b"news")
    assert alive.text.endswith("news")
    assert not dead.text.endswith("news")
    assert await takes(said, 1) is not None  # nobody waits for it a second time


async def test_who_was_left_behind_gets_what_is_kept_when_it_is_back(
    autojump_clock: MockClock,
) -> None:
    said = output(scrollback=4096)
    client = attached(said)
    said.acknowledge(client.id, 0)
    for _ in range(17):
        said.publish(b"x" * 65_536)
    await said.wait_room()
    said.publish(b"y" * 30_000)
    said.publish(b"z" * 5000)

    said.acknowledge(client.id, 17 * 65_536)
    (news,) = [each for each in client.heard("terminal.output") if "z" in each["data"]]
    assert news["truncated"] is True
    assert news["offset"] == said.end
    assert set(news["data"]) == {"z"}
    said.publish(b"!")
    assert client.text.endswith("z!")


async def test_who_acknowledges_a_little_is_waited_for(autojump_clock: MockClock) -> None:
    said = output()
    client = attached(said)
    said.acknowledge(client.id, 0)
    for _ in range(32):
        said.publish(b"x" * 65_536)

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def creep() -> None:
            for number in range(1, 6):
                await trio.sleep(50)
                said.acknowledge(client.id, number)

        await said.wait_room()
        assert trio.current_time() == pytest.approx(250 + PATIENCE, abs=0.2)


async def test_who_never_acknowledges_is_back_when_it_reads_again(
    autojump_clock: MockClock,
) -> None:
    said = output()
    client = attached(said)
    client.buffered = 2 * MIB
    await said.wait_room()
    assert trio.current_time() == pytest.approx(PATIENCE, abs=0.2)
    said.publish(b"missed ")
    assert client.text == ""

    said.tend(lambda _: True)
    assert client.text == ""
    client.buffered = 0
    said.tend(lambda _: True)
    assert client.text == "missed "


async def test_when_the_program_has_ended_nobody_is_waited_for(
    autojump_clock: MockClock,
) -> None:
    said = output()
    attached(said).buffered = 2 * MIB

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def end() -> None:
            await trio.sleep(3)
            said.never_wait()

        assert await takes(said) == 3


def test_what_all_are_told_comes_to_who_is_attached_but_one() -> None:
    said = output()
    one, other = attached(said, "one"), attached(said, "other")
    said.tell("terminal.resized", {"cols": 80}, but="one")

    assert (one.events, other.events) == ([], ["terminal.resized"])


def test_an_acknowledgement_never_goes_back_nor_beyond_what_was_sent() -> None:
    said = output()
    client = attached(said)
    said.publish(b"x" * 100)

    assert said.acknowledge(client.id, 50) == 50
    assert said.acknowledge(client.id, 10) == 50
    assert said.acknowledge(client.id, 10**9) == 100
    assert said.acknowledge("stranger", 10) == 0
