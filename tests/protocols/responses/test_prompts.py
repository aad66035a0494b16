"""A request of the Responses API, read into a prompt and written from one."""

import contextlib
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from appliance.protocols.responses import seals
from appliance.protocols.responses.items import compaction_item
from appliance.protocols.responses.prompts import read_prompt, write_body
from appliance.protocols.translation import read_prompt as read_any
from appliance.protocols.translation import write_body as write_any
from tests.protocols.prompting import (
    body,
    calls,
    conversations,
    custom_calls,
    custom_tools,
    field_of,
    nonsense,
    pictures,
    prompts,
    tools,
    words,
)

CUSTOM = {"type": "custom", "name": "run"}
SEARCH = {"type": "web_search"}

_texts = st.builds(Text, text=words)
_pictures = pictures.map(lambda each: replace(each, cache=None))
_documents = (
    st.builds(
        Attachment,
        kind=st.just("file"),
        media_type=st.just("application/pdf"),
        data=st.just("iVBORw0KGgo="),
        name=words,
    )
    | st.builds(Attachment, kind=st.just("file"), text=words, name=words)
    | st.builds(Attachment, kind=st.just("file"), file_id=words)
    | st.builds(Attachment, kind=st.just("file"), url=st.just("https://example.org/x"))
    | st.builds(
        Attachment,
        kind=st.just("audio"),
        media_type=st.sampled_from(["audio/wav", "audio/mpeg"]),
        data=st.just("AAAA"),
    )
)
_talk = conversations(
    seen=_texts | _pictures | _documents,
    said=_texts | st.builds(Refusal, text=words),
    thoughts=st.lists(
        st.builds(Thinking, text=words, signature=words)
        | st.builds(Thinking, text=words, hidden=words)
        | st.builds(Thinking, text=words),
        max_size=2,
    ),
    results=_texts | _pictures,
    result_caches=st.none(),
    call=calls.map(lambda each: replace(each, cache=None)) | custom_calls,
)
_own = prompts(
    _talk,
    tools=tools.map(lambda each: replace(each, cache=None)) | custom_tools,
    dialect=st.just(Dialect.RESPONSES),
    stops=st.just(()),
    top_k=st.none(),
    output_limit=st.none() | st.integers(16, 99),
    top_logprobs=st.none() | st.integers(0, 20),
    verbosity=st.none() | st.just("low"),
    frequency_penalty=st.none() | st.just(0.5),
    reasoning=st.none() | st.builds(Reasoning, effort=st.just("low"), summary=st.just("auto")),
    hints=st.sampled_from([{}, {"metadata": {"a": "b"}, "truncation": "auto"}]),
    others=st.sampled_from([{}, {"prompt": {"id": "p"}}]),
    format=st.none()
    | st.just(Format(kind="text"))
    | st.just(Format(kind="json_object"))
    | st.just(Format(kind="json_schema", name="n", schema={"type": "object"}, strict=True)),
)


@given(_own)
def test_what_is_written_is_read_again(prompt: Prompt) -> None:
    assert read_prompt(write_body(prompt)) == prompt


_to_chat = prompts(
    conversations(
        seen=_texts | _pictures,
        said=_texts,
        thoughts=st.just([]),
        results=_texts,
        result_caches=st.none(),
        call=calls.map(lambda each: replace(each, cache=None)),
    ),
    tools=tools.map(lambda each: replace(each, cache=None, strict=True)),
    stops=st.just(()),
    top_k=st.none(),
)


@given(_to_chat)
def test_there_and_back_over_each_other_dialect_nothing_is_lost(prompt: Prompt) -> None:
    start = read_any(Dialect.RESPONSES, write_any(Dialect.RESPONSES, prompt))
    assert replace(start, dialect=Dialect.OPENAI) == prompt
    for dialect in (Dialect.OPENAI, Dialect.ANTHROPIC):
        there = read_any(dialect, write_any(dialect, start))
        back = read_any(Dialect.RESPONSES, write_any(Dialect.RESPONSES, there))
        shape = back.format if back.format is None else replace(back.format, name="answer")
        assert replace(back, format=shape) == start


def test_the_items_of_a_turn_are_one_message() -> None:
    sealed = seals.seal_thinking("hm", "sig")
    items = [
        {"role": "user", "content": "a"},
        {"type": "reasoning", "summary": [], "encrypted_content": sealed},
        {"role": "assistant", "content": "let me see", "phase": "commentary"},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": ""},
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {"type": "function_call_output", "call_id": "c2", "output": ""},
        {"role": "assistant", "content": "one"},
        {"role": "assistant", "content": "two", "phase": "final_answer"},
    ]

    prompt = read_prompt(body(input=items, instructions="be brief"))

    assert prompt.messages == (
        Message(role=Role.SYSTEM, blocks=(Text(text="be brief"),)),
        Message(role=Role.USER, blocks=(Text(text="a"),)),
        Message(
            role=Role.ASSISTANT,
            blocks=(
                Thinking(text="hm", signature="sig"),
                Text(text="let me see"),
                Call(id="c1", name="f", arguments="{}"),
                Call(id="c2", name="g", arguments="{}"),
            ),
            phase="commentary",
        ),
        Message(
            role=Role.TOOL,
            blocks=(
                Result(call_id="c1", parts=(Text(text="1"),)),
                Result(call_id="c2", parts=()),
            ),
        ),
        Message(role=Role.ASSISTANT, blocks=(Text(text="one"),)),
        Message(role=Role.ASSISTANT, blocks=(Text(text="two"),), phase="final_answer"),
    )


def test_what_an_agents_own_tool_did_is_a_call_and_its_result() -> None:
    item = {
        "type": "openclaw:tool_call",
        "call_id": "c",
        "name": "exec",
        "arguments": "{}",
        "output": "boom",
        "is_error": True,
    }

    call, result = read_prompt(body(input=[item])).messages

    assert call.blocks == (Call(id="c", name="exec", arguments="{}"),)
    assert result.blocks == (Result(call_id="c", parts=(Text(text="boom"),), is_error=True),)


def test_a_summary_of_ours_is_said_and_a_providers_refused() -> None:
    (message,) = read_prompt(body(input=[compaction_item("they met")])).messages

    assert message.role is Role.USER
    assert message.text.endswith("they met")
    foreign = {"type": "compaction", "encrypted_content": "gAAA"}
    with pytest.raises(InvalidRequest) as caught:
        read_prompt(body(input=[foreign]))
    assert field_of(caught.value) == "input[0]"


def test_thought_that_a_provider_hid_goes_back_as_it_was() -> None:
    hidden = seals.seal_hidden("gAAA", Dialect.RESPONSES)
    carried = Thinking(hidden=hidden, dialect=Dialect.ANTHROPIC)
    foreign = Thinking(hidden="redacted", dialect=Dialect.ANTHROPIC)
    message = Message(role=Role.ASSISTANT, blocks=(carried, foreign))

    (mine, theirs) = msgspec.json.decode(
        write_body(Prompt(dialect=Dialect.ANTHROPIC, messages=(message,)))["input"]
    )

    assert mine["encrypted_content"] == "gAAA"
    (read,) = read_prompt(body(input=[theirs])).messages[0].blocks
    assert isinstance(read, Thinking)
    assert (read.hidden, read.dialect) == ("redacted", Dialect.ANTHROPIC)


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"stop": ["a"]}, "stop"),
        ({"n": 2}, "n"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"web_search_options": {}}, "web_search_options"),
    ],
)
def test_what_there_is_no_word_for_is_refused_in_the_callers(
    members: dict[str, Any], field: str
) -> None:
    asked = body(messages=[{"role": "user", "content": "a"}], **members)

    with pytest.raises(InvalidRequest) as caught:
        write_body(read_any(Dialect.OPENAI, asked))

    assert field_of(caught.value) == field


@pytest.mark.parametrize(
    ("reasoning", "effort"),
    [
        (Reasoning(mode="disabled"), "none"),
        (Reasoning(mode="enabled", budget=1024), "low"),
        (Reasoning(mode="enabled", budget=8000), "medium"),
        (Reasoning(mode="enabled", budget=32000), "high"),
        (Reasoning(mode="adaptive", effort="max"), "max"),
    ],
)
def test_a_budget_for_thinking_is_said_as_an_effort(reasoning: Reasoning, effort: str) -> None:
    prompt = Prompt(dialect=Dialect.ANTHROPIC, messages=(), reasoning=reasoning)

    assert msgspec.json.decode(write_body(prompt)["reasoning"]) == {"effort": effort}


def test_tools_of_other_dialects_are_not_made_strict() -> None:
    tool = Tool(name="f", parameters={"type": "object", "title": "x"})
    for dialect, strict in ((Dialect.OPENAI, False), (Dialect.RESPONSES, None)):
        prompt = Prompt(dialect=dialect, messages=(), tools=(tool,))
        (written,) = msgspec.json.decode(write_body(prompt)["tools"])
        assert written.get("strict") is strict


@pytest.mark.parametrize(
    ("choice", "written"),
    [
        (ToolChoice(mode="auto"), "auto"),
        (ToolChoice(mode="named", names=("f",)), {"type": "function", "name": "f"}),
        (
            ToolChoice(mode="required", names=("f",)),
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "f"}],
            },
        ),
    ],
)
def test_what_to_call_has_the_flat_form(choice: ToolChoice, written: object) -> None:
    prompt = Prompt(dialect=Dialect.RESPONSES, messages=(), tools=(Tool(name="f"),), choice=choice)
    members = write_body(prompt)

    assert msgspec.json.decode(members["tool_choice"]) == written
    assert read_prompt({**members, "input": b'"a"'}).choice == choice


def test_what_only_this_api_has_is_refused_elsewhere() -> None:
    for members in ({"prompt": {"id": "p"}}, {"reasoning": {"mode": "pro"}}):
        prompt = read_prompt(body(input="a", **members))
        for dialect in (Dialect.OPENAI, Dialect.ANTHROPIC):
            with pytest.raises(InvalidRequest):
                write_any(dialect, prompt)


@given(
    st.dictionaries(
        st.sampled_from(
            ["input", "tools", "tool_choice", "text", "reasoning", "include", "instructions"]
        ),
        nonsense,
        max_size=4,
    ),
    st.sampled_from([Dialect.OPENAI, Dialect.ANTHROPIC, Dialect.OLLAMA, Dialect.RESPONSES]),
)
def test_whatever_comes_is_translated_or_refused(members: dict[str, Any], to: Dialect) -> None:
    with contextlib.suppress(InvalidRequest):
        write_any(to, read_prompt(body(**members)))


@given(nonsense, st.sampled_from(["message", "function_call_output", "reasoning", "function_call"]))
def test_whatever_an_item_holds_is_translated_or_refused(value: Any, kind: str) -> None:
    names = ["content", "output", "summary", "encrypted_content", "arguments", "call_id", "role"]
    whole = {"type": kind, "role": "user", "call_id": "c", "name": "f", "arguments": "{}"}
    for name in names:
        with contextlib.suppress(InvalidRequest):
            write_body(read_prompt(body(input=[{**whole, "content": [], name: value}])))
    for part in ("input_text", "input_image", "input_file", "input_audio"):
        given_ = value if isinstance(value, dict) else {"image_url": value, "file_data": value}
        item = {"role": "user", "content": [{**given_, "type": part}]}
        with contextlib.suppress(InvalidRequest):
            write_body(read_prompt(body(input=[item])))


@pytest.mark.parametrize("to", [Dialect.OPENAI, Dialect.ANTHROPIC, Dialect.OLLAMA])
@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"tools": [{"type": "function", "name": "a"}, SEARCH]}, "tools[1].type"),
        (
            {
                "tools": [SEARCH],
                "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [SEARCH]},
            },
            "tools[0].type",
        ),
        ({"tools": [{**CUSTOM, "defer_loading": True}]}, "tools[0].defer_loading"),
        (
            {"tools": [{**CUSTOM, "format": {"type": "text", "definition": "x"}}]},
            "tools[0].format.definition",
        ),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input[0].type"),
        ({"prompt_cache_options": {"prewarm": True}}, "prompt_cache_options.prewarm"),
    ],
)
def test_what_only_this_api_has_is_refused_by_name(
    members: dict[str, Any], field: str, to: Dialect
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        write_any(to, read_prompt(body(**{"input": "hi", **members})))

    assert field_of(caught.value) == field
