"""Looking through a request of any dialect."""

import base64
import json

import pytest

from appliance.config.guardrail_schema import compile_pattern
from appliance.model.errors import InvalidRequest
from appliance.protocols.responses import seals
from appliance.services.guardrails.requests import guarded_body, text_bytes
from appliance.services.guardrails.windows import Detector

SECRET = Detector("words", "redact", "", compile_pattern("secret"))


def guarded(**body: object) -> dict[str, object]:
    raw = {name: json.dumps(value).encode() for name, value in body.items()}
    return {
        name: json.loads(value)
        for name, value in guarded_body(raw, [SECRET], lambda _: None).items()
    }


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "a secret"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a secret"}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [
            {"id": "c", "function": {"name": "f", "arguments": '{"a": "secret"}'}}]}]},
        {"system": [{"type": "text", "text": "secret"}]},
        {"messages": [{"role": "assistant", "content": [
            {"type": "tool_use", "id": "t", "name": "f", "input": {"name": "secret"}}]}]},
        {"messages": [{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t", "content": "secret"}]}]},
        {"input": "a secret"},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": "secret"}]},
        {"instructions": "secret"},
    ],
)  # fmt: skip
def test_every_text_is_looked_at(body: dict[str, object]) -> None:
    assert json.dumps(guarded(**body)) == json.dumps(body).replace("secret", "[redacted]")


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,secret"}}]}]},
        {"messages": [{"role": "tool", "tool_call_id": "secret", "content": "x"}]},
        {"model": "secret", "user": "secret"},
        {"messages": []},
    ],
)  # fmt: skip
def test_names_and_pictures_are_left_alone(body: dict[str, object]) -> None:
    raw = {name: json.dumps(value).encode() for name, value in body.items()}

    assert guarded_body(raw, [SECRET], lambda _: None) is raw


def data_url(text: str) -> str:
    return "data:text/plain;base64," + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        # Escapes in arguments, which are JSON in a text.
        (
            {"input": [{"type": "function_call", "arguments": '{"a":"\\u0073ecret"}'}]},
            {"input": [{"type": "function_call", "arguments": '{"a":"[redacted]"}'}]},
        ),
        (
            {"input": [{"type": "compaction", "encrypted_content": seals.seal_summary("secret")}]},
            {
                "input": [
                    {"type": "compaction", "encrypted_content": seals.seal_summary("[redacted]")}
                ]
            },
        ),
        (
            {"input": [{"type": "input_file", "file_data": data_url("a secret")}]},
            {"input": [{"type": "input_file", "file_data": data_url("a [redacted]")}]},
        ),
        (
            {"response_format": {"json_schema": {"name": "x", "schema": {"title": "secret"}}}},
            {"response_format": {"json_schema": {"name": "x", "schema": {"title": "[redacted]"}}}},
        ),
        (
            {"text": {"format": {"type": "json_schema", "schema": {"const": "secret"}}}},
            {"text": {"format": {"type": "json_schema", "schema": {"const": "[redacted]"}}}},
        ),
    ],
)
def test_wrapping_hides_nothing(body: dict[str, object], seen: dict[str, object]) -> None:
    assert guarded(**body) == seen


@pytest.mark.parametrize(
    "url", ["data:text/plain,a secret", "data:text/plain;base64,/w==", "data:TEXT/html;base64,?"]
)
def test_a_document_that_cannot_be_read_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        guarded(input=[{"type": "input_file", "file_data": url}])


def test_what_a_provider_sealed_is_left_as_it_is() -> None:
    item = {"type": "reasoning", "encrypted_content": "gAAAAsecret"}
    ours = {"type": "reasoning", "encrypted_content": seals.seal_thinking("x", "secret")}

    assert guarded(input=[item, ours]) == {"input": [item, ours]}


def test_what_is_too_deep_to_be_looked_through_is_refused() -> None:
    deep: object = "secret"
    for _ in range(80):
        deep = [deep]

    with pytest.raises(InvalidRequest, match="nested"):
        guarded(messages=deep)


def test_only_texts_count_for_the_size() -> None:
    assert text_bytes({"messages": b"1234", "temperature": b"0.1"}) == 4
