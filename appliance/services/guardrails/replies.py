"""An answer that is looked through on its way.

What is said in one voice is one text, whatever comes between its pieces: what
is said, thought and refused, and the arguments of each call.
"""

from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from appliance.model.calls import (
    Aside,
    Delta,
    Finished,
    LogprobsDelta,
    ReasoningDelta,
    ReasoningSeal,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from appliance.providers.base import Reply
from appliance.services.delta_replies import DeltaReply
from appliance.services.guardrails.windows import Detector, Met, Window, checked_name

Spoken = TextDelta | ReasoningDelta | RefusalDelta
_MOST_CALLS = 256  # whose arguments may still go on


class GuardedReply(DeltaReply):
    """Raises :exc:`GuardrailBlocked` where a rule that blocks is met.

    Rules that only flag change nothing, and hold nothing back.
    """

    def __init__(self, inner: Reply, model: str, detectors: Sequence[Detector], met: Met) -> None:
        super().__init__(inner, model)
        self._detectors = detectors
        self._met = met
        self._is_dry = all(detector.action == "flag" for detector in detectors)
        self._voices: dict[type[Spoken], Window] = {}
        self._speaks: type[Spoken] | None = None
        self._calls: OrderedDict[int, Window] = OrderedDict()
        self._is_spoiled = False  # a thought was changed, and its provider would not know it again

    async def deltas(self) -> AsyncGenerator[Sequence[Delta], None]:
        async with aclosing(self._inner.deltas()) as answer:
            async for deltas in answer:
                shown: list[Delta] = []
                for delta in deltas:
                    self._take(delta, shown)
                if self._is_dry:
                    yield deltas
                elif shown:
                    yield shown
        rest: list[Delta] = []
        self._end(rest)
        if rest and not self._is_dry:
            yield rest

    def _take(self, delta: Delta, shown: list[Delta]) -> None:
        match delta:
            case TextDelta() | ReasoningDelta() | RefusalDelta():
                self._say(delta, shown)
            case ToolCallDelta():
                self._fall_silent(shown)
                self._call(delta, shown)
            case LogprobsDelta() | Aside():
                pass  # they spell out what was redacted, or hold words that nobody has looked at
            case ReasoningSeal():
                self._fall_silent(shown)
                self._seal(delta, shown)
            case Finished():
                self._end(shown)
                shown.append(delta)

    def _say(self, delta: Spoken, shown: list[Delta]) -> None:
        voice = type(delta)
        if self._speaks is not voice:
            self._fall_silent(shown)
            self._speaks = voice
        window = self._voices.get(voice)
        if window is None:
            window = self._voices[voice] = Window(self._detectors, self._met)
        if piece := window.feed(delta.text):
            shown.append(voice(piece))

    def _fall_silent(self, shown: list[Delta]) -> None:
        """Somebody else speaks: the order of what is said stays as it is."""
        if self._speaks is not None and (rest := self._voices[self._speaks].pause()):
            shown.append(self._speaks(rest))
        self._speaks = None

    def _seal(self, seal: ReasoningSeal, shown: list[Delta]) -> None:
        """Drop a signature of what was changed, and all after it.

        A caller may join an unsigned thought with the next one, whose
        signature would then stand under both.
        """
        thoughts = self._voices.get(ReasoningDelta)
        if thoughts is not None and thoughts.has_redacted:
            self._is_spoiled = True
        if not (self._is_spoiled and seal.signature):
            shown.append(seal)
        elif seal.hidden:
            shown.append(ReasoningSeal(hidden=seal.hidden))

    def _call(self, delta: ToolCallDelta, shown: list[Delta]) -> None:
        checked_name(delta.name, self._detectors, self._met)
        window = self._calls.get(delta.index)
        if window is None:
            if len(self._calls) >= _MOST_CALLS:
                self._end_call(next(iter(self._calls)), shown)
            window = self._calls[delta.index] = Window(self._detectors, self._met)
        piece = window.feed(delta.arguments)
        if window.is_closed:
            piece += window.pause()  # whoever waits for whole calls need not wait for the end
        if piece or delta.id or delta.name:
            shown.append(replace(delta, arguments=piece))

    def _end_call(self, index: int, shown: list[Delta]) -> None:
        if rest := self._calls.pop(index).flush():
            shown.append(ToolCallDelta(index, arguments=rest))

    def _end(self, shown: list[Delta]) -> None:
        """Nothing more of what is in the windows will come."""
        self._fall_silent(shown)
        for index in list(self._calls):
            self._end_call(index, shown)
