"""``exec.approval*``, whose engine comes with a later release: scopes and parameters."""

from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import Meta

from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope
from appliance.transports.rpc.fields import AgentIdText, NodeIdText, SessionKeyText
from appliance.transports.rpc.method import Method, NoParams, Params

ApprovalId = Annotated[str, Meta(min_length=1, max_length=128)]
Command = Annotated[str, Meta(max_length=100_000)]
Short = Annotated[str, Meta(max_length=256)]
Hash = Annotated[str, Meta(max_length=128)]


class ApprovalsSetParams(Params, frozen=True, kw_only=True):
    file: dict[str, Any]
    base_hash: Hash | None = None


class ApprovalsNodeGetParams(Params, frozen=True, kw_only=True):
    node_id: NodeIdText


class ApprovalsNodeSetParams(ApprovalsSetParams, frozen=True, kw_only=True):
    node_id: NodeIdText


class OfApproval(Params, frozen=True, kw_only=True):
    id: ApprovalId


class ApprovalRequestParams(Params, frozen=True, kw_only=True, forbid_unknown_fields=False):
    id: ApprovalId | None = None
    command: Command | None = None
    command_argv: list[Command] | None = None
    env: dict[str, str] | None = None
    cwd: Command | None = None
    node_id: NodeIdText | None = None
    agent_id: AgentIdText | None = None
    session_key: SessionKeyText | None = None
    timeout_ms: Annotated[int, Meta(ge=1)] | None = None
    two_phase: bool = False


class ApprovalResolveParams(OfApproval, frozen=True, kw_only=True):
    decision: Short
    reviewer: dict[str, str] | None = None
    grant_expires_in_days: Annotated[int, Meta(ge=1, le=3650)] | None = None


class GrantsListParams(Params, frozen=True, kw_only=True):
    limit: Annotated[int, Meta(ge=1, le=500)] | None = None


class GrantsRevokeParams(Params, frozen=True, kw_only=True):
    grant_id: ApprovalId


_ADMIN, _APPROVALS = OperatorScope.ADMIN, OperatorScope.APPROVALS


def _approvals() -> Iterator[Method]:
    entries: tuple[tuple[str, OperatorScope, type[Params], str], ...] = (
        ("exec.approvals.get", _ADMIN, NoParams, "Show what may run without asking"),
        ("exec.approvals.set", _ADMIN, ApprovalsSetParams, "Set what may run without asking"),
        ("exec.approvals.node.get", _ADMIN, ApprovalsNodeGetParams, "The same of a node"),
        ("exec.approvals.node.set", _ADMIN, ApprovalsNodeSetParams, "The same on a node"),
        ("exec.approval.request", _APPROVALS, ApprovalRequestParams, "Ask whether to run it"),
        ("exec.approval.waitDecision", _APPROVALS, OfApproval, "Wait for the answer"),
        ("exec.approval.resolve", _APPROVALS, ApprovalResolveParams, "Answer"),
        ("exec.approval.get", _APPROVALS, OfApproval, "Show what was asked"),
        ("exec.approval.list", _APPROVALS, NoParams, "List what waits for an answer"),
        ("exec.approval.grants.list", _APPROVALS, GrantsListParams, "List lasting answers"),
        ("exec.approval.grants.revoke", _APPROVALS, GrantsRevokeParams, "Take one back"),
    )
    for name, scope, params, summary in entries:
        yield Method(name=name, summary=summary, scope=scope, needs=Scope.MANAGE, params=params)


APPROVALS = tuple(_approvals())
