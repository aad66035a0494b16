"""Whether a stream's events all came, once, whole and in order."""

from collections.abc import Sequence
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class FrameReport:
    """What happened to the events of one or more streams. Only the first three may be above 0."""

    chunks: int = 0  # pieces they came in
    events: int = 0  # that arrived as they were sent
    comments: int = 0  # keep-alive lines: allowed, not counted as events
    lost: int = 0
    repeated: int = 0
    reordered: int = 0
    merged: int = 0  # several events without a blank line between them
    changed: int = 0  # anything else that is not, byte for byte, an event of the upstream
    split: int = 0  # chunks that end inside an event

    @property
    def faults(self) -> int:
        return self.lost + self.repeated + self.reordered + self.merged + self.changed + self.split

    def __add__(self, other: "FrameReport") -> "FrameReport":
        return FrameReport(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )

    def __str__(self) -> str:
        named = [f"{f.name} {getattr(self, f.name)}" for f in fields(self)]
        return ", ".join(named)


class FrameChecker:
    """Takes one stream's pieces as they arrive and compares them to what was sent."""

    def __init__(self, expected: Sequence[bytes]) -> None:
        self._expected = expected
        self._places = {event: place for place, event in enumerate(expected)}
        if len(self._places) != len(expected):
            raise ValueError("events must differ from each other")
        self._rest = b""
        self._seen: list[int] = []
        self._chunks = self._comments = self._merged = self._changed = self._split = 0

    @property
    def arrived(self) -> int:
        """How many of the expected events have come so far."""
        return len(self._seen)

    def feed(self, piece: bytes) -> None:
        """One HTTP chunk (or one read, where the answer has none)."""
        self._chunks += 1
        *whole, self._rest = (self._rest + piece).split(b"\n\n")
        if self._rest:
            self._split += 1
        for text in whole:
            self._take(text + b"\n\n")

    def _take(self, event: bytes) -> None:
        place = self._places.get(event)
        if place is not None:
            self._seen.append(place)
        elif event.startswith(b":"):
            self._comments += 1
        elif b"\ndata:" in event:
            self._merged += 1
        else:
            self._changed += 1

    def finish(self) -> FrameReport:
        distinct = set(self._seen)
        furthest = -1
        reordered = repeated = 0
        met: set[int] = set()
        for place in self._seen:
            if place in met:
                repeated += 1
            elif place < furthest:
                reordered += 1
            met.add(place)
            furthest = max(furthest, place)
        return FrameReport(
            chunks=self._chunks,
            events=len(distinct),
            comments=self._comments,
            lost=len(self._expected) - len(distinct),
            repeated=repeated,
            reordered=reordered,
            merged=self._merged,
            changed=self._changed + bool(self._rest),
            split=self._split,
        )


class EventCounter:
    """Counts the events of a stream that is translated on its way, whatever they say."""

    def __init__(self) -> None:
        self._rest = b""
        self.arrived = 0

    def feed(self, piece: bytes) -> None:
        *whole, self._rest = (self._rest + piece).split(b"\n\n")
        self.arrived += sum(not text.startswith(b":") for text in whole)

    def finish(self) -> FrameReport:
        return FrameReport(events=self.arrived, split=bool(self._rest))
