"""Wire shapes of nodes: pairing and the list."""

from typing import Annotated

from msgspec import Meta

from appliance.model.periods import to_ms
from appliance.services.nodes import KnownNode
from appliance.services.pairing_events import NodePairRequested
from appliance.storage.paired import Node, PairRequest
from appliance.transports.rpc.fields import (
    NodeIdText,
    PairRequestIdText,
)
from appliance.transports.rpc.method import Params, Result

NameText = Annotated[str, Meta(min_length=1, max_length=128)]
Short = Annotated[str, Meta(max_length=200)]
Names = Annotated[tuple[NameText, ...], Meta(max_length=200)]


class NodePairRequestParams(Params, frozen=True):
    """``remote_ip`` and ``silent`` are accepted and not believed."""

    node_id: NodeIdText
    display_name: Annotated[str, Meta(max_length=64)] | None = None
    platform: Short | None = None
    version: Short | None = None
    core_version: Short | None = None
    ui_version: Short | None = None
    device_family: Short | None = None
    model_identifier: Short | None = None
    caps: Names = ()
    commands: Names = ()
    remote_ip: Short | None = None
    silent: bool | None = None

    def request(self, *, ip: str) -> PairRequest:
        return PairRequest(
            request_id="",
            kind="node",
            subject_id=self.node_id,
            ts=0,
            display_name=self.display_name,
            platform=self.platform,
            version=self.version,
            device_family=self.device_family,
            model_identifier=self.model_identifier,
            caps=self.caps,
            commands=self.commands,
            remote_ip=ip or None,
        )


class NodePairDecisionParams(Params, frozen=True):
    request_id: PairRequestIdText


class NodeParams(Params, frozen=True):
    node_id: NodeIdText


class NodeVerifyParams(Params, frozen=True):
    node_id: NodeIdText
    token: Annotated[str, Meta(min_length=1, max_length=512)]


class NodeRenameParams(Params, frozen=True):
    node_id: NodeIdText
    display_name: Annotated[str, Meta(min_length=1, max_length=64)]


class NodeView(Result, frozen=True):
    """A node as ``node.list`` shows it."""

    node_id: str
    caps: tuple[str, ...]
    commands: tuple[str, ...]
    paired: bool
    connected: bool
    display_name: str | None = None
    platform: str | None = None
    version: str | None = None
    device_family: str | None = None
    model_identifier: str | None = None
    client_id: str | None = None
    client_mode: str | None = None
    remote_ip: str | None = None
    permissions: dict[str, bool] | None = None
    connected_at_ms: int | None = None
    approved_at_ms: int | None = None
    approval_state: str | None = None

    @classmethod
    def of(cls, known: KnownNode) -> "NodeView":
        node, device, client = known.node, known.device, known.client
        info = None if client is None else client.info
        by_admin = client is not None and client.caller.is_admin
        paired = node or device
        return cls(
            node_id=known.id,
            caps=tuple(sorted(info.caps)) if info else node.caps if node else (),
            commands=tuple(sorted(info.commands)) if info else node.commands if node else (),
            paired=paired is not None,
            connected=client is not None,
            display_name=known.name,
            platform=(info and info.platform) or (paired and paired.platform) or None,
            version=(info and info.version) or (node and node.version) or None,
            device_family=(info and info.device_family) or (node and node.device_family) or None,
            model_identifier=(info and info.model_identifier)
            or (node and node.model_identifier)
            or None,
            client_id=(info and info.id) or (device and device.client_id) or None,
            client_mode=(info and info.mode) or (device and device.client_mode) or None,
            remote_ip=None if client is None or by_admin else client.caller.ip or None,
            permissions=dict(info.permissions) if info and info.permissions else None,
            connected_at_ms=None if client is None else to_ms(client.connected_at),
            approved_at_ms=None if paired is None else paired.approved_at_ms,
            approval_state="unapproved" if paired is None else "approved",
        )


class NodeDescribeResult(NodeView, frozen=True, kw_only=True):
    ts: int


class PairedNode(Result, frozen=True):
    """A node's pairing. ``token`` is there once, when it was approved."""

    node_id: str
    created_at_ms: int
    approved_at_ms: int
    token: str | None = None
    display_name: str | None = None
    platform: str | None = None
    version: str | None = None
    device_family: str | None = None
    model_identifier: str | None = None
    caps: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()

    @classmethod
    def of(cls, node: Node, token: str | None = None) -> "PairedNode":
        return cls(
            node_id=node.node_id,
            created_at_ms=node.created_at_ms,
            approved_at_ms=node.approved_at_ms,
            token=token,
            display_name=node.display_name,
            platform=node.platform,
            version=node.version,
            device_family=node.device_family,
            model_identifier=node.model_identifier,
            caps=node.caps,
            commands=node.commands,
        )


class NodeListResult(Result, frozen=True):
    ts: int
    nodes: list[NodeView]


class NodePairListResult(Result, frozen=True):
    pending: list[NodePairRequested]
    paired: list[PairedNode]


class NodePairRequestResult(Result, frozen=True):
    status: str
    request: NodePairRequested
    created: bool


class NodePairApproveResult(Result, frozen=True):
    request_id: str
    node: PairedNode


class NodePairRejectResult(Result, frozen=True):
    request_id: str
    node_id: str


class NodePairRemoveResult(Result, frozen=True):
    node_id: str


class NodePairVerifyResult(Result, frozen=True):
    ok: bool
    node: PairedNode | None = None


class NodeRenameResult(Result, frozen=True):
    node_id: str
    display_name: str
