"""An answer that is looked through on its way."""

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.config.guardrail_schema import compile_pattern
from appliance.model.calls import (
    Delta,
    Finished,
    FinishReason,
    LogprobsDelta,
    ReasoningDelta,
    ReasoningSeal,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from appliance.model.errors import GuardrailBlocked
from appliance.protocols.answers import AnswerWriter
from appliance.protocols.anthropic_writer import MessagesWriter
from appliance.services.guardrails.replies import GuardedReply
from appliance.services.guardrails.windows import Detector, Watch, looked_through
from tests.fakes.providers import FakeReply
from tests.fakes.writers import chat_writer

END = Finished(FinishReason.STOP, None)
SECRET = compile_pattern("secret")
WORDS = Detector("words", "redact", "", SECRET)


def ignore(watch: Watch) -> None:
    pass


@dataclass
class Scripted(FakeReply):
    parts: Sequence[Sequence[Delta]] = ()

    async def deltas(self) -> AsyncGenerator[Sequence[Delta], None]:
        for part in self.parts:
            await trio.lowlevel.checkpoint()
            yield part


async def read(
    *parts: Sequence[Delta], action: str = "redact", patterns: Sequence[str] = ("secret",)
) -> list[Delta]:
    def met(watch: Watch) -> None:
        if action == "block":
            raise GuardrailBlocked(watch.rule)

    detectors = [Detector("words", action, "", compile_pattern(text)) for text in patterns]
    reply = GuardedReply(Scripted(parts=parts), "mock", detectors, met)
    async with aclosing(reply.deltas()) as answer:
        return [delta async for deltas in answer for delta in deltas]


def arguments(told: Sequence[Delta]) -> dict[int, str]:
    found: dict[int, str] = {}
    for delta in told:
        if isinstance(delta, ToolCallDelta):
            found[delta.index] = found.get(delta.index, "") + delta.arguments
    return found


def words_of(delta: Delta) -> str:
    return delta.text if isinstance(delta, TextDelta | ReasoningDelta | RefusalDelta) else ""


def thoughts_in(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The blocks of thinking in an answer of either API."""
    if "choices" in answer:
        blocks: list[dict[str, Any]] = answer["choices"][0]["message"].get("thinking_blocks", [])
        return blocks
    return [block for block in answer["content"] if block["type"] == "thinking"]


async def test_a_text_over_several_deltas_is_redacted() -> None:
    assert await read([TextDelta("a se")], [TextDelta("cret b"), END]) == [
        TextDelta("a [redacted] b"),
        END,
    ]


async def test_reasoning_and_text_are_told_apart_and_stay_in_order() -> None:
    told = await read(
        [ReasoningDelta("some "), ReasoningDelta("thought"), ReasoningSeal(signature="s")],
        [TextDelta("answer")],
        [END],
    )

    assert told == [
        ReasoningDelta("some thought"),
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
        ToolCallDelta(1, "c1", "g", "{}"),
        END,
    ]


@pytest.mark.parametrize("text", ["tell se|cret {", '{"a": "se|cret"} and', '"se|cret', "se|cret"])
async def test_the_input_of_a_custom_tool_is_looked_through(text: str) -> None:
    first, second = text.split("|")
    told = await read(
        [ToolCallDelta(0, "c0", "run", first, is_custom=True)],
        [ToolCallDelta(0, arguments=second)],
        [END],
    )

    assert isinstance(told[0], ToolCallDelta)
    assert (told[0].id, told[0].name, told[0].is_custom) == ("c0", "run", True)
    assert arguments(told) == {0: text.replace("se|cret", "[redacted]")}


async def test_a_rule_that_blocks_ends_what_a_custom_tool_is_called_with() -> None:
    with pytest.raises(GuardrailBlocked, match="words"):
        await read([ToolCallDelta(0, "c0", "run", "a secret", is_custom=True), END], action="block")


async def test_arguments_that_come_by_turns_are_told_apart() -> None:
    told = await read(
        [ToolCallDelta(0, "c0", "f", '{"a":"se'), ToolCallDelta(1, "c1", "g", '{"b":"sec')],
        [ToolCallDelta(0, arguments="cr"), TextDelta("x"), ToolCallDelta(1, arguments="ret")],
        [ToolCallDelta(0, arguments='et"}'), ToolCallDelta(1, arguments='"'), END],
    )

    assert arguments(told) == {0: '{"a":"[redacted]"}', 1: '{"b":"[redacted]"'}
    assert told[-1] == END


async def test_arguments_are_whole_as_soon_as_they_are_complete() -> None:
    told = await read([ToolCallDelta(0, "c0", "f", '{"a":[]}')], [ToolCallDelta(1, "c1", "g")])

    assert told == [ToolCallDelta(0, "c0", "f", '{"a":[]}'), ToolCallDelta(1, "c1", "g")]


async def test_arguments_stay_json_whatever_is_taken_out() -> None:
    given = {"n": [4242, 0.5], "t": 'a "secret"\n', "secret": {"x": "\u1234 42"}}
    text = json.dumps(given)
    seen = {"n": ["[redacted]", 0.5], "t": 'a "[redacted]"\n', "[redacted]": {"x": "\u1234 42"}}

    for at in range(len(text)):
        told = await read(
            [ToolCallDelta(0, "c0", "f", text[:at])],
            [ToolCallDelta(0, arguments=text[at:]), END],
            patterns=["secret", "4242"],
        )
        assert json.loads(arguments(told)[0]) == seen


async def test_escapes_in_arguments_hide_nothing() -> None:
    told = await read(
        [ToolCallDelta(0, "c", "f", '{"a":"s\\u0065cr'), ToolCallDelta(0, "", "", 'et"}')]
    )

    assert arguments(told) == {0: '{"a":"[redacted]"}'}


async def test_arguments_of_very_many_calls_are_not_all_waited_for() -> None:
    told = await read([ToolCallDelta(i, f"c{i}", "f", '{"a":"x') for i in range(1000)], [END])

    assert arguments(told) == dict.fromkeys(range(1000), '{"a":"x')


@pytest.mark.parametrize("action", ["redact", "block"])
async def test_a_tool_whose_name_is_met_is_not_called(action: str) -> None:
    with pytest.raises(GuardrailBlocked, match="words"):
        await read([ToolCallDelta(0, "c0", "tell_secret", "{}")], action=action)


async def test_a_text_that_goes_on_after_something_else_is_one() -> None:
    told = await read(
        [TextDelta("a se"), ReasoningDelta("hm"), TextDelta("cret "), ToolCallDelta(0, "c", "f")],
        [TextDelta("b sec"), ReasoningSeal(hidden="h"), TextDelta("ret"), END],
    )

    texts = [delta.text for delta in told if isinstance(delta, TextDelta)]
    assert "".join(texts) == "a se[redacted] b sec[redacted]"
    with pytest.raises(GuardrailBlocked):
        await read([TextDelta("se"), ReasoningDelta("x"), TextDelta("cret")], action="block")


async def test_a_changed_thought_loses_its_signature_and_so_do_those_after_it() -> None:
    told = await read(
        [ReasoningDelta("one"), ReasoningSeal(signature="1")],
        [ReasoningDelta("a secret"), ReasoningSeal(signature="2", hidden="h")],
        # Joined to the one before it by whoever reads: the signature would stand under both.
        [ReasoningDelta("three"), ReasoningSeal(signature="3"), ReasoningSeal(hidden="i"), END],
    )

    seals = [delta for delta in told if isinstance(delta, ReasoningSeal)]
    assert seals == [
        ReasoningSeal(signature="1"), ReasoningSeal(hidden="h"), ReasoningSeal(hidden="i"),
    ]  # fmt: skip
    thought = [delta.text for delta in told if isinstance(delta, ReasoningDelta)]
    assert "".join(thought) == "onea [redacted]three"


@pytest.mark.parametrize("writer", [chat_writer, lambda: MessagesWriter(id="msg_1")])
async def test_no_signature_is_ever_told_of_another_text(
    writer: Callable[[], AnswerWriter],
) -> None:
    deltas: list[Delta] = [
        ReasoningDelta("a secret"), ReasoningSeal(signature="1"), TextDelta("said"),
        ReasoningDelta("clean"), ReasoningSeal(signature="2"), TextDelta("said"), END,
    ]  # fmt: skip
    detectors = [Detector("words", "redact", "", SECRET)]
    reply = GuardedReply(Scripted(parts=[deltas]), "mock", detectors, lambda _: None)

    whole = json.loads(await reply.whole(writer()))

    assert not [block for block in thoughts_in(whole) if block.get("signature")]
    assert "[redacted]" in json.dumps(whole)


async def test_rules_that_flag_change_nothing_and_hold_nothing_back() -> None:
    deltas: list[Sequence[Delta]] = [
        [ReasoningDelta("a secret"), ReasoningSeal(signature="s")],
        [TextDelta("se"), LogprobsDelta([{"token": "se"}])],
        [TextDelta("cret"), ToolCallDelta(0, "c", "secret", '{"n":'), END],
    ]
    met: list[Watch] = []
    detectors = [Detector("words", "flag", "", SECRET)]
    reply = GuardedReply(Scripted(parts=deltas), "mock", detectors, met.append)

    async with aclosing(reply.deltas()) as answer:
        assert [told async for told in answer] == deltas
    assert len(met) == 3


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


SAID = st.lists(
    st.sampled_from(["a", "se", "cret", "secret", " ", "secre", "t", "\u200b", "{", '"']),
    max_size=8,
).map("".join)
GIVEN = st.dictionaries(SAID, SAID | st.integers(), max_size=3).map(json.dumps)
ANSWERS = st.tuples(SAID, SAID, SAID, GIVEN, GIVEN, st.randoms(use_true_random=False))


@given(ANSWERS)
@settings(max_examples=200)
def test_however_an_answer_is_mixed_nothing_gets_through(answer: tuple[Any, ...]) -> None:
    *texts, chance = answer
    makers: list[Callable[[str], Delta]] = [
        TextDelta,
        ReasoningDelta,
        RefusalDelta,
        lambda text: ToolCallDelta(0, arguments=text),
        lambda text: ToolCallDelta(1, arguments=text),
    ]
    deltas: list[Delta] = []
    rest = list(texts)
    while any(rest):
        voice = chance.choice([number for number, text in enumerate(rest) if text])
        size = chance.randint(1, 4)
        deltas.append(makers[voice](rest[voice][:size]))
        rest[voice] = rest[voice][size:]
    calls = [ToolCallDelta(0, "c0", "f"), ToolCallDelta(1, "c1", "g")]

    told = trio.run(partial(read, [*calls, *deltas, END]))

    given = arguments(told)
    for index, text in enumerate(texts[3:]):
        assert json.loads(given[index]) == json.loads(looked_through(text, [WORDS], ignore))
    for kind, text in zip((TextDelta, ReasoningDelta, RefusalDelta), texts, strict=False):
        said = "".join(words_of(delta) for delta in told if isinstance(delta, kind))
        assert "secret" not in said
        assert said == text or "[redacted]" in said
    assert told[-1] == END
