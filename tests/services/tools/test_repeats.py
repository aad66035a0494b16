"""Going in circles is the same call with the same result."""

from appliance.services.tools.repeats import Repeats, Verdict


def test_the_same_is_warned_of_and_then_ended() -> None:
    repeats = Repeats(warn_at=2, end_at=3)

    verdicts = [repeats.note("read", "{}", "same") for _ in range(3)]

    assert verdicts == [Verdict.FINE, Verdict.WARN, Verdict.END]


def test_another_argument_or_result_is_another_call() -> None:
    repeats = Repeats(warn_at=2, end_at=3)

    assert repeats.note("poll", "{}", "1 %") is Verdict.FINE
    assert repeats.note("poll", "{}", "2 %") is Verdict.FINE
    assert repeats.note("poll", '{"x":1}', "2 %") is Verdict.FINE
    assert repeats.note("poll", "{}", "1 %") is Verdict.WARN


def test_what_is_one_text_in_two_parts_is_not_two_texts() -> None:
    repeats = Repeats(warn_at=2, end_at=3)
    repeats.note("a", "bc", "d")

    assert repeats.note("ab", "c", "d") is Verdict.FINE


def test_ending_comes_after_warning_whatever_the_config_says() -> None:
    repeats = Repeats(warn_at=5, end_at=3)

    verdicts = [repeats.note("x", "", "") for _ in range(6)]

    assert verdicts[4:] == [Verdict.WARN, Verdict.END]
