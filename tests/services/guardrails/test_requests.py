"""Looking through a request of any dialect."""

import json

import pytest

from appliance.config.guardrail_schema import compile_pattern
from appliance.model.errors import InvalidRequest
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


def test_what_is_too_deep_to_be_looked_through_is_refused() -> None:
    deep: object = "secret"
    for _ in range(80):
        deep = [deep]

    with pytest.raises(InvalidRequest, match="nested"):
        guarded(messages=deep)


def test_only_texts_count_for_the_size() -> None:
    assert text_bytes({"messages": b"1234", "temperature": b"0.1"}) == 4
