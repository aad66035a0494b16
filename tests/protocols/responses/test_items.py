"""Items: every shape that may come, and the places of what may not."""

from typing import Any

import pytest

from appliance.model.errors import InvalidRequest
from appliance.protocols.responses.items import (
    check_calls,
    compaction_item,
    input_item,
    input_items,
    message_item,
    new_id,
)
from tests.protocols.prompting import field_of

CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "7"}
PNG = "data:image/png;base64,iVBORw0KGgo="


@pytest.mark.parametrize(
    ("raw", "content"),
    [
        ({"role": "user", "content": "a"}, [{"type": "input_text", "text": "a"}]),
        ({"role": "system", "content": "a"}, [{"type": "input_text", "text": "a"}]),
        ({"role": "developer", "content": ""}, [{"type": "input_text", "text": ""}]),
        (
            {"role": "assistant", "content": "a"},
            [{"type": "output_text", "text": "a", "annotations": []}],
        ),
        (
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            [{"type": "refusal", "refusal": "no"}],
        ),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": PNG}]},
            [{"type": "input_image", "image_url": PNG, "detail": "auto"}],
        ),
        (
            {
                "role": "user",
                "content": [{"type": "input_image", "file_id": "file_1", "detail": "low"}],
            },
            [{"type": "input_image", "file_id": "file_1", "image_url": None, "detail": "low"}],
        ),
        (
            {
                "role": "user",
                "content": [{"type": "input_file", "filename": "a.pdf", "file_url": "https://a"}],
            },
            [{"type": "input_file", "file_url": "https://a", "filename": "a.pdf"}],
        ),
        (
            {
                "role": "user",
                "content": [
                    {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}
                ],
            },
            [{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}],
        ),
    ],
)
def test_a_message_needs_no_type_and_gets_its_full_form(
    raw: dict[str, Any], content: list[Any]
) -> None:
    item = input_item(raw, "input[0]")

    assert item == {
        "type": "message",
        "id": item["id"],
        "status": "completed",
        "role": raw["role"],
        "content": content,
    }
    assert input_item(item, "again") == item


@pytest.mark.parametrize(
    ("raw", "prefix"),
    [
        (CALL, "fc_"),
        (OUTPUT, "fc_"),
        ({**OUTPUT, "output": [{"type": "input_text", "text": "a"}]}, "fc_"),
        ({"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}, "rs_"),
        ({"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}, "rs_"),
        (
            {
                "type": "reasoning",
                "summary": [],
                "content": [{"type": "reasoning_text", "text": "hm"}],
            },
            "rs_",
        ),
        ({"type": "compaction", "encrypted_content": "gAAA"}, "cmp_"),
        ({**CALL, "type": "openclaw:tool_call", "output": "7", "is_error": True}, "otc_"),
    ],
)
def test_each_kind_of_item_is_taken_back_as_it_is_given_out(
    raw: dict[str, Any], prefix: str
) -> None:
    item = input_item(raw, "input[0]")

    assert item["id"].startswith(prefix)
    assert {name: item[name] for name in raw} == raw
    assert input_item(item, "again") == item
    assert input_item({**item, "id": "given", "colour": "red"}, "x") == {**item, "id": "given"}


def test_the_phase_of_an_answer_is_kept() -> None:
    item = input_item({"role": "assistant", "content": "a", "phase": "commentary"}, "input[0]")

    assert item["phase"] == "commentary"


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (7, "at"),
        ({}, "at"),
        ({"type": "computer_call"}, "at.type"),
        ({"type": 7}, "at.type"),
        ({"type": "item_reference"}, "at.id"),
        ({"id": 7, "role": "user", "content": ""}, "at.id"),
        ({"role": "tool", "content": ""}, "at.role"),
        ({"role": "user"}, "at.content"),
        ({"role": "user", "content": {}}, "at.content"),
        ({"role": "user", "content": [7]}, "at.content[0]"),
        ({"role": "user", "content": [{"type": "text", "text": "a"}]}, "at.content[0].type"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "at.content[0].text"),
        ({"role": "system", "content": [{"type": "input_image"}]}, "at.content[0].type"),
        ({"role": "user", "content": [{"type": "input_image"}]}, "at.content[0]"),
        (
            {"role": "user", "content": [{"type": "input_file", "file_id": "a", "file_url": "b"}]},
            "at.content[0]",
        ),
        (
            {
                "role": "user",
                "content": [{"type": "input_image", "file_id": "a", "detail": "most"}],
            },
            "at.content[0].detail",
        ),
        ({"role": "user", "content": "", "status": "done"}, "at.status"),
        ({"role": "assistant", "content": "", "phase": "middle"}, "at.phase"),
        ({**CALL, "call_id": ""}, "at.call_id"),
        ({**CALL, "name": None}, "at.name"),
        ({**CALL, "arguments": {}}, "at.arguments"),
        ({**OUTPUT, "output": None}, "at.output"),
        ({**OUTPUT, "output": [{"type": "output_text"}]}, "at.output[0].type"),
        ({"type": "reasoning", "summary": "hm"}, "at.summary"),
        ({"type": "reasoning", "summary": [{"type": "text"}]}, "at.summary[0].type"),
        ({"type": "reasoning", "summary": [], "encrypted_content": 7}, "at.encrypted_content"),
        ({"type": "compaction"}, "at.encrypted_content"),
    ],
)
def test_what_is_no_item_is_refused_at_its_place(raw: object, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        input_item(raw, "at")

    assert field_of(caught.value) == field


def test_a_call_comes_before_its_output() -> None:
    call, output = input_items([CALL, OUTPUT], "input")

    check_calls([call, output, output])
    for wrong in ([output], [output, call]):
        with pytest.raises(InvalidRequest, match="call_id"):
            check_calls(wrong)


def test_ids_tell_what_they_are_of() -> None:
    assert len({new_id("msg") for _ in range(100)}) == 100
    assert compaction_item("short")["id"].startswith("cmp_")
    assert input_item(compaction_item("short"), "x")["type"] == "compaction"
    message = message_item("user", [{"type": "input_text", "text": "a"}])
    assert input_item(message, "x") == message


CUSTOM_CALL = {"type": "custom_tool_call", "call_id": "c", "name": "run", "input": "ls"}
APPROVAL = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}


@pytest.mark.parametrize(
    ("raw", "item"),
    [
        (CUSTOM_CALL, {**CUSTOM_CALL, "status": "completed"}),
        (
            {"type": "custom_tool_call_output", "call_id": "c", "output": "7", "x": 1},
            {
                "type": "custom_tool_call_output",
                "call_id": "c",
                "output": "7",
                "status": "completed",
            },
        ),
        ({**APPROVAL, "reason": None}, APPROVAL),
        ({**APPROVAL, "reason": "why"}, {**APPROVAL, "reason": "why"}),
        # what a provider's tool did is kept as it is
        (
            {"type": "mcp_call", "id": "mcp_1", "name": "a", "new": {"x": None}},
            {"type": "mcp_call", "id": "mcp_1", "name": "a", "new": {"x": None}},
        ),
    ],
)
def test_items_of_other_tools_are_taken_back(raw: dict[str, Any], item: dict[str, Any]) -> None:
    found = input_item(raw, "at")

    assert found == {**item, "id": found["id"]}


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({**CUSTOM_CALL, "input": {}}, "at.input"),
        ({**APPROVAL, "approve": "yes"}, "at.approve"),
        ({**APPROVAL, "approval_request_id": None}, "at.approval_request_id"),
        (
            {
                "role": "assistant",
                "content": [{"type": "output_text", "text": "a", "annotations": ["x"]}],
            },
            "at.content[0].annotations[0]",
        ),
    ],
)
def test_what_is_wrong_in_them_is_refused_at_its_place(raw: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        input_item(raw, "at")

    assert field_of(caught.value) == field


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (CUSTOM_CALL, {"type": "custom_tool_call_output", "call_id": "c", "output": ""}),
        ({"type": "mcp_approval_request", "id": "mcpr_1"}, APPROVAL),
    ],
)
def test_an_answer_needs_what_it_answers(asked: dict[str, Any], answered: dict[str, Any]) -> None:
    items = input_items([asked, answered], "input")

    check_calls(items)
    with pytest.raises(InvalidRequest):
        check_calls(items[1:])
