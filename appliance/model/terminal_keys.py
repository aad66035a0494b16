"""What keys send to a terminal, by the names that people and models give them."""

import re

_NAMED = {
    "enter": b"\r", "return": b"\r", "tab": b"\t", "btab": b"\x1b[Z", "escape": b"\x1b",
    "esc": b"\x1b", "space": b" ", "backspace": b"\x7f", "bspace": b"\x7f",
    "up": b"\x1b[A", "down": b"\x1b[B", "right": b"\x1b[C", "left": b"\x1b[D",
    "home": b"\x1b[H", "end": b"\x1b[F", "insert": b"\x1b[2~", "delete": b"\x1b[3~",
    "pageup": b"\x1b[5~", "pgup": b"\x1b[5~", "pagedown": b"\x1b[6~", "pgdn": b"\x1b[6~",
    "f1": b"\x1bOP", "f2": b"\x1bOQ", "f3": b"\x1bOR", "f4": b"\x1bOS", "f5": b"\x1b[15~",
    "f6": b"\x1b[17~", "f7": b"\x1b[18~", "f8": b"\x1b[19~", "f9": b"\x1b[20~",
    "f10": b"\x1b[21~", "f11": b"\x1b[23~", "f12": b"\x1b[24~",
}  # fmt: skip
_CONTROL = re.compile(r"(?:[Cc](?:trl)?-|\^)([A-Za-z@\[\\\]^_])")
_META = re.compile(r"(?:[Mm]|[Aa]lt)-(.+)", re.DOTALL)


def key_bytes(name: str) -> bytes:
    """The bytes of ``Enter``, ``C-c``, ``M-x``, ``Up`` or one character.

    Raises :exc:`ValueError` for a name that means no key.
    """
    if len(name) == 1:
        return name.encode()
    known = _NAMED.get(name.lower())
    if known is not None:
        return known
    if match := _CONTROL.fullmatch(name):
        return bytes([ord(match[1].upper()) & 0x1F])
    if match := _META.fullmatch(name):
        return b"\x1b" + key_bytes(match[1])
    raise ValueError(f"{name[:40]!r} is no key; use names such as Enter, Tab, Up, F5, C-c or M-x")
