"""A prompt in the words of Ollama's own chat API."""

import json
from typing import Any

import pytest

from appliance.model.calls import Dialect
from appliance.model.errors import InvalidRequest
from appliance.model.prompts import (
    Attachment,
    Call,
    Format,
    Message,
    Prompt,
    Reasoning,
    Refusal,
    Result,
    Role,
    Text,
    Thinking,
    Tool,
    ToolChoice,
)
from appliance.protocols.ollama_prompts import write_body
from tests.protocols.prompting import field_of

HELLO = (Message(role=Role.USER, blocks=(Text(text="Hi"),)),)
NO_PARAMETERS = {"type": "object", "properties": {}}


def written(*messages: Message, **attributes: Any) -> dict[str, Any]:
    prompt = Prompt(dialect=Dialect.ANTHROPIC, messages=messages or HELLO, **attributes)
    return {name: json.loads(value) for name, value in write_body(prompt).items()}


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            Message(role=Role.DEVELOPER, blocks=(Text(text="a"), Text(text="b"))),
            [{"role": "system", "content": "a\n\nb"}],
        ),
        (
            Message(
                role=Role.USER,
                blocks=(
                    Attachment(kind="image", media_type="image/png", data="AAAA"),
                    Attachment(kind="file", text="1,2", name="t.csv"),
                ),
            ),
            [{"role": "user", "content": "t.csv\n1,2", "images": ["AAAA"]}],
        ),
        (
            Message(
                role=Role.ASSISTANT,
                blocks=(
                    Thinking(text="Hm.", signature="s"),
                    Thinking(hidden="d"),
                    Refusal(text="No."),
                    Call(id="c", name="f", arguments='{"x": 1}'),
                ),
            ),
            [
                {
                    "role": "assistant",
                    "content": "No.",
                    "thinking": "Hm.",
                    "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}],
                }
            ],
        ),
        (
            Message(
                role=Role.TOOL,
                blocks=(
                    Result(call_id="c", parts=(Text(text="1"),)),
                    Result(call_id="d", parts=()),
                ),
            ),
            [{"role": "tool", "content": "1"}, {"role": "tool", "content": ""}],
        ),
    ],
)
def test_a_message_is_written(message: Message, said: list[dict[str, Any]]) -> None:
    assert written(message)["messages"] == said


def test_a_tool_that_failed_without_a_word_says_so() -> None:
    results = (
        Result(call_id="c", parts=(), is_error=True),
        Result(call_id="d", parts=(Text(text="no such file"),), is_error=True),
    )

    said = written(Message(role=Role.TOOL, blocks=results))["messages"]

    assert [each["content"] for each in said] == ["error", "no such file"]


def test_a_result_names_its_tool() -> None:
    call = Message(role=Role.ASSISTANT, blocks=(Call(id="c", name="f", arguments="{}"),))
    result = Message(role=Role.TOOL, blocks=(Result(call_id="c", parts=()),))

    assert written(call, result)["messages"][1]["tool_name"] == "f"


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (None, ["f", "g"]),
        (ToolChoice(mode="auto"), ["f", "g"]),
        (ToolChoice(mode="auto", names=("g",)), ["g"]),
        (ToolChoice(mode="none"), []),
    ],
)
def test_tools_are_shown_as_far_as_they_may_be_called(
    choice: ToolChoice | None, names: list[str]
) -> None:
    tools = (Tool(name="f", description="d"), Tool(name="g"))

    found = written(tools=tools, choice=choice).get("tools", [])

    assert [tool["function"]["name"] for tool in found] == names
    assert all(tool["function"]["parameters"] == NO_PARAMETERS for tool in found)


@pytest.mark.parametrize(
    ("reasoning", "think"),
    [
        (None, None),
        (Reasoning(effort="none"), False),
        (Reasoning(mode="disabled"), False),
        (Reasoning(effort="minimal"), "low"),
        (Reasoning(effort="low"), "low"),
        (Reasoning(effort="medium"), "medium"),
        (Reasoning(effort="high"), "high"),
        (Reasoning(effort="xhigh"), "high"),
        (Reasoning(effort="max"), "max"),
        (Reasoning(mode="enabled", budget=2000), True),
        (Reasoning(mode="adaptive"), True),
        (Reasoning(summary="auto"), None),
    ],
)
def test_how_much_to_think(reasoning: Reasoning | None, think: object) -> None:
    assert written(reasoning=reasoning).get("think") == think


@pytest.mark.parametrize(
    ("attributes", "field"),
    [
        ({"answers": 2}, "n"),
        ({"top_logprobs": 0}, "top_logprobs"),
        ({"logit_bias": {"1": 1}}, "logit_bias"),
        ({"choice": ToolChoice(mode="required")}, "tool_choice"),
        ({"choice": ToolChoice(mode="required"), "tools": (Tool(name="f"),)}, "tool_choice"),
        ({"parallel_tools": False, "tools": (Tool(name="f"),)}, "parallel_tools"),
        ({"reasoning": Reasoning(effort="most")}, "reasoning"),
        ({"others": {"container": "c"}}, "container"),
    ],
)
def test_what_there_is_no_word_for_is_refused_in_the_callers_words(
    attributes: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        written(names={"answers": "n", "choice": "tool_choice"}, **attributes)

    assert field_of(caught.value) == field


@pytest.mark.parametrize(
    "block",
    [
        Attachment(kind="image", url="https://example.org/x", at="here"),
        Attachment(kind="file", media_type="application/pdf", data="AAAA", at="here"),
        Attachment(kind="audio", media_type="audio/wav", data="AAAA", at="here"),
    ],
)
def test_attachments_it_cannot_take_are_refused_naming_where(block: Attachment) -> None:
    with pytest.raises(InvalidRequest) as caught:
        written(Message(role=Role.USER, blocks=(block,)))

    assert field_of(caught.value) == "here"


def test_options_and_formats() -> None:
    found = written(temperature=0, seed=3, stops=("x",), format=Format(kind="json_object"))

    assert found["options"] == {"temperature": 0, "seed": 3, "stop": ["x"]}
    assert found["format"] == "json"


def test_what_is_no_more_than_the_usual_is_left_out() -> None:
    found = written(parallel_tools=True, tools=(Tool(name="f", strict=True),))

    assert list(found["tools"][0]["function"]) == ["name", "parameters"]
    assert "tools" not in written(parallel_tools=False)


def test_what_is_told_about_a_schema_stands_in_it() -> None:
    told = Format(kind="json_schema", schema={"type": "object"}, description="where to")

    assert written(format=told)["format"] == {"type": "object", "description": "where to"}
