"""Agents behind the routes for models: which one is meant, in which session, and its answer."""

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
import trio

from appliance.model.calls import Finished, FinishReason, TextDelta
from appliance.model.errors import ApplianceError, InvalidRequest
from appliance.model.usage import TokenUsage
from appliance.protocols.chat_request import ChatRequest
from appliance.services.model_calls import OpenCall
from appliance.services.turns.requests import ToolActivity, TurnRequest
from appliance.transports.raw.agents import MOST_MESSAGES, TurnAnswer, agent_of, turn_of
from appliance.transports.raw.answers import Answer
from appliance.transports.raw.exchange import Exchange
from tests.fakes.writers import chat_writer

CALL = cast("OpenCall", None)


@pytest.mark.parametrize(
    ("model", "agent"),
    [
        ("openclaw", "main"),
        ("openclaw:default", "main"),
        ("openclaw/default", "main"),
        ("openclaw:helper", "helper"),
        ("openclaw/helper", "helper"),
        ("openclaw2", None),
        ("stub/openclaw", None),
        ("OpenClaw", None),
    ],
)
def test_a_models_name_may_be_an_agents(model: str, agent: str | None) -> None:
    assert agent_of(model) == agent


def turn(agent: str = "main", *, user: str | None = None, **headers: Any) -> TurnRequest:
    given = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    body: dict[str, Any] = {"model": "openclaw", "messages": [{"role": "user", "content": "hi"}]}
    if user is not None:
        body["user"] = user
    exchange = SimpleNamespace(runtime=SimpleNamespace(id="acme"), header=given.get)
    request = ChatRequest.parse(msgspec.json.encode(body), limit_bytes=10_000)
    return turn_of(cast("Exchange", exchange), agent, request)


def test_without_a_name_for_it_nothing_is_remembered() -> None:
    one, other = turn(), turn()

    assert not one.keeps_history
    assert one.key != other.key


def test_a_user_and_a_header_name_a_session() -> None:
    assert turn(user="jo").key.text == turn(user="jo").key.text != turn(user="ann").key.text
    named = turn(user="jo", x_openclaw_session_key=b"desk")
    assert named.key.text == "tenant:acme:agent:main:desk"
    assert named.keeps_history


def test_a_header_names_the_agent_where_the_model_does_not() -> None:
    assert turn(x_openclaw_agent_id=b" Helper ").key.agent == "helper"
    assert turn("other", x_openclaw_agent_id=b"helper").key.agent == "other"


@pytest.mark.parametrize(
    ("agent", "headers", "field"),
    [
        ("../x", {}, "model"),
        ("main", {"x_openclaw_session_key": b"\xff"}, "x-openclaw-session-key"),
    ],
)
def test_what_names_nothing_is_refused(agent: str, headers: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        turn(agent, **headers)

    assert refused.value.fields[0].field == field


def test_a_foreign_session_is_refused() -> None:
    with pytest.raises(ApplianceError):
        turn(x_openclaw_session_key=b"tenant:globex:agent:main:desk")


def test_a_conversation_has_an_end() -> None:
    messages = [{"role": "user", "content": "x"}] * (MOST_MESSAGES + 1)
    body = {"model": "openclaw", "messages": messages}
    request = ChatRequest.parse(msgspec.json.encode(body), limit_bytes=10**7)
    exchange = SimpleNamespace(runtime=SimpleNamespace(id="acme"), header={}.get)

    with pytest.raises(InvalidRequest, match="at most"):
        turn_of(cast("Exchange", exchange), "main", request)


class Told:
    def __init__(self) -> None:
        self.body = b""

    async def begin(self, call: OpenCall) -> None:
        await trio.lowlevel.checkpoint()

    async def send(self, events: bytes) -> None:
        await trio.lowlevel.checkpoint()
        assert events, "no write without anything to say"
        self.body += events

    async def finish(self, call: OpenCall, rest: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.body += rest


@pytest.mark.parametrize("streams", [True, False])
async def test_an_agents_answer_is_written_as_a_models(*, streams: bool) -> None:
    told = Told()
    answer = TurnAnswer(
        cast("Answer", told), chat_writer(include_usage=True), model="openclaw", streams=streams
    )

    await answer.begin(CALL)
    await answer.deltas([TextDelta("Hel"), TextDelta("lo")])
    answer.tool(ToolActivity(phase="start", call_id="c", name="exec"))
    await answer.finish(CALL, Finished(FinishReason.STOP, TokenUsage(input=3, output=2)))

    if streams:
        chunks = [msgspec.json.decode(e[6:]) for e in told.body.split(b"\n\n")[:-2]]
        said = [c["choices"][0]["delta"].get("content") for c in chunks if c["choices"]]
        assert said == ["", "Hel", "lo", None]
        assert chunks[-1]["usage"]["total_tokens"] == 5
        assert told.body.endswith(b"data: [DONE]\n\n")
    else:
        whole = msgspec.json.decode(told.body)
        assert whole["choices"][0]["message"]["content"] == "Hello"
        assert whole["model"] == "openclaw"
        assert whole["usage"]["total_tokens"] == 5
