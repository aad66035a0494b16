"""Finding what identifies a person. Shapes first, then the check digits where there are any.

No match is longer than :data:`LONGEST`, and none holds white space but single
spaces between two of :data:`JOINED`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv6Address, ip_address
from typing import Any

from appliance.config.guardrail_schema import compile_pattern

Span = tuple[int, int]
LONGEST = 600  # characters
JOINED = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ()")

_DIGITS = re.compile(r"\d+", re.ASCII)
_CARD_DIGITS = range(19, 12, -1)
_PHONE_DIGITS = range(7, 16)
_SHORTEST_IBAN = 15


def _as_it_is(text: str) -> Iterator[Span]:
    yield 0, len(text)


def _cards(text: str) -> Iterator[Span]:
    """The longest run of groups of digits that Luhn's check digit fits, from the left."""
    groups = [match.span() for match in _DIGITS.finditer(text)]
    first = 0
    while first < len(groups):
        for last in range(len(groups), first, -1):
            start, end = groups[first][0], groups[last - 1][1]
            digits = [int(char) for char in text[start:end] if char.isdigit()]
            if len(digits) in _CARD_DIGITS and _luhn(digits):
                yield start, end
                first = last - 1
                break
        first += 1


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
        compact = text[:end].replace(" ", "")
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
    "iban": (r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", _ibans),
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


def accepted(kind: str, text: str) -> Iterator[Span]:
    """The parts of a candidate that really are of ``kind``."""
    return _SHAPES[kind][1](text)
