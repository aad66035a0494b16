"""An answer that is looked through on its way."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from appliance.model.calls import (
    Delta,
    Finished,
    LogprobsDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from appliance.providers.base import Reply
from appliance.services.delta_replies import DeltaReply
from appliance.services.guardrails.windows import Detector, Window

Spoken = TextDelta | ReasoningDelta | RefusalDelta


class GuardedReply(DeltaReply):
    """Raises :exc:`GuardrailBlocked` where a rule that blocks is met."""

    def __init__(
        self,
        inner: Reply,
        model: str,
        detectors: Sequence[Detector],
        met: Callable[[Detector], None],
    ) -> None:
        super().__init__(inner, model)
        self._window = Window(detectors, met)
        self._speaks: type[Spoken] | None = None
        self._arguments_of: int | None = None  # the call whose arguments are in the window

    async def deltas(self) -> AsyncGenerator[Sequence[Delta], None]:
        async with aclosing(self._inner.deltas()) as answer:
            async for deltas in answer:
                shown: list[Delta] = []
                for delta in deltas:
                    self._take(delta, shown)
                if shown:
                    yield shown
        rest: list[Delta] = []
        self._say_rest(rest)
        if rest:
            yield rest

    def _take(self, delta: Delta, shown: list[Delta]) -> None:
        match delta:
            case TextDelta(text) | ReasoningDelta(text) | RefusalDelta(text):
                kind = type(delta)
                if self._speaks is not kind:
                    self._say_rest(shown)
                    self._speaks = kind
                if piece := self._window.feed(text):
                    shown.append(kind(piece))
            case ToolCallDelta():
                if self._arguments_of != delta.index:
                    self._say_rest(shown)
                    self._arguments_of = delta.index
                piece = self._window.feed(delta.arguments)
                if piece or delta.id or delta.name:
                    shown.append(ToolCallDelta(delta.index, delta.id, delta.name, piece))
            case LogprobsDelta():
                pass  # they spell out what was redacted
            case Finished():
                self._say_rest(shown)
                shown.append(delta)
            case _:
                self._say_rest(shown)
                shown.append(delta)

    def _say_rest(self, shown: list[Delta]) -> None:
        """Nothing more of what is in the window will come."""
        rest = self._window.flush()
        if rest and self._speaks is not None:
            shown.append(self._speaks(rest))
        elif rest and self._arguments_of is not None:
            shown.append(ToolCallDelta(self._arguments_of, arguments=rest))
        self._speaks = self._arguments_of = None
