"""What may cost more than its tokens goes out with a key of the tenant's own, and not otherwise."""

from typing import Any

import pytest

from tests.gateway.conftest import Gateway, Tenant
from tests.stub_provider import server
from tests.stub_provider.asked import Request
from tests.stub_provider.frames import Answer

HI = {"messages": [{"role": "user", "content": "hi"}]}
ADVISOR = {"type": "advisor_20260301", "name": "advisor", "model": "dear"}
FILE = {"type": "image", "source": {"type": "file", "file_id": "file_1"}}
CASES = [
    ("stub/mock", "/v1/chat/completions", {"models": ["openai/o1-pro"]}, "models"),
    ("stub/mock", "/v1/chat/completions", {"plugins": [{"id": "web"}]}, "plugins"),
    ("stub/mock", "/v1/chat/completions", {"store": True}, "store"),
    ("stub/mock", "/v1/chat/completions", {"modalities": ["text", "audio"]}, "modalities"),
    ("claude/mock", "/v1/messages", {"tools": [ADVISOR]}, "tools[0].type"),
    ("claude/mock", "/v1/messages", {"fallbacks": [{"model": "dear"}]}, "fallbacks"),
    ("claude/mock", "/v1/messages", {"inference_geo": "us"}, "inference_geo"),
    (
        "claude/mock",
        "/v1/messages",
        {"messages": [{"role": "user", "content": [FILE]}]},
        "messages[0].content[0].source.file_id",
    ),
]


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the provider was asked."""
    bodies: list[dict[str, Any]] = []
    answer = server.respond

    def respond(request: Request) -> Answer:
        bodies.append(request.json())
        return answer(request)

    monkeypatch.setattr(server, "respond", respond)
    return bodies


@pytest.mark.parametrize(("model", "path", "members", "place"), CASES, ids=lambda each: str(each))
async def test_it_is_refused_with_the_gateways_key_and_passed_on_with_ones_own(
    gateway: Gateway,
    acme: Tenant,
    asked: list[dict[str, Any]],
    model: str,
    path: str,
    members: dict[str, Any],
    place: str,
) -> None:
    body = {"model": model, "max_tokens": 50, **HI, **members}
    headers = gateway.headers(acme.token)

    refused = await gateway.http.post(path, json=body, headers=headers)

    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith(f"{place}: ")
    assert "extras" in refused.json()["error"]["message"]
    if path == "/v1/chat/completions":
        assert refused.json()["error"]["param"] == place
        assert refused.json()["error"]["code"] == "unsupported_parameter"
    assert asked == []

    provider = model.partition("/")[0]
    kept = await gateway.http.put(
        f"/v1/tenants/{acme.id}/credentials/{provider}", json={"api_key": "sk-own"}, headers=headers
    )
    assert kept.is_success, kept.text
    passed = await gateway.http.post(path, json=body, headers=headers)

    assert passed.status_code == 200, passed.text
    assert {name: asked[-1][name] for name in members} == members
