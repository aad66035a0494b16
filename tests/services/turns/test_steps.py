"""Reading one answer: its text is shown as it comes, its calls are put together."""

from collections.abc import Sequence
from typing import Any

import pytest

from appliance.model.calls import Delta, FinishReason, ReasoningDelta, TextDelta, ToolCallDelta
from appliance.model.errors import UpstreamFailed
from appliance.services.model_calls import OpenCall
from appliance.services.tools.runner import RequestedCall
from appliance.services.turns.messages import Step
from appliance.services.turns.requests import TurnRecord
from appliance.services.turns.steps import StepReader
from tests.services.chatting import DeltaReply


class Sink:
    def __init__(self) -> None:
        self.shown: list[Delta] = []

    async def deltas(self, deltas: Sequence[Delta]) -> None:
        self.shown += deltas


def call_with(*parts: Delta, reason: FinishReason | None = FinishReason.STOP) -> OpenCall:
    nobody: Any = None
    return OpenCall(nobody, nobody, nobody, DeltaReply(parts=parts, reason=reason), nobody, 0.0)


def reader(record: TurnRecord, **more: Any) -> tuple[StepReader, Sink]:
    sink: Any = Sink()
    return StepReader(sink, record, **more), sink


async def test_text_is_shown_and_kept() -> None:
    record = TurnRecord()
    reading, sink = reader(record)

    step = await reading.read(call_with(TextDelta("Hel"), TextDelta("lo")))

    assert step == Step("Hello")
    assert sink.shown == [TextDelta("Hel"), TextDelta("lo")]
    assert record.told == ["Hel", "lo"]


async def test_two_rounds_that_speak_are_told_apart() -> None:
    record = TurnRecord(told=["before"])
    reading, sink = reader(record)

    step = await reading.read(call_with(TextDelta("after")))

    assert step.text == "after"
    assert sink.shown == [TextDelta("\n\n"), TextDelta("after")]


async def test_a_call_in_pieces_is_one_call() -> None:
    call = call_with(
        ToolCallDelta(0, "a", "look", '{"x"'),
        ToolCallDelta(1, "b", "find"),
        ToolCallDelta(0, arguments=":1}"),
        reason=FinishReason.TOOL_CALLS,
    )
    reading, sink = reader(TurnRecord())

    step = await reading.read(call)

    assert step.calls == (RequestedCall("a", "look", '{"x":1}'), RequestedCall("b", "find", ""))
    assert call.tool_calls == 2
    assert sink.shown == []


async def test_what_is_held_back_is_shown_once_it_is_released() -> None:
    reading, sink = reader(TurnRecord(), holds_back=True)

    await reading.read(call_with(ReasoningDelta("hm"), TextDelta("well")))
    assert sink.shown == []
    await reading.release()

    assert sink.shown == [ReasoningDelta("hm"), TextDelta("well")]


async def test_an_answer_that_was_cut_off_says_so() -> None:
    reading, _ = reader(TurnRecord())

    assert (await reading.read(call_with(TextDelta("x"), reason=FinishReason.LENGTH))).was_cut


async def test_an_answer_without_an_end_is_none() -> None:
    reading, _ = reader(TurnRecord())

    with pytest.raises(UpstreamFailed, match="broke off"):
        await reading.read(call_with(TextDelta("x"), reason=None))
