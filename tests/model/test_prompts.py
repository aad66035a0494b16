"""Prompts: what is refused of them, and in whose words."""

from typing import Any

import pytest

from appliance.model.calls import Dialect
from appliance.model.errors import InvalidRequest
from appliance.model.prompts import Message, Prompt, Refusal, Role, Text, Thinking


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


def test_where_a_thing_stood_and_whose_it_is_make_no_difference() -> None:
    assert Text(text="x", at="messages[0]") == Text(text="x")
    assert Thinking(hidden="x", dialect=Dialect.ANTHROPIC) == Thinking(hidden="x")


def test_a_messages_text_is_that_of_its_blocks() -> None:
    blocks = (Text(text="a"), Refusal(text="no"), Text(text="b"))

    assert Message(role=Role.ASSISTANT, blocks=blocks).text == "a\n\nb"
