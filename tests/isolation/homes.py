"""Tenants with a household each, in a gateway that really runs: what the methods are tried on.

Whatever a tenant keeps holds its ``word``, which must not turn up elsewhere.
What its things are called by does not: those names are what others guess, by
the kinds that the registry's parameters have.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio
import trio_websocket

from appliance.model.ids import new_id
from appliance.storage.approvals import ApprovalStore, Grant, StoredApprovals
from tests.books import directory
from tests.gateway.conftest import ADMIN_KEY, Gateway, Tenant
from tests.gateway.test_websocket_handshake import Device
from tests.gateway.websocket import CLIENT, Client, Refused, dialled


class Ear(Client):
    """A connection that keeps every frame as it came."""

    def __init__(self, socket: trio_websocket.WebSocketConnection) -> None:
        super().__init__(socket)
        self.heard: list[str] = []

    async def receive(self) -> Any:
        with trio.fail_after(60):
            self.heard.append(str(await self.socket.get_message()))
        return json.loads(self.heard[-1])

    async def tell(self, method: str, params: Mapping[str, Any]) -> str:
        """Ask, and return the frame that answers; of a method that answers twice, both."""
        request_id = await self.ask(method, **params)
        answers: list[str] = []
        while True:
            frame = await self.receive()
            if frame["type"] != "res" or frame["id"] != request_id:
                self._sort(frame)
                continue
            answers.append(self.heard[-1].replace(f'"id":"{request_id}"', '"id":""', 1))
            payload = frame.get("payload")
            told = payload if isinstance(payload, dict) else {}
            if told.get("status") == "accepted":
                continue
            if told.get("status") == "started" or told.get("runStarted"):
                # What comes next finds nothing under way.
                await self.call("agent.wait", runId=told["runId"], timeoutMs=10_000)
            return "\n".join(answers)


@asynccontextmanager
async def listening(port: int, token: str, path: str = "/", **params: Any) -> AsyncIterator[Ear]:
    # With a short queue, what nobody reads keeps the client's end from closing.
    async with dialled(port, path, message_queue_size=10_000) as plain:
        ear = Ear(plain.socket)
        await ear.connect(token, **params)
        yield ear


def node_client(node_id: str, name: str = "") -> dict[str, Any]:
    """What a node without a key says of itself when it connects."""
    about = {**CLIENT, "mode": "node", "instanceId": node_id, "displayName": name}
    return {"role": "node", "commands": ["boil"], "caps": ["kitchen"], "client": about}


@dataclass
class Home:
    """A tenant, its things by kind, and its connections."""

    tenant: Tenant
    word: str
    operator: Ear
    node: Ear
    things: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def unguessable(self) -> tuple[str, ...]:
        """Ids that nobody can know who was not told."""
        kinds = (
            "session-id", "token-id", "device-id", "message-id", "invoke-id", "work-id",
            "approval-id", "grant-id", "terminal-id", "recording-id", "support-request-id",
        )  # fmt: skip
        return tuple(value for kind in kinds for value in self.things[kind])

    @property
    def heard(self) -> list[str]:
        return [*self.operator.heard, *self.node.heard]


@asynccontextmanager
async def open_home(gateway: Gateway, name: str, word: str) -> AsyncIterator[Home]:
    """Make a tenant, fill its house, and stay connected to it."""
    tenant = await gateway.create(name, name=word)
    headers = gateway.headers(tenant.token)
    await gateway.http.put(
        f"/v1/tenants/{name}/credentials/stub", json={"api_key": word}, headers=headers
    )
    device = Device()
    node_id = f"kettle-of-{name}"
    async with AsyncExitStack() as stack:
        operator = await stack.enter_async_context(
            listening(gateway.port, tenant.token, caps=["tool-events"])
        )
        asked = await _bring(gateway, tenant, device, word)
        node = await stack.enter_async_context(
            listening(gateway.port, tenant.token, **node_client(node_id, word))
        )
        home = Home(tenant, word, operator, node)
        home.things |= {
            "tenant-id": (name,),
            "device-id": (device.id,),
            "file-name": (_file_of(name),),
            "token-id": (await _token(operator, name, word),),
            "agent-id": (await _agent(operator, name, word),),
        }
        home.things |= await _conversation(operator, name, word)
        home.things |= await _kettle(operator, node, node_id, word)
        home.things["pair-request-id"] += (asked,)
        await operator.call(
            "workspace.put",
            agentId=home.things["agent-id"][0],
            path="kept.txt",
            content=word,
            encoding="utf8",
        )
        home.things |= await _approvals(gateway, operator, name, word)
        home.things |= await _terminals(gateway, operator, tenant, word)
        await operator.call("voicewake.set", triggers=[word])
        await operator.call("device.pair.rename", deviceId=device.id, label=word)
        await operator.call("system-event", text=word, host=word)
        yield home


async def _bring(gateway: Gateway, tenant: Tenant, device: Device, word: str) -> str:
    """Make a device known by connecting with it; then have it ask for more than it got.

    Return the id of the request that waits for a decision.
    """
    hello = await _connect(gateway, device, tenant.token, word, ["operator.read"])
    try:
        await _connect(gateway, device, hello["auth"]["deviceToken"], word, ["operator.write"])
    except Refused as refused:
        return str(refused.error["details"]["requestId"])
    raise AssertionError("the device got more than it had been granted")


async def _connect(
    gateway: Gateway, device: Device, token: str, word: str, scopes: list[str]
) -> dict[str, Any]:
    async with dialled(gateway.port) as client:
        nonce = (await client.event("connect.challenge"))["payload"]["nonce"]
        hello: dict[str, Any] = await client.call(
            "connect",
            minProtocol=4,
            maxProtocol=4,
            client={**CLIENT, "displayName": word},
            auth={"token": token},
            scopes=scopes,
            device=device.prove(nonce, token, scopes),
        )
        return hello


async def _token(operator: Ear, name: str, word: str) -> str:
    minted = await operator.call("tokens.create", tenantId=name, label=word)
    return str(minted["id"])


def _file_of(name: str) -> str:
    return "USER.md" if name.startswith("acme") else "TOOLS.md"


async def _agent(operator: Ear, name: str, word: str) -> str:
    agent = (await operator.call("agents.create", name=f"keeper of {name}"))["agentId"]
    await operator.call("agents.update", agentId=agent, name=word, emoji="🗝")
    settings = {"defaults": {"agents": {agent: {"instructions": word}}}}
    version = (await operator.call("config.get"))["hash"]
    await operator.call("config.patch", raw=json.dumps(settings), baseHash=version)
    await operator.call("agents.files.set", agentId=agent, name=_file_of(name), content=word)
    return str(agent)


async def _conversation(operator: Ear, name: str, word: str) -> dict[str, tuple[str, ...]]:
    agent, run = f"keeper-of-{name}", f"run-of-{name}-0123456789"
    key, other = f"agent:{agent}:ledger-of-{name}", f"agent:main:diary-of-{name}"
    await operator.call("sessions.create", key=key, agentId=agent, label=word)
    await operator.tell("chat.send", {"sessionKey": key, "message": word, "idempotencyKey": run})
    await operator.call("chat.inject", sessionKey=other, message=word)
    injected = await operator.call("chat.inject", sessionKey=key, message=word)
    found = await operator.call("sessions.describe", key=key)
    return {
        "session-key": (key, other),
        "session-id": (found["session"]["sessionId"],),
        "run-id": (run,),
        "idempotency-key": (run,),
        "message-id": (injected["messageId"],),
    }


async def _approvals(
    gateway: Gateway, operator: Ear, name: str, word: str
) -> dict[str, tuple[str, ...]]:
    """An answer that lasts, and a question that waits for one."""
    grant = Grant(
        id=new_id("grant"), approval_id=new_id("approval"), agent="main", command=word,
        pattern=word, created_at_ms=1, granted_by=word,
    )  # fmt: skip
    file = {"version": 1, "agents": {"main": {"allowlist": [{"pattern": word}]}}}
    with directory(gateway.state_dir / "tenants" / name) as root:
        ApprovalStore(root).save(StoredApprovals(grants=(grant,)))
    await operator.call("exec.approvals.set", file=file)
    asked = await operator.call(
        "exec.approval.request", command=word, cwd=word, timeoutMs=600_000, twoPhase=True
    )
    return {"approval-id": (asked["id"],), "grant-id": (grant.id,)}


async def _terminals(
    gateway: Gateway, operator: Ear, tenant: Tenant, word: str
) -> dict[str, tuple[str, ...]]:
    """A terminal, a recording of another, and an operator who wants to see them."""
    await gateway.sandbox_proved()
    terminal = {"command": f"echo {word}; cat", "title": word}
    await _set_terminals(gateway, tenant, record=True)
    recorded = await operator.call("terminal.spawn", **terminal)
    await operator.event("terminal.output", terminalId=recorded["terminalId"])
    await operator.call("terminal.close", terminalId=recorded["terminalId"])
    # Nobody looks after it when the house is left.
    await _set_terminals(gateway, tenant, record=False, detached_timeout=1)
    opened = await operator.call("terminal.spawn", **terminal)
    (recording,) = (await operator.call("terminal.recordings.list"))["recordings"]
    async with listening(gateway.port, ADMIN_KEY) as admin:
        asked = await admin.call("terminal.support.request", tenantId=tenant.id, reason=word)
    return {
        "terminal-id": (opened["terminalId"],),
        "recording-id": (recording["recordingId"],),
        "support-request-id": (asked["requestId"],),
    }


async def _set_terminals(gateway: Gateway, tenant: Tenant, **settings: Any) -> None:
    await gateway.configure(tenant, {"defaults": {"sandbox": {"terminal": settings}}})


async def _kettle(operator: Ear, node: Ear, node_id: str, word: str) -> dict[str, tuple[str, ...]]:
    """A paired node that is asked something it does not answer, and another that waits."""
    asked = await operator.call("node.pair.request", nodeId=node_id, displayName=word)
    await operator.call("node.pair.approve", requestId=asked["request"]["requestId"])
    waits = await operator.call("node.pair.request", nodeId=f"spare-{node_id}", displayName=word)
    await operator.ask(
        "node.invoke",
        nodeId=node_id,
        command="boil",
        params={"what": word},
        timeoutMs=600_000,
        idempotencyKey=f"boil-for-{node_id}",
    )
    invoke = (await node.event("node.invoke.request"))["payload"]
    queued = await operator.call("node.pending.enqueue", nodeId=node_id, type="status.request")
    return {
        "node-id": (node_id,),
        "pair-request-id": (waits["request"]["requestId"],),
        "invoke-id": (invoke["id"],),
        "work-id": (queued["queued"]["id"],),
    }
