"""What identifies a person, and what only looks like it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.services.guardrails import personal_data
from appliance.services.guardrails.windows import Detector, Watch, looked_through

PII = [
    Detector("pii", "redact", kind, personal_data.pattern_of(kind)) for kind in personal_data.KINDS
]


def ignore(detector: Watch) -> None:
    pass


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("mail ann@example.org.", "mail [email]."),
        ("card 4111 1111 1111 1111, thanks", "card [card], thanks"),
        ("12 4111-1111-1111-1111", "12 [card]"),
        ("no card: 4111 1111 1111 1112", "no card: 4111 1111 1111 1112"),
        ("zeros 0000 0000 0000 0000", "zeros 0000 0000 0000 0000"),
        ("pay DE89 3704 0044 0532 0130 00 NOW", "pay [iban] NOW"),
        ("pay GB29NWBK60161331926819", "pay [iban]"),
        ("not DE88 3704 0044 0532 0130 00", "not DE88 3704 0044 0532 0130 00"),
        ("call +49 30 1234567 or (030) 123 456", "call [phone] or [phone]"),
        ("ssn 123-45-6789, none: 000-45-6789", "ssn [ssn], none: 000-45-6789"),
        ("at 192.168.0.1 and fe80::1:2", "at [ip] and [ip]"),
        ("std::vector 12:30:45 1.2.3 999.1.1.1", "std::vector 12:30:45 1.2.3 999.1.1.1"),
        ("in 2026 there were 1234567 of 12", "in 2026 there were 1234567 of 12"),
    ],
)
def test_personal_data_is_known_by_its_shape_and_check_digits(text: str, redacted: str) -> None:
    assert looked_through(text, PII, ignore) == redacted


@given(st.integers(2 * 10**14, 10**15 - 1))
def test_every_number_with_the_right_check_digit_is_a_card(number: int) -> None:
    cards = [f"{number}{last}" for last in range(10)]

    found = [each for each in cards if looked_through(each, PII[2:3], ignore) == "[card]"]

    assert len(found) == 1


@given(st.sampled_from([12, 15, 18]), st.integers(0, 10**9))
def test_a_time_is_no_card(size: int, number: int) -> None:
    times = [f"{17 * 10 ** (size - 2) + number}{last}" for last in range(10)]

    assert [looked_through(each, PII[2:3], ignore) for each in times] == times


@given(st.integers(10**15, 10**17))
def test_a_fraction_is_no_card(number: int) -> None:
    text = f"at 0.{number}, 48.{number}"

    assert looked_through(text, PII[2:3], ignore) == text


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        # As word processors and web pages write them.
        ("card 4111\u00a01111\u00a01111\u00a01111.", "card [card]."),
        ("card 4111\u20111111\u20111111\u20111111.", "card [card]."),
        ("DE89\u202f3704\u202f0044\u202f0532\u202f0130\u202f00", "[iban]"),
        ("call +49\u200930\u20131234567", "call [phone]"),
        ("4111\u200b1111\u200b1111\u200b1111", "[card]"),
        ("ann@\u200bexample\u200b.org, ann\u00ad@example.org", "[email], [email]"),
        ("\ufeffann@example.org", "\ufeff[email]"),
        # Other scripts and input methods.
        ("\u0664\u0661\u0661\u0661" + "\u0661" * 12, "[card]"),
        ("ann\uff20example\uff0eorg", "[email]"),
        ("j\u00f6rg@m\u00fcller.de, jo\u0308rg@mu\u0308ller.de", "[email], [email]"),
        (
            "\u043f\u043e\u0447\u0442\u0430@\u043f\u043e\u0447\u0442\u0430.\u0440\u0444 \u0438",
            "[email] \u0438",
        ),
        ("\u5361\u53f74111111111111111\u3002", "\u5361\u53f7[card]\u3002"),
        ("de89370400440532013000", "[iban]"),
    ],
)
def test_spelling_hides_nothing(text: str, redacted: str) -> None:
    assert looked_through(text, PII, ignore) == redacted


@given(st.text(max_size=100))
def test_plain_text_is_as_long_as_the_text(text: str) -> None:
    assert len(personal_data.plain(text)) == len(text)
    assert personal_data.plain(personal_data.plain(text)) == personal_data.plain(text)


@given(st.text(max_size=100))
def test_no_candidate_breaks_it(text: str) -> None:
    for kind in personal_data.KINDS:
        for match in personal_data.pattern_of(kind).finditer(text):
            assert len(match.group(0)) <= personal_data.LONGEST
            for start, end in personal_data.accepted(kind, text, match.span()):
                assert match.start() <= start < end <= match.end()
                assert personal_data.may_be_in(text)
