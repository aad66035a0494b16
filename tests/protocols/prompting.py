"""Prompts of every shape, for what must hold for all of them.

They are in the form that readers give them: no two messages in a row that
would be read as one, nothing empty that would be left out.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
from hypothesis import strategies as st

from appliance.model.calls import Dialect
from appliance.model.errors import InvalidRequest
from appliance.model.prompts import (
    Attachment,
    Block,
    Call,
    CustomTool,
    Format,
    Grammar,
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

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
names = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
caches = st.none() | st.just({"type": "ephemeral"}) | st.just({"type": "ephemeral", "ttl": "1h"})
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(words, values, max_size=3)
schemas = objects.map(lambda found: {**found, "type": "object", "title": "x"})
_DATA = "iVBORw0KGgo="

pictures = st.builds(
    Attachment,
    kind=st.just("image"),
    media_type=st.sampled_from(["image/png", "image/jpeg"]),
    data=st.just(_DATA),
    cache=caches,
) | st.builds(
    Attachment, kind=st.just("image"), url=st.just("https://example.org/x.png"), cache=caches
)
documents = (
    st.builds(
        Attachment,
        kind=st.just("file"),
        media_type=st.just("application/pdf"),
        data=st.just(_DATA),
        name=words,
        cache=caches,
    )
    | st.builds(Attachment, kind=st.just("file"), text=words, name=words)
    | st.builds(Attachment, kind=st.just("file"), file_id=names, cache=caches)
)
texts = st.builds(Text, text=words, cache=caches)
seals = st.builds(Thinking, text=words, signature=words) | st.builds(Thinking, hidden=words)
calls = st.builds(
    Call,
    id=names,
    name=names,
    arguments=objects.map(lambda found: msgspec.json.encode(found).decode()),
    cache=caches,
)
custom_calls = st.builds(
    Call, id=names, name=names, arguments=st.just("") | words, is_custom=st.just(value=True)
)


@st.composite
def conversations(
    draw: st.DrawFn,
    *,
    seen: st.SearchStrategy[Text | Attachment] = texts | pictures | documents,
    said: st.SearchStrategy[Text | Refusal] = texts,
    thoughts: st.SearchStrategy[list[Thinking]] = st.lists(seals, max_size=2),  # noqa: B008 - strategies are values
    results: st.SearchStrategy[Text | Attachment] = texts | pictures,
    result_caches: st.SearchStrategy[Mapping[str, Any] | None] = caches,
    call: st.SearchStrategy[Call] = calls,
) -> tuple[Message, ...]:
    messages: list[Message] = []
    if draw(st.booleans()):
        messages.append(Message(role=Role.SYSTEM, blocks=(draw(st.builds(Text, text=words)),)))
    for _ in range(draw(st.integers(1, 3))):
        blocks = draw(st.lists(seen, min_size=1, max_size=3))
        messages.append(Message(role=Role.USER, blocks=tuple(blocks)))
        called = draw(st.lists(call, max_size=2, unique_by=lambda each: each.id))
        spoken = draw(st.lists(said, min_size=not called, max_size=2))
        answer: list[Block] = [*draw(thoughts), *spoken, *called]
        messages.append(Message(role=Role.ASSISTANT, blocks=tuple(answer)))
        if called:
            outcomes = [
                Result(
                    call_id=each.id,
                    parts=tuple(draw(st.lists(results, min_size=1, max_size=2))),
                    cache=draw(result_caches),
                )
                for each in called
            ]
            messages.append(Message(role=Role.TOOL, blocks=tuple(outcomes)))
    return tuple(messages)


tools = st.builds(
    Tool,
    name=names,
    description=st.none() | words,
    parameters=st.none() | schemas,
    strict=st.sampled_from([None, True]),
    cache=caches,
)
custom_tools = st.builds(
    CustomTool,
    name=names,
    description=st.none() | words,
    grammar=st.none()
    | st.builds(Grammar, syntax=st.sampled_from(["lark", "regex"]), definition=words),
)


@st.composite
def prompts(
    draw: st.DrawFn, /, messages: st.SearchStrategy[tuple[Message, ...]], **more: Any
) -> Prompt:
    """What both OpenAI's chat and Anthropic's messages can say."""
    listed = draw(st.lists(more.pop("tools", tools), max_size=3, unique_by=lambda each: each.name))
    choice = parallel = None
    if listed:
        choices = [ToolChoice(mode=mode) for mode in ("auto", "none", "required")]
        choices.append(ToolChoice(mode="named", names=(listed[0].name,)))
        choice = draw(st.none() | st.sampled_from(choices))
        if choice is not None and choice.mode != "none":
            parallel = draw(st.none() | st.just(value=False))
    effort = st.sampled_from(["low", "medium", "high", "xhigh", "max"])
    shape = Format(kind="json_schema", name="answer", schema={"type": "object"}, strict=True)
    prompt = Prompt(
        dialect=Dialect.OPENAI,
        messages=draw(messages),
        tools=tuple(listed),
        choice=choice,
        parallel_tools=parallel,
        temperature=draw(st.none() | st.sampled_from([0, 0.5, 1])),
        top_p=draw(st.none() | st.sampled_from([0.25, 1])),
        top_k=draw(st.none() | st.integers(0, 99)),
        stops=tuple(draw(st.lists(words, max_size=2))),
        user=draw(st.none() | words),
        reasoning=draw(st.none() | st.builds(Reasoning, effort=effort)),
        format=draw(st.none() | st.just(shape)),
    )
    return replace(prompt, **{name: draw(strategy) for name, strategy in more.items()})


def body(**members: Any) -> dict[str, bytes]:
    """A request as the door hands it on."""
    return {name: json.dumps(value).encode() for name, value in members.items()}


def field_of(failure: InvalidRequest) -> str:
    return failure.fields[0].field


# Whatever a stranger may put in any place.
nonsense = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
    | st.sampled_from(["text", "user", "assistant", "tool", "x" * 300, "data:image/png;base64,"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from([
            "type", "role", "content", "text", "image_url", "url", "tool_calls", "id", "function",
            "name", "arguments", "source", "data", "input", "tool_use_id", "cache_control",
            "signature", "thinking", "is_error", "media_type", "detail", "filename", "file",
            "custom", "format",
        ]),
        inner,
        max_size=4,
    ),
    max_leaves=10,
)  # fmt: skip
