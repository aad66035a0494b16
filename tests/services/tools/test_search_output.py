"""What programs print when they search."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.services.tools.search_output import parse_found, parse_matches


def test_found_names_are_told_in_the_terms_of_the_workspace() -> None:
    assert parse_found(b"fa.py\0dsub\0fsub/\xff\0fcut o", "src") == [
        "src/a.py",
        "src/sub/",
        "src/sub/\udcff",
    ]
    assert parse_found(b"", "") == []


def test_lines_are_told_with_what_lies_around_them() -> None:
    output = (
        b"./a\0001:one\n./a\0002-two: 3\n--\n./a\0009:nine\r\n./b\nc\0001:\xff\n./a\0003:cut of"
    )

    matches = parse_matches(output, "")

    assert [match.shown for match in matches] == [
        "a:1: one",
        "a-2- two: 3",
        "a:9: nine",
        "b\\x0ac:1: \ufffd",
    ]
    assert [match.begins_group for match in matches] == [True, False, True, True]


def test_a_line_without_end_is_cut() -> None:
    (match,) = parse_matches(b"a\0001:" + b"x" * 10_000 + b"\n", "d")

    assert match.shown == "d/a:1: " + "x" * 500 + " … (10000 characters)"


def test_what_a_program_says_besides_is_left_out() -> None:
    assert parse_matches(b"Binary file x matches\na\0001:hit\nb\0nonsense\n", "") != []
    assert parse_matches(b"b\0nonsense\nb\0" + b"9" * 30 + b":x\n", "") == []


@given(st.binary(max_size=200))
def test_nothing_that_is_printed_breaks_the_reader(output: bytes) -> None:
    for match in parse_matches(output, "d"):
        match.shown.encode()
    parse_found(output, "d")
