"""Whoever asks, and whoever answers: every caller's dialect with every provider's."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from tests.gateway.conftest import Gateway, Tenant
from tests.gateway.inbound import INBOUND, Ask, Got, Inbound

UPSTREAM = ("stub", "claude", "replies", "llama")


@pytest.fixture
def gateway(lasting_gateway: Gateway) -> Gateway:
    return lasting_gateway


@pytest.fixture
def acme(fresh_tenant: Tenant) -> Tenant:
    return fresh_tenant


@pytest.fixture(params=INBOUND)
def inbound(request: pytest.FixtureRequest) -> Inbound:
    return INBOUND[request.param]


@pytest.fixture(params=UPSTREAM)
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["whole", "stream"])
def streams(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "stream")


@pytest.fixture
def asked(
    gateway: Gateway, acme: Tenant, inbound: Inbound, provider: str, *, streams: bool
) -> "Asked":
    return Asked(gateway, acme, inbound, f"{provider}/assistant", streams=streams)


class Asked:
    def __init__(
        self, gateway: Gateway, tenant: Tenant, inbound: Inbound, model: str, *, streams: bool
    ) -> None:
        self.gateway = gateway
        self.tenant = tenant
        self.inbound = inbound
        self.model = model
        self.streams = streams

    async def __call__(self, ask: Ask, **more: Any) -> Got:
        body = {"model": self.model, **self.inbound.body(ask), **more}
        if self.streams:
            body["stream"] = True
            if self.inbound is INBOUND["chat"]:
                body["stream_options"] = {"include_usage": True}
        answer = await self.gateway.http.post(
            self.inbound.path, json=body, headers=self.gateway.headers(self.tenant.token)
        )
        assert answer.status_code == 200, answer.text
        if self.streams:
            assert answer.headers["content-type"].startswith("text/event-stream")
            return self.inbound.stream(answer.text)
        return self.inbound.whole(answer.json())


async def test_a_conversation_is_understood(asked: Asked) -> None:
    got = await asked(
        Ask(("My name is Ada.", "Nice to meet you, Ada.", "What is my name?"), system="Be brief.")
    )

    assert "Ada" in got.text
    assert got.reason == "stop"
    assert got.prompt_tokens > 0
    assert got.answer_tokens > 0


async def test_the_books_hold_what_the_caller_is_told(asked: Asked) -> None:
    got = await asked(Ask(("Count from 1 to 5",)))

    totals = await asked.gateway.usage(asked.tenant)
    assert got.text.split()[:3] == ["1", "2", "3"] or "1" in got.text
    assert totals["requests"] == 1
    assert totals["input_tokens"] == got.prompt_tokens
    assert totals["output_tokens"] == got.answer_tokens


async def test_a_tool_is_called_and_its_result_is_heard(asked: Asked) -> None:
    ask = Ask(("What is the weather in San Francisco?",), tools=True)
    got = await asked(ask)
    [(call_id, name, arguments)] = got.calls

    assert got.reason == "tool_calls"
    assert (name, msgspec.json.decode(arguments)) == ("get_weather", {"location": "San Francisco"})

    told = await asked(replace(ask, calls=got.calls, results={call_id: "18 degrees and foggy"}))
    assert "18 degrees and foggy" in told.text
    assert told.reason == "stop"


async def test_a_tool_can_be_demanded(asked: Asked, provider: str) -> None:
    if provider == "llama":
        pytest.skip("Ollama cannot be told to call a tool; see the test of what is refused")
    got = await asked(Ask(("Hello in Rome",), tools=True, must_call=True))

    assert [name for _, name, _ in got.calls] == ["get_weather"]


@pytest.mark.parametrize("grammar", ["", 'start: "fog" | "sun"'])
@pytest.mark.parametrize("inbound", ["chat", "responses"], indirect=True)
@pytest.mark.parametrize("provider", ["stub", "replies"], indirect=True)
async def test_openais_two_apis_understand_each_other_about_custom_tools(
    asked: Asked, grammar: str
) -> None:
    ask = Ask(('It is "cold" in Rome\n{',), custom=True, grammar=grammar, must_call=True)
    got = await asked(ask)
    [(call_id, name, text)] = got.calls

    assert (got.reason, got.is_custom) == ("tool_calls", True)
    assert (name, text) == ("get_weather", grammar or ask.said[0])

    told = await asked(replace(ask, calls=got.calls, results={call_id: "18 degrees and foggy"}))
    assert "18 degrees and foggy" in told.text
    assert told.reason == "stop"


@pytest.mark.parametrize("inbound", ["chat", "responses"], indirect=True)
@pytest.mark.parametrize("provider", ["stub", "replies"], indirect=True)
async def test_what_a_custom_tool_is_called_with_is_looked_through_and_kept(asked: Asked) -> None:
    rule = {"name": "no plans", "on": "answer", "deny": ["the plan"], "action": "redact"}
    kept = {"enabled": True}
    await asked.gateway.configure(
        asked.tenant, {"defaults": {"guardrails": [rule], "response_cache": kept}}
    )
    ask = Ask(("cat the plan.txt",), custom=True, must_call=True)

    first, again = await asked(ask), await asked(ask)

    for got in (first, again):
        assert (got.reason, got.is_custom) == ("tool_calls", True)
        assert [text for _, _, text in got.calls] == ["cat [redacted].txt"]
    assert (await asked.gateway.usage(asked.tenant))["output_tokens"] == first.answer_tokens


async def test_an_answer_in_a_schema(asked: Asked) -> None:
    got = await asked(Ask(("Who is it?",), schema=True))

    assert set(msgspec.json.decode(got.text)) == {"name", "age"}


async def test_a_picture_is_seen(asked: Asked) -> None:
    got = await asked(Ask(("What is this?",), picture=True))

    assert "image" in got.text.lower()


async def test_an_answer_that_reaches_the_limit_says_so(asked: Asked) -> None:
    got = await asked(Ask(("Count from 1 to 50",), limit=16))

    assert got.reason == "length"


async def test_a_stop_sequence_ends_the_answer(asked: Asked) -> None:
    if asked.inbound is INBOUND["responses"]:
        pytest.skip("responses have no word for stop sequences")
    if asked.model.startswith("replies/"):
        pytest.skip("a provider of responses cannot be given any; see what is refused")
    got = await asked(Ask(("Reply with exactly: one STOP two",), stop="STOP"))

    assert got.text.strip() == "one"
    assert got.reason == "stop"


REFUSED: tuple[tuple[str, str, Mapping[str, Any], str], ...] = (
    ("chat", "claude", {"n": 2}, "n"),
    ("chat", "claude", {"logit_bias": {"1": 5}}, "logit_bias"),
    ("chat", "claude", {"logprobs": True}, "logprobs"),
    ("chat", "replies", {"stop": "x"}, "stop"),
    ("chat", "replies", {"seed": None, "n": 3}, "n"),
    ("chat", "llama", {"n": 2}, "n"),
    ("chat", "claude", {"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
    ("chat", "llama", {"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
    ("responses", "claude", {"tools": [{"type": "custom", "name": "f"}]}, "tools[0].type"),
    ("responses", "llama", {"tools": [{"type": "custom", "name": "f"}]}, "tools[0].type"),
    ("messages", "replies", {"top_k": 5}, "top_k"),
    ("messages", "stub", {"mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}]},
     "mcp_servers"),
    ("messages", "replies", {"stop_sequences": ["x"]}, "stop_sequences"),
    ("responses", "claude", {"top_logprobs": 3, "include": ["message.output_text.logprobs"]},
     "include"),
)  # fmt: skip


@pytest.mark.parametrize(("speaks", "to", "more", "field"), REFUSED)
async def test_what_cannot_be_said_is_refused_in_the_callers_words(
    gateway: Gateway, acme: Tenant, speaks: str, to: str, more: Mapping[str, Any], field: str
) -> None:
    inbound = INBOUND[speaks]
    body = {"model": f"{to}/assistant", **inbound.body(Ask(("hi",))), **more}

    answer = await gateway.http.post(inbound.path, json=body, headers=gateway.headers(acme.token))

    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert field in error["message"]
    if speaks != "messages":
        assert error["param"].startswith(field)
    assert (await gateway.usage(acme))["output_tokens"] == 0


@pytest.mark.parametrize("fault", ["html", "cut", "malformed", "error-in-200", "redirect"])
async def test_a_provider_that_fails_is_said_to_in_the_callers_form(
    gateway: Gateway, acme: Tenant, inbound: Inbound, provider: str, fault: str, *, streams: bool
) -> None:
    if (inbound, provider, fault) == (INBOUND["messages"], "claude", "malformed") and streams:
        pytest.skip("events of the caller's own dialect are handed on as they came")
    body = {"model": f"{provider}/fault-{fault}", **inbound.body(Ask(("hi",)))}
    if streams:
        body["stream"] = True

    answer = await gateway.http.post(inbound.path, json=body, headers=gateway.headers(acme.token))

    if answer.status_code == 200:  # it had begun
        assert streams
        assert '"error"' in answer.text
        for whole in ('"finish_reason":"stop"', "message_stop", "response.completed"):
            assert whole not in answer.text
    else:
        assert answer.status_code in {500, 502, 503, 504, 529}, answer.text
        error = answer.json()["error"]
        assert error["message"]
        assert "127.0.0.1" not in answer.text
