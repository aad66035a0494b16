"""File patterns as expressions; ``re`` stands for the program that matches them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.globs import to_regex

PATHS = ["a.py", "src/a.py", "src/b.ts", "src/deep/a.py", "src/deep/[x].md", "a+b.txt", "{n}", "ab"]


def matched(glob: str) -> list[str]:
    expression = re.compile(to_regex(glob))
    return [path for path in PATHS if expression.fullmatch(f"./{path}")]


# A bracket in a set means nothing to the programs that read it.
@pytest.mark.filterwarnings("ignore:Possible nested set:FutureWarning")
@pytest.mark.parametrize(
    ("glob", "paths"),
    [
        ("*.py", ["a.py", "src/a.py", "src/deep/a.py"]),
        ("src/*.py", ["src/a.py"]),
        ("./src/*.py", ["src/a.py"]),
        ("/workspace/src/*.py", ["src/a.py"]),
        ("src/**/*.py", ["src/a.py", "src/deep/a.py"]),
        ("**/*.py", ["a.py", "src/a.py", "src/deep/a.py"]),
        ("src/**", ["src/a.py", "src/b.ts", "src/deep/a.py", "src/deep/[x].md"]),
        ("*.{py,ts}", ["a.py", "src/a.py", "src/b.ts", "src/deep/a.py"]),
        ("src/{b.ts,deep/*}", ["src/b.ts", "src/deep/a.py", "src/deep/[x].md"]),
        ("?.py", ["a.py", "src/a.py", "src/deep/a.py"]),
        ("[ab].ts", ["src/b.ts"]),
        ("[!a].*", ["src/b.ts"]),
        ("[!]a].*", ["src/b.ts"]),
        ("[!-a].*", ["src/b.ts"]),
        ("[!a-].*", []),
        ("[", []),
        (r"\[x\].md", ["src/deep/[x].md"]),
        ("[[]x].md", ["src/deep/[x].md"]),
        ("a+b.txt", ["a+b.txt"]),
        (r"\{n}", ["{n}"]),
        ("{n", []),
        ("deep/a.py", []),
        ("ab/", ["ab"]),
    ],
)
def test_a_pattern_matches_what_people_mean(glob: str, paths: list[str]) -> None:
    assert matched(glob) == paths


@pytest.mark.parametrize("glob", ["", "a\0b", "x" * 1001])
def test_what_is_no_pattern_is_refused(glob: str) -> None:
    with pytest.raises(ValueError, match="file pattern"):
        to_regex(glob)


@given(st.text("ab/.+(|{}$^", min_size=1, max_size=12))
def test_what_is_no_wildcard_stands_for_itself(name: str) -> None:
    if not name.strip("/.") or "{" in name:
        return
    plain = name.lstrip("/").removeprefix("./").lstrip("/").rstrip("/")
    assert re.compile(to_regex(name)).fullmatch(f"./{plain}") or not plain


@pytest.mark.filterwarnings("ignore:Possible nested set:FutureWarning")
# Without a backslash: in a set it means something to ``re`` and nothing to the programs.
@given(st.text("a*?[]!{},/-", min_size=1, max_size=20))
def test_every_pattern_makes_a_sound_expression(glob: str) -> None:
    try:
        re.compile(to_regex(glob))
    except re.error as error:
        # A range that runs backwards is for the program to complain about.
        assert "bad character range" in str(error)  # noqa: PT017 - other patterns raise nothing
