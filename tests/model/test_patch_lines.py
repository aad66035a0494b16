"""A text as lines that remember how they end."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.model.patch_lines import Fuzz, Line, LineSearch, join_lines, split_lines


def test_a_line_knows_how_it_ends() -> None:
    assert split_lines("a\r\nb\nc") == [Line("a", "\r\n"), Line("b", "\n"), Line("c", "")]
    assert split_lines("") == []


@given(st.text("ab\r\n\x0b\u2028", max_size=40))
def test_lines_become_the_text_again(text: str) -> None:
    assert join_lines(split_lines(text), like=text) == text


def test_whole_lines_are_found_and_no_parts_of_them() -> None:
    search = LineSearch(["ab", "b", "a", "b"])

    assert search.find(["b"], 0) == (1, Fuzz.EXACT)
    assert search.find(["a", "b"], 0) == (2, Fuzz.EXACT)
    assert search.find(["b"], 2) == (3, Fuzz.EXACT)
    assert search.find(["b", "a", "b", "c"], 0) is None
    assert search.find(["b"], 9) is None


@given(st.lists(st.sampled_from(["", "a", " a", "b"]), max_size=8), st.data())
def test_the_first_place_is_found(lines: list[str], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(lines)))
    wanted = data.draw(st.lists(st.sampled_from(["", "a", "b"]), min_size=1, max_size=3))
    places = [
        at
        for at in range(start, len(lines) - len(wanted) + 1)
        if lines[at : at + len(wanted)] == wanted
    ]
    found = LineSearch(lines).find(wanted, start)
    if places:
        assert found == (places[0], Fuzz.EXACT)
    else:
        assert found is None or found[1] is not Fuzz.EXACT
