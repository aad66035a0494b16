import pytest

from appliance.model.terminals import (
    EndReason,
    Mode,
    SupportPolicy,
    fitting_size,
    shown_title,
    utf16_length,
)


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ((80, 24), (80, 24)),
        ((1, 1), (10, 5)),
        ((10, 5), (10, 5)),
        ((500, 200), (500, 200)),
        ((501, 201), (500, 200)),
        ((100_000, 0), (500, 5)),
    ],
)
def test_a_size_is_brought_within_bounds(asked: tuple[int, int], given: tuple[int, int]) -> None:
    assert fitting_size(*asked) == given


def test_a_title_is_one_printable_line() -> None:
    assert shown_title(" a\x1b]0;b\x07c\nd\u202e ") == "a ]0;b c d"
    assert len(shown_title("x" * 1000)) == 200


def test_length_is_counted_as_clients_count() -> None:
    assert utf16_length("aé€") == 3
    assert utf16_length("😀") == 2


def test_only_an_end_that_somebody_else_brought_needs_words() -> None:
    assert {reason for reason in EndReason if not reason.message} == {EndReason.EXIT}


@pytest.mark.parametrize(
    ("policy", "modes"),
    [("never", set()), ("ask", set()), ("read", {"read"}), ("write", {"read", "write"})],
)
def test_settings_consent_to_no_more_than_they_say(policy: str, modes: set[str]) -> None:
    assert {mode.value for mode in Mode if SupportPolicy(policy).consents_to(mode)} == modes
