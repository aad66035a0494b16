"""Paths in a workspace, as others write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.errors import InvalidRequest
from appliance.model.workspace_paths import (
    cursor_of,
    file_path,
    is_text,
    name_of,
    printable,
    relative_path,
)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("a.txt", "a.txt"),
        ("./src//main.py", "src/main.py"),
        ("/workspace/src/main.py", "src/main.py"),
        ("/workspace", ""),
        ("/workspace/", ""),
        (".", ""),
        ("", ""),
        ("~", ""),
        ("~/notes.md", "notes.md"),
        ("src/../a.txt", "a.txt"),
        ("a/b/../../c/", "c"),
        ("..a/b..", "..a/b.."),
        ("häuser/ü", "häuser/ü"),
        (" spaced name ", " spaced name "),
    ],
)
def test_a_path_is_worked_out_from_its_text(written: str, meant: str) -> None:
    assert relative_path(written) == meant


@pytest.mark.parametrize(
    "written",
    [
        "/etc/passwd",
        "/",
        "/workspacefoo",
        "..",
        "../x",
        "a/../..",
        "/workspace/../etc",
        "~root/x/../../..",
    ],
)
def test_what_leads_out_is_refused_with_the_reason(written: str) -> None:
    with pytest.raises(InvalidRequest, match="not in the workspace"):
        relative_path(written)


@pytest.mark.parametrize("written", ["a\0b", "x" * 256, "d/" * 2100 + "x", "\ud800"])
def test_what_can_name_no_file_is_refused(written: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^path: "):
        relative_path(written)


def test_the_longest_name_is_taken() -> None:
    assert file_path("x" * 255) == "x" * 255


def test_a_file_is_not_the_workspace_itself() -> None:
    with pytest.raises(InvalidRequest, match="names the workspace itself"):
        file_path("a/..", field="to")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain", "plain"),
        ("ümlaut 🐙", "ümlaut 🐙"),
        ("\udcff\udc80.txt", "\\xff\\x80.txt"),
        ("a\nb\x1b[2J", "a\\x0ab\\x1b[2J"),
        ("left\u202eright", "left\\u202eright"),
    ],
)
def test_any_name_can_be_shown(name: str, shown: str) -> None:
    assert printable(name) == shown
    assert is_text(printable(name))


def test_a_name_that_is_not_utf8_is_told_from_one_that_is() -> None:
    assert is_text("ü\n")
    assert not is_text("\udcff")


@given(st.text(max_size=200))
def test_what_is_taken_plainly_points_down(written: str) -> None:
    try:
        found = relative_path(written)
    except InvalidRequest:
        return
    assert not found.startswith("/")
    assert not {"", ".", ".."} & set(found.split("/")) or found == ""
    assert "\0" not in found


@pytest.mark.parametrize("name", ["a", "ü\n", "\udcff", "x" * 255])
def test_a_listing_goes_on_after_any_name(name: str) -> None:
    assert name_of(cursor_of(name)) == name


@pytest.mark.parametrize("cursor", ["ü", "a", "a b c", "====", "AAAA!"])
def test_a_cursor_of_somebody_elses_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="begin without one"):
        name_of(cursor)
