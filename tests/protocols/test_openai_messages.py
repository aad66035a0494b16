import contextlib
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.errors import InvalidRequest
from appliance.protocols.openai_messages import (
    Attachment,
    Message,
    Text,
    ToolCall,
    read_member,
    read_messages,
    read_stops,
    read_tools,
    refuse_unknown,
)


def body(**members: Any) -> Mapping[str, bytes]:
    return {name: msgspec.json.encode(value) for name, value in members.items()}


def one(message: Any) -> Message:
    (read,) = read_messages(body(messages=[message]))
    return read


def test_text_is_one_part() -> None:
    assert one({"role": "user", "content": "hi"}).parts == (Text("hi"),)


def test_a_developer_speaks_as_the_system() -> None:
    assert one({"role": "developer", "content": "be brief"}).role == "system"


@pytest.mark.parametrize("content", [None, "", []])
def test_an_answer_that_only_calls_tools_has_no_parts(content: object) -> None:
    call = {"id": "c1", "function": {"name": "look", "arguments": '{"at": 1}'}}

    read = one({"role": "assistant", "content": content, "tool_calls": [call]})

    assert read.parts == ()
    assert read.calls == (ToolCall("c1", "look", {"at": 1}),)


def test_a_tools_message_names_the_call_it_answers() -> None:
    assert one({"role": "tool", "tool_call_id": "c1", "content": "42"}).answers == "c1"


def test_the_text_of_a_message_is_that_of_its_parts() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "refusal", "refusal": "two"}]

    assert one({"role": "user", "content": parts}).text == "one\n\ntwo"


@pytest.mark.parametrize(
    ("url", "attachment"),
    [
        ("data:image/PNG;base64,AAAA", Attachment("image", "image/png", "AAAA")),
        ("data:image/png;name=x;base64,AAAA", Attachment("image", "image/png", "AAAA")),
        ("https://example.com/x.png", Attachment("image", url="https://example.com/x.png")),
    ],
)
def test_a_picture_is_data_or_an_address(url: str, attachment: Attachment) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}

    assert one({"role": "user", "content": [part]}).parts == (attachment,)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "data:image/png,AAAA", "", "ftp://x/y"])
def test_any_other_address_is_refused(url: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}

    with pytest.raises(InvalidRequest, match=r"messages\[0\]\.content\[0\]\.image_url\.url"):
        one({"role": "user", "content": [part]})


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (1, r"messages\[0\]"),
        ({"role": "wizard"}, r"messages\[0\]\.role"),
        ({"role": ["user"]}, r"messages\[0\]\.role"),
        ({"role": {}}, r"messages\[0\]\.role"),
        ({}, r"messages\[0\]\.role"),
        ({"role": "tool", "content": "x"}, r"messages\[0\]\.tool_call_id"),
        ({"role": "user", "content": 5}, r"messages\[0\]\.content"),
        ({"role": "user", "content": [5]}, r"messages\[0\]\.content\[0\]"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, r"messages\[0\]\.content\[0\]"),
        ({"role": "assistant", "tool_calls": [{}]}, r"messages\[0\]\.tool_calls\[0\]"),
        (
            {
                "role": "assistant",
                "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "[1]"}}],
            },
            r"messages\[0\]\.tool_calls\[0\]\.function\.arguments",
        ),
    ],
)
def test_what_cannot_be_understood_is_refused_naming_where(message: object, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        one(message)

    assert refused.value.fields[0].field == field.replace("\\", "")


@pytest.mark.parametrize("messages", [None, [], {}, "hi", 5])
def test_messages_are_a_list_with_something_in_it(messages: object) -> None:
    with pytest.raises(InvalidRequest, match="messages"):
        read_messages(body(messages=messages))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "tool_calls", "image_url", "url"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_JSON)
def test_whatever_comes_is_read_or_refused(messages: object) -> None:
    with contextlib.suppress(InvalidRequest):
        read_messages(body(messages=messages))


@pytest.mark.parametrize(
    ("stop", "stops"), [("END", ["END"]), (["a", "b"], ["a", "b"]), (None, []), ([], [])]
)
def test_stops_are_a_list(stop: object, stops: list[str]) -> None:
    assert read_stops(body(stop=stop)) == stops


@pytest.mark.parametrize("stop", [5, {"a": 1}, [1]])
def test_a_stop_that_is_no_text_is_refused(stop: object) -> None:
    with pytest.raises(InvalidRequest, match="stop"):
        read_stops(body(stop=stop))


def test_tools_are_read_as_their_functions() -> None:
    assert read_tools(body(tools=[{"type": "function", "function": {"name": "f"}}])) == [
        {"name": "f"}
    ]
    assert read_tools(body()) == []


@pytest.mark.parametrize("tools", [{"a": 1}, [1], [{}], [{"function": {}}], [{"function": []}]])
def test_a_tool_without_a_name_is_refused(tools: object) -> None:
    with pytest.raises(InvalidRequest, match="tools"):
        read_tools(body(tools=tools))


def test_a_member_that_is_not_there_is_none() -> None:
    assert read_member(body(), "seed") is None
    assert read_member(body(seed=None), "seed") is None


def test_what_the_other_side_has_no_word_for_is_refused_by_name() -> None:
    known, harmless = frozenset({"messages"}), {"n": frozenset({b"1"})}

    refuse_unknown(body(messages=[], n=1, logprobs=None), known=known, harmless=harmless)
    with pytest.raises(InvalidRequest, match="n: cannot be expressed"):
        refuse_unknown(body(n=2), known=known, harmless=harmless)
