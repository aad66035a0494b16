"""Which models a token may be used for."""

import re
from fnmatch import translate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.errors import InvalidRequest
from appliance.model.model_patterns import admits, is_within, parse_patterns

NAMES = st.text("ab/-", max_size=8)
PATTERNS = st.text("ab/*", min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("patterns", "name", "is_admitted"),
    [
        (("stub/mock",), "stub/mock", True),
        (("stub/mock",), "stub/mock-2", False),
        (("stub/*",), "stub/meta/llama", True),
        (("stub/*",), "stubs/mock", False),
        (("*",), "anything", True),
        (("*/llama*",), "stub/llama-3", True),
        (("fast", "smart"), "smart", True),
        (("a*a",), "a", False),
        ((), "a", False),
    ],
)
def test_a_star_stands_for_anything(
    patterns: tuple[str, ...], name: str, *, is_admitted: bool
) -> None:
    assert admits(patterns, name) is is_admitted


@given(PATTERNS, NAMES)
def test_it_is_what_file_patterns_with_only_stars_match(pattern: str, name: str) -> None:
    assert admits((pattern,), name) is bool(re.match(translate(pattern), name))


@given(st.lists(PATTERNS, max_size=4), st.lists(PATTERNS, max_size=4), NAMES)
def test_what_is_within_names_nothing_more(wanted: list[str], own: list[str], name: str) -> None:
    if is_within(wanted, own) and admits(tuple(wanted), name):
        assert admits(tuple(own), name)


@pytest.mark.parametrize("raw", [[""], ["a b"], ["a\n"], ["x" * 257], [f"m{n}" for n in range(51)]])
def test_what_is_no_pattern_is_refused(raw: list[str]) -> None:
    with pytest.raises(InvalidRequest, match="models"):
        parse_patterns(raw)


def test_patterns_given_twice_count_once() -> None:
    assert parse_patterns(["a", "b", "a"]) == ("a", "b")
