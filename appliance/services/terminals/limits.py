"""For how long a terminal lives: without a key stroke, without anybody, at all."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

import trio

from appliance.config.sandbox_schema import TerminalDefaults
from appliance.model.terminals import EndReason

WARNED = 60.0  # seconds before an end that people are told of


@dataclass(frozen=True, slots=True)
class Countdown:
    """``seconds`` are left."""

    reason: EndReason
    seconds: float

    @property
    def message(self) -> str:
        until = "unless somebody types" if self.reason is EndReason.IDLE else "its time is up then"
        return f"this terminal closes in {self.seconds:.0f} s; {until}"


class TerminalLimits:
    """Only what people do keeps it open: a program that goes on printing does not.

    Times are of Trio's clock.
    """

    def __init__(self, settings: TerminalDefaults) -> None:
        self._settings = settings
        self._began = self._active = trio.current_time()
        self._left_at: float | None = None
        self._warned: dict[EndReason, float] = {}

    @property
    def age(self) -> float:
        return trio.current_time() - self._began

    def touch(self) -> None:
        """Somebody typed, or came."""
        self._active = trio.current_time()

    def note_watched(self, is_watched: bool) -> None:  # noqa: FBT001 - the only thing it is told
        if is_watched:
            self._left_at = None
        elif self._left_at is None:
            self._left_at = trio.current_time()

    def passed(self) -> EndReason | None:
        """The limit that is reached."""
        now = trio.current_time()
        return next((reason for reason, due in self._due() if now >= due), None)

    def warnings(self) -> Iterator[Countdown]:
        """Those that are due now, each once."""
        now = trio.current_time()
        for reason, due in self._due():
            if now >= self._warned_at(reason, due) and self._warned.get(reason) != due:
                self._warned[reason] = due
                yield Countdown(reason, due - now)

    def next_look(self) -> float:
        """When something of this happens, if nobody does anything."""
        now = trio.current_time()
        moments = [due for _, due in self._due()]
        moments += [self._warned_at(reason, due) for reason, due in self._due()]
        return min((moment for moment in moments if moment > now), default=inf)

    def _due(self) -> Iterator[tuple[EndReason, float]]:
        settings = self._settings
        if settings.max_lifetime:
            yield EndReason.LIFETIME, self._began + settings.max_lifetime
        if settings.idle_timeout:
            yield EndReason.IDLE, self._active + settings.idle_timeout
        if self._left_at is not None:
            yield EndReason.DETACHED, self._left_at + settings.detached_timeout

    def _warned_at(self, reason: EndReason, due: float) -> float:
        match reason:
            case EndReason.IDLE:
                return due - min(WARNED, self._settings.idle_timeout / 2)
            case EndReason.LIFETIME:
                return due - min(WARNED, self._settings.max_lifetime / 2)
            case _:
                return inf  # nobody is there to be told
