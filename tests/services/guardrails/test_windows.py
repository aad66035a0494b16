"""However a text is cut, what comes out is the same."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.config.guardrail_schema import compile_pattern
from appliance.services.guardrails import personal_data
from appliance.services.guardrails.windows import Detector, Watch, Window, looked_through

PII = [
    Detector("pii", "redact", kind, personal_data.pattern_of(kind)) for kind in personal_data.KINDS
]
DENIED = [
    Detector("words", "redact", "", compile_pattern(text))
    for text in (r"(?i)\bsecret\b", r"sk-[a-z0-9]{4,40}", "^start", "a.{0,20}b")
]
PIECES = st.sampled_from(
    [
        "ann@example.org",
        "bob.b+x@mail.co.uk",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4111111111111112",
        "+49 30 1234567",
        "(030) 123 456",
        "555-123-4567",
        "DE89 3704 0044 0532 0130 00",
        "GB29NWBK60161331926819",
        "123-45-6789",
        "666-45-6789",
        "192.168.0.1",
        "fe80::1:2",
        "std::vector",
        "secret",
        "Secrets",
        "sk-abcd1234",
        "start",
        "a",
        "b",
        "@",
        ".",
        " ",
        "  ",
        "\n",
        ", ",
        "12",
        "7",
        "NO",
        "wörter",
        "日本",
        "x" * 90,
        "1" * 30,
        "A1 " * 20,
        "the quick brown fox",
        "12:30:45",
        "\u00a0",
        "\u2011",
        "e\u0301",
        "\u200b",
        "\U0001f469\u200d\U0001f4bb",
        "4111\u200b1111\u00a01111 1111",
        "bob@mu\u0308ller.de",
        "{",
        "[",
        '"',
        '{"a": "',
        '", "b": 4111111111111111, "c": [',
        "\\u0040",
        "ann\\u0040example.org",
        "\\n",
        "\\",
        "\\ud83d\\ude00",
        "}",
        "]",
        ", null",
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=5), max_size=25).map("".join)


def ignore(detector: Watch) -> None:
    pass


def cut(text: str, sizes: list[int]) -> list[str]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    return [*pieces, text[at:]]


@pytest.mark.parametrize("detectors", [PII, DENIED, [*PII, *DENIED]], ids=["pii", "deny", "both"])
@given(text=TEXTS, sizes=st.lists(st.integers(0, 9), max_size=80))
@settings(max_examples=400)
def test_cutting_changes_nothing(detectors: list[Detector], text: str, sizes: list[int]) -> None:
    window = Window(detectors, ignore)

    out = "".join([window.feed(piece) for piece in cut(text, sizes)]) + window.flush()

    whole = Window(detectors, ignore)
    assert out == whole.feed(text) + whole.flush()
    assert out == looked_through(text, detectors, ignore)


@given(text=TEXTS)
def test_a_text_is_left_alone_where_nothing_is_redacted(text: str) -> None:
    met: list[str] = []
    flags = [Detector(d.rule, "flag", d.kind, d.pattern) for d in PII]

    assert looked_through(text, flags, lambda detector: met.append(detector.kind)) == text


def test_what_was_told_still_counts() -> None:
    text = "at 0.4111111111111111 or x4111111111111111 " + "y" * 700
    window = Window([*PII, *DENIED], ignore)

    assert "".join(window.feed(char) for char in text) + window.flush() == text


def test_words_leave_as_soon_as_they_are_over() -> None:
    window = Window(PII, ignore)

    assert [window.feed(piece) for piece in ("Hello", " wor", "ld", " to")] == [
        "", "Hello ", "", "world ",
    ]  # fmt: skip


def test_what_is_held_back_is_bounded() -> None:
    window = Window(PII, ignore)
    out = "".join(window.feed("x") for _ in range(5000))

    assert len(out) >= 5000 - personal_data.LONGEST - 2
    assert len(window._text) <= personal_data.LONGEST + 4


def test_a_match_over_many_pieces_is_met_once() -> None:
    met: list[str] = []
    window = Window(PII, lambda detector: met.append(detector.kind))
    out = "".join(window.feed(char) for char in "to ann@example.org today") + window.flush()

    assert (out, met) == ("to [email] today", ["email"])


def secrets(*patterns: str, action: str = "redact") -> list[Detector]:
    return [Detector("r", action, "", compile_pattern(text)) for text in patterns or ["secret"]]


JSONS = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | TEXTS | PIECES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(PIECES | TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(value=st.dictionaries(PIECES, JSONS, max_size=4) | st.lists(JSONS), is_ascii=st.booleans())
@settings(max_examples=300)
def test_json_stays_json(value: object, *, is_ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii)

    redacted = json.loads(looked_through(text, [*PII, *DENIED], ignore))

    met: list[Watch] = []
    looked_through(text, [*PII, *DENIED], met.append)
    # What is not a number compares as it is written.
    assert met or json.dumps(redacted) == json.dumps(value)


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ('{"a": "\\u0061nn\\u0040example.org"}', '{"a": "[email]"}'),
        ('{"ann@example.org": 1}', '{"[email]": 1}'),
        ('{"card": 4111111111111111}', '{"card": "[card]"}'),
        ('{"card":-4111111111111111,"x":[4111111111111111]}', '{"card":"[card]","x":["[card]"]}'),
        ('{"score": 0.4111111111111111}', '{"score": 0.4111111111111111}'),
        # What is no JSON is a text like another.
        ("[4111 1111 1111 1111](x)", "[[card]](x)"),
        ("{'a': 4111111111111111}", "{'a': [card]}"),
        ('{"a": 1} 4111111111111111', '{"a": 1} [card]'),
    ],
)
def test_personal_data_in_json_is_found_however_it_is_written(text: str, redacted: str) -> None:
    assert looked_through(text, PII, ignore) == redacted


@pytest.mark.parametrize(
    ("pattern", "text", "redacted"),
    [
        (r'"key"\s*:\s*"[^"]*"', '{"key": "k-1", "b": 2}', '{"[redacted]": "[redacted]", "b": 2}'),
        ("secret.*", '{"a": "my secret", "b": [1, "x"]}',
         '{"a": "my [redacted]", "[redacted]": ["[redacted]", "[redacted]"]}'),
        ("42", '{"a": 1.425e3, "b": 42}', '{"a": "[redacted]", "b": "[redacted]"}'),
        (r"\bsecret\b", '{"a": "x\\nsecret\\ty"}', '{"a": "x\\n[redacted]\\ty"}'),
        (r'say "hi"', '{"a": "say \\"hi\\" now"}', '{"a": "[redacted] now"}'),
    ],
)  # fmt: skip
def test_patterns_see_json_as_it_is_meant_and_leave_its_syntax(
    pattern: str, text: str, redacted: str
) -> None:
    assert looked_through(text, secrets(pattern), ignore) == redacted


@pytest.mark.parametrize(
    ("pattern", "text", "redacted"),
    [
        ("M\u00fcller", "Mu\u0308ller", "[redacted]"),
        ("secret", "sec\u00adret, se\u200bc\u200br\u200be\u200bt", "[redacted], [redacted]"),
        # A pattern may be about the marks themselves.
        (r"[\x{200b}-\x{200f}]", "a\u200bb", "[redacted]b"),
        (r"\p{M}{3,}", "a\u0323\u0301\u0302\u0300", "[redacted]"),
    ],
)
def test_marks_that_nobody_sees_hide_nothing(pattern: str, text: str, redacted: str) -> None:
    assert looked_through(text, secrets(pattern), ignore) == redacted


@given(
    st.text(max_size=40),
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=30),
    st.text(max_size=40),
)
def test_a_pause_hides_nothing(before: str, cuts: Sequence[tuple[int, bool]], behind: str) -> None:
    met: list[Watch] = []
    window = Window(secrets(), met.append)
    out = ""
    pieces = cut(before + "a secret" + behind, [size for size, _ in cuts])
    for piece, (_, pauses) in zip(pieces, [*cuts, (0, False)], strict=True):
        out += window.feed(piece) + (window.pause() if pauses else "")
    out += window.flush()

    assert met
    assert "secret" not in out


def test_what_is_said_before_a_pause_is_said_once() -> None:
    met: list[Watch] = []
    window = Window([*PII, *secrets()], met.append)

    out = [window.feed("to ann@example.org, my sec"), window.pause(), window.feed("ret is"),
           window.pause(), window.feed(" out"), window.flush()]  # fmt: skip

    assert "".join(out) == "to [email], my sec[redacted] is out"
    assert [watch.kind for watch in met] == ["email", ""]


def test_what_overlaps_is_all_gone() -> None:
    overlapping = [
        Detector("r", "redact", "", compile_pattern("abc")),
        Detector("r", "redact", "", compile_pattern("cde")),
    ]

    assert looked_through("xabcdex", overlapping, ignore) == "x[redacted]x"
