"""``exec.approvals.node.*``, whose engine comes with a later release: scopes and parameters."""

from typing import Annotated, Any

from msgspec import Meta

from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope
from appliance.transports.rpc.fields import NodeIdText
from appliance.transports.rpc.method import Method, Params


class ApprovalsNodeGetParams(Params, frozen=True, kw_only=True):
    node_id: NodeIdText


class ApprovalsNodeSetParams(ApprovalsNodeGetParams, frozen=True, kw_only=True):
    file: dict[str, Any]
    base_hash: Annotated[str, Meta(max_length=128)] | None = None


_ENTRIES: tuple[tuple[str, type[Params], str], ...] = (
    ("exec.approvals.node.get", ApprovalsNodeGetParams, "Show what a node runs without asking"),
    ("exec.approvals.node.set", ApprovalsNodeSetParams, "Set what a node runs without asking"),
)
APPROVALS = tuple(
    Method(name=name, summary=summary, scope=OperatorScope.ADMIN, needs=Scope.MANAGE, params=params)
    for name, params, summary in _ENTRIES
)
