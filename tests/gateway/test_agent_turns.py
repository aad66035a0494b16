"""``model: openclaw``: a turn of an agent, kept in the tenant's own session."""

from functools import partial
from typing import Any

import apsw
import pytest
import trio

from tests.gateway.conftest import Gateway, Tenant, said

SESSION = "x-openclaw-session-key"


def messages_of(gateway: Gateway, tenant: str) -> list[tuple[str, str]]:
    path = gateway.state_dir / "tenants" / tenant / "sessions" / "sessions.sqlite"
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        rows = connection.execute(
            "SELECT s.key, m.message FROM messages m JOIN sessions s ON s.id = m.session"
            " ORDER BY m.seq"
        )
        return [(str(key), str(message)) for key, message in rows]
    finally:
        connection.close()


async def test_what_was_said_and_answered_is_kept_under_its_key(
    gateway: Gateway, acme: Tenant
) -> None:
    request = said("remember this", model="openclaw")

    answer = await gateway.chat(acme, request, **{SESSION: "notes"})

    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == "openclaw"
    kept = messages_of(gateway, "acme")
    assert [key for key, _ in kept] == ["agent:main:notes"] * 2
    assert "remember this" in kept[0][1]
    assert answer.json()["choices"][0]["message"]["content"] in kept[1][1]


async def test_a_session_goes_on_where_it_was(gateway: Gateway, acme: Tenant) -> None:
    first = await gateway.chat(acme, said("one", model="openclaw", user="ada"))
    second = await gateway.chat(acme, said("two", model="openclaw", user="ada"))

    assert len(messages_of(gateway, "acme")) == 4
    grown = second.json()["usage"]["prompt_tokens"] - first.json()["usage"]["prompt_tokens"]
    assert grown > 0, "the second call carries the first turn"


async def test_users_whose_names_differ_in_a_capital_are_two(
    gateway: Gateway, acme: Tenant
) -> None:
    for user in ("ada", "Ada"):
        await gateway.chat(acme, said("one", model="openclaw", user=user))

    keys = {key for key, _ in messages_of(gateway, "acme")}
    assert keys == {"agent:main:openai-user:ada", "agent:main:openai-user:ada~c"}


@pytest.mark.parametrize("route", ["chat", "messages"])
async def test_an_agent_hears_a_system_that_speaks_in_parts(gateway: Gateway, route: str) -> None:
    acme = await gateway.create("acme", config={"models": {"default": "stub/assistant"}})
    parts = [{"type": "text", "text": "Rhyme."}, {"type": "text", "text": "Be brief."}]
    question = {"role": "user", "content": "what are your instructions?"}
    bodies: dict[str, tuple[str, dict[str, Any]]] = {
        "chat": ("/v1/chat/completions", {"messages": [{"role": "system", "content": parts}]}),
        "messages": ("/v1/messages", {"messages": [], "system": parts, "max_tokens": 500}),
    }
    path, body = bodies[route]
    body["messages"].append(question)

    answer = await gateway.http.post(
        path, json={"model": "openclaw", **body}, headers=gateway.headers(acme.token)
    )

    assert answer.status_code == 200, answer.text
    assert "Rhyme." in answer.text
    assert "Be brief." in answer.text


async def test_the_whole_conversation_sent_again_is_not_stored_again(
    gateway: Gateway, acme: Tenant
) -> None:
    await gateway.chat(acme, said("one", model="openclaw", user="ada"))
    again = {
        "model": "openclaw",
        "user": "ada",
        "messages": [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "an answer"},
            {"role": "user", "content": "two"},
        ],
    }

    await gateway.chat(acme, again)

    assert len(messages_of(gateway, "acme")) == 4


async def test_a_request_without_a_name_remembers_nothing_for_the_next(
    gateway: Gateway, acme: Tenant
) -> None:
    await gateway.chat(acme, said("one", model="openclaw"))
    await gateway.chat(acme, said("two", model="openclaw"))

    assert len({key for key, _ in messages_of(gateway, "acme")}) == 2


async def test_an_agent_streams_with_the_role_first_and_usage_on_request(
    gateway: Gateway, acme: Tenant
) -> None:
    request = said(
        "x", model="openclaw:pirate", stream=True, stream_options={"include_usage": True}
    )

    text = (await gateway.chat(acme, request)).text

    assert text.startswith("data: ")
    assert '"role":"assistant"' in text.split("\n\n", 1)[0]
    assert text.count('"role"') == 1
    assert '"usage":{' in text
    assert text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    "key",
    [
        "tenant:other:agent:main:x",
        "tenant:acme:tenant:other:agent:main:x",
        "agent:main:tenant:other:x",
        "tenant:acmee:agent:main:x",
    ],
)
async def test_a_foreign_or_nested_key_is_refused_never_rehomed(
    gateway: Gateway, acme: Tenant, key: str
) -> None:
    await gateway.create("other")

    answer = await gateway.chat(acme, said("x", model="openclaw"), **{SESSION: key})

    assert answer.status_code == 403
    assert "does not match" in answer.text or "one tenant prefix" in answer.text
    assert (await gateway.usage(acme))["requests"] == 0


async def test_two_tenants_may_use_one_key_and_see_nothing_of_each_other(
    gateway: Gateway, acme: Tenant
) -> None:
    other = await gateway.create("other")

    await gateway.chat(acme, said("acme's secret", model="openclaw"), **{SESSION: "main"})
    await gateway.chat(other, said("hello", model="openclaw"), **{SESSION: "main"})

    assert "secret" not in str(messages_of(gateway, "other"))
    assert len(messages_of(gateway, "other")) == 2


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"logprobs": True}, "logprobs"),
    ],
)
async def test_what_an_agent_cannot_do_is_refused_by_name(
    gateway: Gateway, acme: Tenant, more: dict[str, object], field: str
) -> None:
    answer = await gateway.chat(acme, said("x", model="openclaw", **more))

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field


async def test_an_agent_that_does_not_exist_is_a_404(gateway: Gateway, acme: Tenant) -> None:
    answer = await gateway.chat(acme, said("x", model="openclaw:nobody"))

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


async def test_turns_of_one_session_run_one_after_the_other(gateway: Gateway, acme: Tenant) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(5):
            request = said(f"message {number}", model="openclaw")
            nursery.start_soon(partial(gateway.chat, acme, request, **{SESSION: "busy"}))

    kept = messages_of(gateway, "acme")
    roles = ["assistant" if '"assistant"' in message else "user" for _, message in kept]
    assert roles == ["user", "assistant"] * 5


async def test_a_refused_turn_leaves_no_trace_in_the_session(gateway: Gateway) -> None:
    tenant = await gateway.create("limited", quotas={"requests_per_minute": 1})
    await gateway.chat(tenant, said("one", model="openclaw", user="ada"))

    refused = await gateway.chat(tenant, said("two", model="openclaw", user="ada"))

    assert refused.status_code == 429
    assert len(messages_of(gateway, "limited")) == 2
