"""One request for every method that its rightful caller gets an answer to.

Without it a refusal would prove little: a request may be refused for being
malformed. The suite fails for a method that has no example here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any


@dataclass(frozen=True, slots=True)
class Own:
    """Stands for something of the tenant that calls."""

    kind: str
    place: int = 0


@dataclass(frozen=True, slots=True)
class Fresh:
    """Stands for a text that was never sent before."""

    form: str = "fresh-{}"


@dataclass(frozen=True, slots=True)
class Took:
    """Stands for a part of what the call before answered."""

    path: str


Call = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Example:
    params: Mapping[str, Any] = field(default_factory=dict)
    before: tuple[Call, ...] = ()  # by an operator of the tenant
    without: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For a parameter that stands in for others: which ones."""
    is_answered_by_node: bool = False
    is_throttled: bool = False  # for each token by itself
    is_ruinous: bool = False  # what it was used on is not as others need it


_AGENT, _KEY, _NODE = Own("agent-id"), Own("session-key"), Own("node-id")
_TENANT, _FRESH, _DEVICE = Own("tenant-id"), Fresh(), Own("device-id")
_OF_TENANT = Example({"tenantId": _TENANT})
_OF_KEY = Example({"key": _KEY})
_TRANSCRIPT = '{"type":"message","message":{"role":"user","content":"hi"}}\n'
_HEADER = '{"type":"session","version":3,"id":"x","timestamp":"2026-11-21T12:00:00Z"}\n'
_APPROVAL = Own("approval-id")
_TERMINAL, _RECORDING = Own("terminal-id"), Own("recording-id")
_SUPPORT = Own("support-request-id")
_READ_CONFIG: Call = ("config.get", {})
_CONFIG = {"raw": '{"defaults": {"session": {"history_tokens": 9000}}}', "baseHash": Took("hash")}

_PUT: Call = (
    "workspace.put",
    {"agentId": _AGENT, "path": "made.txt", "content": "hi", "encoding": "utf8"},
)

EXAMPLES: Mapping[str, Example] = {
    "admin.resources.history": Example(),
    "admin.resources.system": Example(),
    "admin.resources.tenants": Example(),
    "agent": Example(
        {"message": "hi", "idempotencyKey": _FRESH, "sessionKey": Fresh("talk-{}")},
        without={"sessionId": ("sessionKey",)},
    ),
    "agent.identity.get": Example({"agentId": _AGENT}, without={"sessionKey": ("agentId",)}),
    "agent.wait": Example({"runId": Own("run-id"), "timeoutMs": 0}),
    "agents.create": Example({"name": "Passer-by"}),
    "agents.delete": Example({"agentId": _AGENT}, is_ruinous=True),
    "agents.files.get": Example({"agentId": _AGENT, "name": Own("file-name")}),
    "agents.files.list": Example({"agentId": _AGENT}),
    "agents.files.set": Example(
        {"agentId": _AGENT, "name": Own("file-name"), "content": "changed"}
    ),
    "agents.list": Example(),
    "agents.workspace.get": Example({"agentId": _AGENT, "path": "kept.txt"}),
    "agents.workspace.list": Example({"agentId": _AGENT}),
    "agents.update": Example({"agentId": _AGENT, "name": "Changed"}),
    "channels.status": Example(),
    "chat.abort": Example({"sessionKey": _KEY}),
    "chat.history": Example({"sessionKey": _KEY}),
    "chat.inject": Example({"sessionKey": _KEY, "message": "hi"}),
    "chat.message.get": Example({"sessionKey": _KEY, "messageId": Own("message-id")}),
    "chat.metadata": Example(),
    "chat.send": Example({"sessionKey": _KEY, "message": "hi", "idempotencyKey": _FRESH}),
    "chat.startup": Example({"sessionKey": _KEY}),
    "commands.list": Example(),
    "config.apply": Example(_CONFIG, before=(_READ_CONFIG,), is_throttled=True, is_ruinous=True),
    "config.get": Example(),
    "config.patch": Example(_CONFIG, before=(_READ_CONFIG,), is_throttled=True, is_ruinous=True),
    "config.schema": Example(),
    "config.schema.lookup": Example({"path": "defaults"}),
    "config.set": Example(_CONFIG, before=(_READ_CONFIG,), is_ruinous=True),
    "device.pair.approve": Example({"requestId": Own("pair-request-id", 1)}, is_ruinous=True),
    "device.pair.list": Example(),
    "device.pair.reject": Example({"requestId": Own("pair-request-id", 1)}, is_ruinous=True),
    "device.pair.remove": Example({"deviceId": _DEVICE}, is_ruinous=True),
    "device.pair.rename": Example({"deviceId": _DEVICE, "label": "changed"}),
    "device.token.revoke": Example({"deviceId": _DEVICE, "role": "operator"}, is_ruinous=True),
    "device.token.rotate": Example({"deviceId": _DEVICE, "role": "operator"}),
    "exec.approval.get": Example({"id": _APPROVAL}),
    "exec.approval.grants.list": Example(),
    "exec.approval.grants.revoke": Example({"grantId": Own("grant-id")}, is_ruinous=True),
    "exec.approval.list": Example(),
    "exec.approval.request": Example({"command": "ls", "timeoutMs": 1}),
    "exec.approval.resolve": Example({"id": _APPROVAL, "decision": "deny"}, is_ruinous=True),
    "exec.approval.waitDecision": Example(
        {"id": _APPROVAL},
        before=(("exec.approval.resolve", {"id": _APPROVAL, "decision": "deny"}),),
        is_ruinous=True,
    ),
    "exec.approvals.get": Example(),
    "exec.approvals.set": Example(
        {"file": {"version": 1}, "baseHash": Took("hash")},
        before=(("exec.approvals.get", {}),),
        is_ruinous=True,
    ),
    "health": Example({"probe": True}),  # not what was true a minute ago
    "last-heartbeat": Example(),
    "logs.tail": Example(),
    "message.action": Example(
        {
            "channel": "webchat",
            "action": "send",
            "params": {"to": _KEY, "message": "hi"},
            "idempotencyKey": _FRESH,
        },
        without={"params.target": ("params.to",)},
    ),
    "models.authStatus": Example(),
    "models.list": Example(),
    "node.describe": Example({"nodeId": _NODE}),
    "node.event": Example({"event": "chat.subscribe", "payload": {"sessionKey": _KEY}}),
    "node.invoke": Example(
        {"nodeId": _NODE, "command": "boil", "idempotencyKey": _FRESH, "timeoutMs": 5_000},
        is_answered_by_node=True,
    ),
    "node.invoke.result": Example(
        {"id": Own("invoke-id"), "nodeId": _NODE, "ok": True}, is_ruinous=True
    ),
    "node.list": Example(),
    "node.pair.approve": Example({"requestId": Own("pair-request-id")}, is_ruinous=True),
    "node.pair.list": Example(),
    "node.pair.reject": Example({"requestId": Own("pair-request-id")}, is_ruinous=True),
    "node.pair.remove": Example({"nodeId": _NODE}, is_ruinous=True),
    "node.pair.request": Example({"nodeId": "newcomer", "displayName": "Newcomer"}),
    "node.pair.verify": Example({"nodeId": _NODE, "token": "guessed"}),
    "node.pending.ack": Example({"ids": [Own("work-id")]}, is_ruinous=True),
    "node.pending.drain": Example(),
    "node.pending.enqueue": Example({"nodeId": _NODE, "type": "status.request"}),
    "node.pending.pull": Example(),
    "node.rename": Example({"nodeId": _NODE, "displayName": "changed"}),
    "plugin.approval.list": Example(),
    "question.list": Example(),
    "send": Example({"to": _KEY, "message": "hi", "idempotencyKey": _FRESH}),
    "sessions.abort": Example({"key": _KEY}, without={"runId": ("key",)}),
    "sessions.cleanup": Example(),
    "sessions.compact": Example({"key": _KEY, "maxLines": 1}, is_ruinous=True),
    "sessions.create": Example({"key": "agent:main:new-one"}),
    "sessions.delete": Example({"key": _KEY}, is_ruinous=True),
    "sessions.describe": Example(
        {"key": _KEY, "includeDerivedTitles": True, "includeLastMessage": True}
    ),
    "sessions.export": Example({"key": _KEY}, without={"sessionId": ("key",)}),
    "sessions.get": Example({"key": _KEY}, without={"sessionKey": ("key",)}),
    "sessions.groups.list": Example(),
    "sessions.import": Example({"content": _HEADER + _TRANSCRIPT}),
    "sessions.list": Example(
        {"includeLastMessage": True, "includeDerivedTitles": True, "archived": "all"}
    ),
    "sessions.messages.subscribe": _OF_KEY,
    "sessions.messages.unsubscribe": _OF_KEY,
    "sessions.patch": Example({"key": _KEY, "label": _FRESH}),
    "sessions.preview": Example({"keys": [_KEY]}),
    "sessions.reset": Example({"key": _KEY}, is_ruinous=True),
    "sessions.resolve": Example(
        {"key": _KEY},
        without={"sessionId": ("key",), "shortId": ("key",), "reference.key": ("key",)},
    ),
    "sessions.search": Example({"query": "hi"}),
    "sessions.send": Example({"key": _KEY, "message": "hi", "idempotencyKey": _FRESH}),
    "sessions.subscribe": Example({"limit": 9}),
    "sessions.unsubscribe": Example(),
    "sessions.usage": Example(),
    "sessions.usage.logs": _OF_KEY,
    "sessions.usage.timeseries": _OF_KEY,
    "set-heartbeats": Example({"enabled": False}),
    "status": Example(),
    "system-event": Example({"text": "hi"}),
    "system-presence": Example(),
    "taskSuggestions.list": Example(),
    "tenants.create": Example({"tenantId": "newcomer"}),
    "tenants.delete": Example({"tenantId": _TENANT, "confirm": True}, is_ruinous=True),
    "tenants.get": _OF_TENANT,
    "tenants.list": Example(),
    "tenants.quota.status": _OF_TENANT,
    "tenants.quota.update": Example({"tenantId": _TENANT, "quotas": {"terminals": 9}}),
    "tenants.rotate": Example({"tenantId": _TENANT, "grace": "1m"}, is_ruinous=True),
    "tenants.update": Example({"tenantId": _TENANT, "displayName": "changed"}),
    "tenants.usage": _OF_TENANT,
    "tenants.usage.history": _OF_TENANT,
    "tokens.create": Example({"tenantId": _TENANT, "label": "more"}),
    "tokens.list": _OF_TENANT,
    "tokens.revoke": Example({"tenantId": _TENANT, "tokenId": Own("token-id")}, is_ruinous=True),
    "terminal.ack": Example({"terminalId": _TERMINAL, "offset": 1}),
    "terminal.attach": Example({"terminalId": _TERMINAL}),
    "terminal.close": Example({"terminalId": _TERMINAL}, is_ruinous=True),
    "terminal.detach": Example({"terminalId": _TERMINAL}, is_ruinous=True),
    "terminal.list": Example(),
    "terminal.recordings.delete": Example({"recordingId": _RECORDING}, is_ruinous=True),
    "terminal.recordings.get": Example({"recordingId": _RECORDING}),
    "terminal.recordings.list": Example(),
    "terminal.resize": Example({"terminalId": _TERMINAL, "cols": 90, "rows": 30}),
    "terminal.spawn": Example({"command": "true"}),
    "terminal.support.end": Example({"requestId": _SUPPORT}, is_ruinous=True),
    "terminal.support.list": Example(),
    "terminal.support.request": Example(
        {"tenantId": _TENANT, "terminalId": _TERMINAL, "reason": "help"}
    ),
    "terminal.support.resolve": Example(
        {"requestId": _SUPPORT, "decision": "deny"}, is_ruinous=True
    ),
    "terminal.write": Example({"terminalId": _TERMINAL, "data": "hi\r"}),
    "tools.catalog": Example({"agentId": _AGENT}),
    "tools.effective": Example({"sessionKey": _KEY}, without={"agentId": ()}),
    "tools.invoke": Example({"name": "agents_list", "sessionKey": _KEY}),
    "usage.cost": Example(),
    "usage.status": Example(),
    "users.self": Example(),
    "voicewake.get": Example(),
    "voicewake.set": Example({"triggers": ["hello"]}),
    "workspace.delete": Example({"agentId": _AGENT, "path": "made.txt"}, before=(_PUT,)),
    "workspace.get": Example({"agentId": _AGENT, "path": "kept.txt"}),
    "workspace.list": Example({"agentId": _AGENT}),
    "workspace.mkdir": Example({"agentId": _AGENT, "path": "folder"}),
    "workspace.move": Example(
        {"agentId": _AGENT, "from": "made.txt", "to": "moved.txt", "overwrite": True},
        before=(_PUT,),
    ),
    "workspace.put": Example({"agentId": _AGENT, "path": "made.txt", "content": "aGk="}),
}

_numbers = count(10_000)


def filled(template: Any, things: Mapping[str, tuple[str, ...]], took: Any = None) -> Any:
    """``template`` with what its placeholders stand for."""
    match template:
        case Own():
            return things[template.kind][template.place]
        case Fresh():
            return template.form.format(next(_numbers))
        case Took():
            for step in template.path.split("."):
                took = took[step]
            return took
        case dict():
            return {name: filled(value, things, took) for name, value in template.items()}
        case list():
            return [filled(value, things, took) for value in template]
        case _:
            return template
