"""``exec.approvals.*``: what agents may run unseen; ``exec.approval.*``: what they ask about."""

from typing import Any

import msgspec

from appliance.model.errors import InvalidRequest, NotFound
from appliance.model.exec_policy import ExecOrder
from appliance.model.operator_scopes import OperatorScope, Role
from appliance.model.session_keys import DEFAULT_AGENT
from appliance.model.tokens import Scope
from appliance.services.approvals.pending import Decision, Question
from appliance.services.approvals.policy import PolicyDocument
from appliance.transports.rpc.approvals_shapes import (
    ApprovalAccepted,
    ApprovalAnswer,
    ApprovalRequested,
    ApprovalRequestParams,
    ApprovalResolveParams,
    ApprovalsSetParams,
    ApprovalsSnapshot,
    ApprovalView,
    GrantsListParams,
    GrantsListResult,
    GrantsRevokeParams,
    GrantsRevokeResult,
    GrantView,
    OfApproval,
    Resolved,
    ResolvedDefaults,
    read_policy,
)
from appliance.transports.rpc.method import Method, MethodCall, NoParams, Who

_DEFAULT_LIMIT = 120.0  # seconds
_LONGEST_LIMIT = 30 * 60.0
_MOST_GRANTS = 500
_FIRST_WITH_DEFAULTS = 4


async def get_policy(call: MethodCall[NoParams]) -> ApprovalsSnapshot:
    return _snapshot(call, await call.services.approvals.policy.document(call.awake))


async def set_policy(call: MethodCall[ApprovalsSetParams]) -> ApprovalsSnapshot:
    try:
        file = read_policy(dict(call.params.file))
    except msgspec.ValidationError as error:
        raise InvalidRequest.at("file", str(error)) from None
    document = await call.services.approvals.policy.replace(
        call.awake, call.caller, file, base_hash=call.params.base_hash
    )
    return _snapshot(call, document)


async def request(call: MethodCall[ApprovalRequestParams]) -> ApprovalAnswer:
    """Answers twice if it was asked to: the question is put; somebody answered."""
    params = call.params
    limit = _DEFAULT_LIMIT if params.timeout_ms is None else params.timeout_ms / 1000
    pending = call.services.approvals.request(
        call.awake,
        call.caller,
        _question(call),
        limit=min(limit, _LONGEST_LIMIT),
        requester=call.client.node_id or call.client.id,
        approval_id=params.id,
    )
    if params.two_phase:
        call.respond(
            ApprovalAccepted(
                status="accepted",
                id=pending.id,
                created_at_ms=pending.created_at_ms,
                expires_at_ms=pending.expires_at_ms,
            )
        )
    await pending.ended.wait()
    return ApprovalAnswer.of(pending)


async def wait_decision(call: MethodCall[OfApproval]) -> ApprovalAnswer:
    pending = call.awake.state.approvals.find(call.params.id)
    is_node = call.client.role is Role.NODE
    if pending is None or (is_node and pending.requester != call.client.node_id):
        raise NotFound("approval expired or not found")
    await pending.ended.wait()
    return ApprovalAnswer.of(pending)


async def resolve(call: MethodCall[ApprovalResolveParams]) -> Resolved:
    params = call.params
    await call.services.approvals.resolve(
        call.awake,
        call.caller,
        params.id,
        Decision(params.decision),
        by=call.client.info.display_name or call.client.info.id,
        days=params.grant_expires_in_days,
    )
    return Resolved(ok=True)


async def get(call: MethodCall[OfApproval]) -> ApprovalView:
    pending = call.services.approvals.require_known(call.awake, call.params.id)
    if pending.ended.is_set():
        raise NotFound("unknown approval id")
    return ApprovalView.of(pending)


async def list_pending(call: MethodCall[NoParams]) -> list[ApprovalRequested]:
    return [ApprovalRequested.of(each) for each in call.services.approvals.waiting(call.awake)]


async def list_grants(call: MethodCall[GrantsListParams]) -> GrantsListResult:
    limit = call.params.limit or _MOST_GRANTS
    grants = await call.services.approvals.policy.grants(call.awake, limit=limit)
    return GrantsListResult(grants=[GrantView.of(grant) for grant in grants])


async def revoke_grant(call: MethodCall[GrantsRevokeParams]) -> GrantsRevokeResult:
    outcome = await call.services.approvals.policy.revoke(
        call.awake, call.caller, call.params.grant_id
    )
    return GrantsRevokeResult(outcome=outcome)


def _snapshot(call: MethodCall[Any], document: PolicyDocument) -> ApprovalsSnapshot:
    snapshot = ApprovalsSnapshot(
        path=f"tenant:{call.awake.id}:approvals",
        exists=document.exists,
        hash=document.file.hash,
        file=document.file,
    )
    if call.client.protocol < _FIRST_WITH_DEFAULTS:
        return snapshot
    defaults = ResolvedDefaults.of(document.in_force)
    return msgspec.structs.replace(snapshot, resolved_defaults=defaults)


def _question(call: MethodCall[ApprovalRequestParams]) -> Question:
    params = call.params
    command = params.command or " ".join(params.command_argv or [])
    if not command.strip():
        raise InvalidRequest.at("command", "command is required")
    if params.approval_reviewer_device_ids:
        raise InvalidRequest.at(
            "approvalReviewerDeviceIds", "whoever may approve may answer", "leave it out"
        )
    session, agent = None, params.agent_id
    if params.session_key is not None:
        key = call.session_key(params.session_key, agent=agent)
        session, agent = key.short, key.agent
    if agent is not None:
        call.services.agents.require(call.awake, agent)
    if params.host == "node" and params.node_id is None:
        raise InvalidRequest.at("nodeId", "nodeId is required for host=node")
    environment = params.env or {}
    # Every argument counts: two lists may read the same with blanks between.
    said = (
        command
        if params.command_argv is None
        else msgspec.json.encode([command, params.command_argv, params.node_id]).decode()
    )
    order = ExecOrder(command=said, directory=params.cwd or "", environment=environment)
    return Question(
        kind="exec",
        subject=command,
        digest=order.digest,
        agent=agent or DEFAULT_AGENT,
        session=session,
        argv=None if params.command_argv is None else tuple(params.command_argv),
        directory=params.cwd,
        environment=tuple(sorted(environment)),
        host=params.host or None,
        node_id=params.node_id,
        security=params.security,
        ask=params.ask,
        resolved_path=params.resolved_path,
        reason=params.warning_text or "a client asks",
        # What would be allowed for good is in the client's hands, which has its own list.
        allows_always=False,
    )


_ADMIN, _APPROVALS = OperatorScope.ADMIN, OperatorScope.APPROVALS

METHODS: tuple[Method, ...] = (
    Method(
        name="exec.approvals.get",
        summary="Show what agents may run without asking",
        scope=_ADMIN,
        needs=Scope.MANAGE,
        result=ApprovalsSnapshot,
        handler=get_policy,
    ),
    Method(
        name="exec.approvals.set",
        summary="Set what agents may run without asking",
        scope=_ADMIN,
        needs=Scope.MANAGE,
        params=ApprovalsSetParams,
        result=ApprovalsSnapshot,
        handler=set_policy,
        audited="approvals.set",
    ),
    Method(
        name="exec.approval.request",
        summary="Ask whether a command may be run",
        scope=_APPROVALS,
        needs=Scope.MANAGE,
        params=ApprovalRequestParams,
        result=ApprovalAnswer,
        who=Who.MEMBER,
        handler=request,
        replies_twice=True,
    ),
    Method(
        name="exec.approval.waitDecision",
        summary="Wait for the answer",
        scope=_APPROVALS,
        needs=Scope.MANAGE,
        params=OfApproval,
        result=ApprovalAnswer,
        who=Who.MEMBER,
        handler=wait_decision,
    ),
    Method(
        name="exec.approval.resolve",
        summary="Answer what was asked; the first answer counts",
        scope=_APPROVALS,
        needs=Scope.MANAGE,
        params=ApprovalResolveParams,
        result=Resolved,
        handler=resolve,
        audited="approval",
    ),
    Method(
        name="exec.approval.get",
        summary="Show what was asked",
        scope=_APPROVALS,
        needs=Scope.MANAGE,
        params=OfApproval,
        result=ApprovalView,
        handler=get,
    ),
    Method(
        name="exec.approval.list",
        summary="List what waits for an answer",
        scope=_APPROVALS,
        needs=Scope.MANAGE,
        result=list[ApprovalRequested],
        handler=list_pending,
    ),
    Method(
        name="exec.approval.grants.list",
        summary="List the answers that last",
        scope=_APPROVALS,
        needs=Scope.MANAGE,
        params=GrantsListParams,
        result=GrantsListResult,
        handler=list_grants,
    ),
    Method(
        name="exec.approval.grants.revoke",
        summary="Take one of them back",
        scope=_APPROVALS,
        needs=Scope.MANAGE,
        params=GrantsRevokeParams,
        result=GrantsRevokeResult,
        handler=revoke_grant,
        audited="approval.revoke",
    ),
)
