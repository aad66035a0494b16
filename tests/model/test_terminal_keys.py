"""Keys by their names."""

import pytest

from appliance.model.terminal_keys import key_bytes


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("Enter", b"\r"),
        ("enter", b"\r"),
        ("Tab", b"\t"),
        ("C-c", b"\x03"),
        ("Ctrl-D", b"\x04"),
        ("^Z", b"\x1a"),
        ("C-[", b"\x1b"),
        ("C-@", b"\x00"),
        ("M-x", b"\x1bx"),
        ("Alt-Enter", b"\x1b\r"),
        ("Up", b"\x1b[A"),
        ("F5", b"\x1b[15~"),
        ("q", b"q"),
        ("é", "é".encode()),
        ("-", b"-"),
    ],
)
def test_a_key_sends_this(name: str, sent: bytes) -> None:
    assert key_bytes(name) == sent


@pytest.mark.parametrize("name", ["", "Hyper", "C-", "C-cc", "M-", "enter enter", "F13"])
def test_what_is_no_key_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no key"):
        key_bytes(name)
