"""The messages of Anthropic's Messages API."""

import base64
from typing import Any

import msgspec
import pytest

from appliance.model.calls import Dialect
from appliance.model.errors import InvalidRequest
from appliance.model.prompts import (
    Attachment,
    Call,
    Message,
    Prompt,
    Refusal,
    Result,
    Role,
    Text,
    Thinking,
)
from appliance.protocols.anthropic_conversation import (
    read_messages,
    read_system,
    write_messages,
    write_system,
)
from appliance.protocols.responses import seals
from tests.protocols.prompting import field_of

CACHE = {"type": "ephemeral", "ttl": "1h"}
DATA = "iVBORw0KGgo="


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def prompt(*messages: Message, dialect: Dialect = Dialect.ANTHROPIC) -> Prompt:
    return Prompt(dialect=dialect, messages=messages)


def written(*messages: Message, dialect: Dialect = Dialect.ANTHROPIC) -> Any:
    return msgspec.json.decode(
        msgspec.json.encode(write_messages(prompt(*messages, dialect=dialect)))
    )


def source(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, **more}


USERS_BLOCKS: list[tuple[dict[str, Any], Text | Attachment]] = [
    (text("Hi"), Text(text="Hi")),
    (text("Hi", cache_control=CACHE), Text(text="Hi", cache=CACHE)),
    (
        {"type": "image", "source": source("base64", media_type="image/png", data=DATA)},
        Attachment(kind="image", media_type="image/png", data=DATA),
    ),
    (
        {
            "type": "image",
            "source": source("url", url="https://example.org/x"),
            "cache_control": CACHE,
        },
        Attachment(kind="image", url="https://example.org/x", cache=CACHE),
    ),
    (
        {"type": "image", "source": source("file", file_id="file_1")},
        Attachment(kind="image", file_id="file_1"),
    ),
    (
        {
            "type": "document",
            "title": "a.pdf",
            "source": source("base64", media_type="application/pdf", data=DATA),
        },
        Attachment(kind="file", media_type="application/pdf", data=DATA, name="a.pdf"),
    ),
    (
        {"type": "document", "source": source("text", media_type="text/plain", data="Hi")},
        Attachment(kind="file", text="Hi"),
    ),
    (
        {"type": "document", "source": source("url", url="https://example.org/x.pdf")},
        Attachment(kind="file", url="https://example.org/x.pdf"),
    ),
    (
        {"type": "document", "source": source("file", file_id="file_1")},
        Attachment(kind="file", file_id="file_1"),
    ),
]


@pytest.mark.parametrize(("block", "read"), USERS_BLOCKS)
def test_what_a_user_shows_is_read_and_written(
    block: dict[str, Any], read: Text | Attachment
) -> None:
    message = Message(role=Role.USER, blocks=(read,))
    messages = [{"role": "user", "content": [block]}]

    assert read_messages(messages) == (message,)
    assert written(message) == messages

    result = {"type": "tool_result", "tool_use_id": "c", "content": [block]}
    answered = Message(role=Role.TOOL, blocks=(Result(call_id="c", parts=(read,)),))
    assert read_messages([{"role": "user", "content": [result]}]) == (answered,)
    assert written(answered) == [{"role": "user", "content": [result]}]


def test_a_turn_of_the_assistants_is_read_and_written() -> None:
    content = [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "redacted_thinking", "data": "d"},
        text("So."),
        {
            "type": "tool_use",
            "id": "toolu_1",
            "name": "f",
            "input": {"x": [1.5, None]},
            "cache_control": CACHE,
        },
    ]
    read = Message(
        role=Role.ASSISTANT,
        blocks=(
            Thinking(text="Hm.", signature="s"),
            Thinking(hidden="d"),
            Text(text="So."),
            Call(id="toolu_1", name="f", arguments='{"x":[1.5,null]}', cache=CACHE),
        ),
    )

    assert read_messages([{"role": "assistant", "content": content}]) == (read,)
    assert written(read) == [{"role": "assistant", "content": content}]


def test_results_become_a_message_before_what_else_is_said() -> None:
    result = {"type": "tool_result", "tool_use_id": "c", "is_error": True, "cache_control": CACHE}
    read = (
        Message(
            role=Role.TOOL, blocks=(Result(call_id="c", parts=(), is_error=True, cache=CACHE),)
        ),
        Message(role=Role.USER, blocks=(Text(text="And?"),)),
    )

    assert read_messages([{"role": "user", "content": [text("And?"), result]}]) == read
    assert written(*read) == [{"role": "user", "content": [result, text("And?")]}]


@pytest.mark.parametrize(
    ("message", "read"),
    [
        ({"role": "user", "content": "Hi"}, (Text(text="Hi"),)),
        ({"role": "user", "content": ""}, ()),
        (
            {
                "role": "user",
                "content": [
                    {
                        "type": "document",
                        "citations": {"enabled": False},
                        "source": {"type": "content", "content": "Hi"},
                    }
                ],
            },
            (Text(text="Hi"),),
        ),
        (
            {
                "role": "user",
                "content": [
                    {
                        "type": "document",
                        "source": {
                            "type": "base64",
                            "media_type": "text/plain",
                            "data": base64.b64encode(b"Hi").decode(),
                        },
                    }
                ],
            },
            (Attachment(kind="file", text="Hi"),),
        ),
    ],
)
def test_other_spellings_mean_the_same(message: dict[str, Any], read: tuple[Any, ...]) -> None:
    assert read_messages([message]) == (Message(role=Role.USER, blocks=read),)


@pytest.mark.parametrize(
    ("system", "blocks"),
    [
        (None, ()),
        ("", ()),
        ("Be brief.", (Text(text="Be brief."),)),
        ([text("Be", cache_control=CACHE)], (Text(text="Be", cache=CACHE),)),
        ([text("Be"), text("brief.")], (Text(text="Be"), Text(text="brief."))),
    ],
)
def test_what_the_system_says_is_read_and_written(system: Any, blocks: tuple[Text, ...]) -> None:
    read = read_system(system)

    assert [message.blocks for message in read] == ([blocks] if blocks else [])
    assert write_system(prompt(*read)) == (system or None)


def test_a_system_message_amid_the_conversation_comes_before_it() -> None:
    read = read_messages(
        [{"role": "user", "content": "Hi"}, {"role": "system", "content": "Be kind."}]
    )

    assert write_system(prompt(*read)) == "Be kind."
    assert written(*read) == [{"role": "user", "content": [text("Hi")]}]


@pytest.mark.parametrize("messages", [None, [], {}, "hi", 5])
def test_messages_are_a_list_with_something_in_it(messages: object) -> None:
    with pytest.raises(InvalidRequest, match="messages"):
        read_messages(messages)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (1, ""),
        ({"role": "tool", "content": "x"}, ".role"),
        ({"role": [], "content": "x"}, ".role"),
        ({"role": "user"}, ".content"),
        ({"role": "user", "content": [5]}, ".content[0]"),
        ({"role": "user", "content": [{"type": "text"}]}, ".content[0]"),
        ({"role": "user", "content": [text("x", cache_control=5)]}, ".content[0].cache_control"),
        ({"role": "user", "content": [{"type": "image", "source": {}}]}, ".content[0].source"),
        (
            {
                "role": "user",
                "content": [{"type": "image", "source": source("url", url="file:///etc/passwd")}],
            },
            ".content[0].source",
        ),
        ({"role": "user", "content": [{"type": "document", "source": {}}]}, ".content[0].source"),
        (
            {
                "role": "user",
                "content": [
                    {"type": "document", "source": {}, "citations": {"enabled": True}},
                ],
            },
            ".content[0].citations",
        ),
        ({"role": "user", "content": [{"type": "search_result"}]}, ".content[0]"),
        ({"role": "user", "content": [{"type": "container_upload"}]}, ".content[0]"),
        ({"role": "assistant", "content": [{"type": "server_tool_use"}]}, ".content[0]"),
        ({"role": "assistant", "content": [{"type": "web_search_tool_result"}]}, ".content[0]"),
        (
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "c", "name": "f", "input": "{}"}],
            },
            ".content[0]",
        ),
        (
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "c", "is_error": "x"}],
            },
            ".content[0].is_error",
        ),
        (
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "c",
                        "content": [{"type": "thinking", "thinking": "x"}],
                    }
                ],
            },
            ".content[0].content[0]",
        ),
        ({"role": "system", "content": [{"type": "image"}]}, ".content[0]"),
    ],
)
def test_what_cannot_be_understood_is_refused_naming_where(message: object, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_messages([message])

    assert field_of(refused.value) == "messages[0]" + field


def test_neighbours_of_one_role_become_one_turn() -> None:
    turns = written(
        Message(role=Role.USER, blocks=(Text(text="a"),)),
        Message(role=Role.USER, blocks=(Text(text="b"), Text(text=""))),
        Message(role=Role.ASSISTANT, blocks=()),
        Message(role=Role.ASSISTANT, blocks=(Refusal(text="No."),)),
    )

    assert turns == [
        {"role": "user", "content": [text("a"), text("b")]},
        {"role": "assistant", "content": [text("No.")]},
    ]


def test_ids_change_the_same_way_always_and_stay_apart() -> None:
    ids = ["call.1", "call_1", "call:1", ""]
    turns = written(
        Message(
            role=Role.ASSISTANT,
            blocks=tuple(Call(id=each, name="f", arguments="{}") for each in ids),
        ),
        Message(role=Role.TOOL, blocks=tuple(Result(call_id=each, parts=()) for each in ids)),
    )

    called = [block["id"] for block in turns[0]["content"]]
    assert called[0] == "call_1"
    assert len(set(called)) == len(ids)
    assert [block["tool_use_id"] for block in turns[1]["content"]] == called


def test_thoughts_without_anthropics_seal_are_left_out() -> None:
    thoughts = (
        Thinking(text="Aloud."),
        Thinking(text="Of another.", hidden="x", dialect=Dialect.RESPONSES),
        Thinking(hidden=seals.seal_hidden("x", Dialect.RESPONSES), dialect=Dialect.ANTHROPIC),
        Thinking(hidden=seals.seal_hidden("y", Dialect.ANTHROPIC)),
        Thinking(text="Mine.", signature="s"),
    )

    (turn,) = written(Message(role=Role.ASSISTANT, blocks=thoughts), dialect=Dialect.OPENAI)

    assert turn["content"] == [
        {"type": "redacted_thinking", "data": "y"},
        {"type": "thinking", "thinking": "Mine.", "signature": "s"},
    ]


def test_text_files_become_documents_of_text() -> None:
    data = base64.b64encode(b"a,b").decode()
    table = Attachment(kind="file", media_type="text/csv", data=data, name="t.csv")

    (turn,) = written(Message(role=Role.USER, blocks=(table,)))

    assert turn["content"] == [
        {
            "type": "document",
            "title": "t.csv",
            "source": {"type": "text", "media_type": "text/plain", "data": "a,b"},
        }
    ]


@pytest.mark.parametrize(
    "block",
    [
        Attachment(kind="audio", media_type="audio/wav", data=DATA, at="here"),
        Attachment(kind="image", media_type="image/heic", data=DATA, at="here"),
        Attachment(kind="file", media_type="text/csv", data="/w==", at="here"),
    ],
)
def test_what_there_is_no_word_for_is_refused_naming_where(block: Attachment) -> None:
    with pytest.raises(InvalidRequest) as refused:
        written(Message(role=Role.USER, blocks=(block,)))

    assert field_of(refused.value) == "here"


def test_the_system_shows_no_pictures_and_does_not_speak_alone() -> None:
    picture = Attachment(kind="image", url="https://example.org/x", at="here")
    with pytest.raises(InvalidRequest, match="here: is no text"):
        write_system(prompt(Message(role=Role.SYSTEM, blocks=(picture,))))
    with pytest.raises(InvalidRequest, match="nobody but the system speaks"):
        written(Message(role=Role.SYSTEM, blocks=(Text(text="x"),)))
