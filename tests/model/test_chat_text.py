"""What of a message's text is kept and shown."""

import pytest

from appliance.model.chat_text import clean_text, one_line, shorten
from appliance.model.errors import InvalidRequest


def test_control_characters_go_and_line_breaks_stay() -> None:
    assert clean_text("a\x1b[1mb\r\nc\td\x7f") == "a[1mb\nc\td"


@pytest.mark.parametrize("text", ["a\x00b", "half \ud800 pair"])
def test_what_no_client_means_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        clean_text(text)


def test_long_texts_are_cut_with_a_mark() -> None:
    assert shorten("abc", 3) == "abc"
    assert shorten("abcd", 3) == "ab…"
    assert one_line("a\n b   c", 80) == "a b c"
