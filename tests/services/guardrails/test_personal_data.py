"""What identifies a person, and what only looks like it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.services.guardrails import personal_data
from appliance.services.guardrails.windows import Detector, looked_through

PII = [
    Detector("pii", "redact", kind, personal_data.pattern_of(kind)) for kind in personal_data.KINDS
]


def ignore(detector: Detector) -> None:
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


@given(st.integers(0, 10**15 - 1))
def test_every_number_with_the_right_check_digit_is_a_card(number: int) -> None:
    digits = f"{number:015d}"
    cards = [each for last in "0123456789" if (each := digits + last) != "0" * 16]

    found = [each for each in cards if looked_through(each, PII[2:3], ignore) == "[card]"]

    assert len(found) == (0 if number == 0 else 1)


@given(st.text(max_size=100))
def test_no_candidate_breaks_it(text: str) -> None:
    for kind in personal_data.KINDS:
        for match in personal_data.pattern_of(kind).finditer(text):
            assert len(match.group(0)) <= personal_data.LONGEST
            for start, end in personal_data.accepted(kind, match.group(0)):
                assert 0 <= start < end <= len(match.group(0))
