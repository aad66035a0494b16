"""Conditions and ranges of HTTP requests for files (RFC 9110 §13 and §14)."""

import re
from dataclasses import dataclass

_RANGE = re.compile(r"bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})", re.ASCII | re.IGNORECASE)


class RangeRefused(ValueError):
    """No byte of the file lies in the range that is asked for."""


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes from ``start`` to before ``end``."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


def parse_range(header: str | None, size: int) -> Span | None:
    """The one range that ``header`` asks for of ``size`` bytes; None for the whole.

    What is not understood, and several ranges at once, is the whole, too, as
    the RFC allows. Raises :exc:`RangeRefused`.
    """
    match = _RANGE.fullmatch((header or "").strip())
    if match is None or match[1] == match[2] == "":
        return None
    if not match[1]:
        count = int(match[2])
        if count == 0 or size == 0:
            raise RangeRefused
        return Span(max(0, size - count), size)
    start = int(match[1])
    last = int(match[2]) if match[2] else size - 1
    if match[2] and last < start:
        return None
    if start >= size:
        raise RangeRefused
    return Span(start, min(last + 1, size))


def tags(header: str | None) -> tuple[str, ...]:
    """The entity tags a header lists, with their quotes; ``*`` is one."""
    return tuple(tag.strip() for tag in (header or "").split(",") if tag.strip())


def names(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match names ``etag`` (weak comparison, §8.8.3.2)."""
    found = tags(header)
    return "*" in found or any(tag.removeprefix("W/") == f'"{etag}"' for tag in found)


def matches(header: str | None, etag: str) -> bool:
    """Whether an If-Match allows ``etag`` (strong comparison); one that is absent does."""
    found = tags(header)
    return not found or "*" in found or f'"{etag}"' in found


def range_holds(header: str | None, etag: str) -> bool:
    """Whether an If-Range lets a range count; a date never does, it is too coarse."""
    return header is None or header.strip() == f'"{etag}"'
