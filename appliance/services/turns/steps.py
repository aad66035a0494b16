"""Reading one answer of a model: its text is passed on as it comes, its calls are collected."""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from appliance.model.calls import Delta, Finished, FinishReason, TextDelta, ToolCallDelta
from appliance.model.errors import UpstreamFailed
from appliance.services.model_calls import OpenCall
from appliance.services.tools.runner import LARGEST_ARGUMENTS, RequestedCall
from appliance.services.turns.messages import Step, unique_ids
from appliance.services.turns.requests import TurnRecord, TurnSink

_MOST_CALLS = 128  # in one step
_BETWEEN = "\n\n"  # two rounds that both said something


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)


class StepReader:
    """Reads one answer. With ``holds_back`` nothing is shown until :meth:`release`."""

    def __init__(self, sink: TurnSink, record: TurnRecord, *, holds_back: bool = False) -> None:
        self._sink = sink
        self._record = record
        self._held: list[Delta] | None = [] if holds_back else None
        self._calls: dict[int, _Call] = {}
        self._size = 0

    async def read(self, call: OpenCall) -> Step:
        """Raises what the reply raises, and :exc:`UpstreamFailed` for one without an end."""
        record = self._record
        record.text.clear()
        reason: FinishReason | None = None
        async with aclosing(call.reply.deltas()) as answer:
            async for deltas in answer:
                shown: list[Delta] = []
                for delta in deltas:
                    match delta:
                        case Finished():
                            reason = delta.reason
                        case ToolCallDelta():
                            self._take(delta)
                        case TextDelta(piece):
                            shown += self._told(piece)
                        case _:
                            shown.append(delta)
                if shown:
                    await self._show(shown)
        if reason is None:
            raise UpstreamFailed("the model's answer broke off")
        record.reason = reason
        calls = [RequestedCall(c.id, c.name, "".join(c.pieces)) for c in self._calls.values()]
        call.tool_calls = len(calls)
        return Step("".join(record.text), unique_ids(calls), reason is FinishReason.LENGTH)

    async def release(self) -> None:
        held, self._held = self._held, None
        if held:
            await self._sink.deltas(held)

    def _told(self, piece: str) -> list[Delta]:
        record = self._record
        shown: list[Delta] = []
        if not record.text and record.told and piece:
            shown.append(TextDelta(_BETWEEN))
            record.told.append(_BETWEEN)
        record.text.append(piece)
        record.told.append(piece)
        shown.append(TextDelta(piece))
        return shown

    async def _show(self, deltas: Sequence[Delta]) -> None:
        if self._held is None:
            await self._sink.deltas(deltas)
        else:
            self._held += deltas

    def _take(self, delta: ToolCallDelta) -> None:
        call = self._calls.setdefault(delta.index, _Call())
        call.id = call.id or delta.id
        call.name = call.name or delta.name
        call.pieces.append(delta.arguments)
        self._size += len(delta.arguments)
        if len(self._calls) > _MOST_CALLS or self._size > LARGEST_ARGUMENTS:
            raise UpstreamFailed("the model called too many tools at once, or with too much")
