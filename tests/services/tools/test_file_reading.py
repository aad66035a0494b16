"""A part of a text file as a model can read it."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.services.tools import file_reading
from appliance.services.tools.base import ToolFailed
from appliance.services.tools.file_reading import TextWindow, read_window
from appliance.storage.workspace import Workspace


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits so small that a few lines reach all of them."""
    monkeypatch.setattr(file_reading, "_PIECE", 4)
    monkeypatch.setattr(file_reading, "MOST_BYTES", 12)
    monkeypatch.setattr(file_reading, "MOST_LINES", 3)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with TemporaryDirectory() as made:
        yield Path(made)


def window(place: Path, data: bytes, first: int = 1, lines: int = 2000) -> TextWindow:
    (place / "file").write_bytes(data)
    fd = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    with Workspace(fd) as workspace:
        found = read_window(workspace, "file", first=first, lines=lines)
    assert isinstance(found, TextWindow)
    return found


@pytest.mark.parametrize(
    ("data", "first", "text", "last", "total"),
    [
        (b"", 1, "", 1, 0),
        (b"a\nb\nc\nd\n", 1, "a\nb\nc\n", 3, 4),
        (b"a\nb\nc\nd", 4, "d", 4, 4),
        (b"1234567\n1234567\n", 1, "1234567\n", 1, 2),
        (b"1234567\n1234567\n", 2, "1234567\n", 2, 2),
        (b"12345678901\n1\n", 1, "12345678901\n", 1, 2),
        (b"\n\n\n\n", 3, "\n\n", 4, 4),
    ],
)
def test_whole_lines_are_shown_up_to_a_limit(
    place: Path, data: bytes, first: int, text: str, last: int, total: int
) -> None:
    found = window(place, data, first)

    assert (found.text, found.last, found.total, found.is_cut) == (text, last, total, False)


def test_a_line_that_is_too_long_is_cut(place: Path) -> None:
    found = window(place, b"1\n" + b"x" * 20, first=2)

    assert (found.text, found.is_cut, found.last) == ("x" * 12, True, 2)


def test_what_nobody_counted_has_no_total(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reading, "MOST_SCANNED", 8)

    found = window(place, b"a\n" * 100)

    assert (found.text, found.total, found.size) == ("a\n" * 3, None, 200)
    with pytest.raises(ToolFailed, match="there is no line 9"):
        window(place, b"a\n" * 100, first=9)


@given(st.lists(st.sampled_from([b"", b"a", b"bb", b"12345678", b"x" * 15]), max_size=10))
def test_windows_one_after_the_other_make_the_file(place: Path, lines: list[bytes]) -> None:
    data = b"\n".join(lines)
    total = data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    found, first = "", 1
    while first <= total:
        shown = window(place, data, first)
        assert shown.total == total
        assert len(shown.text) <= 12
        # Of a line that is cut, the rest is not shown in any window.
        rest = data.split(b"\n")[first - 1][12:] if shown.is_cut else b""
        ends = shown.is_cut and (first < total or data.endswith(b"\n"))
        found += shown.text + rest.decode() + ("\n" if ends else "")
        first = shown.last + 1

    assert found == data.decode()
