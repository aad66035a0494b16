"""Secrets in what passes by."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocols.secret_watch import SecretSeen, SecretWatch
from tests.protocols.cuts import at_every_position, one_by_one, pieces

SECRET = b"aab-aab-aac"
TEXT = b"what was sent: " + SECRET + b"."


def test_what_holds_no_secret_passes_as_it_is() -> None:
    watch = SecretWatch(SECRET)

    assert watch.feed(b"aab-aab-aab-aa") + watch.feed(b"d") + watch.finish() == b"aab-aab-aab-aad"


def test_only_what_may_be_its_beginning_is_kept_back() -> None:
    watch = SecretWatch(SECRET)

    assert watch.feed(b"data: aab") == b"data: "
    assert watch.feed(b"\n\n") == b"aab\n\n"
    assert watch.feed(b"data: b\n\n") == b"data: b\n\n"


def test_nothing_of_a_secret_passes_however_it_comes() -> None:
    for one, two in at_every_position(TEXT):
        assert b"what was sent: ".startswith(_passed([one, two]))
    assert _passed(one_by_one(TEXT)) == b"what was sent: "


def _passed(parts: list[bytes]) -> bytes:
    watch, passed = SecretWatch(SECRET), b""
    with pytest.raises(SecretSeen):  # noqa: PT012 - whichever part it is
        for part in parts:
            passed += watch.feed(part)
    return passed


@pytest.mark.parametrize("secret", [b"", b"short"])
def test_what_would_be_found_everywhere_is_not_looked_for(secret: bytes) -> None:
    assert SecretWatch(secret).feed(b"a short text") == b"a short text"


@given(st.data())
def test_bytes_pass_unchanged_unless_they_hold_it(data: st.DataObject) -> None:
    text = data.draw(st.lists(st.sampled_from([b"a", b"b", b"aab-", b"aac", b"x"])).map(b"".join))
    watch, passed = SecretWatch(SECRET), b""
    try:
        for part in data.draw(pieces(text)) if text else []:
            passed += watch.feed(part)
        passed += watch.finish()
    except SecretSeen:
        assert SECRET in text
    else:
        assert SECRET not in text
        assert passed == text
