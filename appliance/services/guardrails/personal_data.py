"""Finding what identifies a person. Shapes first, then the check digits where there are any.

Looked for in :func:`plain` text, where a space that does not break, a dash of
typography and a digit of another script are what they stand for.

No match is longer than :data:`LONGEST`, and none goes across a gap as
:func:`last_gap` knows them.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv6Address, ip_address
from typing import Any

from appliance.config.guardrail_schema import compile_pattern

Span = tuple[int, int]
LONGEST = 600  # characters
_JOINED = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ()")
_WITHIN = _JOINED | frozenset("abcdefghijklmnopqrstuvwxyz.:@_%+'/-")
_NEEDED = re.compile("[0-9@:]")
_DIGITS = re.compile(r"[0-9]+")
_CARD_DIGITS = range(19, 12, -1)
_TRAVEL_DIGITS = 15  # of the only cards that begin with 1
_PHONE_DIGITS = range(7, 16)
_SHORTEST_IBAN = 15
_MOST_LOOKED_AT = 0x20000  # no spaces, dashes and digits lie beyond


def _plain_characters() -> dict[int, str]:
    """One for one, so that a place in the one text is the same in the other."""
    found = {0x2212: "-"}  # the minus of mathematics
    # Letters as in addresses of mail. Scripts further on need no spaces between
    # words, and a stream of theirs would be held back for long.
    letters = (*range(0x80, 0x590), *range(0x1E00, 0x2000))
    found |= {code: "x" for code in letters if chr(code).isalpha()}
    for code in range(0x80, _MOST_LOOKED_AT):
        match unicodedata.category(char := chr(code)):
            case "Zs":
                found[code] = " "
            case "Pd":
                found[code] = "-"
            case "Nd":
                found[code] = str(unicodedata.decimal(char))
    # Wide ASCII, as input methods of East Asia write it.
    return found | {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}


_PLAIN = _plain_characters()


def plain(text: str) -> str:
    """``text`` in the characters that personal data is made of; as long as it is."""
    return text if text.isascii() else text.translate(_PLAIN)


def may_be_in(text: str) -> bool:
    """Whether plain ``text`` has a character without which there is no match."""
    return _NEEDED.search(text) is not None


def last_gap(text: str, lowest: int) -> int:
    """The last place in plain ``text``, not before ``lowest``, that no match goes across."""
    for at in range(len(text) - 1, lowest - 1, -1):
        char = text[at]
        if char == " ":
            joins = at > 0 and text[at - 1] in _JOINED
            if joins and (at + 1 == len(text) or text[at + 1] in _JOINED):
                continue
        elif char in _WITHIN:
            continue
        return at + 1
    return lowest


def _as_it_is(text: str) -> Iterator[Span]:
    yield 0, len(text)


def _cards(text: str) -> Iterator[Span]:
    """The longest run of groups of digits that can be a card, from the left."""
    groups = [match.span() for match in _DIGITS.finditer(text)]
    first = 0
    while first < len(groups):
        for last in range(len(groups), first, -1):
            start, end = groups[first][0], groups[last - 1][1]
            digits = [int(char) for char in text[start:end] if char.isdigit()]
            if len(digits) in _CARD_DIGITS and _is_issued(digits) and _luhn(digits):
                yield start, end
                first = last - 1
                break
        first += 1


def _is_issued(digits: list[int]) -> bool:
    """Times in milli-, micro- and nanoseconds begin with 1; one in ten has the check digit."""
    return digits[0] > 1 or (digits[0] == 1 and len(digits) == _TRAVEL_DIGITS)


def _luhn(digits: list[int]) -> bool:
    doubled = (sum(divmod(digit * 2, 10)) for digit in digits[-2::-2])
    return any(digits) and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _phones(text: str) -> Iterator[Span]:
    if sum(map(str.isdigit, text)) in _PHONE_DIGITS:
        yield 0, len(text)


def _ibans(text: str) -> Iterator[Span]:
    """Without what a greedy match took of the words behind it."""
    end = len(text)
    while end >= _SHORTEST_IBAN:
        compact = text[:end].replace(" ", "").upper()
        if len(compact) >= _SHORTEST_IBAN and _mod97(compact) == 1:
            yield 0, end
            return
        end = text.rfind(" ", 0, end)


def _mod97(iban: str) -> int:
    return int("".join(str(int(char, 36)) for char in iban[4:] + iban[:4])) % 97


def _ssns(text: str) -> Iterator[Span]:
    area, group, serial = text.split("-")
    if area not in {"000", "666"} and area < "900" and group != "00" and serial != "0000":
        yield 0, len(text)


def _addresses(text: str) -> Iterator[Span]:
    try:
        address = ip_address(text)
    except ValueError:
        return
    # "d::" is an address, and a piece of many a program.
    groups = [group for group in text.split(":") if group]
    if not isinstance(address, IPv6Address) or len(groups) > 1:
        yield 0, len(text)


# RE2's \b and \d know ASCII only, which is what these shapes are made of.
_SHAPES: Mapping[str, tuple[str, Callable[[str], Iterator[Span]]]] = {
    "email": (
        r"[A-Za-z0-9._%+'-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,7}[A-Za-z]{2,24}\b",
        _as_it_is,
    ),
    "phone": (
        r"\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,5}(?:[ ./-]?\d{1,5}){1,6}\b"
        r"|\(\d{3,5}\)[ .-]?\d{2,4}[ .-]?\d{2,6}\b"
        r"|\b\d{3}[ .-]\d{3}[ .-]\d{4}\b"
        r"|\b0\d{2,4}[ /-]\d{5,9}\b",
        _phones,
    ),
    "card": (r"\b\d(?:[ -]?\d){12,40}\b", _cards),
    "iban": (
        r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"
        r"|\b[a-z]{2}\d{2}[a-z0-9]{11,30}\b",
        _ibans,
    ),
    "ssn": (r"\b\d{3}-\d{2}-\d{4}\b", _ssns),
    "ip": (
        r"\b(?:\d{1,3}\.){3}\d{1,3}\b|\b[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){2,7}\b",
        _addresses,
    ),
}
KINDS = tuple(_SHAPES)
_COMPILED: Mapping[str, Any] = {kind: compile_pattern(_SHAPES[kind][0]) for kind in KINDS}


def pattern_of(kind: str) -> Any:
    return _COMPILED[kind]


def accepted(kind: str, text: str, candidate: Span) -> Iterator[Span]:
    """The parts of a candidate in plain ``text`` that really are of ``kind``."""
    start, end = candidate
    if kind == "card" and _is_fraction(text, start):
        return
    for first, last in _SHAPES[kind][1](text[start:end]):
        yield start + first, start + last


def _is_fraction(text: str, start: int) -> bool:
    """Whether the digits are those behind a point: scores and places on a map have many."""
    return start > 1 and text[start - 1] == "." and text[start - 2].isdigit()
