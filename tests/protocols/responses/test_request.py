"""Requests of the Responses API: what is read of them, and what is refused by its name."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.errors import InvalidRequest, TooLarge
from appliance.protocols.responses.items import input_item
from appliance.protocols.responses.request import ResponsesRequest, prompt_size
from tests.protocols.prompting import field_of, nonsense

TOOL = {"type": "function", "name": "look"}


def parse(**members: Any) -> ResponsesRequest:
    body = {"model": "m", "input": "hello", **members}
    given_ = {name: value for name, value in body.items() if value is not ...}
    return ResponsesRequest.parse(msgspec.json.encode(given_), limit_bytes=100_000)


def test_the_least_that_is_asked_means_the_usual() -> None:
    request = parse()

    (item,) = request.input
    assert item == {
        "type": "message",
        "id": item["id"],
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_text", "text": "hello"}],
    }
    assert item["id"].startswith("msg_")
    assert (request.store, request.stream, request.background) == (True, False, False)
    assert (request.truncation, request.parallel_tool_calls) == ("disabled", True)
    assert request.text == {"format": {"type": "text"}}


def test_no_two_items_have_one_id() -> None:
    said = {"role": "user", "id": "mine", "content": "a"}
    reference = {"type": "item_reference", "id": "mine"}

    items = parse(input=[said, {**said, "content": "b"}, reference]).input

    first, second, third = [item["id"] for item in items]
    assert (first, third) == ("mine", "mine")
    assert second.startswith("msg_")
    assert parse(input=[said]).input[0]["id"] == "mine"


def test_null_is_as_good_as_missing() -> None:
    names = [
        "instructions", "previous_response_id", "conversation", "include", "tools", "tool_choice",
        "parallel_tool_calls", "max_tool_calls", "max_output_tokens", "temperature", "top_p",
        "top_logprobs", "presence_penalty", "frequency_penalty", "text", "reasoning", "truncation",
        "metadata", "store", "background", "stream", "stream_options", "service_tier", "prompt",
        "safety_identifier", "prompt_cache_key", "prompt_cache_options", "moderation", "user",
        "prompt_cache_retention", "context_management",
    ]  # fmt: skip
    request = parse(**dict.fromkeys(names))

    assert (request.store, request.tools, request.reasoning) == (True, (), None)


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"model": ...}, "model"),
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
        ({"input": ...}, "input"),
        ({"input": []}, "input"),
        ({"input": 7}, "input"),
        ({"colour": "red"}, "colour"),
        ({"type": "response.create"}, "type"),
        ({"instructions": 7}, "instructions"),
        ({"previous_response_id": ""}, "previous_response_id"),
        ({"conversation": 7}, "conversation"),
        ({"conversation": {}}, "conversation.id"),
        ({"conversation": "c", "previous_response_id": "r"}, "previous_response_id"),
        ({"background": True, "store": False}, "background"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"colour": 1}}, "stream_options.colour"),
        ({"stream_options": {"include_obfuscation": 1}}, "stream_options.include_obfuscation"),
        ({"include": "all"}, "include"),
        ({"include": ["all"]}, "include[0]"),
        ({"tools": {}}, "tools"),
        ({"tools": [TOOL] * 129}, "tools"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tools": [{"type": "computer"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "look"}}]}, "tools[0].name"),
        ({"tools": [{**TOOL, "name": "no good"}]}, "tools[0].name"),
        ({"tools": [{**TOOL, "parameters": []}]}, "tools[0].parameters"),
        ({"tools": [{**TOOL, "strict": "yes"}]}, "tools[0].strict"),
        ({"tools": [{**TOOL, "description": 7}]}, "tools[0].description"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "look"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "allowed_tools", "tools": []}}, "tool_choice.tools"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "tools": [7]}},
            "tool_choice.tools[0]",
        ),
        (
            {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": 1, "tools": [TOOL]}},
            "tool_choice.mode",
        ),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"max_tool_calls": 0}, "max_tool_calls"),
        ({"max_output_tokens": 15}, "max_output_tokens"),
        ({"max_output_tokens": True}, "max_output_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": "much"}, "frequency_penalty"),
        ({"text": "json"}, "text"),
        ({"text": {"style": 1}}, "text.style"),
        ({"text": {"format": "json"}}, "text.format"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"text": {"verbosity": "loud"}}, "text.verbosity"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"reasoning": {"summary": "long"}}, "reasoning.summary"),
        ({"reasoning": {"colour": 1}}, "reasoning.colour"),
        ({"truncation": "middle"}, "truncation"),
        ({"context_management": [{"type": "other"}]}, "context_management[0].type"),
        (
            {"context_management": [{"type": "compaction", "compact_threshold": "x"}]},
            "context_management[0].compact_threshold",
        ),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: ""}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"metadata": {"k": 7}}, "metadata.k"),
        ({"service_tier": "golden"}, "service_tier"),
        ({"user": 7}, "user"),
        ({"safety_identifier": []}, "safety_identifier"),
        ({"prompt_cache_key": "k" * 513}, "prompt_cache_key"),
        ({"prompt_cache_options": "all"}, "prompt_cache_options"),
        ({"prompt_cache_options": {"prewarm": 1}}, "prompt_cache_options.prewarm"),
        (
            {"prompt_cache_options": {"comparison_response_id": "resp_1"}},
            "prompt_cache_options.comparison_response_id",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_name(
    members: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(**members)

    assert field_of(caught.value) == field


def test_a_body_that_is_too_large_says_so() -> None:
    for reader in (ResponsesRequest.parse, ResponsesRequest.parse_form):
        with pytest.raises(TooLarge):
            reader(b"x" * 100, limit_bytes=99)


@pytest.mark.parametrize("state", [{"previous_response_id": "r"}, {"conversation": {"id": "c"}}])
def test_what_continues_needs_no_input_of_its_own(state: dict[str, Any]) -> None:
    request = parse(input=..., **state)

    assert request.input == ()
    assert (request.previous_response_id or request.conversation) in {"r", "c"}


def test_a_frame_is_a_request_that_is_streamed() -> None:
    members = {"type": b'"response.create"', "model": b'"m"', "input": b'"hi"'}

    request = ResponsesRequest.of_frame(members)

    assert request.stream
    assert "type" not in request.upstream()
    for name in ("stream", "stream_options", "background"):
        with pytest.raises(InvalidRequest) as caught:
            ResponsesRequest.of_frame({**members, name: b"true"})
        assert field_of(caught.value) == name
    with pytest.raises(InvalidRequest) as caught:
        ResponsesRequest.of_frame({**members, "type": b'"response.cancel"'})
    assert field_of(caught.value) == "type"


def test_counting_needs_no_model_and_compacting_takes_little_else() -> None:
    assert ResponsesRequest.of_count({"input": b'"hi"'}).model == ""
    members = {"model": b'"m"', "previous_response_id": b'"resp_1"'}
    assert ResponsesRequest.of_compaction(members).previous_response_id == "resp_1"
    with pytest.raises(InvalidRequest) as caught:
        ResponsesRequest.of_compaction({**members, "stream": b"true"})
    assert field_of(caught.value) == "stream"
    with pytest.raises(InvalidRequest) as caught:
        ResponsesRequest.of_compaction({"input": b'"hi"'})
    assert field_of(caught.value) == "model"
    warm = {"prompt_cache_options": b'{"prewarm":true}'}
    with pytest.raises(InvalidRequest) as caught:
        ResponsesRequest.of_compaction({**members, **warm})
    assert field_of(caught.value) == "prompt_cache_options.prewarm"


def test_a_prompt_that_is_only_to_be_read_goes_on_as_it_came() -> None:
    request = parse(prompt_cache_options={"prewarm": True, "mode": "explicit"})

    assert request.prewarm
    assert request.upstream()["prompt_cache_options"] == b'{"prewarm":true,"mode":"explicit"}'
    assert not parse(prompt_cache_options={"prewarm": False}).prewarm


def test_upstream_gets_the_context_and_nothing_that_is_ours_to_do() -> None:
    request = parse(
        previous_response_id="resp_0",
        store=True,
        background=True,
        stream=True,
        stream_options={},
        context_management=[{"type": "compaction", "compact_threshold": 1000}],
        temperature=0.5,
        include=["openclaw:tool_calls", "reasoning.encrypted_content"],
    )
    before = {"type": "message", "id": "msg_0", "role": "user", "content": []}

    body = {name: msgspec.json.decode(value) for name, value in request.upstream([before]).items()}

    assert request.compact_threshold == 1000
    assert set(body) == {"model", "input", "temperature", "include"}
    assert body["include"] == ["reasoning.encrypted_content"]
    assert [item["id"] for item in body["input"]] == ["msg_0", request.input[0]["id"]]


def test_an_output_needs_its_call_in_the_context() -> None:
    request = parse(input=[{"type": "function_call_output", "call_id": "c", "output": "7"}])
    called = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": ""}

    assert request.upstream([called])
    with pytest.raises(InvalidRequest, match="call_id 'c'"):
        request.upstream()


def test_references_are_replaced_by_what_they_refer_to() -> None:
    request = parse(input=[{"type": "item_reference", "id": "msg_9"}, {"id": "msg_8"}])
    found: dict[str, Any] = {
        name: {"type": "message", "id": name, "role": "user", "content": []}
        for name in ("msg_8", "msg_9")
    }

    assert request.references == ("msg_9", "msg_8")
    assert [item["id"] for item in request.with_references(found).input] == ["msg_9", "msg_8"]
    for failing in (lambda: request.with_references({"msg_9": {}}), request.upstream):
        with pytest.raises(InvalidRequest, match="was found"):
            failing()


def test_a_picture_costs_what_it_costs_and_not_its_length() -> None:
    picture = "data:image/png;base64," + "A" * 50_000
    part = {"type": "input_image", "image_url": picture}
    small = parse(input=[{"role": "user", "content": [part]}])
    document = {"type": "input_file", "file_data": "data:application/pdf;base64," + "A" * 50_000}
    large = parse(input=[{"role": "user", "content": [document]}])

    assert 4_800 < small.prompt_bytes < 5_000
    assert large.prompt_bytes > 50_000
    assert prompt_size(small.upstream()) < 5_200


_NAMES = [
    "model", "input", "instructions", "previous_response_id", "conversation", "include", "tools",
    "tool_choice", "parallel_tool_calls", "max_tool_calls", "max_output_tokens", "temperature",
    "top_p", "top_logprobs", "presence_penalty", "text", "reasoning", "truncation", "metadata",
    "store", "background", "stream", "stream_options", "service_tier", "safety_identifier",
    "prompt_cache_key", "context_management", "prompt", "user", "type",
]  # fmt: skip


@given(st.dictionaries(st.sampled_from(_NAMES), nonsense, max_size=6))
def test_whatever_comes_is_read_or_refused(members: dict[str, Any]) -> None:
    body = {"model": b'"m"', "input": b'"hi"'}
    body |= {name: msgspec.json.encode(value) for name, value in _sendable(members).items()}
    for read in (
        ResponsesRequest.of,
        ResponsesRequest.of_frame,
        ResponsesRequest.of_count,
        ResponsesRequest.of_compaction,
    ):
        try:
            read(body).upstream()
        except InvalidRequest as exc:
            assert exc.fields  # noqa: PT017 - most need not fail


def _sendable(members: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in members.items():
        try:
            msgspec.json.encode(value)
        except (OverflowError, UnicodeEncodeError):
            continue
        found[name] = value
    return found


@given(st.lists(nonsense, max_size=3))
def test_whatever_an_item_holds_is_read_or_refused(items: list[Any]) -> None:
    kinds = ["message", "function_call", "function_call_output", "reasoning", "compaction", None]
    tried = [
        {**item, "type": kind} if isinstance(item, dict) else item
        for item in items
        for kind in kinds
    ]
    for item in [*items, *tried]:
        try:
            input_item(item, "input[0]")
        except InvalidRequest as exc:
            assert field_of(exc).startswith("input")  # noqa: PT017 - most need not fail
