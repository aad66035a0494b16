"""What a provider that speaks the Responses API is sent."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from appliance.model.calls import Dialect, ModelCall
from appliance.protocols.responses import seals
from appliance.protocols.responses.items import compaction_item
from appliance.protocols.responses.outgoing import (
    LimitTooLow,
    TooLittleLeft,
    encode_count,
    encode_request,
)
from appliance.protocols.translation import translated
from tests.protocols.prompting import body


def sent(model: str = "gpt-5", output_limit: int | None = None, **members: Any) -> dict[str, Any]:
    call = ModelCall(
        model=model,
        body=body(**{"input": "hi", **members}),
        stream=False,
        dialect=Dialect.RESPONSES,
        output_limit=output_limit,
    )
    decoded: dict[str, Any] = msgspec.json.decode(encode_request(call))
    return decoded


def test_the_answer_is_a_stream_and_nothing_is_kept() -> None:
    asked = sent(
        model="gpt-5",
        temperature=0.5,
        store=True,
        stream=False,
        stream_options={"include_obfuscation": True},
        previous_response_id="resp_1",
        background=True,
    )

    assert asked == {
        "model": "gpt-5",
        "temperature": 0.5,
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "input": [
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "hi"}],
            }
        ],
    }


@pytest.mark.parametrize(
    ("model", "include", "expected"),
    [
        ("gpt-4o-mini", None, None),
        ("openai/gpt-4.1", None, None),
        ("gpt-4o", ["reasoning.encrypted_content"], ["reasoning.encrypted_content"]),
        ("gpt-5", ["openclaw:tool_calls"], ["reasoning.encrypted_content"]),
        (
            "o4-mini",
            ["message.output_text.logprobs"],
            ["message.output_text.logprobs", "reasoning.encrypted_content"],
        ),
    ],
)
def test_thoughts_are_asked_of_those_who_think(
    model: str, include: list[str] | None, expected: list[str] | None
) -> None:
    assert sent(model, include=include).get("include") == expected


@pytest.mark.parametrize(
    ("limit", "given", "expected"), [(None, 50, 50), (100, 500, 100), (16, None, 16)]
)
def test_the_limit_is_ours_where_there_is_one(
    limit: int | None, given: int | None, expected: int
) -> None:
    members: dict[str, Any] = {} if given is None else {"max_output_tokens": given}

    assert sent(output_limit=limit, **members)["max_output_tokens"] == expected


def test_fewer_tokens_than_the_api_can_be_told_are_not_rounded_up() -> None:
    with pytest.raises(TooLittleLeft, match="15 tokens are left") as refused:
        sent(output_limit=15, max_output_tokens=500)

    # Or the provider would cool down for everybody because one budget is nearly used up.
    assert not refused.value.retryable
    assert refused.value.code == "insufficient-quota"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_callers_lower_limit_is_refused_in_the_callers_words(name: str) -> None:
    said = [{"role": "user", "content": "hi"}]
    call = ModelCall(model="m", body=body(messages=said, **{name: 15}), stream=False)

    with pytest.raises(LimitTooLow) as refused:
        translated(call, Dialect.RESPONSES)

    assert [each.field for each in refused.value.fields] == [name]
    assert refused.value.retryable  # the next provider of a chain may well take it


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (
            {
                "type": "message",
                "id": "msg_1",
                "status": "completed",
                "role": "assistant",
                "content": [
                    {"type": "output_text", "text": "a", "annotations": [], "logprobs": []}
                ],
                "phase": "commentary",
            },
            [
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "a"}],
                    "phase": "commentary",
                }
            ],
        ),
        (
            {"role": "user", "content": [{"type": "input_image", "file_id": "f"}]},
            [
                {
                    "type": "message",
                    "role": "user",
                    "content": [{"type": "input_image", "file_id": "f", "detail": "auto"}],
                }
            ],
        ),
        (
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
            [{"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}],
        ),
        (
            {
                "type": "reasoning",
                "summary": [],
                "encrypted_content": seals.seal_hidden("gAAA", Dialect.RESPONSES),
            },
            [{"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}],
        ),
        (
            {
                "type": "reasoning",
                "summary": [],
                "encrypted_content": seals.seal_thinking("hm", "of another"),
            },
            [],
        ),
        ({"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}, []),
        (
            {"type": "compaction", "encrypted_content": "gAAA"},
            [{"type": "compaction", "encrypted_content": "gAAA"}],
        ),
        (
            {
                "type": "openclaw:tool_call",
                "call_id": "c",
                "name": "f",
                "arguments": "{}",
                "output": "7",
            },
            [
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "7"},
            ],
        ),
    ],
)
def test_what_only_we_could_read_or_find_is_left_out(
    item: dict[str, Any], expected: list[Any]
) -> None:
    assert sent(input=[item])["input"] == expected


def test_a_summary_of_ours_is_said_in_words() -> None:
    (said,) = sent(input=[compaction_item("they met")])["input"]

    assert (said["role"], said["content"].endswith("they met")) == ("user", True)


def test_a_call_keeps_its_members_as_they_came() -> None:
    number = b"1.000000000000000000"
    asked = ModelCall(
        model="m",
        body={"input": b'"hi"', "top_p": number},
        stream=True,
        dialect=Dialect.RESPONSES,
    )

    assert b'"top_p":' + number in encode_request(asked)
    assert encode_request(replace(asked, stream=False)) == encode_request(asked)


def test_only_what_is_read_is_counted() -> None:
    members = {
        "input": b'[{"role":"user","content":"hi","id":"msg_1"}]',
        "instructions": b'"be brief"',
        "tools": b"[]",
        "temperature": b"0.5",
        "max_output_tokens": b"50",
        "metadata": b"{}",
        "store": b"true",
    }
    asked = ModelCall(model="m", body=members, stream=False, dialect=Dialect.RESPONSES)

    body = msgspec.json.decode(encode_count(asked))

    assert set(body) == {"model", "input", "instructions", "tools"}
    assert "id" not in body["input"][0]


CALL = {"type": "mcp_call", "server_label": "wiki", "name": "a", "arguments": "{}", "output": None}


def test_what_a_providers_tool_did_goes_back_under_an_id_that_nobody_chose() -> None:
    (item,) = sent(input=[{**CALL, "id": "mcp_of_somebody", "status": "completed"}])["input"]
    (again,) = sent(input=[{**CALL, "id": "mcp_of_somebody", "status": "completed"}])["input"]

    assert item == {**CALL, "id": item["id"], "status": "completed"}
    assert item["id"].startswith("mcp_")
    assert "somebody" not in item["id"]
    assert again == item


def test_an_approval_names_what_it_approves() -> None:
    request = {"type": "mcp_approval_request", "id": "mcpr_1", "name": "a", "arguments": "{}"}
    answer = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}

    asked, answered = sent(input=[request, answer])["input"]

    assert asked["id"] != "mcpr_1"
    assert answered == {**answer, "approval_request_id": asked["id"]}


def test_custom_tools_go_out_as_they_came() -> None:
    tool = {"type": "custom", "name": "run", "format": {"type": "text"}}
    call = {"type": "custom_tool_call", "call_id": "c", "name": "run", "input": "ls"}
    output = {"type": "custom_tool_call_output", "call_id": "c", "output": "a.txt"}
    parts = {**output, "output": [{"type": "input_text", "text": "a"}]}

    asked = sent(tools=[tool], input=[{**call, "id": "ctc_1"}, output, parts])

    assert asked["tools"] == [tool]
    assert asked["input"] == [call, output, parts]


def test_annotations_and_the_phase_of_what_was_said_go_back() -> None:
    citation = {"type": "url_citation", "url": "https://a.example", "title": "A"}
    part = {"type": "output_text", "text": "a", "annotations": [citation], "logprobs": []}
    said = {"role": "assistant", "phase": "final_answer", "content": [part]}

    (item,) = sent(input=[said])["input"]

    assert item["phase"] == "final_answer"
    assert item["content"] == [{"type": "output_text", "text": "a", "annotations": [citation]}]
