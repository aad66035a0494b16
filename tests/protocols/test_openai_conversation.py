"""The messages of a chat completion."""

from typing import Any

import pytest

from appliance.model.calls import Dialect
from appliance.model.errors import InvalidRequest
from appliance.model.prompts import (
    Attachment,
    Block,
    Call,
    Message,
    Prompt,
    Refusal,
    Result,
    Role,
    Text,
    Thinking,
)
from appliance.protocols.openai_conversation import read_messages, write_messages
from tests.protocols.prompting import field_of

CACHE = {"type": "ephemeral"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
CUSTOM = {"id": "d", "type": "custom", "custom": {"name": "run", "input": "ls"}}
CALLED = Call(id="c", name="f", arguments='{"x":1}')


def one(message: Any) -> Message:
    (read,) = read_messages([message])
    return read


def written(*messages: Message, dialect: Dialect = Dialect.OPENAI) -> list[dict[str, Any]]:
    return write_messages(Prompt(dialect=dialect, messages=messages))


BOTH_WAYS: list[tuple[dict[str, Any], Message]] = [
    (
        {"role": "system", "content": "Be brief.", "name": "rules"},
        Message(role=Role.SYSTEM, blocks=(Text(text="Be brief."),), name="rules"),
    ),
    (
        {"role": "developer", "content": [{"type": "text", "text": "Hi", "cache_control": CACHE}]},
        Message(role=Role.DEVELOPER, blocks=(Text(text="Hi", cache=CACHE),)),
    ),
    ({"role": "user", "content": ""}, Message(role=Role.USER, blocks=())),
    (
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look"},
                {
                    "type": "image_url",
                    "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"},
                },
                {"type": "image_url", "image_url": {"url": "https://example.org/x"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
                {
                    "type": "file",
                    "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"},
                },
                {
                    "type": "file",
                    "file": {"file_data": "data:text/plain;base64,SGk=", "filename": "b.txt"},
                },
                {"type": "file", "file": {"file_id": "file-1"}},
            ],
        },
        Message(
            role=Role.USER,
            blocks=(
                Text(text="Look"),
                Attachment(kind="image", media_type="image/png", data="AAAA", detail="low"),
                Attachment(kind="image", url="https://example.org/x"),
                Attachment(kind="audio", media_type="audio/wav", data="AAAA"),
                Attachment(kind="audio", media_type="audio/mpeg", data="AAAA"),
                Attachment(kind="file", media_type="application/pdf", data="AAAA", name="a.pdf"),
                Attachment(kind="file", text="Hi", name="b.txt"),
                Attachment(kind="file", file_id="file-1"),
            ),
        ),
    ),
    (
        {"role": "assistant", "content": None, "tool_calls": [CALL | {"cache_control": CACHE}]},
        Message(
            role=Role.ASSISTANT,
            blocks=(Call(id="c", name="f", arguments='{"x":1}', cache=CACHE),),
        ),
    ),
    (
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [CUSTOM | {"cache_control": CACHE}, CALL],
        },
        Message(
            role=Role.ASSISTANT,
            blocks=(
                Call(id="d", name="run", arguments="ls", is_custom=True, cache=CACHE),
                CALLED,
            ),
        ),
    ),
    (
        {"role": "assistant", "content": None, "refusal": "No."},
        Message(role=Role.ASSISTANT, blocks=(Refusal(text="No."),)),
    ),
    (
        {
            "role": "assistant",
            "content": [{"type": "refusal", "refusal": "No."}, {"type": "text", "text": "But."}],
        },
        Message(role=Role.ASSISTANT, blocks=(Refusal(text="No."), Text(text="But."))),
    ),
    (
        {"role": "assistant", "content": "So.", "reasoning_content": "Hm."},
        Message(role=Role.ASSISTANT, blocks=(Thinking(text="Hm."), Text(text="So."))),
    ),
    (
        {
            "role": "assistant",
            "content": "So.",
            "reasoning_content": "Hm.",
            "thinking_blocks": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "redacted_thinking", "data": "d"},
            ],
        },
        Message(
            role=Role.ASSISTANT,
            blocks=(Thinking(text="Hm.", signature="s"), Thinking(hidden="d"), Text(text="So.")),
        ),
    ),
    (
        {"role": "tool", "tool_call_id": "c", "content": "42", "cache_control": CACHE},
        Message(
            role=Role.TOOL, blocks=(Result(call_id="c", parts=(Text(text="42"),), cache=CACHE),)
        ),
    ),
    (
        {"role": "tool", "tool_call_id": "c", "content": ""},
        Message(role=Role.TOOL, blocks=(Result(call_id="c", parts=()),)),
    ),
]


@pytest.mark.parametrize(("message", "read"), BOTH_WAYS)
def test_a_message_is_read_and_written(message: dict[str, Any], read: Message) -> None:
    assert one(message) == read
    assert written(read) == [message]


@pytest.mark.parametrize(
    ("message", "read"),
    [
        ({"role": "user"}, Message(role=Role.USER, blocks=())),
        (
            {"role": "user", "content": "Hi", "cache_control": CACHE},
            Message(role=Role.USER, blocks=(Text(text="Hi", cache=CACHE),)),
        ),
        (
            {"role": "assistant", "content": "", "reasoning": "Hm.", "refusal": None},
            Message(role=Role.ASSISTANT, blocks=(Thinking(text="Hm."),)),
        ),
        (
            {
                "role": "user",
                "content": [{"type": "file", "file": {"file_data": "AAAA", "filename": "A.PDF"}}],
            },
            Message(
                role=Role.USER,
                blocks=(
                    Attachment(
                        kind="file", media_type="application/pdf", data="AAAA", name="A.PDF"
                    ),
                ),
            ),
        ),
        (
            {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "42"}]},
            Message(role=Role.TOOL, blocks=(Result(call_id="c", parts=(Text(text="42"),)),)),
        ),
    ],
)
def test_other_spellings_mean_the_same(message: dict[str, Any], read: Message) -> None:
    assert one(message) == read


def test_the_results_of_one_round_are_one_message_and_each_says_where_it_stood() -> None:
    results = [{"role": "tool", "tool_call_id": id_, "content": id_} for id_ in ("a", "b")]

    _, read = read_messages([{"role": "user", "content": "Go"}, *results])

    assert [block.at for block in read.blocks] == ["messages[1]", "messages[2]"]
    assert written(read) == results


def test_functions_from_before_there_were_tools_are_calls_of_tools() -> None:
    call, answer = read_messages(
        [
            {
                "role": "assistant",
                "content": None,
                "function_call": {"name": "f", "arguments": "{}"},
            },
            {"role": "function", "name": "f", "content": "42"},
        ]
    )

    assert call.blocks == (Call(id="call_0_0", name="f", arguments="{}"),)
    assert answer.blocks == (Result(call_id="call_0_0", parts=(Text(text="42"),)),)


@pytest.mark.parametrize("messages", [None, [], {}, "hi", 5])
def test_messages_are_a_list_with_something_in_it(messages: object) -> None:
    with pytest.raises(InvalidRequest, match="messages"):
        read_messages(messages)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (1, ""),
        ({"role": "wizard"}, ".role"),
        ({"role": ["user"]}, ".role"),
        ({}, ".role"),
        ({"role": "user", "content": 5}, ".content"),
        ({"role": "user", "content": [5]}, ".content[0]"),
        ({"role": "user", "content": [{"type": "video"}]}, ".content[0]"),
        ({"role": "user", "content": [{"type": "file", "file": {}}]}, ".content[0].file"),
        (
            {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": 1}]},
            ".content[0].cache_control",
        ),
        ({"role": "user", "content": "x", "name": 5}, ".name"),
        ({"role": "assistant", "audio": {"id": "a"}}, ".audio"),
        ({"role": "assistant", "refusal": 5}, ".refusal"),
        ({"role": "assistant", "tool_calls": [{}]}, ".tool_calls[0]"),
        ({"role": "assistant", "tool_calls": {}}, ".tool_calls"),
        (
            {"role": "assistant", "tool_calls": [CUSTOM | {"custom": {"name": "run"}}]},
            ".tool_calls[0]",
        ),
        (
            {"role": "assistant", "tool_calls": [CUSTOM | {"custom": {"name": "a", "input": {}}}]},
            ".tool_calls[0]",
        ),
        ({"role": "assistant", "function_call": {}}, ".function_call"),
        ({"role": "assistant", "thinking_blocks": [{}]}, ".thinking_blocks[0]"),
        ({"role": "assistant", "reasoning_content": 5}, ".reasoning_content"),
        ({"role": "tool", "content": "x"}, ".tool_call_id"),
        ({"role": "function", "name": "f", "content": "x"}, ".name"),
        (
            {
                "role": "tool",
                "tool_call_id": "c",
                "content": [{"type": "refusal", "refusal": "x"}],
            },
            ".content",
        ),
    ],
)
def test_what_cannot_be_understood_is_refused_naming_where(message: object, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        one(message)

    assert field_of(refused.value) == "messages[0]" + field


def test_marks_and_sealed_thoughts_of_other_dialects_are_left_out() -> None:
    blocks = (
        Thinking(text="Sealed.", signature="s"),
        Thinking(hidden="d"),
        Thinking(text="Aloud."),
        Text(text="So.", cache=CACHE),
    )

    assert written(Message(role=Role.ASSISTANT, blocks=blocks), dialect=Dialect.ANTHROPIC) == [
        {"role": "assistant", "content": "So.", "reasoning_content": "Aloud."}
    ]


def test_the_parts_of_one_turn_become_one_message() -> None:
    parts: list[Block] = [
        Thinking(text="Hm."),
        Text(text="So."),
        CALLED,
        Call(id="d", name="g", arguments="{}"),
    ]
    messages = [Message(role=Role.ASSISTANT, blocks=(part,)) for part in parts]

    (answer,) = written(*messages, dialect=Dialect.RESPONSES)

    assert answer["content"] == "So."
    assert answer["reasoning_content"] == "Hm."
    assert [call["id"] for call in answer["tool_calls"]] == ["c", "d"]


def test_two_answers_in_words_stay_two() -> None:
    messages = [Message(role=Role.ASSISTANT, blocks=(Text(text=each),)) for each in "ab"]

    assert [each["content"] for each in written(*messages)] == ["a", "b"]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (Attachment(kind="file", media_type="application/pdf", data="AAAA"), "document.pdf"),
        (Attachment(kind="file", media_type="font/otf", data="AAAA"), "document.bin"),
        (Attachment(kind="file", text="Hi"), "document.txt"),
        (Attachment(kind="file", text="Hi", name="b"), "b"),
    ],
)
def test_a_file_has_a_name_because_openai_takes_none_without(file: Attachment, name: str) -> None:
    ((part,),) = (each["content"] for each in written(Message(role=Role.USER, blocks=(file,))))

    assert part["file"]["filename"] == name


def test_a_tool_that_failed_without_a_word_says_so() -> None:
    failed = Result(call_id="c", parts=(), is_error=True)

    assert written(Message(role=Role.TOOL, blocks=(failed,)))[0]["content"] == "error"


@pytest.mark.parametrize(
    ("role", "block"),
    [
        (Role.USER, Attachment(kind="image", file_id="f", at="here")),
        (Role.USER, Attachment(kind="file", url="https://example.org/x.pdf", at="here")),
        (Role.SYSTEM, Attachment(kind="image", url="https://example.org/x.png", at="here")),
        (Role.ASSISTANT, Attachment(kind="image", url="https://example.org/x.png", at="here")),
        (Role.USER, Refusal(text="No.", at="here")),
    ],
)
def test_what_there_is_no_word_for_is_refused_naming_where(role: Role, block: Any) -> None:
    message = Message(role=role, blocks=(block, Text(text="x")))

    with pytest.raises(InvalidRequest) as refused:
        written(message, dialect=Dialect.ANTHROPIC)

    assert field_of(refused.value) == "here"
