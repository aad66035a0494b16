"""What is kept of an output, and how a model reads it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.services.command_output import OutputLog, readable


def test_a_short_output_is_kept_whole() -> None:
    log = OutputLog(100)
    for piece in ("one ", "two ", "three"):
        log.add(piece)

    assert log.text() == "one two three"
    assert log.since(4) == "two three"
    assert (log.total, log.left_out) == (13, 0)


def test_of_a_long_output_the_beginning_and_the_end_are_kept() -> None:
    log = OutputLog(20_000)
    log.add("first " + "x" * 50_000)
    log.add("y" * 50_000 + " last")

    text = log.text()

    assert text.startswith("first x")
    assert text.endswith("y last")
    assert log.total == 100_011
    assert f"[… {log.left_out} characters left out …]" in text
    assert 20_000 <= log.total - log.left_out < 25_000


def test_since_tells_what_is_missing_between() -> None:
    log = OutputLog(10)
    log.add("a" * 5 + "b" * 20)

    assert log.since(0) == "aaaaa\n[… 15 characters left out …]\nbbbbb"
    assert log.since(5) == "\n[… 15 characters left out …]\nbbbbb"
    assert log.since(10) == "\n[… 10 characters left out …]\nbbbbb"
    assert log.since(22) == "bbb"
    assert log.since(25) == ""


@given(st.lists(st.text(max_size=50), max_size=40), st.integers(2, 200), st.integers(0, 500))
def test_whatever_is_added_the_ends_are_right_and_the_size_is_bounded(
    pieces: list[str], limit: int, position: int
) -> None:
    log, whole = OutputLog(limit), "".join(pieces)
    for piece in pieces:
        log.add(piece)

    kept = log.total - log.left_out
    assert log.total == len(whole)
    assert kept <= limit + 4_096
    head, tail = whole[: limit // 2], whole[log.total - (kept - min(len(whole), limit // 2)) :]
    assert log.text() == (head + tail if not log.left_out else log.text())
    assert log.text().startswith(head)
    assert log.text().endswith(tail)
    if not log.left_out:
        assert log.since(position) == whole[position:]


def test_a_flood_of_small_pieces_takes_no_more_room() -> None:
    log = OutputLog(1_000)
    for _ in range(100_000):
        log.add("x")
    assert len(log._tail) < 10
    assert log.total == 100_000


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        ("plain text", "plain text"),
        ("a\tb\r\nc", "a\tb\nc"),
        ("10%\r20%\r", "10%\n20%\n"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0\x1b\\x", "x"),
        ("\x1b(Bx\x1b=y", "xy"),
        ("\x9b31mx\x9d0;t\x07y\x90z\x9cw", "xyw"),
        ("a\x00b\x07c\x7fd\x85e", "abcde"),
        ("cut \x1b[31", "cut "),
        ("\x1b", ""),
        ("naïve ünïcode ☃", "naïve ünïcode ☃"),
    ],
)
def test_a_model_reads_no_control_characters(raw: str, read: str) -> None:
    assert readable(raw) == read


@given(st.text(alphabet=st.characters(max_codepoint=0x2100), max_size=300))
def test_nothing_that_a_terminal_obeys_is_left(raw: str) -> None:
    read = readable(raw)
    assert not [c for c in read if (c < " " and c not in "\t\n") or "\x7f" <= c <= "\x9f"]
