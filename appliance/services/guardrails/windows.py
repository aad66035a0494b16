"""Looking through a text that comes in pieces, holding back what may still become a match.

However a text is cut, what comes out is the same: a match is decided only when
as much of the text behind its beginning is there as any match may take.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.services.guardrails import personal_data
from appliance.services.guardrails.personal_data import JOINED, Span

LONGEST_DENIED = 256  # characters of a match of a tenant's pattern in an answer


@dataclass(frozen=True, slots=True)
class Detector:
    """One thing that one rule looks for; ``kind`` is "" for a pattern of somebody's own."""

    rule: str
    action: str
    kind: str
    pattern: Any  # RE2's

    @property
    def mark(self) -> str:
        return f"[{self.kind or 'redacted'}]"

    def candidates(self, text: str, start: int) -> Iterator[tuple[Span, Sequence[Span]]]:
        """What has the shape, from ``start`` on, and the parts of it that are meant."""
        for match in self.pattern.finditer(text, start):
            first, last = match.span()
            if first == last:
                continue
            if not self.kind:
                yield (first, last), [(first, last)]
                continue
            parts = personal_data.accepted(self.kind, text[first:last])
            yield (first, last), [(first + a, first + b) for a, b in parts]


class Window:
    """One text on its way. ``met`` is called for each match, and may raise to stop the text."""

    def __init__(self, detectors: Sequence[Detector], met: Callable[[Detector], None]) -> None:
        self._detectors = detectors
        self._met = met
        self._knows_gaps = all(detector.kind for detector in detectors)
        self._text = ""
        self._told = 0  # what is before it has been handed out, or taken away
        self._looked = [0] * len(detectors)  # where each looks on
        self._covered = 0  # the end of what the latest match took
        self._found: list[tuple[Span, Detector]] = []  # matches that are not written yet

    def feed(self, piece: str) -> str:
        """Take more of the text, and return as much as is decided."""
        self._text += piece
        return self._advance(self._decided())

    def flush(self) -> str:
        """Return the rest: the text has come to its end."""
        rest = self._advance(len(self._text))
        self._text, self._told, self._covered, self._found = "", 0, 0, []
        self._looked = [0] * len(self._detectors)
        return rest

    def _decided(self) -> int:
        """Where every match that begins before it can be seen whole."""
        size = len(self._text)
        if not self._knows_gaps:
            has_pii = any(detector.kind for detector in self._detectors)
            longest = max(LONGEST_DENIED, personal_data.LONGEST if has_pii else 0)
            return max(self._told, size - longest - 1)
        lowest = max(self._told, size - personal_data.LONGEST - 1)
        return _last_gap(self._text, lowest)

    def _advance(self, decided: int) -> str:
        if decided <= self._told:
            return ""
        text = self._text
        found = self._found
        for number, detector in enumerate(self._detectors):
            looked = self._looked[number]
            if looked >= decided:
                continue
            goes_on = decided
            for (first, last), spans in detector.candidates(text, looked):
                if first >= decided:
                    break
                found += [(span, detector) for span in spans]
                # As in a whole text: the next search begins behind this one.
                goes_on = max(goes_on, last)
            self._looked[number] = goes_on
        found.sort(key=lambda each: each[0][0])
        now = [each for each in found if each[0][0] < decided]
        self._found = found[len(now) :]
        out = self._written(now, decided)
        self._told = decided
        self._trim()
        return out

    def _written(self, found: Sequence[tuple[Span, Detector]], decided: int) -> str:
        out: list[str] = []
        at = max(self._told, self._covered)
        for (start, end), detector in found:
            self._met(detector)
            if detector.action != "redact":
                continue
            if start >= self._covered:
                out += [self._text[at:start], detector.mark]
            # What overlaps a match is part of it: nothing of either is shown.
            self._covered = at = max(self._covered, end)
        out.append(self._text[at : max(at, decided)])
        return "".join(out)

    def _trim(self) -> None:
        """Forget what was handed out, but for the one character that a \\b looks back at."""
        gone = self._told - 1
        if gone <= 0:
            return
        self._text = self._text[gone:]
        self._told -= gone
        self._covered = max(0, self._covered - gone)
        self._looked = [max(0, looked - gone) for looked in self._looked]
        self._found = [((a - gone, b - gone), each) for (a, b), each in self._found]


def _last_gap(text: str, lowest: int) -> int:
    """The last place, not before ``lowest``, that no match of personal data goes across."""
    for at in range(len(text) - 1, lowest - 1, -1):
        if not text[at].isspace():
            continue
        joins = at > 0 and text[at - 1] in JOINED
        if joins and (at + 1 == len(text) or text[at + 1] in JOINED):
            continue
        return at + 1
    return lowest


def looked_through(
    text: str, detectors: Sequence[Detector], met: Callable[[Detector], None]
) -> str:
    """A whole text at once."""
    window = Window(detectors, met)
    return window.feed(text) + window.flush()
