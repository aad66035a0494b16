"""Finding what somebody probably meant."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.quotas import QUOTA_KEYS
from appliance.model.spelling import nearest


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("token_per_day", "tokens_per_day"),
        ("tokens-per-day", "tokens_per_day"),
        ("cost_pre_month", "cost_per_month"),
        ("terminal", "terminals"),
        ("channels", "channels"),
        ("", None),
        ("colour", None),
        ("日本語", None),
    ],
)
def test_the_nearest_word_is_found_if_one_is_near(word: str, meant: str | None) -> None:
    assert nearest(word, QUOTA_KEYS) == meant


def test_among_no_words_none_is_near() -> None:
    assert nearest("a", []) is None


def test_the_words_may_come_one_by_one() -> None:
    assert nearest("strem", (word for word in ("stream", "model"))) == "stream"


@given(st.text(), st.lists(st.text(max_size=20), max_size=5))
def test_what_is_proposed_is_one_of_the_words(word: str, known: list[str]) -> None:
    assert nearest(word, known) in {None, *known}


@given(st.text(min_size=1, max_size=80), st.lists(st.text(max_size=20), max_size=5))
def test_a_word_that_is_known_is_the_nearest_to_itself(word: str, known: list[str]) -> None:
    assert nearest(word, [*known, word]) == word


def test_a_word_of_a_megabyte_takes_no_longer() -> None:
    began = time.process_time()
    nearest("tokens_per_day" * 75_000, QUOTA_KEYS)

    # About a millisecond here, minutes if all of it were compared.
    assert time.process_time() - began < 1
