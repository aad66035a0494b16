"""Conditions and ranges of HTTP requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocols.http_ranges import (
    RangeRefused,
    Span,
    matches,
    names,
    parse_range,
    range_holds,
)


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-3", Span(0, 4)),
        ("bytes=5-", Span(5, 10)),
        ("bytes=5-500", Span(5, 10)),
        ("bytes=-3", Span(7, 10)),
        ("bytes=-30", Span(0, 10)),
        ("Bytes = 9-9", Span(9, 10)),
        (None, None),
        ("", None),
        ("bytes=-", None),
        ("bytes=3-1", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
        ("bytes=a-b", None),
        ("bytes=٣-٤", None),
    ],
)
def test_one_range_is_read_and_all_else_is_the_whole(header: str | None, span: Span | None) -> None:
    assert parse_range(header, 10) == span


@pytest.mark.parametrize(("header", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=-1", 0)])
def test_a_range_behind_the_end_is_refused(header: str, size: int) -> None:
    with pytest.raises(RangeRefused):
        parse_range(header, size)


@given(st.text("bytes=0123456789-, "), st.integers(0, 50))
def test_a_span_lies_within_the_file(header: str, size: int) -> None:
    try:
        span = parse_range(header, size)
    except RangeRefused:
        return
    assert span is None or 0 <= span.start < span.end <= size


def test_tags_are_compared_as_each_header_wants() -> None:
    assert names('"a", W/"b"', "b")
    assert names("*", "b")
    assert not names(None, "b")
    assert not names('"a"', "b")
    assert matches(None, "b")
    assert matches("*", "b")
    assert matches('"a", "b"', "b")
    assert not matches('W/"b"', "b")
    assert range_holds(None, "b")
    assert range_holds('"b"', "b")
    assert not range_holds('W/"b"', "b")
    assert not range_holds("Sat, 21 Nov 2026 12:00:00 GMT", "b")
