"""``chat.*`` and ``agent*`` as clients call them."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
import trio
from trio.testing import MockClock

from appliance.model.agent_identity import AgentIdentity
from appliance.model.errors import ForeignSession, InvalidRequest, NotFound
from appliance.model.session_keys import SessionKey
from appliance.transports.rpc import agent, chat
from appliance.transports.rpc.agent_shapes import AgentWaitResult
from appliance.transports.rpc.chat_shapes import ChatSendParams, fingerprint
from appliance.transports.rpc.method import Answer, MethodCall
from appliance.transports.rpc.reading import read_params
from tests.books import NOON
from tests.fakes.tenants import CALLER
from tests.services.chatting import MAIN, ChatBench, SlowReply, open_chat

METHODS = {method.name: method for method in (*chat.METHODS, *agent.METHODS)}


BRIEF = {"extraSystemPrompt": "Be brief."}


class _Agents:
    def list(self, tenant: object) -> tuple[object, ...]:
        return ()

    def require(self, tenant: object, name: str) -> None:
        if name != "main":
            raise NotFound(f"there is no agent {name!r}")

    async def identity(self, tenant: object, name: str) -> AgentIdentity:
        await trio.lowlevel.checkpoint()
        return AgentIdentity(name="Clawd", emoji="x")


class RpcBench:
    def __init__(self, bench: ChatBench) -> None:
        self.bench = bench
        self.first: list[Any] = []  # answers before the last
        self._services = SimpleNamespace(chat=bench.chat, agents=_Agents(), router=bench.router)

    async def call(self, name: str, **params: Any) -> Any:
        method = METHODS[name]
        call = MethodCall(
            method,
            read_params(method.params, params, method=name),
            CALLER,
            cast("Any", None),
            cast("Any", self.bench.tenant),
            cast("Any", self._services),
            self._respond,
        )
        if method.inline is not None:
            answer = method.inline(call)
        else:
            assert method.handler is not None
            answer = await method.handler(call)
        return msgspec.json.decode(msgspec.json.encode(answer))

    def _respond(self, answer: Answer) -> None:
        first = msgspec.to_builtins(answer)
        told = [each for each in self.bench.ear.heard("agent") if each["runId"] == first["runId"]]
        assert told == [], "the first answer comes before the run's events"
        self.first.append(first)

    async def send(self, text: str, run: str = "r1", **more: Any) -> Any:
        return await self.call(
            "chat.send", sessionKey="main", message=text, idempotencyKey=run, **more
        )


@pytest.fixture
async def rpc(tmp_path: Path) -> AsyncIterator[RpcBench]:
    async with open_chat(tmp_path) as bench:
        yield RpcBench(bench)


# chat


async def test_a_message_is_acknowledged_with_its_run(rpc: RpcBench) -> None:
    assert await rpc.send("hi") == {"runId": "r1", "status": "started"}
    await rpc.bench.ended()
    assert await rpc.send("hi") == {"runId": "r1", "status": "ok"}
    with pytest.raises(InvalidRequest, match="idempotencyKey"):
        await rpc.send("hi", thinking="low")


async def test_a_stop_word_is_answered_with_what_it_stopped(
    rpc: RpcBench, autojump_clock: MockClock
) -> None:
    rpc.bench.stub.script = [SlowReply(pause=10)]
    await rpc.send("hi")

    assert await rpc.send("stop", "r2") == {"ok": True, "aborted": True, "runIds": ["r1"]}


async def test_what_would_change_the_answer_is_refused_by_name(rpc: RpcBench) -> None:
    refused: tuple[tuple[str, Any], ...] = (
        ("toolBindings", {"a": 1}),
        ("expectedLeafEntryId", "msg_1"),
        ("expectedLeafEntryId", None),
        ("expectedSessionRoutingContract", "v1"),
        ("expectedPermissionMode", "full"),
        ("expectedToolOverrides", {}),
    )
    for name, value in refused:
        with pytest.raises(InvalidRequest, match=name):
            await rpc.send("hi", **{name: value})
    with pytest.raises(InvalidRequest, match="unexpected property 'zzz'"):
        await rpc.send("hi", zzz=1)
    with pytest.raises(InvalidRequest, match="cwd"):
        await rpc.call("agent", message="hi", idempotencyKey="a1", cwd="/tmp")  # noqa: S108 - refused
    assert rpc.bench.store.requests.find("chat", "r1") is None


async def test_what_clients_say_besides_is_taken(rpc: RpcBench) -> None:
    more: dict[str, Any] = {
        "fastMode": "auto",
        "originatingChannel": "webchat",
        "mentions": [],
        "deliver": False,
        "__controlUiReconnectResume": True,
    }

    assert (await rpc.send("hi", **more))["status"] == "started"


async def test_runs_are_aborted_by_session_or_id(rpc: RpcBench, autojump_clock: MockClock) -> None:
    rpc.bench.stub.script = [SlowReply(pause=10)] * 2
    await rpc.send("hi")
    await rpc.send("more", "r2", queueMode="followup")

    assert await rpc.call("sessions.abort", key="main") == {
        "ok": True,
        "aborted": True,
        "runIds": ["r1"],
        "status": "aborted",
        "abortedRunId": "r1",
    }
    with pytest.raises(InvalidRequest, match="runId does not match sessionKey"):
        await rpc.call("chat.abort", sessionKey="other", runId="r2")
    assert (await rpc.call("chat.abort", sessionKey="main"))["runIds"] == ["r2"]
    assert not (await rpc.call("chat.abort", sessionKey="nowhere"))["aborted"]
    with pytest.raises(InvalidRequest, match="neither"):
        await rpc.call("sessions.abort")


async def test_history_has_what_both_generations_read(rpc: RpcBench) -> None:
    empty = await rpc.call("chat.history", sessionKey="main")
    assert (empty["messages"], empty["hasMore"], empty["thinkingLevel"]) == ([], False, "off")
    await rpc.send("hi")
    await rpc.bench.ended()

    found = await rpc.call("chat.history", sessionKey="agent:main:main", limit=1)

    assert [m["role"] for m in found["messages"]] == ["assistant"]
    assert (found["hasMore"], found["nextOffset"], found["totalMessages"]) == (True, 1, 2)
    assert found["sessionInfo"]["model"] == "mock"
    assert found["sessionInfo"]["sessionId"] == found["sessionId"]
    caught_up = await rpc.call("chat.history", sessionKey="main", cursor=found["deltaCursor"])
    assert (caught_up["kind"], caught_up["messages"]) == ("delta", [])
    assert await rpc.call("chat.history", sessionKey="main", cursor="x:1") == {"kind": "reset"}
    message = found["messages"][0]["__openclaw"]["id"]
    got = await rpc.call("chat.message.get", sessionKey="main", messageId=message)
    assert got["message"]["content"][0]["text"] == "Hello there"
    missing = await rpc.call("chat.message.get", sessionKey="other", messageId=message)
    assert missing == {"ok": False, "unavailableReason": "not_found"}


async def test_a_run_in_flight_is_part_of_the_history(
    rpc: RpcBench, autojump_clock: MockClock
) -> None:
    rpc.bench.stub.script = [SlowReply(pieces=["so far", "x"], pause=10)]
    await rpc.send("hi")
    await trio.sleep(15)

    found = await rpc.call("chat.history", sessionKey="main")

    assert found["inFlightRun"]["text"] == "so far"
    assert found["sessionInfo"]["activeRunIds"] == ["r1"]


@pytest.mark.parametrize("name", ["chat.send", "chat.history", "chat.abort", "chat.inject"])
async def test_a_foreign_session_is_refused(rpc: RpcBench, name: str) -> None:
    params = {"sessionKey": "tenant:rival:agent:main:main"}
    if name in {"chat.send", "chat.inject"}:
        params["message"] = "hi"
    if name == "chat.send":
        params["idempotencyKey"] = "r1"
    with pytest.raises(ForeignSession):
        await rpc.call(name, **params)


async def test_a_note_is_injected(rpc: RpcBench) -> None:
    done = await rpc.call("chat.inject", sessionKey="main", message="note")

    assert done == {"ok": True, "messageId": rpc.bench.lines()[0].id}


async def test_commands_are_listed_with_their_arguments(rpc: RpcBench) -> None:
    listed = (await rpc.call("commands.list"))["commands"]

    think = next(command for command in listed if command["name"] == "think")
    assert think["textAliases"] == ["/think"]
    assert {"value": "high", "label": "high"} in think["args"][0]["choices"]
    bare = (await rpc.call("commands.list", includeArgs=False))["commands"]
    assert all("args" not in command for command in bare)
    assert (await rpc.call("commands.list", scope="native"))["commands"] == []


async def test_a_message_to_a_session_is_the_same(rpc: RpcBench) -> None:
    taken = await rpc.call("sessions.send", key="main", message="hi")
    await rpc.bench.ended(taken["runId"])

    assert rpc.bench.kept()[0] == ("user", "hi")


def test_a_fingerprint_is_of_everything_but_the_key() -> None:
    def params(**more: Any) -> ChatSendParams:
        given = {"sessionKey": "main", "message": "hi", "idempotencyKey": "a"} | more
        return read_params(ChatSendParams, given, method="chat.send")

    assert fingerprint(params()) == fingerprint(params(idempotencyKey="b"))
    assert fingerprint(params()) == fingerprint(params(__controlUiReconnectResume=True))
    assert fingerprint(params()) != fingerprint(params(message="ho"))


async def test_a_client_that_opens_gets_all_it_shows(rpc: RpcBench) -> None:
    await rpc.send("hi")
    await rpc.bench.ended()

    found = await rpc.call("chat.startup", sessionKey="main")

    assert len(found["messages"]) == 2
    assert found["agentsList"]["defaultId"] == "main"
    assert found["metadata"] == await rpc.call("chat.metadata", sessionKey="main")
    assert [command["name"] for command in found["metadata"]["commands"]][:2] == ["new", "reset"]
    assert any(model["provider"] == "stub" for model in found["metadata"]["models"])


# agent


async def test_an_agents_run_is_answered_twice(rpc: RpcBench) -> None:
    final = await rpc.call(
        "agent", message="hi", idempotencyKey="a1", extraSystemPrompt="Be brief."
    )

    assert [(a["runId"], a["status"]) for a in rpc.first] == [("a1", "accepted")]
    assert (final["runId"], final["status"], final["summary"]) == ("a1", "ok", "completed")
    assert final["result"]["payloads"] == [{"text": "Hello there", "mediaUrl": None}]
    meta = final["result"]["meta"]
    assert meta["agentMeta"]["provider"] == "stub"
    assert meta["agentMeta"]["promptTokens"] == 10
    assert rpc.bench.asked()[0] == {"role": "system", "content": "Be brief."}

    again = await rpc.call(
        "agent", message="hi", idempotencyKey="a1", extraSystemPrompt="Be brief."
    )
    assert again == final
    assert len(rpc.bench.stub.calls) == 1


async def ask(rpc: RpcBench, run: str, **more: Any) -> Any:
    rpc.bench.ear.events.clear()
    return await rpc.call("agent", message="hi", idempotencyKey=run, **more)


async def test_an_agent_goes_on_in_the_session_of_an_id(rpc: RpcBench) -> None:
    await ask(rpc, "a1")
    session = rpc.bench.store.find(MAIN)
    assert session is not None

    final = await ask(rpc, "a2", sessionId=session.id)

    assert final["result"]["meta"]["agentMeta"]["sessionId"] == session.id
    with pytest.raises(InvalidRequest, match='unknown agent id "nobody"'):
        await ask(rpc, "a3", agentId="nobody")
    with pytest.raises(InvalidRequest, match="agentId"):
        await ask(rpc, "a3", agentId="pirate", sessionId=session.id)
    rpc.bench.store.reset(MAIN, reason="new", now=NOON)
    with pytest.raises(NotFound, match="No session found"):
        await ask(rpc, "a3", sessionId=session.id)


async def test_an_id_that_is_not_known_names_a_new_session(rpc: RpcBench) -> None:
    for run, more in (
        ("a1", {}),
        ("a2", {}),
        ("a3", {"sessionKey": "agent:main:explicit:abc"}),
        ("a4", {"agentId": "pirate"}),
    ):
        assert (await ask(rpc, run, sessionId="ABC", **more))["status"] == "ok"

    assert len(rpc.bench.kept(SessionKey("acme", "main", "explicit:abc"))) == 6
    assert len(rpc.bench.kept(SessionKey("acme", "pirate", "explicit:abc"))) == 2
    assert rpc.bench.store.find(MAIN) is None
    with pytest.raises(ForeignSession):
        await ask(rpc, "a5", sessionId="tenant:other:agent:main:main")
    with pytest.raises(InvalidRequest, match="sessionId"):
        await ask(rpc, "a5", sessionId="a\nb")


async def test_a_session_that_is_not_the_expected_one_takes_no_message(rpc: RpcBench) -> None:
    async def refused(name: str, expected: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            await ask(rpc, "a1", sessionKey="main", **{name: expected})
        assert [each.field for each in caught.value.fields] == [name]

    await refused("expectedExistingSessionId", "ses_any")
    with pytest.raises(InvalidRequest, match="sessionId"):
        await rpc.send("hi", sessionId="ses_any")
    session = rpc.bench.store.open_session(MAIN, now=NOON)
    await refused("sessionId", "ses_other")
    await refused("expectedExistingSessionId", "ses_other")
    assert rpc.bench.lines() == []

    await ask(
        rpc, "a1", sessionKey="main", sessionId=session.id, expectedExistingSessionId=session.id
    )
    rpc.bench.ear.events.clear()
    assert (await rpc.send("hi", sessionId=session.id))["status"] == "started"
    await rpc.bench.ended()
    rpc.bench.store.reset(MAIN, reason="new", now=NOON)
    assert (await rpc.send("hi", sessionId=session.id))["status"] == "ok", "it was taken before"
    with pytest.raises(InvalidRequest, match="sessionId"):
        await rpc.send("hi", "r2", sessionId=session.id)
    assert (await rpc.send("stop", "r3", sessionId=session.id))["ok"], "stopping is always heard"


async def test_a_session_whose_time_is_over_begins_anew_unless_it_must_exist(
    rpc: RpcBench,
) -> None:
    await rpc.send("hi")
    await rpc.bench.ended()
    first = rpc.bench.store.find(MAIN)
    assert first is not None
    rpc.bench.clock.now += timedelta(days=2)

    await ask(rpc, "a1", expectedExistingSessionId=first.id)
    rpc.bench.clock.now += timedelta(days=2)
    rpc.bench.ear.events.clear()
    await rpc.send("hi", "r2", sessionId=first.id)
    await rpc.bench.ended("r2")

    second = rpc.bench.store.find(MAIN)
    assert second is not None
    assert len(rpc.bench.store.messages(first.id, limit=9)) == 4
    assert second.id != first.id


async def test_a_failed_run_is_an_error_with_what_was_said(
    rpc: RpcBench, autojump_clock: MockClock
) -> None:
    rpc.bench.stub.script = [SlowReply(pieces=["part", "x"], pause=4)]

    final = await rpc.call("agent", message="hi", idempotencyKey="a1", timeout=5)

    assert final["status"] == "error"
    assert final["result"]["payloads"][0]["text"] == "part"
    waited = await rpc.call("agent.wait", runId="a1")
    assert (waited["status"], "time limit" in waited["error"]) == ("timeout", True)


async def test_waiting_for_a_run(rpc: RpcBench, autojump_clock: MockClock) -> None:
    rpc.bench.stub.script = [SlowReply(pieces=["x"], pause=10)]
    await rpc.send("hi")

    early = await rpc.call("agent.wait", runId="r1", timeoutMs=1000)
    late = await rpc.call("agent.wait", runId="r1")
    unknown = await rpc.call("agent.wait", runId="none", timeoutMs=0)

    assert early["status"] == "timeout"
    assert msgspec.convert(late, AgentWaitResult).status == "ok"
    assert late["endedAt"] >= late["startedAt"]
    assert unknown == {"runId": "none", "status": "timeout"}

    rpc.bench.stub.script = [SlowReply(pause=10)]
    await rpc.send("hi", "r2")
    await rpc.call("chat.abort", sessionKey="main")
    aborted = await rpc.call("agent.wait", runId="r2")
    assert (aborted["status"], aborted["error"]) == ("error", "aborted")


async def test_an_agent_tells_who_it_is(rpc: RpcBench) -> None:
    shown = await rpc.call("agent.identity.get", sessionKey="agent:main:x")

    assert shown == {"agentId": "main", "name": "Clawd", "emoji": "x"}
    with pytest.raises(NotFound):
        await rpc.call("agent.identity.get", agentId="nobody")


# send


async def test_a_message_is_put_in_front_of_those_who_are_connected(rpc: RpcBench) -> None:
    sent = await rpc.call("send", to="main", message="news", idempotencyKey="s1")
    again = await rpc.call("send", to="main", message="news", idempotencyKey="s1")

    assert sent == again
    assert (sent["runId"], sent["channel"]) == ("s1", "webchat")
    assert rpc.bench.kept() == [("assistant", "news")]
    assert rpc.bench.ear.ends("s1") == ["final"]


async def test_other_channels_and_media_are_refused(rpc: RpcBench) -> None:
    with pytest.raises(InvalidRequest, match=r"^unsupported channel: irc$"):
        await rpc.call("send", to="main", message="x", channel="irc", idempotencyKey="s1")
    with pytest.raises(InvalidRequest, match="mediaUrl"):
        await rpc.call("send", to="main", mediaUrl="http://x/y", idempotencyKey="s1")
    with pytest.raises(ForeignSession):
        await rpc.call("send", to="tenant:rival:agent:main:main", message="x", idempotencyKey="s1")


async def test_an_action_sends_likewise(rpc: RpcBench) -> None:
    action = {"channel": "webchat", "idempotencyKey": "m1"}
    params = {"to": "main", "message": "news"}
    sent = await rpc.call("message.action", action="send", params=params, **action)

    assert rpc.bench.lines()[0].id == sent["messageId"]
    with pytest.raises(InvalidRequest, match="unsupported action"):
        await rpc.call("message.action", action="react", params={}, **action)
    with pytest.raises(InvalidRequest, match="params"):
        await rpc.call("message.action", action="send", params={}, **action)


def test_waking_comes_with_a_later_release() -> None:
    assert not METHODS["wake"].is_available
    assert METHODS["agent"].replies_twice
