"""Replacing pieces of a text by exact match, as models edit files.

What is not replaced stays as it is, byte for byte: mixed line endings, a byte
order mark, bytes that are not UTF-8 (as surrogate escapes). Line endings do
not matter for finding a piece; what is put in has those of its surroundings.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

MOST_EDITS = 500
_MOST_COMPARED = 50_000  # lines of a file that are looked through for something similar
_MOST_SHOWN = 12  # lines
_LONGEST_SHOWN = 200  # characters of one of them
_MOST_LISTED = 10  # places of a piece that occurs several times


class EditRefused(ValueError):
    """An edit does not fit the text. The message may quote the text."""


@dataclass(frozen=True, slots=True)
class Edit:
    old: str
    new: str
    everywhere: bool = False  # each occurrence, instead of the only one


@dataclass(frozen=True, slots=True)
class Replacement:
    """What happened in one place; ``line`` is where it begins, counted from 1."""

    line: int
    old: str
    new: str


def apply_edits(text: str, edits: Sequence[Edit]) -> tuple[str, list[Replacement]]:
    """Return ``text`` with all ``edits`` made, and what happened, in the order of the text.

    Every edit is matched against ``text`` as it was given, so none depends on
    another, and none may touch what another replaces. Raises :exc:`EditRefused`
    and changes nothing.
    """
    plain = _Plain(text)
    spans: list[tuple[int, int, str, int]] = []  # from, to, what comes in, which edit
    for number, edit in enumerate(edits):
        label = f"edit {number + 1}: " if len(edits) > 1 else ""
        spans += [(*span, number) for span in _spans(plain, edit, label)]
    spans.sort()
    _require_apart(plain, spans)
    pieces: list[str] = []
    replacements: list[Replacement] = []
    done = 0
    for start, end, new, number in spans:
        begin = plain.origin(start)
        pieces += [text[done:begin], plain.with_endings(new)]
        done = plain.origin(end)
        old = edits[number].old.replace("\r\n", "\n")
        replacements.append(Replacement(plain.line_at(start), old, new))
    pieces.append(text[done:])
    return "".join(pieces), replacements


class _Plain:
    """A text with plain line endings, and the way back to what it was."""

    def __init__(self, text: str) -> None:
        self.text = text
        # Where, in the plain text, a line break stands for two characters.
        self._pairs: list[int] = []
        if "\r\n" in text:
            self.text = text.replace("\r\n", "\n")
            self._pairs = _positions_of_pairs(text)
        self._ending = "\r\n" if 2 * len(self._pairs) > self.text.count("\n") else "\n"
        self._lines: list[int] | None = None

    def origin(self, index: int) -> int:
        """The place in the original of ``index`` of the plain text."""
        return index + bisect_left(self._pairs, index)

    def with_endings(self, new: str) -> str:
        return new if self._ending == "\n" else new.replace("\n", self._ending)

    def line_at(self, index: int) -> int:
        if self._lines is None:
            self._lines = _breaks(self.text)
        return bisect_left(self._lines, index) + 1


def _positions_of_pairs(text: str) -> list[int]:
    found: list[int] = []
    at = text.find("\r\n")
    while at >= 0:
        found.append(at - len(found))
        at = text.find("\r\n", at + 2)
    return found


def _breaks(text: str) -> list[int]:
    found: list[int] = []
    at = text.find("\n")
    while at >= 0:
        found.append(at)
        at = text.find("\n", at + 1)
    return found


def _spans(plain: _Plain, edit: Edit, label: str) -> list[tuple[int, int, str]]:
    old, new = edit.old.replace("\r\n", "\n"), edit.new.replace("\r\n", "\n")
    if not old:
        raise EditRefused(f"{label}oldText is empty; name the text to replace")
    if old == new:
        raise EditRefused(f"{label}oldText and newText are the same; nothing would change")
    places = _occurrences(plain.text, old)
    if not places:
        raise EditRefused(f"{label}oldText is not in the file{_nearest(plain.text, old)}")
    if len(places) > 1 and not edit.everywhere:
        lines = ", ".join(str(plain.line_at(place)) for place in places[:_MOST_LISTED])
        more = ", …" if len(places) > _MOST_LISTED else ""
        raise EditRefused(
            f"{label}oldText occurs {len(places)} times (lines {lines}{more}); "
            "add lines around it until it is the only one, or set replaceAll"
        )
    return [(place, place + len(old), new) for place in places]


def _occurrences(text: str, old: str) -> list[int]:
    places: list[int] = []
    at = text.find(old)
    while at >= 0:
        places.append(at)
        at = text.find(old, at + len(old))
    return places


def _require_apart(plain: _Plain, spans: Sequence[tuple[int, int, str, int]]) -> None:
    for before, after in pairwise(spans):
        if after[0] < before[1]:
            raise EditRefused(
                f"edits {before[3] + 1} and {after[3] + 1} both change line "
                f"{plain.line_at(after[0])}; make them one edit"
            )


def _nearest(text: str, old: str) -> str:
    """The place most like ``old``, for a message; linear in both, whatever they hold."""
    wanted = [line.strip() for line in old.split("\n")]
    known = {line for line in wanted if len(line) > 1}
    lines = list(islice(text.split("\n"), _MOST_COMPARED))
    hits = [line.strip() in known for line in lines]
    if not known or not any(hits):
        return "; read it again, it may have changed"
    window = len(wanted)
    count = best = sum(hits[:window])
    start = 0
    for end in range(window, len(lines)):
        count += hits[end] - hits[end - window]
        if count > best:
            best, start = count, end - window + 1
    # What was found may lie at the end of the window: begin where it begins.
    while not hits[start]:
        start += 1
    shown = lines[start : start + min(window, _MOST_SHOWN)]
    quoted = "\n".join(
        f"{start + number + 1}: {line[:_LONGEST_SHOWN]}" for number, line in enumerate(shown)
    )
    return f". The nearest is at line {start + 1}; compare spaces and text:\n{quoted}"
