"""However a text is cut, what comes out is the same."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.config.guardrail_schema import compile_pattern
from appliance.services.guardrails import personal_data
from appliance.services.guardrails.windows import Detector, Window, looked_through

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
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=5), max_size=25).map("".join)


def ignore(detector: Detector) -> None:
    pass


def cut(text: str, sizes: list[int]) -> list[str]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    return [*pieces, text[at:]]


@pytest.mark.parametrize("detectors", [PII, DENIED, [*PII, *DENIED]], ids=["pii", "deny", "both"])
@given(text=TEXTS, sizes=st.lists(st.integers(0, 9), max_size=80))
@settings(max_examples=400, deadline=None)
def test_cutting_changes_nothing(detectors: list[Detector], text: str, sizes: list[int]) -> None:
    window = Window(detectors, ignore)

    out = "".join([window.feed(piece) for piece in cut(text, sizes)]) + window.flush()

    whole = Window(detectors, ignore)
    whole._text = text
    assert out == whole.flush()
    assert out == looked_through(text, detectors, ignore)


@given(text=TEXTS)
def test_a_text_is_left_alone_where_nothing_is_redacted(text: str) -> None:
    met: list[str] = []
    flags = [Detector(d.rule, "flag", d.kind, d.pattern) for d in PII]

    assert looked_through(text, flags, lambda detector: met.append(detector.kind)) == text


def test_words_leave_as_soon_as_they_are_over() -> None:
    window = Window(PII, ignore)

    assert [window.feed(piece) for piece in ("Hello", " wor", "ld", " to")] == [
        "", "Hello ", "", "world ",
    ]  # fmt: skip


def test_what_is_held_back_is_bounded() -> None:
    window = Window(PII, ignore)
    out = "".join(window.feed("x") for _ in range(5000))

    assert len(out) >= 5000 - personal_data.LONGEST - 1
    assert len(window._text) <= personal_data.LONGEST + 2


def test_a_match_over_many_pieces_is_met_once() -> None:
    met: list[str] = []
    window = Window(PII, lambda detector: met.append(detector.kind))
    out = "".join(window.feed(char) for char in "to ann@example.org today") + window.flush()

    assert (out, met) == ("to [email] today", ["email"])


def test_what_overlaps_is_all_gone() -> None:
    overlapping = [
        Detector("r", "redact", "", compile_pattern("abc")),
        Detector("r", "redact", "", compile_pattern("cde")),
    ]

    assert looked_through("xabcdex", overlapping, ignore) == "x[redacted]x"
