import math
from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from appliance.config import documents
from appliance.config.documents import (
    DEEPEST,
    LARGEST,
    MOST_REPORTED,
    MOST_VALUES,
    invalid,
    read_document,
    write_document,
)
from appliance.model.errors import ConfigInvalid, FieldError


@pytest.fixture(params=["libyaml", "python"], autouse=True)
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers of PyYAML keep the same promises."""
    if request.param == "python":
        monkeypatch.setattr(documents, "_LOADER", yaml.SafeLoader)


def read(text: str) -> Any:
    return read_document(text, name="config.yaml").value


def refusal(text: str) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        read(text)
    return caught.value.detail


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1", 1),
        ("a: -7", -7),
        ("a: 0x1f", 31),
        ("a: 0o17", 15),
        ("a: 010", 10),
        ("a: 1.5", 1.5),
        ("a: 1e3", 1000.0),
        ("a: true", True),
        ("a: False", False),
        ("a: null", None),
        ("a: ~", None),
        ("a:", None),
        ("a: '1'", "1"),
        ('a: "true"', "true"),
        ("a: text with spaces", "text with spaces"),
    ],
)
def test_a_scalar_means_what_yaml_1_2_says(text: str, value: object) -> None:
    found = read(text)["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["yes", "no", "on", "off", "NO", "12:30", "1_000", "2026-11-01"])
def test_what_only_yaml_1_1_turns_into_something_else_stays_text(text: str) -> None:
    assert read(f"a: {text}") == {"a": text}


def test_a_document_knows_on_which_line_each_key_stands() -> None:
    document = read_document("a:\n  b: 1\n  c:\n    - 1\n    - d: 2\n", name="x")
    assert document.lines == {"a": 1, "a.b": 2, "a.c": 3, "a.c[0]": 4, "a.c[1]": 5, "a.c[1].d": 5}


def test_a_key_given_twice_is_refused_with_both_lines() -> None:
    assert refusal("a: 1\nb: 2\na: 3\n") == (
        "config.yaml: line 3: a: given twice, first on line 1 (keep one of them)"
    )


def test_every_problem_is_reported_not_only_the_first() -> None:
    detail = refusal("a: .nan\nb: !!python/name:os.system x\nc: 1\nc: 2\n1: x\n")
    assert "a: not a finite number" in detail
    assert "b: tags are not supported" in detail
    assert "c: given twice" in detail
    assert "1: a key must be text" in detail


@pytest.mark.parametrize("number", [".nan", ".NaN", ".inf", "-.inf", "+.INF", "1e999", "9" * 60])
def test_a_number_no_setting_can_have_is_refused(number: str) -> None:
    assert "number" in refusal(f"a: {number}")


@pytest.mark.parametrize("key", ["1", "1.5", "true", "null", "~", ".nan", "[1]", "{a: 1}"])
def test_a_key_that_is_not_text_is_refused(key: str) -> None:
    assert "a key must be text" in refusal(f"? {key}\n: value\n")


@pytest.mark.parametrize(
    "text", ["a: !!binary aGk=", "a: !custom 1", "a: !!set {x}", "!!map {a: 1}", "a: ! 5"]
)
def test_tags_are_refused(text: str) -> None:
    assert "tags are not supported" in refusal(text)


def test_merge_keys_are_refused() -> None:
    assert "merge keys are not supported" in refusal("a: &a {x: 1}\nb: {<<: *a}\n")


def test_an_alias_stands_for_what_was_anchored() -> None:
    assert read("a: &a {x: [1, 2]}\nb: *a\n") == {"a": {"x": [1, 2]}, "b": {"x": [1, 2]}}


def test_a_bomb_of_aliases_is_refused_before_it_grows() -> None:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert f"more than {MOST_VALUES} values" in refusal("\n".join(lines))


def test_aliases_of_a_large_value_in_one_list_count_in_full() -> None:
    large = ", ".join(["x"] * 1000)
    assert "do not multiply aliases" in refusal(f"a: &a [{large}]\nb: [{', '.join(['*a'] * 99)}]")


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "a: *b\nb: &b 1"])
def test_an_alias_of_what_is_not_finished_is_refused(text: str) -> None:
    assert "an alias of something not finished above" in refusal(text)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_depth_is_refused_without_recursion(opening: str) -> None:
    assert "nested more than" in refusal(opening * 50_000) or "must be text" in refusal(
        opening * 50_000
    )


def test_the_deepest_nesting_allowed_is_read() -> None:
    text = "[" * DEEPEST + "]" * DEEPEST
    assert read(write_document(read(text))) == read(text)
    assert "nested more than" in refusal("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1))


def test_ten_megabytes_are_refused_at_once() -> None:
    assert f"larger than {LARGEST} bytes" in refusal("a: " + "x" * 10_000_000)
    assert f"larger than {LARGEST} bytes" in refusal("a: " + "€" * (LARGEST // 2))


def test_two_documents_are_refused() -> None:
    assert "line 2: a second document" in refusal("a: 1\n--- {b: 2}\n")


@pytest.mark.parametrize("text", ["a: [", "a:\n\tb: 1", "a: b: c", "%X", "*", 'a: "'])
def test_what_is_not_yaml_is_refused_with_its_line(text: str) -> None:
    detail = refusal(text)
    assert "not YAML" in detail
    assert "line " in detail


def test_a_syntax_error_does_not_quote_the_text_beside_it() -> None:
    assert "hunter2" not in refusal('password: "hunter2\n')
    assert "hunter2" not in refusal("password: hunter2: x\n")


@pytest.mark.parametrize("text", ["a: \x00", "a: \x1b[31m", "a: \ud800"])
def test_control_characters_and_surrogates_are_refused(text: str) -> None:
    assert "config.yaml: " in refusal(text)


def test_a_key_with_control_characters_is_shown_escaped() -> None:
    assert "\x1b" not in refusal('"\\e[31m": 1\n"\\e[31m": 2\n')


def test_nothing_at_all_is_none() -> None:
    assert read("") is None
    assert read("# only a comment\n") is None


def test_the_message_names_twenty_problems_and_counts_the_rest() -> None:
    problems = [FieldError(f"k{n}", "bad") for n in range(MOST_REPORTED + 5)]
    failure = invalid("x", problems)
    assert failure.detail.endswith("; and 5 more")
    assert len(failure.fields) == MOST_REPORTED + 5


_text = st.text(st.characters(codec="utf-8"), max_size=20)
_scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | _text
_floats = st.floats(allow_nan=False, allow_infinity=False)
_values = st.recursive(
    _scalars | _floats,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_text, _values, max_size=5))
def test_what_is_written_reads_the_same(value: dict[str, Any]) -> None:
    found = read(write_document(value))
    assert found == value
    assert repr(found) == repr(value)  # 1 is not 1.0, and true is not 1


@given(_floats)
def test_a_float_survives(number: float) -> None:
    found = read(write_document([number]))[0]
    assert math.copysign(1, found) == math.copysign(1, number)
    assert found == number


@given(st.text(max_size=200) | st.text("[]{}:,-?&*!|>'\"%@` \n\tab01~<#", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ConfigInvalid):
        read_document(text, name="x")
