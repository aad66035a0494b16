"""Searches and sound that the operator gave a price: asked of the provider, counted and billed."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.gateway.conftest import Gateway, Tenant, setup_in, started
from tests.stub_provider import server
from tests.stub_provider.asked import Request
from tests.stub_provider.frames import Answer, encode, sse

PLAIN = 'claude/mock: {input: "3.00", output: "15.00"}'
RATES = """claude/mock: {input: "3.00", output: "15.00", web_search: "10"}
    replies/mock: {input: "3.00", output: "15.00", web_search: "10"}
    stub/sound: {input: "1.00", output: "2.00", input_audio: "30", output_audio: "60"}"""
HI = [{"role": "user", "content": "hi"}]
HEARD = {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}}

SEARCHED = [
    {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "a"}},
    {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},
    {"type": "text", "text": "found"},
]
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "mock",
    "content": SEARCHED,
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 1_000,
        "output_tokens": 100,
        "server_tool_use": {"web_search_requests": 2},
    },
}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "model": "mock",
    "output": [
        {
            "type": "web_search_call",
            "id": f"ws_{number}",
            "status": "completed",
            "action": {"type": kind, "query": "a"},
        }
        for number, kind in enumerate(("search", "open_page", "search"))
    ],
    "usage": {"input_tokens": 1_000, "output_tokens": 100, "total_tokens": 1_100},
}
COMPLETION = {
    "id": "chatcmpl_1",
    "object": "chat.completion",
    "created": 1,
    "model": "sound",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {
                "role": "assistant",
                "content": None,
                "audio": {"id": "audio_1", "data": "QUJD", "transcript": "Hi", "expires_at": 1},
            },
        }
    ],
    "usage": {
        "prompt_tokens": 1_000,
        "completion_tokens": 100,
        "total_tokens": 1_100,
        "prompt_tokens_details": {"audio_tokens": 400},
        "completion_tokens_details": {"audio_tokens": 90},
    },
}


@pytest.fixture
async def gateway(stub_port: int, tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Gateway]:
    setup = setup_in(tmp_path, stub_port=stub_port)
    config = tmp_path / "config.yaml"
    assert PLAIN in config.read_text()
    config.write_text(config.read_text().replace(PLAIN, RATES))
    gateway = await started(setup, tmp_path, nursery)
    async with gateway.http:
        yield gateway


def answers(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> list[dict[str, Any]]:
    """Let the provider give ``answer``; what it was asked is noted in the list."""
    bodies: list[dict[str, Any]] = []

    def respond(request: Request) -> Answer:
        bodies.append(request.json())
        return answer

    monkeypatch.setattr(server, "respond", respond)
    return bodies


def whole(value: Mapping[str, Any]) -> Answer:
    return Answer((encode(value),))


async def test_a_search_of_messages_goes_out_with_the_gateways_key_and_is_billed(
    gateway: Gateway, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answers(monkeypatch, whole(MESSAGE))
    tools = [{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}]
    body = {
        "model": "claude/mock",
        "max_tokens": 200,
        "messages": [*HI, {"role": "assistant", "content": SEARCHED}, *HI],
        "tools": tools,
    }

    answer = await gateway.http.post("/v1/messages", json=body, headers=gateway.headers(acme.token))

    assert answer.status_code == 200, answer.text
    assert answer.json()["content"] == SEARCHED
    assert asked[0]["tools"] == tools
    assert answer.headers["x-openclaw-cost"] == "0.0245"
    used = await gateway.usage(acme)
    assert (used["web_searches"], used["cost"]) == (2, "0.0245")


async def test_searches_of_responses_are_counted_and_billed(
    gateway: Gateway, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    completed = {"type": "response.completed", "sequence_number": 0, "response": RESPONSE}
    answers(monkeypatch, Answer((sse(completed),), content_type="text/event-stream"))
    body = {"model": "replies/mock", "input": "hi", "tools": [{"type": "web_search"}]}

    answer = await gateway.http.post(
        "/v1/responses", json=body, headers=gateway.headers(acme.token)
    )

    assert answer.status_code == 200, answer.text
    assert [item["type"] for item in answer.json()["output"]] == ["web_search_call"] * 3
    used = await gateway.usage(acme)
    assert (used["web_searches"], used["cost"]) == (2, "0.0245")


async def test_sound_is_billed_as_sound_and_the_rest_as_text(
    gateway: Gateway, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answers(monkeypatch, whole(COMPLETION))
    body = {
        "model": "stub/sound",
        "messages": [{"role": "user", "content": [HEARD]}],
        "modalities": ["text", "audio"],
        "audio": {"voice": "alloy", "format": "wav"},
    }

    answer = await gateway.chat(acme, body)

    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"] == COMPLETION["choices"]
    assert {name: asked[0][name] for name in body if name != "model"} == {
        name: value for name, value in body.items() if name != "model"
    }
    used = await gateway.usage(acme)
    assert (used["input_tokens"], used["input_audio_tokens"]) == (1_000, 400)
    assert (used["output_tokens"], used["output_audio_tokens"]) == (100, 90)
    # 600 and 10 tokens of text, 400 and 90 of sound.
    assert used["cost"] == "0.01802"


async def test_a_model_without_the_price_refuses_and_names_its_key(
    gateway: Gateway, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answers(monkeypatch, whole(COMPLETION))

    answer = await gateway.chat(
        acme, {"model": "stub/mock", "messages": HI, "modalities": ["audio"]}
    )

    assert answer.status_code == 400
    assert "models.rate_card.*.output_audio" in answer.json()["error"]["message"]
    assert asked == []
