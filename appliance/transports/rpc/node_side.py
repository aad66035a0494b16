"""Methods that nodes call: results of commands, events, the work that waits for them."""

import msgspec

from appliance.model.errors import Forbidden, InvalidRequest
from appliance.model.tokens import Scope
from appliance.services.clients import Client
from appliance.services.node_commands import LARGEST_PAYLOAD
from appliance.services.node_invokes import NodeResult
from appliance.services.tenant_state import SystemText
from appliance.transports.rpc.method import Method, MethodCall, NoParams, Who
from appliance.transports.rpc.node_work_shapes import (
    NodeAckParams,
    NodeAckResult,
    NodeActionView,
    NodeDrainParams,
    NodeDrainResult,
    NodeEventParams,
    NodeInvokeResultParams,
    NodePullResult,
    NodeTaken,
)

_LONGEST_TEXT = 4_000  # characters that the agent is told of an event
_TOLD_TO_THE_AGENT = frozenset(
    {"exec.started", "exec.finished", "exec.denied", "notifications.changed"}
)


class EventPayload(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of an event's payload."""

    session_key: str | None = None


async def invoke_result(call: MethodCall[NodeInvokeResultParams]) -> NodeTaken:
    params = call.params
    error = params.error
    result = NodeResult(
        ok=params.ok,
        payload=_payload(params.payload, params.payload_json),
        code="" if error is None else error.code or "",
        message="" if error is None else error.message or "",
    )
    taken = call.services.nodes.commands.answer(
        call.awake, call.client, params.id, node_id=params.node_id, result=result
    )
    return NodeTaken(ok=True, ignored=None if taken else True)


async def event(call: MethodCall[NodeEventParams]) -> NodeTaken:
    """Take what a node tells: what nothing here acts on is ignored, and said to be."""
    params = call.params
    payload = _payload(params.payload, params.payload_json)
    match params.event:
        case "chat.subscribe" | "chat.unsubscribe":
            key = call.session_key(_named_session(payload)).short
            if params.event == "chat.subscribe":
                call.client.watched_sessions.add(key)
            else:
                call.client.watched_sessions.discard(key)
        case "node.presence.alive":
            call.services.presence.touch(call.awake)
        case name if name in _TOLD_TO_THE_AGENT:
            text = f"{name} {'' if payload is None else payload.decode()}".strip()
            now_ms = call.services.nodes.now_ms()
            call.awake.state.system_texts.append(SystemText(now_ms, text[:_LONGEST_TEXT]))
        case _:
            return NodeTaken(ok=True, ignored=True)
    return NodeTaken(ok=True)


async def pending_drain(call: MethodCall[NodeDrainParams]) -> NodeDrainResult:
    node_id = _node_id(call.client)
    drained = call.awake.state.node_queues.drain(
        node_id, most=call.params.max_items, now_ms=call.services.nodes.now_ms()
    )
    return NodeDrainResult.of(node_id, drained)


async def pending_pull(call: MethodCall[NoParams]) -> NodePullResult:
    node_id = _node_id(call.client)
    actions = call.awake.state.node_queues.actions(node_id, now_ms=call.services.nodes.now_ms())
    return NodePullResult(node_id=node_id, actions=[NodeActionView.of(a) for a in actions])


async def pending_ack(call: MethodCall[NodeAckParams]) -> NodeAckResult:
    node_id = _node_id(call.client)
    left = call.awake.state.node_queues.acknowledge(
        node_id, list(call.params.ids), now_ms=call.services.nodes.now_ms()
    )
    return NodeAckResult(node_id=node_id, acked_ids=call.params.ids, remaining_count=left)


def _node_id(client: Client) -> str:
    if client.node_id is None:
        raise Forbidden("only a node has work waiting for it")
    return client.node_id


def _payload(value: object, text: str | None) -> bytes | None:
    """A payload as JSON, however it came."""
    if text is None:
        return None if value is None else msgspec.json.encode(value)
    data = text.encode()
    # What is too large is not even looked at; whoever asked is told.
    if len(data) <= LARGEST_PAYLOAD:
        try:
            msgspec.json.decode(data)
        except (msgspec.DecodeError, RecursionError):
            raise InvalidRequest.at("payloadJSON", "is not JSON") from None
    return data


def _named_session(payload: bytes | None) -> str:
    try:
        named = msgspec.json.decode(payload or b"{}", type=EventPayload)
    except msgspec.DecodeError:
        named = EventPayload()
    if not named.session_key:
        raise InvalidRequest.at("payload.sessionKey", "is missing", "name a session")
    return named.session_key


METHODS: tuple[Method, ...] = (
    Method(
        name="node.invoke.result",
        summary="Say what came of a command",
        scope=None,
        needs=Scope.CHAT,
        who=Who.NODE,
        params=NodeInvokeResultParams,
        result=NodeTaken,
        handler=invoke_result,
    ),
    Method(
        name="node.event",
        summary="Tell what happened on a node",
        scope=None,
        needs=Scope.CHAT,
        who=Who.NODE,
        params=NodeEventParams,
        result=NodeTaken,
        handler=event,
    ),
    Method(
        name="node.pending.drain",
        summary="Take the work that waits for a node",
        scope=None,
        needs=Scope.CHAT,
        who=Who.NODE,
        params=NodeDrainParams,
        result=NodeDrainResult,
        handler=pending_drain,
    ),
    Method(
        name="node.pending.pull",
        summary="List the commands that wait until a node can do them",
        scope=None,
        needs=Scope.CHAT,
        who=Who.NODE,
        result=NodePullResult,
        handler=pending_pull,
    ),
    Method(
        name="node.pending.ack",
        summary="Forget commands that a node has taken",
        scope=None,
        needs=Scope.CHAT,
        who=Who.NODE,
        params=NodeAckParams,
        result=NodeAckResult,
        handler=pending_ack,
    ),
)
