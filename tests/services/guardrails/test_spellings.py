"""What a text says, beside how it is spelled."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.services.guardrails.spellings import Part, Reader, Said

PIECES = st.sampled_from(
    ["{", "[", "}", "]", ",", ":", '"', " ", "\n", "null", "1", "4111", "1.5", "-", "a", "é",
     "e\u0301", "\u200b", "\U0001f469\u200d\U0001f4bb", "\\", "\\n", '\\"', "\\u0040", "\\u00",
     "\\ud83d", "\\ude00", "\\u200b", "x" * 70, "\u200b" * 70, " " * 70]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=3), max_size=14).map("".join)
OPENED = st.tuples(st.sampled_from(["", "{", '{"', '["', '{"a": ']), TEXTS).map("".join)


def said(*pieces: str) -> Said:
    """All that a reader says of a text, what stands in JSON's syntax character by character."""
    reader = Reader()
    text, parts = "", []
    for each in [*(reader.feed(piece) for piece in pieces), reader.flush()]:
        for part in each.parts:
            moved = part._replace(start=part.start + len(text), end=part.end + len(text))
            if part.part is Part.SYNTAX:
                places = range(moved.start, moved.end)
                parts += [moved._replace(start=n, end=n + 1, raw="") for n in places]
            else:
                parts.append(moved)
        text += each.text
    return Said(text, parts)


def spelled(text: Said) -> str:
    out, at = "", 0
    for part in text.parts:
        out += text.text[at : part.start] + (part.raw or text.text[part.start : part.end])
        at = part.end
    return out + text.text[at:]


@given(OPENED, st.lists(st.integers(0, 5), max_size=60))
@settings(max_examples=500)
def test_nothing_is_lost_and_cutting_changes_nothing(text: str, sizes: Sequence[int]) -> None:
    whole = said(text)
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size

    assert spelled(whole) == text
    assert said(*pieces, text[at:]) == whole


def test_it_may_be_cut_anywhere() -> None:
    text = (
        r'{"a": "x\ud83d\ude00\ud83d\u0040\n\\", "n": [-1.5e3 , null]} ' + "e\u0301" + "\u200b" * 70
    )

    for at in range(len(text)):
        assert said(text[:at], text[at:]) == said(text)
        assert said(text[:at], *text[at:]) == said(text)


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none()), st.booleans())
def test_json_is_read_to_its_end(value: dict[str, object], is_ascii: bool) -> None:  # noqa: FBT001 - given
    reader = Reader()

    reader.feed(json.dumps(value, ensure_ascii=is_ascii))

    assert reader.is_closed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": "\\u0040\\ud83d\\ude00\\n"}', '{"a": "@\U0001f600\n"}'),
        ('{"a": "\\ud83d\\u0040\\x"}', '{"a": "\ufffd@\\x"}'),
        # What is no JSON has no escapes.
        ("a \\u0040", "a \\u0040"),
        ("{'a': '\\u0040'}", "{'a': '\\u0040'}"),
        ('{"a": 1} "\\u0040"', '{"a": 1} "\\u0040"'),
        ("e\u0301 a\u200b\u200db", "\u00e9 ab"),
        ('{"a": "e\\u0301"}', '{"a": "\u00e9"}'),
    ],
)
def test_what_is_said(text: str, says: str) -> None:
    assert said(text).text == says


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ('{"a": 12, "b": [-1.5e3, true]}', ["12", "-1.5e3", "true"]),
        ("[1 2]", []),
        ("[1, two]", ["1"]),
        ("12, 13", []),
        ("[" + "1" * 65 + "]", []),
    ],
)
def test_numbers_are_known_where_they_are_json(text: str, tokens: Sequence[str]) -> None:
    assert [part.raw for part in said(text).parts if part.part is Part.TOKEN] == tokens
