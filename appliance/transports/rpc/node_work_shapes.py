"""Wire shapes of what nodes do: commands, events, what waits for them."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from appliance.services.node_queues import Drained, QueuedAction, WorkItem
from appliance.transports.rpc.fields import (
    IdempotencyKey,
    InvokeIdText,
    NodeIdText,
    SessionKeyText,
    WorkIdText,
)
from appliance.transports.rpc.method import Params, Result
from appliance.transports.rpc.nodes_shapes import NameText, Short

TimeoutMs = Annotated[int, Meta(ge=0, le=600_000)]


class NodeInvokeParams(Params, frozen=True):
    """``turn_source_…`` say which conversation asked; they change nothing here."""

    node_id: NodeIdText
    command: NameText
    idempotency_key: IdempotencyKey
    params: Any = None  # passed on as it is
    timeout_ms: TimeoutMs | None = None
    session_key: SessionKeyText | None = None
    turn_source_channel: Short | None = None
    turn_source_to: Short | None = None
    turn_source_account_id: Short | None = None
    turn_source_thread_id: Short | int | None = None


class NodeError(Params, frozen=True, forbid_unknown_fields=False):
    """What a node says went wrong."""

    code: Short | None = None
    message: Annotated[str, Meta(max_length=4_000)] | None = None


class NodeInvokeResultParams(Params, frozen=True):
    id: InvokeIdText
    node_id: NodeIdText
    ok: bool
    payload: Any = None
    payload_json: str | None = msgspec.field(name="payloadJSON", default=None)
    error: NodeError | None = None


class NodeEventParams(Params, frozen=True):
    event: NameText
    payload: Any = None
    payload_json: str | None = msgspec.field(name="payloadJSON", default=None)


class NodeEnqueueParams(Params, frozen=True):
    """``wake`` is accepted: nothing here can wake a node that is not connected."""

    node_id: NodeIdText
    type: Literal["status.request", "location.request"]
    priority: Literal["normal", "high"] = "normal"
    expires_in_ms: Annotated[int, Meta(ge=1_000, le=86_400_000)] | None = None
    wake: bool = True


class NodeDrainParams(Params, frozen=True):
    max_items: Annotated[int, Meta(ge=1, le=10)] = 4


class NodeAckParams(Params, frozen=True):
    ids: Annotated[tuple[WorkIdText, ...], Meta(min_length=1, max_length=64)]


class NodeInvokeResult(Result, frozen=True, omit_defaults=False):
    """``payload`` and ``payloadJSON`` say the same, as a value and as text."""

    ok: bool
    node_id: str
    command: str
    payload: msgspec.Raw | None = None
    payload_json: str | None = msgspec.field(name="payloadJSON", default=None)


class NodeTaken(Result, frozen=True):
    """``ignored``: nobody waits for this."""

    ok: bool
    ignored: bool | None = None


class WorkItemView(Result, frozen=True, omit_defaults=False):
    id: str
    type: str
    priority: str
    created_at_ms: int
    expires_at_ms: int | None = None

    @classmethod
    def of(cls, item: WorkItem) -> "WorkItemView":
        return cls(
            id=item.id,
            type=item.type,
            priority=item.priority,
            created_at_ms=item.created_at_ms,
            expires_at_ms=item.expires_at_ms,
        )


class NodeEnqueueResult(Result, frozen=True):
    node_id: str
    revision: int
    queued: WorkItemView
    wake_triggered: bool


class NodeDrainResult(Result, frozen=True):
    node_id: str
    revision: int
    items: list[WorkItemView]
    has_more: bool

    @classmethod
    def of(cls, node_id: str, drained: Drained) -> "NodeDrainResult":
        items = [WorkItemView.of(item) for item in drained.items]
        return cls(
            node_id=node_id, revision=drained.revision, items=items, has_more=drained.has_more
        )


class NodeActionView(Result, frozen=True, omit_defaults=False):
    id: str
    command: str
    enqueued_at_ms: int
    params_json: str | None = msgspec.field(name="paramsJSON", default=None)

    @classmethod
    def of(cls, action: QueuedAction) -> "NodeActionView":
        params = None if action.params is None else action.params.decode()
        return cls(
            id=action.id,
            command=action.command,
            enqueued_at_ms=action.enqueued_at_ms,
            params_json=params,
        )


class NodePullResult(Result, frozen=True):
    node_id: str
    actions: list[NodeActionView]


class NodeAckResult(Result, frozen=True):
    node_id: str
    acked_ids: tuple[str, ...]
    remaining_count: int
