"""Commands to connected nodes: sent once, answered by the connection that was asked."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import msgspec
import trio

from appliance.model.errors import InvalidRequest, Unavailable
from appliance.model.ids import new_id
from appliance.model.periods import to_ms
from appliance.services.clients import Client
from appliance.services.node_invokes import NodeInvoke, NodeResult
from appliance.services.pairing import TenantWithPairings


class NodeNotConnected(Unavailable):
    code = "not-connected"
    title = "The node is not connected"


class NodeTimedOut(Unavailable):
    code = "timeout"
    title = "The node did not answer in time"


class NodeFailed(Unavailable):
    """``node_error`` among the facts is the node's own word for it."""

    code = "node-failed"
    title = "The node could not do it"


class NodeBusy(Unavailable):
    code = "queued-until-foreground"
    title = "The command waits until the app is in the foreground"


_FAILURES: dict[str, type[Unavailable]] = {
    "NOT_CONNECTED": NodeNotConnected,
    "TIMEOUT": NodeTimedOut,
    "QUEUED_UNTIL_FOREGROUND": NodeBusy,
}

DEFAULT_TIMEOUT = 30.0  # seconds
LARGEST_PAYLOAD = 8 * 1024 * 1024  # bytes

# They change who may run what on the node, and have methods of their own.
_OWN_METHODS = frozenset({"system.execApprovals.get", "system.execApprovals.set"})
# What iOS does not let an app do in the background.
_FOREGROUND_ONLY = ("canvas.", "camera.", "screen.", "talk.")


@dataclass(frozen=True, slots=True)
class NodeCommand:
    """``params`` is JSON, None where there is none; ``timeout`` is in seconds."""

    node_id: str
    command: str
    params: bytes | None
    timeout: float
    idempotency_key: str

    def fingerprint(self) -> bytes:
        # Sorted, so that the same request spelt anew stays the same request.
        params = msgspec.json.decode(self.params) if self.params else None
        said = msgspec.json.encode([self.node_id, self.command, params], order="sorted")
        return hashlib.sha256(said).digest()


class InvokeRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What the node is told (``node.invoke.request``)."""

    id: str
    node_id: str
    command: str
    timeout_ms: int
    idempotency_key: str
    params_json: str | None = msgspec.field(name="paramsJSON", default=None)


class NodeCommands:
    def __init__(self, *, clock: Callable[[], datetime]) -> None:
        self._clock = clock

    async def invoke(self, tenant: TenantWithPairings, command: NodeCommand) -> bytes | None:
        """Have a node do something; return its payload.

        Raises :exc:`InvalidRequest` for what the node never offered,
        :exc:`RateLimited`, :exc:`NodeNotConnected`, :exc:`NodeTimedOut`, and
        :exc:`NodeFailed` for what the node itself says. Whoever repeats an
        idempotency key gets what the first one got.
        """
        invokes = tenant.state.invokes
        fingerprint = command.fingerprint()
        invoke = invokes.earlier(command.idempotency_key, fingerprint)
        if invoke is None:
            invokes.require_room()
            client = _connected(tenant, command)
            invoke = NodeInvoke(
                id=new_id("inv"),
                node=command.node_id,
                command=command.command,
                params=command.params,
                connection=client.id,
                fingerprint=fingerprint,
                deadline=trio.current_time() + command.timeout,
            )
            invokes.add(command.idempotency_key, invoke)
            if not client.send_event("node.invoke.request", _request(invoke, command)):
                invokes.discard(command.idempotency_key)
                raise _not_connected()
        result = await invoke.wait()
        if not result.ok:
            raise _failure(result)
        return result.payload

    def answer(
        self,
        tenant: TenantWithPairings,
        client: Client,
        invoke_id: str,
        *,
        node_id: str,
        result: NodeResult,
    ) -> bool:
        """Take a node's answer; False if it was not asked, or is too late.

        A command that a phone cannot do in the background waits until the
        phone asks for it (``node.pending.pull``).
        """
        invokes = tenant.state.invokes
        invoke = invokes.find(invoke_id)
        if invoke is None or (invoke.connection, invoke.node) != (client.id, node_id):
            return False
        if result.payload is not None and len(result.payload) > LARGEST_PAYLOAD:
            message = f"the node's payload is larger than {LARGEST_PAYLOAD} bytes"
            result = NodeResult(
                ok=False, code="PAYLOAD_TOO_LARGE", message=message, by_gateway=True
            )
        if _needs_foreground(client, invoke, result):
            now_ms = to_ms(self._clock())
            action = tenant.state.node_queues.defer(
                invoke.node, invoke.command, invoke.params, now_ms=now_ms
            )
            message = f"the command waits until the app is in the foreground ({action.id})"
            result = NodeResult(
                ok=False, code="QUEUED_UNTIL_FOREGROUND", message=message, by_gateway=True
            )
        invokes.finish(invoke, result)
        return True

    def connection_closed(self, tenant: TenantWithPairings, client: Client) -> None:
        """Nobody will answer any more on this connection."""
        tenant.state.invokes.connection_closed(client.id)


def _connected(tenant: TenantWithPairings, command: NodeCommand) -> Client:
    """The connection of a node that offers the command."""
    client = tenant.clients.node(command.node_id)
    if client is None:
        raise _not_connected()
    if command.command in _OWN_METHODS:
        raise InvalidRequest.at(
            "command", "is not sent this way", "use exec.approvals.node.get and .set"
        )
    if command.command not in client.info.commands:
        raise InvalidRequest.at(
            "command", "the node did not declare it", "node.describe lists those it has"
        )
    return client


def _request(invoke: NodeInvoke, command: NodeCommand) -> InvokeRequest:
    return InvokeRequest(
        id=invoke.id,
        node_id=invoke.node,
        command=invoke.command,
        timeout_ms=round(command.timeout * 1000),
        idempotency_key=command.idempotency_key,
        params_json=None if command.params is None else command.params.decode(),
    )


def _needs_foreground(client: Client, invoke: NodeInvoke, result: NodeResult) -> bool:
    if result.ok or not client.info.platform.casefold().startswith(("ios", "ipados")):
        return False
    said = f"{result.code} {result.message}".upper()
    return "BACKGROUND_UNAVAILABLE" in said and invoke.command.startswith(_FOREGROUND_ONLY)


# One answer whether the node is away, unknown, or another tenant's.
def _not_connected() -> NodeNotConnected:
    return NodeNotConnected("node not connected")


def _failure(result: NodeResult) -> Unavailable:
    message = result.message or "node invoke failed"
    # A node says what it likes: what only we can know is said with our words.
    kind = _FAILURES.get(result.code) if result.by_gateway else None
    return NodeFailed(message, node_error=result.code) if kind is None else kind(message)
