"""Items and the messages that mean the same: what is refused, and in which words."""

from typing import Any

import pytest

from appliance.model.errors import InvalidRequest
from appliance.model.prompts import (
    Attachment,
    Block,
    Message,
    Refusal,
    Result,
    Role,
    Text,
    Thinking,
)
from appliance.protocols.responses.items import input_items
from appliance.protocols.responses.messages import read_messages, write_items
from tests.protocols.prompting import field_of

PNG = "data:image/png;base64,iVBORw0KGgo="


def part(**members: Any) -> list[Any]:
    return [{"role": "user", "content": [members]}]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (
            {"type": "input_image", "image_url": PNG, "detail": "low"},
            Attachment(kind="image", media_type="image/png", data="iVBORw0KGgo=", detail="low"),
        ),
        (
            {"type": "input_image", "image_url": "https://a/b.png"},
            Attachment(kind="image", url="https://a/b.png"),
        ),
        ({"type": "input_image", "file_id": "f"}, Attachment(kind="image", file_id="f")),
        (
            {"type": "input_file", "file_data": "data:text/plain;base64,YQ==", "filename": "a"},
            Attachment(kind="file", text="a", name="a"),
        ),
        (
            {"type": "input_file", "file_data": "data:application/pdf;base64,YQ=="},
            Attachment(kind="file", media_type="application/pdf", data="YQ=="),
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "YQ==", "format": "mp3"}},
            Attachment(kind="audio", media_type="audio/mpeg", data="YQ=="),
        ),
    ],
)
def test_each_part_is_an_attachment(members: dict[str, Any], expected: Attachment) -> None:
    (message,) = read_messages(input_items(part(**members), "input"))

    assert message.blocks == (expected,)


@pytest.mark.parametrize(
    ("items", "field"),
    [
        (part(type="input_image", image_url="file:///etc/passwd"), "input[0].content[0].image_url"),
        (
            part(type="input_image", image_url="data:text/plain;base64,YQ=="),
            "input[0].content[0].image_url",
        ),
        (part(type="input_file", file_url="ftp://a"), "input[0].content[0].file_url"),
        (part(type="input_file", file_data="YQ=="), "input[0].content[0].file_data"),
        ([{"type": "item_reference", "id": "msg_1"}], "input[0]"),
        (
            [{"type": "reasoning", "summary": [], "encrypted_content": "ocm1.x"}],
            "input[0].encrypted_content",
        ),
        (
            [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "[1]"}],
            "input[0].arguments",
        ),
    ],
)
def test_what_cannot_be_understood_is_refused_at_its_place(items: list[Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_messages(input_items(items, "input"))

    assert field_of(caught.value) == field


@pytest.mark.parametrize(
    ("role", "block"),
    [
        (Role.ASSISTANT, Attachment(kind="image", file_id="f", at="here")),
        (Role.SYSTEM, Attachment(kind="image", file_id="f", at="here")),
        (Role.USER, Refusal(text="no", at="here")),
        (Role.USER, Attachment(kind="audio", media_type="audio/ogg", data="YQ==", at="here")),
    ],
)
def test_what_there_is_no_place_for_is_refused(role: Role, block: Block) -> None:
    with pytest.raises(InvalidRequest) as caught:
        write_items([Message(role=role, blocks=(block,))])

    assert field_of(caught.value) == "here"


def test_text_on_both_sides_of_a_thought_is_two_messages() -> None:
    blocks = (Text(text="a"), Text(text="b"), Thinking(text="hm"), Text(text="c"))

    items = write_items([Message(role=Role.ASSISTANT, blocks=blocks)])

    assert [item["type"] for item in items] == ["message", "reasoning", "message"]
    assert len(items[0]["content"]) == 2


@pytest.mark.parametrize(
    ("result", "output"),
    [
        (Result(call_id="c", parts=()), ""),
        (Result(call_id="c", parts=(), is_error=True), "error"),
        (Result(call_id="c", parts=(Text(text="a"),)), "a"),
        (
            Result(call_id="c", parts=(Text(text="a"), Text(text="b"))),
            [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}],
        ),
    ],
)
def test_a_result_is_text_where_it_can_be(result: Result, output: object) -> None:
    (item,) = write_items([Message(role=Role.TOOL, blocks=(result,))])

    assert item == {"type": "function_call_output", "call_id": "c", "output": output}
