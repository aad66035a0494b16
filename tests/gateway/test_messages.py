"""``POST /v1/messages`` and its ``count_tokens`` as a client sees them."""

import re
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec
import pytest
import trio

from tests.gateway.conftest import ADMIN_KEY, Gateway, Tenant

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
NATIVE, TRANSLATED = "claude/mock", "stub/mock"
BOTH = pytest.mark.parametrize("provider", ["claude", "stub"])
TOOLS = [
    {
        "name": "get_weather",
        "description": "The weather at a place.",
        "input_schema": {
            "type": "object",
            "properties": {"location": {"type": "string"}},
            "required": ["location"],
        },
    }
]
WEATHER = {"role": "user", "content": "What's the weather like in San Francisco?"}


@pytest.fixture
def gateway(lasting_gateway: Gateway) -> Gateway:
    return lasting_gateway


@pytest.fixture
def acme(fresh_tenant: Tenant) -> Tenant:
    return fresh_tenant


def asked(model: str = NATIVE, **more: Any) -> dict[str, Any]:
    return {
        "model": model,
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "hello there"}],
        **more,
    }


async def post(
    gateway: Gateway, tenant: Tenant, body: Mapping[str, Any], path: str = MESSAGES, **more: str
) -> httpx.Response:
    headers = gateway.headers(tenant.token, **more)
    return await gateway.http.post(path, json=body, headers=headers)


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    events = []
    for event in answer.text.removesuffix("\n\n").split("\n\n"):
        if event.startswith(":"):
            continue
        name, data = event.split("\n")
        value = msgspec.json.decode(data.removeprefix("data: "))
        assert name == f"event: {value['type']}"
        events.append(value)
    return events


def error_of(answer: httpx.Response) -> dict[str, str]:
    body = answer.json()
    assert set(body) == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert body["request_id"] == answer.headers["request-id"] == answer.headers["x-request-id"]
    error: dict[str, str] = body["error"]
    assert set(error) == {"type", "message"}
    return error


@BOTH
async def test_an_answer_is_a_message_metered_and_priced(
    gateway: Gateway, acme: Tenant, provider: str
) -> None:
    answer = await post(gateway, acme, asked(f"{provider}/mock"))

    assert answer.status_code == 200, answer.text
    message = answer.json()
    assert (message["type"], message["role"]) == ("message", "assistant")
    assert [block["type"] for block in message["content"]] == ["text"]
    assert message["stop_reason"] == "end_turn"
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    usage = await gateway.usage(acme)
    assert usage["requests"] == 1
    assert usage["output_tokens"] == message["usage"]["output_tokens"] == 20
    assert usage["input_tokens"] == message["usage"]["input_tokens"]
    prices = (3, 15) if provider == "claude" else (1, 2)
    micro = usage["input_tokens"] * prices[0] + usage["output_tokens"] * prices[1]
    assert float(usage["cost"]) == pytest.approx(micro / 1_000_000)


@BOTH
async def test_a_stream_has_its_events_in_order(
    gateway: Gateway, acme: Tenant, provider: str
) -> None:
    answer = await post(gateway, acme, asked(f"{provider}/mock", stream=True))

    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [event for event in events_of(answer) if event["type"] != "ping"]
    kinds = [event["type"] for event in events]
    assert kinds == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 20,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert events[-2]["usage"]["output_tokens"] == 20
    assert (await gateway.usage(acme))["output_tokens"] == 20


async def test_the_query_is_of_no_concern(gateway: Gateway, acme: Tenant) -> None:
    assert (await post(gateway, acme, asked(), f"{MESSAGES}?beta=true")).status_code == 200
    assert (
        await post(gateway, acme, asked(), f"/t/{acme.id}{MESSAGES}?beta=true")
    ).status_code == 200


@BOTH
async def test_thoughts_words_and_calls_are_blocks(
    gateway: Gateway, acme: Tenant, provider: str
) -> None:
    body = asked(f"{provider}/fault-tool-call", tools=TOOLS)

    whole = (await post(gateway, acme, body)).json()
    streamed = events_of(await post(gateway, acme, {**body, "stream": True}))

    kinds = [block["type"] for block in whole["content"]]
    assert kinds[:3] == ["thinking", "text", "tool_use"]
    assert whole["content"][0]["thinking"] == "Hm."
    assert whole["content"][2]["input"] == {"city": "Oslo"}
    assert whole["stop_reason"] == "tool_use"
    starts = [e["content_block"]["type"] for e in streamed if e["type"] == "content_block_start"]
    assert starts == kinds
    assert streamed[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize("model", ["claude/assistant", "stub/assistant", "openclaw"])
async def test_a_tool_of_the_caller_is_called_and_its_result_is_heard(
    gateway: Gateway, acme: Tenant, model: str
) -> None:
    await gateway.configure(acme, {"models": {"default": "stub/assistant"}})

    first = (await post(gateway, acme, asked(model, messages=[WEATHER], tools=TOOLS))).json()
    assert first["stop_reason"] == "tool_use", first
    call = first["content"][-1]
    assert (call["type"], call["name"]) == ("tool_use", "get_weather")
    assert call["input"] == {"location": "San Francisco"}
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "18 degrees, fog"}
    said = [
        WEATHER,
        {"role": "assistant", "content": first["content"]},
        {"role": "user", "content": [result]},
    ]
    second = (await post(gateway, acme, asked(model, messages=said, tools=TOOLS))).json()

    assert second["stop_reason"] == "end_turn", second
    assert "18 degrees" in second["content"][0]["text"]


async def test_an_agent_answers_in_messages_too(gateway: Gateway, acme: Tenant) -> None:
    whole = await post(gateway, acme, asked("openclaw:pirate", system="Be brief."))
    streamed = await post(gateway, acme, asked("openclaw", stream=True))

    assert whole.json()["model"] == "openclaw:pirate"
    assert whole.json()["content"][0]["text"]
    assert events_of(streamed)[-1] == {"type": "message_stop"}


async def test_an_agent_refuses_what_it_has_no_word_for(gateway: Gateway, acme: Tenant) -> None:
    tools = [{"type": "web_search_20250305", "name": "web_search"}]

    answer = await post(gateway, acme, asked("openclaw", tools=tools))

    assert answer.status_code == 400
    assert "tools" in error_of(answer)["message"]


async def test_a_session_is_named_by_a_header(gateway: Gateway, acme: Tenant) -> None:
    await gateway.configure(acme, {"models": {"default": "stub/assistant"}})
    session = {"x-openclaw-session-key": "claude-code"}
    told = {"role": "user", "content": "My name is Ada."}
    question = {"role": "user", "content": "What is my name?"}

    await post(gateway, acme, asked("openclaw", messages=[told]), **session)
    answer = await post(gateway, acme, asked("openclaw", messages=[question]), **session)

    assert "Ada" in answer.json()["content"][0]["text"]


@pytest.mark.parametrize("path", [MESSAGES, COUNT])
async def test_an_api_key_lets_in(gateway: Gateway, acme: Tenant, path: str) -> None:
    async def status(headers: Mapping[str, str]) -> int:
        return (await gateway.http.post(path, json=asked(), headers=headers)).status_code

    assert await status({"x-api-key": acme.token}) == 200
    assert await status({"x-api-key": acme.token, "authorization": "Basic eDp5"}) == 200
    assert await status({"x-api-key": "wrong", "authorization": f"Bearer {acme.token}"}) == 200
    assert await status({"x-api-key": acme.token, "authorization": "Bearer wrong"}) == 401
    assert await status({"x-api-key": "wrong"}) == 401
    assert await status({"x-api-key": ADMIN_KEY, "x-openclaw-tenant": acme.id}) == 200
    assert await status({}) == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/tenants/{tenant}/usage"),
        ("GET", "/v1/tenants"),
        ("POST", "/tools/invoke"),
    ],
)
async def test_an_api_key_lets_in_nowhere_else(
    gateway: Gateway, acme: Tenant, method: str, path: str
) -> None:
    for key in (acme.token, ADMIN_KEY):
        answer = await gateway.http.request(
            method,
            path.format(tenant=acme.id),
            headers={"x-api-key": key, "x-openclaw-tenant": acme.id},
        )
        assert answer.status_code == 401, answer.text


async def test_two_api_keys_are_none(gateway: Gateway, acme: Tenant) -> None:
    headers = [("x-api-key", acme.token), ("x-api-key", acme.token)]

    assert (await gateway.http.post(MESSAGES, json=asked(), headers=headers)).status_code == 401


async def test_each_version_has_its_rules(gateway: Gateway, acme: Tenant) -> None:
    warm = asked(temperature=0.5)
    newest = {"anthropic-version": "2026-10-21"}

    assert (await post(gateway, acme, warm)).status_code == 200
    known = await post(gateway, acme, warm, **{"anthropic-version": "2023-06-01"})
    assert known.status_code == 200
    assert (await post(gateway, acme, asked(), **newest)).status_code == 200
    refused = await post(gateway, acme, warm, **newest)
    assert refused.status_code == 400
    assert error_of(refused)["message"].startswith("temperature:")
    unknown = await post(gateway, acme, asked(), **{"anthropic-version": "2024-01-01"})
    assert unknown.status_code == 400
    assert "anthropic-version" in error_of(unknown)["message"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", ""),
        (b"not json", ""),
        (b"[]", ""),
        (b'{"max_tokens": 1, "messages": [{"role":"user","content":"x"}]}', "model"),
        (b'{"model": "claude/mock", "messages": [{"role":"user","content":"x"}]}', "max_tokens"),
        (b'{"model": "claude/mock", "max_tokens": 0, "messages": [{}]}', "max_tokens"),
        (b'{"model": "claude/mock", "max_tokens": 1}', "messages"),
        (b'{"model": "claude/mock", "max_tokens": 1, "messages": []}', "messages"),
        (b'{"model": "claude/mock", "model": "x", "max_tokens": 1, "messages": [{}]}', "model"),
        (b'{"model": "claude/mock", "max_tokens": NaN, "messages": [{}]}', ""),
        (b'{"model": "claude/mock", "max_tokens": 1, "messages": ["\\ud800"]}', ""),
        (b'{"model": "x", "messages": ' + b"[" * 500 + b"]" * 500 + b"}", ""),
        (b'{"__proto__": {}, "max_tokens": 1, "messages": []}', "model"),
        (b"\xff\xfe", ""),
    ],
)
async def test_a_bad_request_is_refused_naming_the_field(
    gateway: Gateway, acme: Tenant, body: bytes, field: str
) -> None:
    answer = await gateway.http.post(MESSAGES, content=body, headers=gateway.headers(acme.token))

    assert answer.status_code == 400, answer.text
    error = error_of(answer)
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith(field)
    assert (await gateway.usage(acme))["requests"] == 0


@pytest.mark.parametrize(
    ("model", "status", "kind"),
    [
        ("nowhere/x", 404, "not_found_error"),
        ("nothing", 404, "not_found_error"),
        ("claude/missing", 404, "not_found_error"),
        ("claude/fault-400", 400, "invalid_request_error"),
        ("claude/fault-401", 502, "api_error"),
        ("claude/fault-413", 413, "request_too_large"),
        ("claude/fault-429", 429, "rate_limit_error"),
        ("claude/fault-500", 502, "api_error"),
        ("claude/fault-529", 529, "overloaded_error"),
        ("claude/fault-context", 400, "invalid_request_error"),
        ("claude/fault-html", 502, "api_error"),
        ("claude/fault-cut", 502, "api_error"),
        ("claude/fault-malformed", 502, "api_error"),
        ("claude/fault-error-in-200", None, ""),
        ("claude/fault-redirect", 502, "api_error"),
        ("stub/fault-529", 529, "overloaded_error"),
        ("stub/fault-html", 502, "api_error"),
        ("stub/fault-cut", 502, "api_error"),
        ("dead/any", 529, "overloaded_error"),
    ],
)
async def test_a_failing_provider_has_a_status_and_a_type(
    gateway: Gateway, acme: Tenant, model: str, status: int | None, kind: str
) -> None:
    answer = await post(gateway, acme, asked(model))

    assert answer.status_code == status or (status is None and answer.status_code >= 500)
    error = error_of(answer)
    assert error["type"] == kind or status is None
    assert "sk-" not in answer.text
    assert "10.0.0.7" not in answer.text
    if model.endswith("context"):
        assert "prompt is too long: " in error["message"]
    assert (await gateway.usage(acme))["output_tokens"] == 0


@BOTH
@pytest.mark.parametrize("fault", ["cut", "error-mid-stream", "hang", "no-end"])
async def test_a_stream_that_breaks_off_never_looks_whole(
    gateway: Gateway, acme: Tenant, provider: str, fault: str
) -> None:
    answer = await post(gateway, acme, asked(f"{provider}/fault-{fault}", stream=True))

    assert answer.status_code == 200
    events = events_of(answer)
    assert events[-1]["type"] == "error"
    assert events[-1]["error"]["message"]
    assert "message_stop" not in answer.text
    assert (await gateway.usage(acme))["requests"] == 1


@BOTH
async def test_a_client_that_leaves_ends_the_call_and_it_is_settled(
    gateway: Gateway, acme: Tenant, provider: str
) -> None:
    body = msgspec.json.encode(asked(f"{provider}/fault-slow", stream=True))
    head = (
        f"POST {MESSAGES} HTTP/1.1\r\nhost: x\r\nx-api-key: {acme.token}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    async with await trio.open_tcp_stream("127.0.0.1", gateway.port) as stream:
        await stream.send_all(head.encode() + body)
        seen = b""
        while seen.count(b"event: content_block_delta") < 5:
            seen += await stream.receive_some()

    with trio.fail_after(60):
        while (await gateway.usage(acme))["requests"] == 0:  # noqa: ASYNC110 - over HTTP
            await trio.sleep(0.05)
    usage = await gateway.usage(acme)
    assert 0 < usage["output_tokens"] < 20
    assert usage["estimated_requests"] == 1


async def test_the_count_is_the_providers_where_it_can_count(
    gateway: Gateway, acme: Tenant
) -> None:
    question = {"messages": [{"role": "user", "content": "one two three"}]}

    counted = await post(gateway, acme, {"model": NATIVE, **question}, COUNT)
    estimated = await post(gateway, acme, {"model": TRANSLATED, **question}, COUNT)
    agents = await post(gateway, acme, {"model": "openclaw", **question}, f"{COUNT}?beta=true")

    assert counted.json() == {"input_tokens": 3}
    assert "x-openclaw-estimated" not in counted.headers
    for answer in (estimated, agents):
        assert answer.headers["x-openclaw-estimated"] == "true"
        assert 3 <= answer.json()["input_tokens"] <= 30
    usage = await gateway.usage(acme)
    assert (usage["requests"], float(usage["cost"])) == (0, 0)


async def test_a_prompt_of_a_model_there_is_not_cannot_be_counted(
    gateway: Gateway, acme: Tenant
) -> None:
    answer = await post(gateway, acme, asked("nowhere/x"), COUNT)

    assert answer.status_code == 404
    assert error_of(answer)["type"] == "not_found_error"


@pytest.mark.parametrize("path", [MESSAGES, COUNT])
async def test_a_wrong_method_says_which_is_right(
    gateway: Gateway, acme: Tenant, path: str
) -> None:
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE"):
        answer = await gateway.http.request(method, path, headers=gateway.headers(acme.token))

        assert answer.status_code == 405
        assert answer.headers["allow"] == "POST"
        assert answer.headers["request-id"]


async def test_what_grants_nothing_is_a_401_in_anthropics_form(gateway: Gateway) -> None:
    answer = await gateway.http.post(MESSAGES, json=asked(), headers={"x-api-key": "sk-ant-x"})

    assert answer.status_code == 401
    assert error_of(answer) == {
        "type": "authentication_error",
        "message": "the token is missing, malformed, unknown, expired or revoked",
    }


async def test_a_token_without_the_scope_chat_may_neither_ask_nor_count(
    gateway: Gateway, acme: Tenant
) -> None:
    minted = await gateway.http.post(
        f"/v1/tenants/{acme.id}/tokens",
        json={"scopes": ["read"]},
        headers=gateway.headers(acme.token),
    )
    reader = Tenant(acme.id, minted.json()["token"])

    for path in (MESSAGES, COUNT):
        answer = await post(gateway, reader, asked(), path)
        assert answer.status_code == 403
        assert error_of(answer)["type"] == "permission_error"


async def test_rates_are_told_in_anthropics_words(gateway: Gateway) -> None:
    tenant = await gateway.create("rated", quotas={"requests_per_minute": 2})

    first = await post(gateway, tenant, asked())
    await post(gateway, tenant, asked())
    refused = await post(gateway, tenant, asked())

    assert first.headers["anthropic-ratelimit-requests-limit"] == "2"
    assert first.headers["anthropic-ratelimit-requests-remaining"] == "1"
    at = first.headers["anthropic-ratelimit-requests-reset"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", at)
    assert refused.status_code == 429
    assert error_of(refused)["type"] == "rate_limit_error"
    assert int(refused.headers["retry-after"]) >= 1


async def test_a_used_up_budget_is_not_worth_a_retry(gateway: Gateway) -> None:
    tenant = await gateway.create("poor", quotas={"tokens_per_day": 60})
    answers = [await post(gateway, tenant, asked()) for _ in range(6)]

    assert answers[0].status_code == 200
    assert answers[-1].status_code == 429
    assert error_of(answers[-1])["type"] == "rate_limit_error"
    assert answers[-1].headers["x-should-retry"] == "false"


async def test_a_body_over_the_limit_is_a_413(gateway: Gateway, acme: Tenant) -> None:
    answer = await gateway.http.post(
        MESSAGES, content=b"x" * (21 * 1024 * 1024), headers=gateway.headers(acme.token)
    )

    assert answer.status_code == 413
    assert error_of(answer)["type"] == "request_too_large"


async def test_a_header_with_a_line_end_in_it_reaches_no_provider(
    gateway: Gateway, acme: Tenant
) -> None:
    answer = await post(gateway, acme, asked(), **{"anthropic-beta": "a b"})

    assert answer.status_code == 400
    assert "anthropic-beta" in error_of(answer)["message"]
