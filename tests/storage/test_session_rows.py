"""What goes into a row is Unicode, and what comes out of one is a value."""

import pytest

from appliance.model.errors import InvalidRequest
from appliance.storage.session_rows import (
    encode,
    estimated_tokens,
    live_row,
    require_unicode,
    session_row,
    whole,
)
from tests.books import NOON
from tests.storage.talks import KEY, store_in_memory


def test_half_a_character_is_refused_by_the_name_of_its_field() -> None:
    for refused in ("\ud83d", "a\udc00b"):
        with pytest.raises(InvalidRequest, match="label"):
            require_unicode(refused, field="label")
        with pytest.raises(InvalidRequest, match="settings"):
            encode({"a": [refused]}, field="settings")
    assert require_unicode("a\0😀", field="label") == "a\0😀"
    assert whole("a\ud83db") == "a?b"


def test_tokens_are_estimated_by_bytes() -> None:
    assert [estimated_tokens(text) for text in ("", "a", "abcd", "abcde", "😀")] == [0, 1, 1, 2, 1]


def test_a_row_is_found_by_key_and_by_id() -> None:
    store = store_in_memory()
    made = store.open_session(KEY, now=NOON)
    row = store._database.read(lambda tx: live_row(tx, KEY.short))
    assert row is not None
    assert row.session() == made
    assert store._database.read(lambda tx: session_row(tx, "WHERE public_id = ?", made.id)) == row
    store._database._connection.close()
