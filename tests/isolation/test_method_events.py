"""What happens in one tenant is heard in no other, however hard that one listens."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from appliance.transports.websocket.hello import EVENTS
from tests.gateway.conftest import Gateway
from tests.isolation.homes import Ear, Home, listening, node_client, open_home
from tests.isolation.intruder import unsaid

WORDS = {"acme": "canary-of-acme", "mallory": "word-of-mallory"}

# About a connection or the gateway, or too rare to wait for.
NOT_OF_A_TENANT = {
    "connect.challenge", "events.gap", "events.lag", "health", "shutdown", "tick",
}  # fmt: skip


@asynccontextmanager
async def eavesdropping(gateway: Gateway, home: Home, victim: Home) -> AsyncIterator[list[Ear]]:
    """Every connection of ``home`` that might overhear ``victim``."""
    token, port = home.tenant.token, gateway.port
    keys = [f"agent:main:{name}" for name in ("main", "news")]
    keys += victim.things["session-key"]
    guises: list[dict[str, Any]] = [
        {"caps": ["tool-events"]},
        {"caps": ["tool-events"], "maxProtocol": 3},
        node_client(victim.things["node-id"][0]),  # calls itself like the other's
        node_client("news-reader"),
    ]
    async with AsyncExitStack() as stack:
        ears = [
            await stack.enter_async_context(listening(port, token, **guise)) for guise in guises
        ]
        for ear in ears[:2]:
            await ear.call("sessions.subscribe")
            for key in keys:
                await ear.call("sessions.messages.subscribe", key=key)
                foreign = f"tenant:{victim.tenant.id}:{key}"
                await ear.tell("sessions.messages.subscribe", {"key": foreign})
        for ear in ears[2:]:
            for key in keys:
                subscription = {"event": "chat.subscribe", "payload": {"sessionKey": key}}
                await ear.tell("node.event", subscription)
        yield [*ears, home.operator, home.node]


async def caught_up(ear: Ear) -> int:
    """Wait until all that was on its way is here; return how many frames that makes."""
    await ear.tell("nobody.has.this.method", {})
    return len(ear.heard)


async def live(gateway: Gateway, home: Home, ear: Ear) -> None:
    """Do, with ``ear``, all that makes itself heard."""
    name, word = home.tenant.id, home.word
    key, agent = home.things["session-key"][0], home.things["agent-id"][0]
    node_id, device = home.things["node-id"][0], home.things["device-id"][0]
    await ear.call("sessions.subscribe")
    for each in (key, "agent:main:news", "agent:main:main"):
        await ear.call("sessions.messages.subscribe", key=each)
        chat = {"sessionKey": each, "message": word, "idempotencyKey": f"live-{each}"}
        await ear.tell("chat.send", chat)
        await ear.call("chat.inject", sessionKey=each, message=word)
        await ear.call("sessions.patch", key=each, label=f"{word} {each}")
    await ear.tell("agent", {"message": word, "idempotencyKey": "live-agent"})
    await ear.call("send", to="agent:main:news", message=word, idempotencyKey="live-send")
    await ear.call("sessions.reset", key="agent:main:news")
    await ear.call("sessions.delete", key="agent:main:news")
    await ear.call("voicewake.set", triggers=[word, "again"])
    await ear.call("system-event", text=f"{word} is here")
    asked = await ear.call("node.pair.request", nodeId=f"new-{node_id}", displayName=word)
    await ear.call("node.pair.approve", requestId=asked["request"]["requestId"])
    await ear.call("device.pair.approve", requestId=home.things["pair-request-id"][1])
    await ear.call("device.pair.rename", deviceId=device, label=f"{word} again")
    await ear.tell("exec.approval.request", {"command": word, "timeoutMs": 1})
    await ear.call("exec.approval.resolve", id=home.things["approval-id"][0], decision="deny")
    await ear.call("agents.files.set", agentId=agent, name="SOUL.md", content=word)
    settings = {"defaults": {"agents": {agent: {"instructions": f"{word} again"}}}}
    version = (await ear.call("config.get"))["hash"]
    await ear.call("config.patch", raw=json.dumps(settings), baseHash=version)
    await ear.call("tokens.create", tenantId=name, label=word)
    await ear.call("logs.tail")
    await ear.ask(
        "node.invoke", nodeId=node_id, command="boil", params={"what": word},
        idempotencyKey="live-invoke", timeoutMs=60_000,
    )  # fmt: skip
    invoke = (await home.node.event("node.invoke.request"))["payload"]
    await home.node.call("node.invoke.result", id=invoke["id"], nodeId=node_id, ok=True)
    await use_terminal(home, ear)
    async with listening(gateway.port, home.tenant.token, **node_client(f"passing-{name}", word)):
        await ear.event("presence")


async def use_terminal(home: Home, ear: Ear) -> None:
    opened = await ear.call("terminal.spawn", command="cat", title=home.word)
    terminal = opened["terminalId"]
    await home.operator.call("terminal.attach", terminalId=terminal)
    await home.operator.call("terminal.resize", terminalId=terminal, cols=90, rows=30)
    await ear.call("terminal.write", terminalId=terminal, data=home.word)
    await ear.event("terminal.output", terminalId=terminal)
    (asked,) = home.things["support-request-id"]
    await ear.call("terminal.support.resolve", requestId=asked, decision="deny")
    await ear.call("terminal.close", terminalId=terminal)


@pytest.mark.parametrize(("speaks", "listens"), [("acme", "mallory"), ("mallory", "acme")])
async def test_nothing_of_one_tenant_is_heard_in_another(
    gateway: Gateway, speaks: str, listens: str
) -> None:
    async with (
        open_home(gateway, speaks, WORDS[speaks]) as speaker,
        open_home(gateway, listens, WORDS[listens]) as listener,
        eavesdropping(gateway, listener, speaker) as ears,
        listening(gateway.port, speaker.tenant.token, caps=["tool-events"]) as ear,
    ):
        before = [await caught_up(each) for each in ears]
        await live(gateway, speaker, ear)
        for each in ears:
            await caught_up(each)
        overheard = [
            frame for each, mark in zip(ears, before, strict=True) for frame in each.heard[mark:-1]
        ]
        told = {json.loads(frame).get("event") for frame in (*ear.heard, *speaker.heard)}

    assert set(EVENTS) - NOT_OF_A_TENANT - told == set()
    assert {json.loads(frame)["event"] for frame in overheard} <= {"tick", "presence", "health"}
    # It may be told what it called itself.
    kept = unsaid("\n".join(overheard), speaker.things["node-id"])
    for word in (WORDS[speaks], speaks, *speaker.unguessable):
        assert word not in kept


async def test_a_connection_is_resumed_by_its_own_tenant_only(gateway: Gateway) -> None:
    async with (
        open_home(gateway, "acme", WORDS["acme"]) as acme,
        open_home(gateway, "mallory", WORDS["mallory"]) as mallory,
    ):
        async with listening(gateway.port, acme.tenant.token) as left:
            await left.call("chat.inject", sessionKey="main", message=acme.word)
            await left.call("voicewake.set", triggers=[acme.word, "left"])
        alive = acme.operator.hello["server"]["connId"]
        gone = left.hello["server"]["connId"]
        for conn_id in (gone, alive, "0" * len(gone)):
            async with listening(
                gateway.port, mallory.tenant.token, resume={"connId": conn_id, "seq": 0}
            ) as ear:
                gap = await ear.event("events.gap")
                await ear.call("health")
                assert gap["payload"].items() >= {"connId": conn_id, "seq": 0}.items()
                kept = "".join(ear.heard).replace(conn_id, "")
                assert WORDS["acme"] not in kept
                assert {event["event"] for event in ear.events} <= {"presence", "tick", "health"}
        # It is still there, and the one that is gone is there for its own tenant.
        assert (await acme.operator.call("health"))["ok"] is True
        async with listening(
            gateway.port, acme.tenant.token, resume={"connId": gone, "seq": 0}
        ) as ear:
            await ear.event("voicewake.changed", triggers=[acme.word, "left"])
