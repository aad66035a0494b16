"""An answer that is looked through on its way."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import pytest
import trio

from appliance.config.guardrail_schema import compile_pattern
from appliance.model.calls import (
    Delta,
    Finished,
    FinishReason,
    LogprobsDelta,
    ReasoningDelta,
    ReasoningSeal,
    TextDelta,
    ToolCallDelta,
)
from appliance.model.errors import GuardrailBlocked
from appliance.services.guardrails.replies import GuardedReply
from appliance.services.guardrails.windows import Detector
from tests.fakes.providers import FakeReply

END = Finished(FinishReason.STOP, None)
SECRET = compile_pattern("secret")


@dataclass
class Scripted(FakeReply):
    parts: Sequence[Sequence[Delta]] = ()

    async def deltas(self) -> AsyncGenerator[Sequence[Delta], None]:
        for part in self.parts:
            await trio.lowlevel.checkpoint()
            yield part


async def read(*parts: Sequence[Delta], action: str = "redact") -> list[Delta]:
    def met(detector: Detector) -> None:
        if action == "block":
            raise GuardrailBlocked(detector.rule)

    detectors = [Detector("words", action, "", SECRET)]
    reply = GuardedReply(Scripted(parts=parts), "mock", detectors, met)
    async with aclosing(reply.deltas()) as answer:
        return [delta async for deltas in answer for delta in deltas]


async def test_a_text_over_several_deltas_is_redacted() -> None:
    assert await read([TextDelta("a se")], [TextDelta("cret b"), END]) == [
        TextDelta("a [redacted] b"),
        END,
    ]


async def test_reasoning_and_text_are_told_apart_and_stay_in_order() -> None:
    told = await read(
        [ReasoningDelta("secret "), ReasoningDelta("thought"), ReasoningSeal(signature="s")],
        [TextDelta("answer")],
        [END],
    )

    assert told == [
        ReasoningDelta("[redacted] thought"),
        ReasoningSeal(signature="s"),
        TextDelta("answer"),
        END,
    ]


async def test_arguments_of_tools_are_looked_through() -> None:
    told = await read(
        [ToolCallDelta(0, "c0", "f", '{"a":"se')],
        [ToolCallDelta(0, arguments='cret"}')],
        [ToolCallDelta(1, "c1", "g", "{}"), END],
    )

    assert told == [
        ToolCallDelta(0, "c0", "f", ""),
        ToolCallDelta(0, arguments='{"a":"[redacted]"}'),
        ToolCallDelta(1, "c1", "g", ""),
        ToolCallDelta(1, arguments="{}"),
        END,
    ]


async def test_probabilities_of_tokens_are_left_out() -> None:
    assert await read([TextDelta("x"), LogprobsDelta([{"token": "secret"}]), END]) == [
        TextDelta("x"),
        END,
    ]


async def test_a_rule_that_blocks_ends_the_answer() -> None:
    with pytest.raises(GuardrailBlocked, match="words") as blocked:
        await read([TextDelta("se")], [TextDelta("cret")], [END], action="block")

    assert "secret" not in blocked.value.detail


async def test_an_answer_that_breaks_off_keeps_nothing_back() -> None:
    assert await read([TextDelta("half")]) == [TextDelta("half")]
