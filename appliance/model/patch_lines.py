"""A text as lines that remember how they end, and can be found by what they say."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate

_TYPOGRAPHY = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        **dict.fromkeys("\u2018\u2019\u201a\u201b", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f", '"'),
        **dict.fromkeys("\u00a0\u2002\u2003\u2007\u2009\u202f\u205f\u3000", " "),
    }
)


class Fuzz(IntEnum):
    """How much a place may differ from what is looked for."""

    EXACT = 0
    TRAILING_SPACE = 1
    SPACE = 2
    TYPOGRAPHY = 3


_READINGS: Sequence[Callable[[str], str]] = (
    str,
    str.rstrip,
    str.strip,
    lambda line: line.strip().translate(_TYPOGRAPHY),
)


@dataclass(frozen=True, slots=True)
class Line:
    """``ending`` is None for a new line, "" for a last one without a line break."""

    text: str
    ending: str | None = None


def split_lines(text: str) -> list[Line]:
    """Lines end with ``\\n`` or ``\\r\\n`` and nothing else, as editors and diffs have it."""
    parts = text.split("\n")
    last = parts.pop()
    lines = [Line(part[:-1], "\r\n") if part.endswith("\r") else Line(part, "\n") for part in parts]
    return [*lines, Line(last, "")] if last else lines


def join_lines(lines: Sequence[Line], *, like: str) -> str:
    """The opposite of :func:`split_lines`.

    New lines end as most lines of ``like`` do; so does one that was the last
    and had no line break, if something now follows it.
    """
    usual = "\r\n" if 2 * like.count("\r\n") > like.count("\n") else "\n"
    last = len(lines) - 1
    parts = []
    for number, line in enumerate(lines):
        ending = usual if line.ending is None else line.ending
        parts.append(line.text + (ending if ending or number == last else usual))
    return "".join(parts)


class LineSearch:
    """Finds runs of lines in linear time, however alike they all are."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._read: dict[Fuzz, _Reading] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def find(self, wanted: Sequence[str], start: int) -> tuple[int, Fuzz] | None:
        """The first place at or after line ``start``; a better fit further on wins."""
        for fuzz in Fuzz:
            if fuzz not in self._read:
                self._read[fuzz] = _Reading(self._lines, _READINGS[fuzz])
            place = self._read[fuzz].find(wanted, start)
            if place is not None:
                return place, fuzz
        return None


class _Reading:
    """All lines in one text, each between two line breaks, so that a search finds whole lines."""

    def __init__(self, lines: Sequence[str], alike: Callable[[str], str]) -> None:
        self._alike = alike
        read = [alike(line) for line in lines]
        self._text = "\n" + "".join(f"{line}\n" for line in read)
        # Where the line break before each line is.
        self._starts = list(accumulate((len(line) + 1 for line in read), initial=0))

    def find(self, wanted: Sequence[str], start: int) -> int | None:
        pattern = "\n" + "".join(f"{self._alike(line)}\n" for line in wanted)
        if start >= len(self._starts):
            return None
        at = self._text.find(pattern, self._starts[start])
        return None if at < 0 else bisect_left(self._starts, at)
