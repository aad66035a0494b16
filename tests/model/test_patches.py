"""Patches in the form that models write them."""

from collections.abc import Mapping
from difflib import SequenceMatcher
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.patch_lines import Fuzz
from appliance.model.patches import (
    AddFile,
    DeleteFile,
    Outcome,
    PatchRefused,
    UpdateFile,
    apply_patch,
    parse_patch,
)

FILES = {
    "a.py": "def one():\n    return 1\n\n\ndef two():\n    return 2\n",
    "empty": "",
    "dos.txt": "one\r\ntwo\r\nthree\r\n",
    "cut.txt": "one\ntwo",
}


def patch(*lines: str) -> str:
    return "\n".join(["*** Begin Patch", *lines, "*** End Patch"])


def applied(*lines: str, files: Mapping[str, str] = FILES) -> Outcome:
    return apply_patch(parse_patch(patch(*lines)), files.get)


def updated(name: str, *lines: str, text: str | None = None) -> str | None:
    files = FILES if text is None else {name: text}
    return applied(f"*** Update File: {name}", *lines, files=files).contents[name]


# -- reading -----------------------------------------------------------------


def test_a_patch_adds_deletes_changes_and_moves() -> None:
    changes = parse_patch(
        patch(
            "*** Add File: new/b.py",
            "+x = 1",
            "+",
            "*** Delete File: old.py",
            "*** Update File: a.py",
            "*** Move to: lib/a.py",
            "@@ def two():",
            "-    return 2",
            "+    return 3",
        )
    )

    add, delete, update = changes
    assert add == AddFile("new/b.py", "x = 1\n\n")
    assert delete == DeleteFile("old.py")
    assert isinstance(update, UpdateFile)
    assert update.move_to == "lib/a.py"
    assert update.hunks[0].anchors == ["def two():"]
    assert update.hunks[0].lines == [("-", "    return 2"), ("+", "    return 3")]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "begins with the line"),
        ("--- a\n+++ b\n", "begins with the line"),
        ("*** Begin Patch\n*** Add File: x\n+x", "ends with the line"),
        (patch(), "changes nothing"),
        (patch("*** Rename File: x"), "begins no change"),
        (patch("*** Add File: ", "+x"), "names no file"),
        (patch("*** Update File: a.py"), "no lines to change"),
        (patch("*** Update File: a.py", "@@ def one():"), "comes where lines"),
        (patch("*** Update File: a.py", "return 1"), "is no line of a change"),
        (patch("*** Add File: x", "no plus"), "begins no change"),
        (patch(*["*** Delete File: x"] * 501), "at most 500 files"),
        (patch("*** Update File: x", *["@@", "-a"] * 1001), "more than 1000 places"),
    ],
)
def test_what_is_no_patch_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(PatchRefused, match=why):
        parse_patch(text)


@pytest.mark.parametrize(
    "wrapped",
    [
        "<<'EOF'\n{}\nEOF",
        "<<EOF\n{}\nEOF\n",
        'apply_patch <<"PATCH"\n{}\nPATCH',
        "```\n{}\n```",
        "```patch\n{}\n```\n",
        "\n  {}\n\n",
    ],
)
def test_what_models_wrap_a_patch_in_is_taken_off(wrapped: str) -> None:
    assert parse_patch(wrapped.format(patch("*** Delete File: x"))) == [DeleteFile("x")]


def test_a_range_of_a_unified_diff_is_no_anchor() -> None:
    text = updated("a.py", "@@ -1,3 +1,3 @@ def two():", "-    return 2", "+    return 3")

    assert text == FILES["a.py"].replace("return 2", "return 3")


# -- applying ----------------------------------------------------------------


def test_lines_are_changed_where_they_are() -> None:
    text = updated("a.py", "@@", " def two():", "-    return 2", "+    return 22", "+    # more")

    assert text == "def one():\n    return 1\n\n\ndef two():\n    return 22\n    # more\n"


def test_an_anchor_tells_places_apart_that_look_alike() -> None:
    source = "class A:\n  def f():\n    pass\nclass B:\n  def f():\n    pass\n"

    text = updated("x", "@@ class B:", "@@   def f():", "-    pass", "+    return", text=source)

    assert text == source[: source.rindex("pass")] + "return\n"


def test_an_anchor_may_be_quoted_again_as_the_first_line() -> None:
    text = updated("a.py", "@@ def two():", " def two():", "-    return 2", "+    return 3")

    assert text == FILES["a.py"].replace("return 2", "return 3")


def test_places_are_looked_for_in_their_order() -> None:
    source = "x\ny\nx\ny\n"

    text = updated("f", "@@", "-x", "+1", "@@", "-x", "+2", text=source)

    assert text == "1\ny\n2\ny\n"


def test_the_end_of_the_file_is_a_place_of_its_own() -> None:
    source = "x\ny\nx\n"

    assert updated("f", "-x", "+z", "*** End of File", text=source) == "x\ny\nz\n"


def test_new_lines_alone_go_where_the_anchor_says_or_to_the_end() -> None:
    assert updated("a.py", "@@ def one():", "+    # first") == FILES["a.py"].replace(
        "def one():\n", "def one():\n    # first\n"
    )
    assert updated("a.py", "+# last") == FILES["a.py"] + "# last\n"
    assert updated("empty", "+# first") == "# first\n"


def test_an_empty_line_may_have_lost_its_space() -> None:
    text = updated("a.py", "     return 1", "", "", "-def two():", "+def three():")

    assert text == FILES["a.py"].replace("two", "three")


def test_space_before_the_next_change_is_no_line_of_the_file() -> None:
    outcome = applied(
        "*** Update File: a.py", "-    return 2", "+    return 3", "", "*** Delete File: empty"
    )

    assert outcome.contents["a.py"] == FILES["a.py"].replace("return 2", "return 3")


@pytest.mark.parametrize(
    ("quoted", "fuzz"),
    [
        ("say('don't - go')", Fuzz.EXACT),
        ("say('don't - go')  ", Fuzz.TRAILING_SPACE),
        ("    say('don't - go')", Fuzz.SPACE),
        ("say(\u2018don\u2019t \u2013\u00a0go')", Fuzz.TYPOGRAPHY),
    ],
)
def test_a_place_may_differ_in_space_and_typography(quoted: str, fuzz: Fuzz) -> None:
    source = "begin\nsay('don't - go')\nend\n"
    outcome = applied("*** Update File: f", f" {quoted}", "-end", "+END", files={"f": source})

    # The line that is only quoted stays as the file has it.
    assert outcome.contents["f"] == "begin\nsay('don't - go')\nEND\n"
    assert outcome.fuzz is fuzz


def test_what_fits_exactly_further_on_wins() -> None:
    assert updated("f", "-x", "+z", text=" x\nx\n") == " x\nz\n"


def test_line_endings_of_the_file_are_kept() -> None:
    assert updated("dos.txt", " one", "-two", "+2", "+2b") == "one\r\n2\r\n2b\r\nthree\r\n"
    assert updated("cut.txt", "-one", "+1") == "1\ntwo"
    assert updated("cut.txt", " two", "+three") == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["*** Add File: a.py", "+x"], "is there already"),
        (["*** Delete File: ghost"], "ghost does not exist"),
        (["*** Update File: ghost", "+x"], "ghost does not exist"),
        (["*** Update File: a.py", "-nowhere"], "not in the file after line 0"),
        (["*** Update File: a.py", "@@ class X", "-x"], "there is no line 'class X'"),
        (["*** Update File: a.py", "*** Move to: empty", "+x"], "empty is there already"),
        (["*** Update File: a.py", "-def two():", "@@", "-def one():"], "change 2: these lines"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(lines: list[str], why: str) -> None:
    with pytest.raises(PatchRefused, match=why):
        applied(*lines)


def test_later_changes_see_what_earlier_ones_did() -> None:
    outcome = applied(
        "*** Delete File: a.py",
        "*** Add File: a.py",
        "+new",
        "*** Update File: a.py",
        "-new",
        "+newer",
        "*** Update File: empty",
        "*** Move to: full",
        "+x",
    )

    assert outcome.contents == {"a.py": "newer\n", "empty": None, "full": "x\n"}
    assert (outcome.added, outcome.changed, outcome.deleted) == (["a.py"], ["a.py"], ["a.py"])
    assert outcome.moved == [("empty", "full")]


def test_a_file_may_be_moved_without_a_change() -> None:
    outcome = applied("*** Update File: cut.txt", "*** Move to: b.txt")

    assert outcome.contents == {"cut.txt": None, "b.txt": "one\ntwo"}


def test_looking_for_a_place_takes_no_longer_than_reading() -> None:
    source = "a\n" * 500_000
    began = process_time()

    with pytest.raises(PatchRefused, match="not in the file"):
        updated("f", *["-a"] * 20_000, "-b", text=source)

    assert process_time() - began < 10


# -- properties --------------------------------------------------------------

LINES = st.lists(st.text("ab -+@*", max_size=4), max_size=12)


def update(source: list[str], target: list[str], *, around: int) -> list[str]:
    """The lines of an update that makes ``target`` of ``source``."""
    lines: list[str] = []
    for group in SequenceMatcher(None, source, target, autojunk=False).get_grouped_opcodes(around):
        lines.append("@@")
        for kind, low, high, new_low, new_high in group:
            if kind == "equal":
                lines += [f" {line}" for line in source[low:high]]
                continue
            lines += [f"-{line}" for line in source[low:high]]
            lines += [f"+{line}" for line in target[new_low:new_high]]
    return lines


def text_of(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


@given(LINES, LINES)
def test_a_patch_that_quotes_the_whole_file_makes_the_target(
    source: list[str], target: list[str]
) -> None:
    lines = update(source, target, around=100)
    if lines:
        assert updated("f", *lines, text=text_of(source)) == text_of(target)


@given(st.data())
def test_a_patch_of_distinct_lines_makes_the_target_with_little_around(data: st.DataObject) -> None:
    source = [f"line {number}" for number in range(data.draw(st.integers(0, 40)))]
    target = list(source)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(target)))
        if data.draw(st.booleans()):
            target.insert(at, f"new {data.draw(st.integers())}")
        else:
            del target[at : at + 1]
    lines = update(source, target, around=2)
    if lines and source:
        assert updated("f", *lines, text=text_of(source)) == text_of(target)


@given(st.text("*@ +-ab\n\r", max_size=80))
def test_no_text_breaks_the_reader(text: str) -> None:
    for whole in (text, patch("*** Update File: a.py", text)):
        try:
            outcome = apply_patch(parse_patch(whole), FILES.get)
        except PatchRefused:
            continue
        assert set(outcome.contents) <= {"a.py"}
