"""Who was asked before somebody answered."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.model.attempts import Trail, header_safe


def test_a_trail_names_who_did_not_answer_and_why() -> None:
    trail = Trail(attempts=2)
    trail.miss("stub/mock", "rate-limit-exceeded")
    trail.miss("stub/mock", "rate-limit-exceeded")
    trail.miss("spare/other", "cooling")

    assert trail.header() == "stub/mock;reason=rate-limit-exceeded, spare/other;reason=cooling"


@given(st.lists(st.text(max_size=300), max_size=40))
def test_a_trail_is_bounded_and_fit_for_a_header(names: list[str]) -> None:
    trail = Trail()
    for name in names:
        trail.miss(name, "cooling")

    text = trail.header()

    assert len(text) < 2000
    assert text.isascii()
    assert all(" " <= char <= "~" for char in text)


def test_an_ordinary_name_stays_as_it_is() -> None:
    assert header_safe("openrouter/meta/llama-3.1:free") == "openrouter/meta/llama-3.1:free"
    assert header_safe("a/b\r\nset-cookie: x") == "a/b%0D%0Aset-cookie:%20x"
