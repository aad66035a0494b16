"""What has to come back with a conversation, in a form that is opaque to callers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.calls import Dialect
from appliance.protocols.responses import seals

words = st.text(st.characters(exclude_categories=["Cs"]))


@given(words, words)
def test_what_was_sealed_is_found_again(text: str, signature: str) -> None:
    sealed = seals.seal_thinking(text, signature)

    assert seals.is_ours(sealed)
    assert sealed.isascii()
    assert seals.unseal(sealed) == {"thinking": text, "signature": signature}
    assert seals.summary_of(seals.seal_summary(text)) == text


def test_what_is_hidden_says_whose_it_is() -> None:
    sealed = seals.seal_hidden("gAAA", Dialect.RESPONSES)

    assert seals.hidden_of(sealed, Dialect.RESPONSES) == "gAAA"
    assert seals.hidden_of(sealed, Dialect.ANTHROPIC) is None


@pytest.mark.parametrize("text", ["", "gAAA", "ocm1.", "ocm1.!!", "ocm1.W10", "ocm1.é", "ocm1.e"])
def test_what_is_not_ours_or_damaged_holds_nothing(text: str) -> None:
    assert seals.unseal(text) == {}
    assert seals.summary_of(text) is None
    assert seals.hidden_of(text, Dialect.RESPONSES) is None


def test_known_answer() -> None:
    assert seals.seal_summary("a") == "ocm1.eyJzdW1tYXJ5IjoiYSJ9"
