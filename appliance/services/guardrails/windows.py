"""Looking through a text that comes in pieces, holding back what may still become a match.

However a text is cut, what comes out is the same: a match is decided only when
as much of the text behind its beginning is there as any match may take.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from appliance.model.errors import GuardrailBlocked
from appliance.services.guardrails import personal_data
from appliance.services.guardrails.personal_data import Span
from appliance.services.guardrails.spellings import Part, Reader, Said, Spelled, moved, read_roughly

LONGEST_DENIED = 256  # characters of a match of a tenant's pattern in an answer
REDACTED = "[redacted]"
_LOOKS_BACK = 2  # characters: a \b sees one, a fraction's point stands behind a digit
_start_of = attrgetter("start")


@dataclass(frozen=True, slots=True)
class Watch:
    """One thing that one rule watches for. ``kind`` is "" for a pattern of somebody's own."""

    rule: str
    action: str
    kind: str

    @property
    def mark(self) -> str:
        return f"[{self.kind}]" if self.kind else REDACTED


@dataclass(frozen=True, slots=True)
class Detector(Watch):
    """… in texts."""

    pattern: Any  # RE2's

    def candidates(
        self, text: str, plain: str, start: int
    ) -> Iterator[tuple[Span, Sequence[Span]]]:
        """What has the shape, from ``start`` on, and the parts of it that are meant.

        ``plain`` is ``text`` in the characters that personal data is made of.
        """
        if not self.kind:
            for match in self.pattern.finditer(text, start):
                if match.start() < match.end():
                    yield match.span(), [match.span()]
            return
        for match in self.pattern.finditer(plain, start):
            yield match.span(), list(personal_data.accepted(self.kind, plain, match.span()))


Met = Callable[[Watch], None]


class Window:
    """One text on its way. ``met`` is called for each match, and may raise to stop the text."""

    def __init__(self, detectors: Sequence[Detector], met: Met) -> None:
        self.has_redacted = False
        self._detectors = detectors
        self._met = met
        self._knows_gaps = all(detector.kind for detector in detectors)
        has_pii = any(detector.kind for detector in detectors)
        longest = LONGEST_DENIED * (not self._knows_gaps), personal_data.LONGEST * has_pii
        self._longest = max(longest)
        self._reader = Reader()
        self._text = ""
        self._plain = ""  # the same, in the characters of personal data
        self._parts: list[Spelled] = []
        self._told = 0  # what is before it has been handed out, or taken away
        self._looked = [0] * len(detectors)  # where each looks on
        self._covered = 0  # the end of what the latest match took
        self._found: list[tuple[Span, Detector]] = []  # matches that are not written yet

    @property
    def is_closed(self) -> bool:
        """Whether the text was JSON, and its end has come."""
        return self._reader.is_closed

    def feed(self, piece: str) -> str:
        """Take more of the text, and return as much as is decided."""
        self._take(self._reader.feed(piece))
        return self._advance(self._decided(told=self._told))

    def pause(self) -> str:
        """Return the rest, as something else is to be said before the text goes on.

        What begins in it and ends in what follows is still met.
        """
        self._take(self._reader.flush())
        return self._advance(len(self._text), look_again=self._decided(told=0))

    def flush(self) -> str:
        """Return the rest: the text has come to its end."""
        self._take(self._reader.flush())
        return self._advance(len(self._text))

    def _take(self, said: Said) -> None:
        size = len(self._text)
        self._parts += [moved(part, size) for part in said.parts]
        self._text += said.text
        self._plain += personal_data.plain(said.text)

    def _decided(self, *, told: int) -> int:
        """Where every match that begins before it can be seen whole, not before ``told``."""
        lowest = max(told, len(self._text) - self._longest - 1)
        decided = personal_data.last_gap(self._plain, lowest) if self._knows_gaps else lowest
        return max(told, self._widened(decided, decided)[0])

    def _widened(self, start: int, end: int) -> Span:
        """Without cutting what can only be kept or taken out as a whole."""
        parts = self._parts
        at = bisect_right(parts, start, key=_start_of) - 1
        if at >= 0 and parts[at].part is not Part.SYNTAX and parts[at].end > start:
            start = parts[at].start
        at = bisect_left(parts, end, key=_start_of) - 1
        if at >= 0 and parts[at].part is not Part.SYNTAX:
            end = max(end, parts[at].end)
        return start, end

    def _advance(self, decided: int, *, look_again: int | None = None) -> str:
        """Say what is before ``decided``, and look on from there, or once more from before it."""
        if decided <= self._told:
            return ""
        for number, detector in enumerate(self._detectors):
            if self._looked[number] < decided:
                self._looked[number] = self._look(detector, self._looked[number], decided)
        found = self._found
        found.sort(key=lambda each: each[0])
        now = [each for each in found if each[0][0] < decided]
        self._found = found[len(now) :]
        out = self._written(now, decided)
        self._told = decided
        if look_again is not None:
            self._looked = [min(looked, look_again) for looked in self._looked]
        self._trim()
        return out

    def _look(self, detector: Detector, start: int, decided: int) -> int:
        """Look from ``start`` on; return where to go on."""
        goes_on = decided
        for (first, last), spans in detector.candidates(self._text, self._plain, start):
            if first >= decided:
                break
            # What ends before what was told was met when it was told.
            self._found += [(span, detector) for span in spans if span[1] > self._told]
            # As in a whole text: the next search begins behind this one.
            goes_on = max(goes_on, last)
        if not detector.kind:
            first_part = bisect_left(self._parts, max(start, self._told), key=_start_of)
            for part in self._parts[first_part:]:
                if part.start >= decided:
                    break
                if part.seen and detector.pattern.search(part.seen):
                    self._found.append(((part.start, part.end), detector))
        return goes_on

    def _written(self, found: Sequence[tuple[Span, Detector]], decided: int) -> str:
        out: list[str] = []
        at = max(self._told, self._covered)
        for span, detector in found:
            self._met(detector)
            if detector.action != "redact":
                continue
            self.has_redacted = True
            start, end = self._widened(*span)
            if end <= at:
                continue  # what overlaps a match is part of it: nothing of either is shown
            if start >= self._covered:
                out += [self._kept(at, start), self._gone(max(at, start), end, detector.mark)]
            else:
                out.append(self._gone(at, end, detector.mark, goes_on=True))
            self._covered = at = end
        out.append(self._kept(at, decided))
        return "".join(out)

    def _kept(self, start: int, end: int) -> str:
        """The text as it was spelled."""
        if start >= end:
            return ""
        out: list[str] = []
        for part in self._within(start, end):
            if part.part is not Part.SYNTAX:
                out += [self._text[start : part.start], part.raw]
                start = part.end
        out.append(self._text[start:end])
        return "".join(out)

    def _gone(self, start: int, end: int, mark: str, *, goes_on: bool = False) -> str:
        """What stands in the place of a match; ``goes_on``: there is a mark before it."""
        out: list[str] = []
        for part in self._within(start, end):
            if part.part is Part.WORD:
                continue
            if part.start > start and not (goes_on and not out):
                out.append(mark)
            if part.part is Part.TOKEN:
                out.append(f'"{mark}"')
            else:
                out.append(self._text[max(part.start, start) : min(part.end, end)])
            start = part.end
        if start < end and not (goes_on and not out):
            out.append(mark)
        return "".join(out)

    def _within(self, start: int, end: int) -> Sequence[Spelled]:
        first = max(0, bisect_right(self._parts, start, key=_start_of) - 1)
        last = bisect_left(self._parts, end, key=_start_of)
        return [part for part in self._parts[first:last] if part.end > start]

    def _trim(self) -> None:
        """Forget what was handed out, but for what is looked back at."""
        gone = min(self._told, *self._looked) - _LOOKS_BACK
        if gone <= 0:
            return
        self._text = self._text[gone:]
        self._plain = self._plain[gone:]
        self._parts = [moved(part, -gone) for part in self._parts if part.end > gone]
        self._told -= gone
        self._covered = max(0, self._covered - gone)
        self._looked = [looked - gone for looked in self._looked]
        self._found = [((a - gone, b - gone), each) for (a, b), each in self._found]


def looked_through(text: str, detectors: Sequence[Detector], met: Met) -> str:
    """A whole text at once."""
    if not _may_hold(text, detectors):
        return text
    window = Window(detectors, met)
    return window.feed(text) + window.flush()


def looked_across(texts: Sequence[str], detectors: Sequence[Detector], met: Met) -> Sequence[str]:
    """Texts that were looked through one by one, for what begins in one and ends in another."""
    if not _may_hold("".join(texts), detectors):
        return texts
    window = Window(detectors, met)
    return [window.feed(text) + window.pause() for text in texts]


def _may_hold(text: str, detectors: Sequence[Detector]) -> bool:
    """Whether there is anything to be found. Most texts hold nothing, and this is the quick way."""
    spelled_out = read_roughly(text)
    texts = (text,) if spelled_out == text else (text, spelled_out)
    for each in texts:
        plain = personal_data.plain(each)
        is_personal = personal_data.may_be_in(plain)
        for detector in detectors:
            if detector.kind and not is_personal:
                continue
            if any(spans for _, spans in detector.candidates(each, plain, 0)):
                return True
    return False


def checked_name(name: str, detectors: Sequence[Detector], met: Met) -> None:
    """Look through a name that others refer to.

    It cannot be redacted: nobody would know what is meant any more. Raises
    :exc:`GuardrailBlocked` where it would have to be.
    """
    found: list[Watch] = []

    def noted(watch: Watch) -> None:
        met(watch)
        if watch.action == "redact":
            found.append(watch)

    if name and looked_through(name, detectors, noted) != name:
        raise GuardrailBlocked(
            found[0].rule, "it is met in the name of a tool, where nothing can be redacted"
        )
