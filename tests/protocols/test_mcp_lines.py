"""Messages on a pipe, in pieces, too long and too many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocols.mcp_lines import Allowance, Lines, LineTooLong


@given(st.lists(st.binary(min_size=1, max_size=20)), st.integers(min_value=1, max_value=9))
def test_lines_are_the_same_however_they_are_cut(written: list[bytes], size: int) -> None:
    wanted = [line.replace(b"\n", b"").strip() for line in written]
    stream = b"".join(line + b"\n" for line in (each.replace(b"\n", b"") for each in written))
    lines = Lines(100)
    found: list[bytes] = []
    for start in range(0, len(stream), size):
        found += lines.feed(stream[start : start + size])
    assert found == [line for line in wanted if line]


def test_a_line_that_never_ends_is_refused_before_it_is_kept() -> None:
    lines = Lines(10)
    assert list(lines.feed(b"0123456789")) == []
    with pytest.raises(LineTooLong):
        list(lines.feed(b"0"))


def test_the_limit_is_of_one_line() -> None:
    assert list(Lines(3).feed(b"abc\ndef\nghi\n")) == [b"abc", b"def", b"ghi"]


def test_an_allowance_is_a_burst_and_then_a_rate() -> None:
    allowance = Allowance(10, 2, now=0)
    assert allowance.take(10, now=0)
    assert not allowance.take(1, now=0)
    assert allowance.take(2, now=1)
    assert not allowance.take(1, now=1)
    assert not allowance.take(11, now=1000)
    assert allowance.take(10, now=1000)
