"""A provider that tells no usage: what is billed is what the caller is told."""

import json
from typing import Any

import httpx
import pytest

from tests.gateway.conftest import Gateway, Tenant, said


def is_flagged(answer: httpx.Response) -> bool:
    return "x-openclaw-estimated" in answer.headers


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
    # The head of a stream has left by then, and another dialect's streams do tell.
    assert is_flagged(answer) is (provider == "stub" and not stream)


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
    assert is_flagged(answer) is not stream


BODIES: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": [{"role": "user", "content": "hello"}]},
    "messages": {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 99},
    "responses": {"input": "hello"},
    "responses/compact": {"input": "hello"},
}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("agent", [False, True], ids=["model", "agent"])
async def test_an_answer_says_that_its_usage_is_an_estimate(
    gateway: Gateway, acme: Tenant, path: str, *, agent: bool
) -> None:
    told = []
    for model in ("stub/fault-no-usage", "stub/mock"):
        await gateway.configure(acme, {"defaults": {"agents": {"main": {"model": model}}}})
        body = {"model": "openclaw" if agent else model, **BODIES[path]}
        answer = await gateway.http.post(
            f"/v1/{path}", json=body, headers=gateway.headers(acme.token)
        )
        assert answer.status_code == 200, answer.text
        told.append(is_flagged(answer))

    assert told == [True, False]
    assert (await gateway.usage(acme))["estimated_requests"] == 1


async def test_a_kept_answer_says_so_too(gateway: Gateway, acme: Tenant) -> None:
    await gateway.configure(acme, {"defaults": {"response_cache": {"enabled": True}}})

    answers = [await gateway.chat(acme, said("x", model="stub/fault-no-usage")) for _ in range(2)]

    assert [each.headers["x-openclaw-cache"] for each in answers] == ["miss", "hit"]
    assert all(map(is_flagged, answers))
    assert answers[0].json()["usage"] == answers[1].json()["usage"]
    assert (await gateway.usage(acme))["estimated_requests"] == 1
