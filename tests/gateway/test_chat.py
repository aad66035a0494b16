"""``POST /v1/chat/completions`` as a client sees it."""

import httpx
import msgspec
import openai
import pytest
import trio

from tests.gateway.conftest import Gateway, Tenant, said

CHAT = "/v1/chat/completions"


async def test_an_answer_is_passed_on_metered_and_priced(gateway: Gateway, acme: Tenant) -> None:
    answer = await gateway.chat(acme, said("hello there"))

    assert answer.status_code == 200
    body = answer.json()
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"]
    assert answer.headers["x-request-id"]
    assert float(answer.headers["x-openclaw-overhead-ms"]) >= 0
    usage = await gateway.usage(acme)
    assert usage["requests"] == 1
    assert usage["input_tokens"] == body["usage"]["prompt_tokens"]
    assert usage["output_tokens"] == body["usage"]["completion_tokens"]
    micro = usage["input_tokens"] * 1 + usage["output_tokens"] * 2
    assert float(usage["cost"]) == pytest.approx(micro / 1_000_000)


async def test_a_stream_is_the_providers_own_events_and_ends_with_done(
    gateway: Gateway, acme: Tenant
) -> None:
    answer = await gateway.chat(acme, said("hello", stream=True))

    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.removesuffix("\n\n").split("\n\n")
    assert events[-1] == "data: [DONE]"
    chunks = [msgspec.json.decode(event.removeprefix("data: ")) for event in events[:-1]]
    assert all(chunk["choices"] for chunk in chunks), "usage was not asked for"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert (await gateway.usage(acme))["output_tokens"] == 20


async def test_usage_comes_last_if_it_was_asked_for(gateway: Gateway, acme: Tenant) -> None:
    request = said("hello", stream=True, stream_options={"include_usage": True})

    events = (await gateway.chat(acme, request)).text.strip().split("\n\n")

    last = msgspec.json.decode(events[-2].removeprefix("data: "))
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 20


async def test_an_alias_leads_to_its_model(gateway: Gateway, acme: Tenant) -> None:
    assert (await gateway.chat(acme, said("x", model="fast"))).status_code == 200


async def test_another_dialect_is_translated(gateway: Gateway, acme: Tenant) -> None:
    whole = await gateway.chat(acme, said("x", model="claude/mock"))
    streamed = await gateway.chat(acme, said("x", model="claude/mock", stream=True))

    assert whole.json()["choices"][0]["finish_reason"] == "stop"
    assert streamed.text.endswith("data: [DONE]\n\n")
    assert (await gateway.usage(acme))["requests"] == 2


async def test_a_chain_goes_on_to_the_provider_that_answers(gateway: Gateway, acme: Tenant) -> None:
    answer = await gateway.chat(acme, said("x", model="smart"))

    assert answer.status_code == 200, answer.text
    usage = await gateway.usage(acme)
    assert (usage["requests"], usage["output_tokens"]) == (1, 20)


@pytest.mark.parametrize(
    ("model", "status"),
    [
        ("dead/any", 503),
        ("stub/fault-529", 503),
        ("stub/fault-429", 429),
        ("stub/fault-malformed", 502),
        ("stub/fault-html", 502),
        ("stub/fault-cut", 502),
        ("stub/missing", 404),
    ],
)
async def test_a_failing_provider_has_a_status_and_costs_nothing_it_did_not_do(
    gateway: Gateway, acme: Tenant, model: str, status: int
) -> None:
    answer = await gateway.chat(acme, said("x", model=model))

    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "sk-" not in answer.text
    assert "10.0.0.7" not in answer.text


@pytest.mark.parametrize("fault", ["cut", "malformed", "hang"])
async def test_a_stream_that_breaks_off_never_looks_whole(
    gateway: Gateway, acme: Tenant, fault: str
) -> None:
    answer = await gateway.chat(acme, said("x", model=f"stub/fault-{fault}", stream=True))

    assert answer.status_code == 200
    assert '"error":{"message"' in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")
    assert '"finish_reason":"stop"' not in answer.text
    # What came before is billed, as far as it can be told.
    assert (await gateway.usage(acme))["requests"] == 1


async def test_a_client_that_leaves_ends_the_call_and_it_is_settled(
    gateway: Gateway, acme: Tenant
) -> None:
    body = msgspec.json.encode(said("x", model="stub/fault-slow", stream=True))
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {acme.token}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    async with await trio.open_tcp_stream("127.0.0.1", gateway.port) as stream:
        await stream.send_all(head.encode() + body)
        seen = b""
        while seen.count(b"data: ") < 5:
            seen += await stream.receive_some()

    with trio.fail_after(60):
        while (await gateway.usage(acme))["requests"] == 0:  # noqa: ASYNC110 - over HTTP
            await trio.sleep(0.05)
    usage = await gateway.usage(acme)
    assert 0 < usage["output_tokens"] < 20
    assert usage["estimated_requests"] == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", None),
        (b"not json", None),
        (b"[]", None),
        (b'{"messages": []}', "model"),
        (b'{"model": "stub/mock"}', "messages"),
        (b'{"model": "stub/mock", "messages": []}', "messages"),
        (b'{"model": "stub/mock", "messages": NaN}', None),
        (b'{"model": "stub/mock", "model": "x", "messages": [{}]}', "model"),
        (b'{"model": "stub/mock", "messages": ["\\ud800"]}', None),
        (b'{"model": "stub/mock", "messages": ' + b"[" * 500 + b"]" * 500 + b"}", None),
        (b'{"model": "stub/mock", "messages": [{}], "max_tokens": -1}', "max_tokens"),
        (b'{"model": "stub/mock", "messages": [{}], "n": 0}', "n"),
        (b"\xff\xfe", None),
    ],
)
async def test_a_bad_request_is_refused_naming_the_field(
    gateway: Gateway, acme: Tenant, body: bytes, field: str | None
) -> None:
    answer = await gateway.http.post(CHAT, content=body, headers=gateway.headers(acme.token))

    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == field
    assert (await gateway.usage(acme))["requests"] == 0


@pytest.mark.parametrize(
    "credential",
    [
        "",
        "tenant:acme:",
        "tenant:constructor:x",
        "tenant:nobody:" + "A" * 43,
        "tenant:../../etc:" + "A" * 43,
        "tenant:ACME:" + "A" * 43,
        "admin:wrong-key-wrong-key",
        "x" * 10_000,
    ],
)
async def test_what_grants_nothing_is_always_the_same_401(
    gateway: Gateway, acme: Tenant, credential: str
) -> None:
    answer = await gateway.http.post(
        CHAT, json=said("x"), headers={"authorization": f"Bearer {credential}".strip()}
    )

    assert answer.status_code == 401
    assert answer.json()["error"] == {
        "message": "the token is missing, malformed, unknown, expired or revoked",
        "type": "authentication_error",
        "param": None,
        "code": "invalid_api_key",
    }


async def test_a_token_with_bytes_outside_ascii_is_a_401(gateway: Gateway, acme: Tenant) -> None:
    headers = [(b"authorization", b"Bearer tenant:acm\xe9:x\xff")]

    answer = await gateway.http.post(CHAT, json=said("x"), headers=headers)

    assert answer.status_code == 401


async def test_a_body_over_the_limit_is_a_413_naming_it(gateway: Gateway, acme: Tenant) -> None:
    answer = await gateway.http.post(
        CHAT, content=b"x" * (21 * 1024 * 1024), headers=gateway.headers(acme.token)
    )

    assert answer.status_code == 413
    assert str(20 * 1024 * 1024) in answer.text


async def test_a_body_that_never_ends_is_given_up(gateway: Gateway, acme: Tenant) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", gateway.port) as stream:
        head = (
            f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {acme.token}\r\n"
            "content-length: 100\r\n\r\n{"
        )
        await stream.send_all(head.encode())
        with trio.fail_after(60):
            answer = bytes(await stream.receive_some())

    assert answer.startswith(b"HTTP/1.1 408")


async def test_two_hundred_at_once_against_ten_a_minute_admit_exactly_ten(
    gateway: Gateway,
) -> None:
    tenant = await gateway.create("burst", quotas={"requests_per_minute": 10})
    statuses: list[int] = []

    async def call() -> None:
        answer = await gateway.chat(tenant, said("x"))
        statuses.append(answer.status_code)
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["code"] == "rate_limit_exceeded"

    gateway.http.timeout = httpx.Timeout(30)
    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(call)

    assert statuses.count(200) == 10
    assert statuses.count(429) == 190
    assert (await gateway.usage(tenant))["requests"] == 10


async def test_a_used_up_budget_is_insufficient_quota_and_not_worth_a_retry(
    gateway: Gateway,
) -> None:
    tenant = await gateway.create("poor", quotas={"tokens_per_day": 60})
    statuses = [(await gateway.chat(tenant, said("x"))).status_code for _ in range(6)]

    refused = await gateway.chat(tenant, said("x"))

    assert 200 in statuses
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert refused.headers["x-should-retry"] == "false"
    assert int(refused.headers["retry-after"]) > 0
    usage = await gateway.usage(tenant)
    assert usage["total_tokens"] <= 60


async def test_no_quota_at_all_means_none(gateway: Gateway) -> None:
    tenant = await gateway.create("none", quotas={"requests_per_minute": 0})

    assert (await gateway.chat(tenant, said("x"))).status_code == 429


async def test_revoking_a_token_ends_its_stream_at_once(gateway: Gateway, acme: Tenant) -> None:
    async with gateway.http.stream(
        "POST",
        CHAT,
        json=said("x", model="stub/fault-hang", stream=True),
        headers=gateway.headers(acme.token),
    ) as answer:
        pieces = answer.aiter_bytes()
        await anext(pieces)
        with trio.fail_after(60):
            rotated = await gateway.http.post(
                f"/v1/tenants/{acme.id}/rotate", headers=gateway.headers(acme.token)
            )
            tail = b"".join([piece async for piece in pieces])

    assert rotated.status_code == 200
    assert b"revoked" in tail
    assert (await gateway.chat(acme, said("x"))).status_code == 401


async def test_a_token_without_the_scope_chat_cannot_spend(gateway: Gateway, acme: Tenant) -> None:
    minted = await gateway.http.post(
        "/v1/tenants/acme/tokens", json={"scopes": ["read"]}, headers=gateway.headers(acme.token)
    )
    reader = Tenant("acme", minted.json()["token"])

    answer = await gateway.chat(reader, said("x"))

    assert answer.status_code == 403
    assert answer.json()["error"]["type"] == "permission_error"


async def test_the_tenant_in_the_path_must_be_the_tokens(gateway: Gateway, acme: Tenant) -> None:
    other = await gateway.create("other")

    own = await gateway.http.post(
        f"/t/acme{CHAT}", json=said("x"), headers=gateway.headers(acme.token)
    )
    foreign = await gateway.http.post(
        f"/t/acme{CHAT}", json=said("x"), headers=gateway.headers(other.token)
    )
    elsewhere = await gateway.http.post(
        f"/t/moved-away{CHAT}", json=said("x"), headers=gateway.headers(acme.token)
    )

    assert (own.status_code, foreign.status_code, elsewhere.status_code) == (200, 403, 421)


async def test_a_wrong_method_says_which_is_right(gateway: Gateway, acme: Tenant) -> None:
    answer = await gateway.http.get(CHAT, headers=gateway.headers(acme.token))

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


async def test_the_operators_key_is_in_no_file_of_the_state_directory(
    gateway: Gateway, acme: Tenant
) -> None:
    await gateway.chat(acme, said("x"))

    for path in gateway.state_dir.rglob("*"):
        if path.is_file():
            assert b"sk-operators-own-key" not in path.read_bytes(), path


async def test_the_official_sdk_works(gateway: Gateway, acme: Tenant) -> None:
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=acme.token)

    def ask() -> tuple[str | None, str, list[str]]:
        with client:
            whole = client.chat.completions.create(
                model="openclaw", messages=[{"role": "user", "content": "hi"}]
            )
            stream = client.chat.completions.create(
                model="stub/mock", messages=[{"role": "user", "content": "hi"}], stream=True
            )
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            return whole.choices[0].message.content, text, [m.id for m in client.models.list()]

    content, streamed, models = await trio.to_thread.run_sync(ask)

    assert content
    assert streamed
    assert {"openclaw", "openclaw/pirate", "fast", "smart"} <= set(models)
