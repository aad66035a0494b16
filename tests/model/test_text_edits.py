"""Replacing pieces of a text by exact match."""

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.text_edits import Edit, EditRefused, Replacement, apply_edits

POEM = "roses are red\nviolets are blue\nsugar is sweet\n"


def edited(text: str, *edits: Edit) -> str:
    return apply_edits(text, edits)[0]


def test_the_only_occurrence_is_replaced_and_its_line_is_told() -> None:
    text, done = apply_edits(POEM, [Edit("violets are blue", "violets are violet")])

    assert text == "roses are red\nviolets are violet\nsugar is sweet\n"
    assert done == [Replacement(2, "violets are blue", "violets are violet")]


def test_several_edits_are_matched_against_the_text_as_it_was() -> None:
    # The second would not be the only one if the first had been made before it.
    edits = [Edit("roses", "violets"), Edit("violets", "tulips")]

    assert edited(POEM, *edits) == "violets are red\ntulips are blue\nsugar is sweet\n"


def test_edits_may_come_in_any_order() -> None:
    edits = [Edit("sweet", "sour"), Edit("red", "white")]

    assert edited(POEM, *edits) == "roses are white\nviolets are blue\nsugar is sour\n"


def test_all_occurrences_are_replaced_on_request() -> None:
    text, done = apply_edits(POEM, [Edit("are", "were", everywhere=True)])

    assert text.count("were") == 2
    assert [each.line for each in done] == [1, 2]


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (Edit("tulips", "x"), "not in the file"),
        (Edit("are", "were"), r"occurs 2 times \(lines 1, 2\)"),
        (Edit("", "x"), "empty"),
        (Edit("red", "red"), "the same"),
        (Edit("a\r\nb", "a\nb"), "the same"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(edit: Edit, why: str) -> None:
    with pytest.raises(EditRefused, match=why):
        apply_edits(POEM, [edit])


def test_an_edit_that_fails_is_named_by_its_number() -> None:
    with pytest.raises(EditRefused, match=r"^edit 2: oldText is not"):
        apply_edits(POEM, [Edit("red", "white"), Edit("tulips", "x")])


def test_two_edits_of_one_place_are_refused() -> None:
    with pytest.raises(EditRefused, match="edits 2 and 1 both change line 2"):
        apply_edits(POEM, [Edit("are blue", "x"), Edit("violets are", "y")])


def test_of_a_text_that_is_nowhere_the_nearest_lines_are_shown() -> None:
    with pytest.raises(EditRefused) as caught:
        apply_edits(POEM, [Edit("  violets are blue\n  sugar is salty", "x")])

    assert "line 2" in str(caught.value)
    assert "2: violets are blue\n3: sugar is sweet" in str(caught.value)


def test_line_endings_do_not_matter_for_finding_and_stay_as_they_are() -> None:
    text = "one\r\ntwo\r\nthree\r\n"

    assert edited(text, Edit("one\ntwo", "eins\nzwei")) == "eins\r\nzwei\r\nthree\r\n"
    assert edited("one\ntwo\n", Edit("one\r\ntwo", "1\r\n2")) == "1\n2\n"


def test_mixed_line_endings_stay_mixed_where_nothing_was_replaced() -> None:
    text = "a\r\nb\nc\r\nd\r\ne\n"

    assert edited(text, Edit("c", "C\nC")) == "a\r\nb\nC\r\nC\r\nd\r\ne\n"


def test_a_byte_order_mark_and_bytes_that_are_no_text_stay() -> None:
    text = "\ufeffname: \udcff\nage: 3\n"

    assert edited(text, Edit("age: 3", "age: 4")) == "\ufeffname: \udcff\nage: 4\n"


def test_looking_for_something_similar_takes_no_longer_than_reading() -> None:
    text = "a a a a a a a a\n" * 200_000
    began = process_time()

    with pytest.raises(EditRefused, match="nearest"):
        apply_edits(text, [Edit("a a a a a a a a\n" * 5_000 + "b", "x")])

    assert process_time() - began < 5


@given(
    st.lists(st.sampled_from(["a", "b", "\n", "\r\n"]), max_size=30).map("".join),
    st.text("ab\n", min_size=1, max_size=3),
    st.text("xy\n", max_size=3),
)
def test_nothing_else_changes(text: str, old: str, new: str) -> None:
    try:
        changed, (done,) = apply_edits(text, [Edit(old, new)])
    except EditRefused:
        return
    plain = text.replace("\r\n", "\n")
    assert changed.replace("\r\n", "\n") == plain.replace(old, new, 1)
    assert plain.count(old) == 1
    assert done.line == plain[: plain.index(old)].count("\n") + 1
