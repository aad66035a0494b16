"""What operators expect of a router, as a client sees it: headers, keys, caches, guardrails."""

from typing import Any

import msgspec
import pytest
import trio

from tests.gateway.conftest import ADMIN_KEY, Gateway, Tenant, said


async def token_for(gateway: Gateway, tenant: Tenant, *models: str) -> Tenant:
    answer = await gateway.http.post(
        f"/v1/tenants/{tenant.id}/tokens",
        json={"scopes": ["chat"], "models": list(models)},
        headers=gateway.headers(tenant.token),
    )
    assert answer.status_code == 201, answer.text
    return Tenant(tenant.id, answer.json()["token"])


async def test_a_head_says_who_answered_who_did_not_and_what_it_cost(
    gateway: Gateway, acme: Tenant
) -> None:
    answer = await gateway.chat(acme, said("x", model="smart"))
    again = await gateway.chat(acme, said("x", model="smart", stream=True))

    assert answer.headers["x-openclaw-model"] == "stub/mock"
    assert answer.headers["x-openclaw-attempts"] == "3"
    assert answer.headers["x-openclaw-failover"] == (
        "dead/any;reason=upstream-unavailable, stub/fault-529;reason=upstream-unavailable"
    )
    assert answer.headers["x-openclaw-cache"] == "off"
    assert float(answer.headers["x-openclaw-cost"]) > 0
    assert again.headers["x-openclaw-model"] == "stub/mock"
    assert "dead/any;reason=cooling" in again.headers["x-openclaw-failover"]
    assert "x-openclaw-cost" not in again.headers


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
async def test_a_stream_that_begins_with_an_error_is_asked_of_the_next_and_else_refused(
    gateway: Gateway, acme: Tenant, path: str
) -> None:
    def asked(model: str) -> dict[str, object]:
        if path == "/v1/responses":
            return {"model": model, "input": "x", "stream": True}
        return {**said("x", model=model, stream=True), "max_tokens": 100}

    headers = gateway.headers(acme.token)
    alone = await gateway.http.post(path, json=asked("stub/fault-error-in-200"), headers=headers)
    chained = await gateway.http.post(path, json=asked("shaky"), headers=headers)

    assert alone.status_code in {503, 529}, alone.text
    assert alone.headers["content-type"] == "application/json"
    assert chained.status_code == 200
    assert "stub/fault-error-in-200;reason=" in chained.headers["x-openclaw-failover"]
    assert chained.headers["x-openclaw-model"] == "stub/mock"


async def test_an_agents_answer_tells_what_all_its_calls_cost(
    gateway: Gateway, acme: Tenant
) -> None:
    answer = await gateway.chat(acme, said("hi", model="openclaw"))

    assert answer.headers["x-openclaw-model"] == "stub/mock"
    assert float(answer.headers["x-openclaw-cost"]) == pytest.approx(
        float((await gateway.usage(acme))["cost"])
    )


async def test_budgets_and_rates_are_told_with_every_answer(gateway: Gateway) -> None:
    quotas = {"tokens_per_day": 5000, "cost_per_month": "5.00", "requests_per_minute": 3}
    acme = await gateway.create("acme", quotas=quotas)

    bad = await gateway.http.post(
        "/v1/chat/completions", content=b"{", headers=gateway.headers(acme.token)
    )
    good = [await gateway.chat(acme, said("x")) for _ in range(3)]
    late = await gateway.chat(acme, said("x"))
    stranger = await gateway.http.post("/v1/chat/completions", json=said("x"))

    assert bad.status_code == 400
    for answer in (bad, *good, late):
        assert answer.headers["x-openclaw-budget-limit-tokens"] == "5000"
        assert answer.headers["x-openclaw-budget-limit-cost"] == "5.00"
        assert answer.headers["x-ratelimit-limit-requests"] == "3"
    assert int(good[0].headers["x-openclaw-budget-remaining-tokens"]) < 5000
    assert late.status_code == 429
    assert late.headers["x-should-retry"] == "true"
    assert int(late.headers["retry-after-ms"]) <= int(late.headers["retry-after"]) * 1000
    assert stranger.status_code == 401
    assert not [name for name in stranger.headers if "budget" in name or "ratelimit" in name]


async def test_a_token_for_some_models_asks_and_lists_no_others(
    gateway: Gateway, acme: Tenant
) -> None:
    few = await token_for(gateway, acme, "stub/mock-300", "fast")

    refused = await gateway.chat(few, said("x"))
    agent = await gateway.chat(few, said("x", model="openclaw"))
    allowed = await gateway.chat(few, said("x", model="fast"))
    listed = await gateway.http.get("/v1/models", headers=gateway.headers(few.token))

    assert (refused.status_code, agent.status_code, allowed.status_code) == (403, 403, 200)
    assert refused.json()["error"]["code"] == "model_forbidden"
    assert "stub/mock" in refused.json()["error"]["message"]
    assert {model["id"] for model in listed.json()["data"]} == {"fast", "stub/mock-300"}


async def test_a_token_for_an_agent_is_for_no_other_and_for_no_model(
    gateway: Gateway, acme: Tenant
) -> None:
    one = await token_for(gateway, acme, "openclaw/pirate")
    names = ("openclaw:pirate", "openclaw/pirate", "openclaw", "stub/mock")
    header = {"x-openclaw-agent-id": "pirate"}

    asked = [(await gateway.chat(one, said("x", model=name))).status_code for name in names]
    by_header = await gateway.chat(one, said("x", model="openclaw"), **header)
    response = await gateway.http.post(
        "/v1/responses",
        json={"model": "openclaw:pirate", "input": "x"},
        headers=gateway.headers(one.token),
    )
    listed = await gateway.http.get("/v1/models", headers=gateway.headers(one.token))
    plain = await token_for(gateway, acme, "openclaw")
    refused = await gateway.chat(plain, said("x", model="openclaw"), **header)

    assert asked == [200, 200, 403, 403]
    assert by_header.status_code == response.status_code == 200
    assert [model["id"] for model in listed.json()["data"]] == ["openclaw/pirate"]
    assert refused.status_code == 403
    assert "openclaw:pirate" in refused.json()["error"]["message"]


@pytest.mark.parametrize("below", ["compact", "input_tokens"])
async def test_a_token_for_an_agent_counts_and_compacts_for_that_agent_only(
    gateway: Gateway, acme: Tenant, below: str
) -> None:
    pirate = await token_for(gateway, acme, "openclaw/pirate")
    main = await token_for(gateway, acme, "openclaw")
    header = {"x-openclaw-agent-id": "pirate"}

    async def ask(token: Tenant, model: str, **headers: str) -> int:
        answer = await gateway.http.post(
            f"/v1/responses/{below}",
            json={"model": model, "input": "what was said"},
            headers=gateway.headers(token.token, **headers),
        )
        if answer.status_code == 403:
            assert answer.json()["error"]["code"] == "model_forbidden"
        return answer.status_code

    names = ("openclaw:pirate", "openclaw/pirate", "openclaw", "openclaw/main", "stub/mock", "fast")
    assert [await ask(pirate, name) for name in names] == [200, 200, 403, 403, 403, 403]
    assert [await ask(main, name) for name in names] == [403, 403, 200, 200, 403, 403]
    assert await ask(pirate, "openclaw", **header) == 200
    assert await ask(main, "openclaw", **header) == 403
    assert await ask(pirate, "stub/mock", **header) == 403


async def test_what_an_agents_conversation_takes_to_compact_is_booked_for_the_agent(
    gateway: Gateway, acme: Tenant
) -> None:
    pirate = await token_for(gateway, acme, "openclaw/pirate")

    made = await gateway.http.post(
        "/v1/responses/compact",
        json={"model": "openclaw/pirate", "input": "what was said"},
        headers=gateway.headers(pirate.token),
    )
    report = await gateway.http.get(
        f"/v1/tenants/{acme.id}/usage",
        params={"group_by": "agent"},
        headers=gateway.headers(acme.token),
    )

    assert made.headers["x-openclaw-model"] == "stub/mock"
    assert [row["group"] for row in report.json()["rows"]] == ["pirate"]


async def test_a_kept_answer_costs_nothing_and_stays_with_its_tenant(
    gateway: Gateway, acme: Tenant
) -> None:
    other = await gateway.create("other")
    on = {"defaults": {"response_cache": {"enabled": True}}}
    await gateway.configure(acme, on)
    await gateway.configure(other, on)

    first = await gateway.chat(acme, said("x"))
    again = await gateway.chat(acme, said("x", stream=True, user="ann"))
    bypassed = await gateway.chat(acme, said("x"), **{"x-openclaw-cache": "bypass"})
    others = await gateway.chat(other, said("x"))
    wrong = await gateway.chat(acme, said("x"), **{"x-openclaw-cache": "maybe"})

    caches = [each.headers["x-openclaw-cache"] for each in (first, again, bypassed, others)]
    assert caches == ["miss", "hit", "off", "miss"]
    assert again.text.endswith("data: [DONE]\n\n")
    text = first.json()["choices"][0]["message"]["content"]
    assert msgspec.json.encode(text).decode() in again.text
    assert wrong.status_code == 400
    usage = await gateway.usage(acme)
    assert (usage["requests"], usage["output_tokens"]) == (3, 40)


async def test_cache_control_asks_anew_or_leaves_no_copy(gateway: Gateway, acme: Tenant) -> None:
    await gateway.configure(acme, {"defaults": {"response_cache": {"enabled": True}}})

    async def ask(text: str, **headers: str) -> str:
        answer = await gateway.chat(acme, said(text), **headers)
        assert answer.status_code == 200
        return answer.headers["x-openclaw-cache"]

    anew, none = {"cache-control": "no-cache"}, {"cache-control": "no-store"}
    # What is asked anew is kept; with no-store nothing is, nor is anything used.
    assert [await ask("x", **anew), await ask("x"), await ask("x", **anew)] == [
        "miss", "hit", "miss",
    ]  # fmt: skip
    assert [await ask("y", **none), await ask("y"), await ask("y", **none)] == [
        "off", "miss", "off",
    ]  # fmt: skip
    assert await ask("y", **{"cache-control": "no-st0re, =,;"}) == "hit"
    # What is said to the gateway in particular counts more.
    assert await ask("y", **anew, **{"x-openclaw-cache": "no-store"}) == "hit"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages", {**said("x"), "max_tokens": 50}),
        ("/v1/responses", {"model": "stub/mock", "input": "x", "store": False}),
    ],
)
async def test_answers_are_kept_in_every_apis_form(
    gateway: Gateway, acme: Tenant, path: str, body: dict[str, Any]
) -> None:
    await gateway.configure(acme, {"defaults": {"response_cache": {"enabled": True}}})
    answers = [
        await gateway.http.post(
            path, json={**body, "stream": stream}, headers=gateway.headers(acme.token)
        )
        for stream in (False, True, False)
    ]

    assert [answer.status_code for answer in answers] == [200] * 3, answers[0].text
    assert [a.headers["x-openclaw-cache"] for a in answers] == ["miss", "hit", "hit"]
    assert [a.headers["x-openclaw-attempts"] for a in answers] == ["1", "0", "0"]
    assert answers[2].headers["x-openclaw-cost"] == "0.00"


async def test_guardrails_hold_for_requests_answers_and_agents(
    gateway: Gateway, acme: Tenant
) -> None:
    rules = [
        {"name": "no plans", "on": "request", "deny": ["(?i)project x"]},
        {"name": "no mail", "pii": ["email"], "action": "redact"},
    ]
    await gateway.configure(acme, {"defaults": {"guardrails": rules}})

    blocked = await gateway.chat(acme, said("what of Project X?"))
    agent = await gateway.chat(acme, said("what of Project X?", model="openclaw"))
    redacted = await gateway.chat(acme, said("I am ann@example.org"))
    streamed = await gateway.chat(acme, said("I am ann@example.org", stream=True))

    assert (blocked.status_code, agent.status_code) == (403, 403)
    assert blocked.json()["error"]["code"] == "guardrail_blocked"
    assert "no plans" in blocked.json()["error"]["message"]
    assert "roject" not in blocked.text
    assert redacted.status_code == streamed.status_code == 200
    assert redacted.headers["x-openclaw-guardrails"] == "no%20mail;action=redact"
    assert streamed.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("model", ["stub/mock", "claude/mock", "openclaw"])
async def test_an_answer_that_is_blocked_never_looks_whole(
    gateway: Gateway, acme: Tenant, model: str
) -> None:
    rule = {"name": "silence", "on": "answer", "deny": ["[a-z]+"]}
    await gateway.configure(acme, {"defaults": {"guardrails": [rule]}})

    whole = await gateway.chat(acme, said("x", model=model))
    stream = await gateway.chat(acme, said("x", model=model, stream=True))

    assert whole.status_code == 403
    assert "guardrail_blocked" in stream.text
    assert '"finish_reason":"stop"' not in stream.text
    assert '"content":"' not in stream.text.replace('"content":""', "")


async def test_costs_are_summed_by_tag(gateway: Gateway, acme: Tenant) -> None:
    for tags in ("team=red,project=x", "team=red", "team=blue"):
        assert (await gateway.chat(acme, said("x"), **{"x-openclaw-tags": tags})).status_code == 200
    agent = await gateway.chat(
        acme, said("x", model="openclaw"), **{"x-openclaw-tags": "team=blue"}
    )
    wrong = await gateway.chat(acme, said("x"), **{"x-openclaw-tags": "Team=Red"})
    report = await gateway.http.get(
        f"/v1/tenants/{acme.id}/usage?group_by=tag:team", headers=gateway.headers(acme.token)
    )

    assert (agent.status_code, wrong.status_code) == (200, 400)
    rows: list[dict[str, Any]] = report.json()["rows"]
    assert {row["group"]: row["requests"] for row in rows} == {"red": 2, "blue": 2}
    assert report.json()["group_by"] == "tag:team"


async def test_keys_take_turns_and_are_never_told(gateway: Gateway, acme: Tenant) -> None:
    text = gateway.config.read_text().replace(
        'api_key: "env:STUB_KEY"\n',
        'api_key: "env:STUB_KEY"\n    api_keys: [{key: "env:STUB_KEY", weight: 2}]\n',
        1,
    )
    gateway.config.write_text(text)
    with trio.fail_after(60):
        while True:
            answer = await gateway.chat(acme, said("x", model="stub/fault-401"))
            if answer.headers["x-openclaw-attempts"] == "2":
                break  # the config has been read again
            await trio.sleep(0.05)
    shown = await gateway.http.get(
        f"/v1/tenants/{acme.id}/config", headers=gateway.headers(ADMIN_KEY)
    )

    assert answer.status_code == 502
    told = answer.text + str(answer.headers) + shown.text
    assert "sk-operators" not in told
    assert "STUB_KEY" not in told
