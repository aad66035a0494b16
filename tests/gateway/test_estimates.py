"""A provider that tells no usage: what is billed is what the caller is told."""

import json
from typing import Any

import pytest

from tests.gateway.conftest import Gateway, Tenant, said


def last_of(text: str, name: str) -> dict[str, Any]:
    """The last event of a stream that holds figures, or the answer in one piece."""
    lines = [
        line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")
    ]
    found = [value for value in map(json.loads, lines or [text]) if value.get("usage")]
    usage: dict[str, Any] = found[-1]["usage"]
    assert name in usage
    return usage


@pytest.mark.parametrize("provider", ["stub", "claude"])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_chat_completion_tells_the_estimate(
    gateway: Gateway, acme: Tenant, provider: str, *, stream: bool
) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    fault = "no-usage" if provider == "stub" or not stream else "lying-usage"

    answer = await gateway.chat(acme, said("hello", model=f"{provider}/fault-{fault}", **options))

    told = last_of(answer.text, "prompt_tokens")
    booked = await gateway.usage(acme)
    assert told["prompt_tokens"] == booked["input_tokens"] > 0
    assert told["completion_tokens"] == booked["output_tokens"] > 0


@pytest.mark.parametrize(
    ("provider", "stream"), [("stub", True), ("stub", False), ("claude", False)]
)
async def test_a_message_tells_the_estimate(
    gateway: Gateway, acme: Tenant, provider: str, *, stream: bool
) -> None:
    request: dict[str, Any] = {
        **said("hello", model=f"{provider}/fault-no-usage"),
        "max_tokens": 99,
    }
    request["stream"] = stream

    answer = await gateway.http.post(
        "/v1/messages", json=request, headers=gateway.headers(acme.token)
    )

    told = last_of(answer.text, "output_tokens")
    booked = await gateway.usage(acme)
    assert told["input_tokens"] == booked["input_tokens"] > 0
    assert told["output_tokens"] == booked["output_tokens"] > 0
