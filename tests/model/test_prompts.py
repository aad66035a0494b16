"""Prompts: what is refused of them, and in whose words."""

from dataclasses import replace
from typing import Any

import pytest

from appliance.model.calls import Dialect
from appliance.model.errors import InvalidRequest
from appliance.model.prompts import (
    Attachment,
    Call,
    CustomTool,
    Message,
    Prompt,
    Refusal,
    Role,
    Text,
    Thinking,
    Tool,
    ToolChoice,
)


def prompt(**attributes: Any) -> Prompt:
    return Prompt(dialect=Dialect.OPENAI, messages=(), names={"answers": "n"}, **attributes)


@pytest.mark.parametrize(
    ("attributes", "field"),
    [
        ({"answers": 2}, "n"),
        ({"top_logprobs": 0}, "top_logprobs"),  # likelihoods, but of no alternatives
        ({"logit_bias": {"1": 1}}, "logit_bias"),
        ({"frequency_penalty": -0.5}, "frequency_penalty"),
        ({"stops": ("x",)}, "stops"),
        ({"parallel_tools": False}, "parallel_tools"),
    ],
)
def test_what_is_set_is_refused_in_the_callers_words(
    attributes: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        prompt(**attributes).refuse("temperature", *attributes)

    assert caught.value.fields[0].field == field


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"answers": 1},
        {"top_logprobs": None},
        {"logit_bias": {}},
        {"frequency_penalty": 0.0},
        {"stops": ()},
        {"parallel_tools": True},
    ],
)
def test_what_asks_for_nothing_unusual_is_not_refused(attributes: dict[str, Any]) -> None:
    prompt(**attributes).refuse(
        "answers", "top_logprobs", "logit_bias", "frequency_penalty", "stops", "parallel_tools"
    )


def test_what_only_one_dialect_knows_is_refused_by_its_name() -> None:
    prompt().refuse_others()
    with pytest.raises(InvalidRequest, match=r"tools\[1\]\.type: cannot be expressed"):
        prompt(others={"tools[1].type": "custom"}).refuse_others()


def test_functions_are_all_that_some_know() -> None:
    ran = Call(id="c", name="run", arguments="ls", is_custom=True, at="messages[0].tool_calls[0]")
    said = Message(role=Role.ASSISTANT, blocks=(Text(text="I look"), ran))

    assert prompt(tools=(F,)).require_functions() == (F,)
    with pytest.raises(InvalidRequest) as caught:
        prompt(tools=(F, CustomTool(name="run", at="tools[1]"))).require_functions()
    assert caught.value.fields[0].field == "tools[1].type"
    with pytest.raises(InvalidRequest) as caught:
        replace(prompt(tools=(F,)), messages=(said,)).require_functions()
    assert caught.value.fields[0].field == "messages[0].tool_calls[0].type"


def test_where_a_thing_stood_and_whose_it_is_make_no_difference() -> None:
    assert Text(text="x", at="messages[0]") == Text(text="x")
    assert Thinking(hidden="x", dialect=Dialect.ANTHROPIC) == Thinking(hidden="x")


def test_a_messages_text_is_that_of_its_blocks() -> None:
    blocks = (Text(text="a"), Refusal(text="no"), Text(text="b"))

    assert Message(role=Role.ASSISTANT, blocks=blocks).text == "a\n\nb"


F = Tool(name="f")


@pytest.mark.parametrize(
    ("choice", "tools"),
    [
        (None, ()),
        (ToolChoice(mode="auto"), ()),
        (ToolChoice(mode="none"), ()),
        (ToolChoice(mode="none", names=("g",)), ()),
        (ToolChoice(mode="required"), (F,)),
        (ToolChoice(mode="named", names=("f",)), (F,)),
        (ToolChoice(mode="auto", names=("f",)), (F,)),
    ],
)
def test_a_choice_that_can_be_kept_to(choice: ToolChoice | None, tools: tuple[Tool, ...]) -> None:
    prompt(choice=choice, tools=tools).require_choice()


@pytest.mark.parametrize(
    ("choice", "tools", "reason"),
    [
        (ToolChoice(mode="required"), (), "requires a tool, and there are none in tools"),
        (ToolChoice(mode="named", names=("f",)), (), "'f' is not among the tools"),
        (ToolChoice(mode="named", names=("g",)), (F,), "'g' is not among the tools"),
        (ToolChoice(mode="auto", names=("f", "g")), (F,), "'g' is not among the tools"),
    ],
)
def test_a_choice_that_cannot_is_refused(
    choice: ToolChoice, tools: tuple[Tool, ...], reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"choice: {reason}"):
        prompt(choice=choice, tools=tools).require_choice()


def spoken(*messages: Message) -> list[tuple[str, ...]]:
    asked = Prompt(dialect=Dialect.OPENAI, messages=messages).with_speakers()
    return [
        tuple(block.text for block in message.blocks if isinstance(block, Text))
        for message in asked.messages
    ]


def user(*blocks: Text | Attachment, name: str = "") -> Message:
    return Message(role=Role.USER, blocks=blocks, name=name)


def test_several_who_speak_in_one_role_are_told_apart_in_words() -> None:
    picture = Attachment(kind="image", url="https://example.org/x")

    assert spoken(
        user(Text(text="Hi"), Text(text="you"), name="ann"),
        user(picture, name="bob"),
        user(picture, Text(text="Look"), name="bob"),
        user(Text(text="Well?")),
    ) == [("ann: Hi", "you"), ("bob:",), ("bob: Look",), ("Well?",)]


def test_one_name_in_a_role_tells_nobody_apart() -> None:
    answer = Message(role=Role.ASSISTANT, blocks=(Text(text="So."),))
    asked = Prompt(dialect=Dialect.OPENAI, messages=(user(Text(text="Hi"), name="ann"), answer))

    assert asked.with_speakers() is asked


def test_calls_alone_are_said_by_nobody() -> None:
    call = Call(id="c", name="f", arguments="{}")
    one = Message(role=Role.ASSISTANT, blocks=(call,), name="planner")
    other = Message(role=Role.ASSISTANT, blocks=(Text(text="So."),), name="writer")

    assert spoken(one, other) == [(), ("writer: So.",)]


def test_a_long_user_becomes_a_digest_that_is_always_the_same() -> None:
    asked = prompt(user="u" * 159)

    short = asked.with_short_user(64).user
    assert short is not None
    assert len(short) == 64
    assert short == asked.with_short_user(64).user
    assert short != prompt(user="v" * 159).with_short_user(64).user


@pytest.mark.parametrize("user_id", [None, "", "u" * 64])
def test_a_short_user_stays_as_it_is(user_id: str | None) -> None:
    asked = prompt(user=user_id)

    assert asked.with_short_user(64) is asked
