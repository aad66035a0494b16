"""Wire shapes of ``exec.approvals.*`` and ``exec.approval.*``."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from appliance.model.exec_policy import ExecRules
from appliance.services.approvals.events import ApprovalRequested as ApprovalRequested
from appliance.services.approvals.events import shown
from appliance.services.approvals.pending import Pending
from appliance.storage.approvals import Grant, PolicyFile
from appliance.transports.rpc.fields import (
    AgentIdText,
    ApprovalIdText,
    DeviceIdText,
    GrantIdText,
    NodeIdText,
    RunIdText,
    SessionIdText,
    SessionKeyText,
)
from appliance.transports.rpc.method import Params, Result

Command = Annotated[str, Meta(max_length=100_000)]
Short = Annotated[str, Meta(max_length=256)]
Hash = Annotated[str, Meta(min_length=1, max_length=128)]
Decision = Literal["allow-once", "allow-always", "deny"]
_NO_CRON_JOB = "none"


class ApprovalsSetParams(Params, frozen=True):
    """``file`` is read as a whole: its lists can be long, and its mistakes are named by path."""

    file: dict[str, Any]
    base_hash: Hash | None = None


class ResolvedDefaults(Result, frozen=True, omit_defaults=False):
    """What holds for an agent that has no entry."""

    security: str
    ask: str
    ask_fallback: str
    auto_allow_skills: bool = False

    @classmethod
    def of(cls, rules: ExecRules) -> "ResolvedDefaults":
        return cls(
            security=rules.security.value,
            ask=rules.ask.value,
            ask_fallback=rules.fallback.value,
        )


class ApprovalsSnapshot(Result, frozen=True):
    path: str
    exists: bool
    hash: str
    file: PolicyFile
    resolved_defaults: ResolvedDefaults | UnsetType = UNSET


class OfApproval(Params, frozen=True):
    id: ApprovalIdText


class ApprovalRequestParams(Params, frozen=True):
    """Of what only the asking client makes use of, nothing is looked at (the second half)."""

    id: ApprovalIdText | None = None
    command: Annotated[str, Meta(min_length=1, max_length=100_000)] | None = None
    command_argv: Annotated[list[Command], Meta(max_length=1_000)] | None = None
    env: Annotated[dict[str, Command], Meta(max_length=200)] | None = None
    cwd: Command | None = None
    host: Short | None = None
    node_id: NodeIdText | None = None
    agent_id: AgentIdText | None = None
    session_key: SessionKeyText | None = None
    security: Short | None = None
    ask: Short | None = None
    resolved_path: Command | None = None
    warning_text: Command | None = None
    timeout_ms: Annotated[int, Meta(ge=1)] | None = None
    two_phase: bool = False
    approval_reviewer_device_ids: list[DeviceIdText] | None = None  # refused

    session_id: SessionIdText | None = None
    run_id: RunIdText | None = None
    tool_call_id: Short | None = None
    system_run_plan: dict[str, Any] | None = None
    system_run_plan_v2: dict[str, Any] | None = msgspec.field(name="systemRunPlanV2", default=None)
    scope: dict[str, Any] | None = None
    unavailable_decisions: Annotated[list[Short], Meta(max_length=8)] | None = None
    command_spans: Annotated[list[dict[str, Any]], Meta(max_length=10_000)] | None = None
    turn_source_channel: Short | None = None
    turn_source_to: Short | None = None
    turn_source_account_id: Short | None = None
    turn_source_thread_id: Short | float | None = None
    require_delivery_route: bool | None = None
    suppress_delivery: bool | None = None
    deliver_to_approval_clients_only: bool | None = None


class ApprovalAccepted(Result, frozen=True):
    status: str
    id: str
    created_at_ms: int
    expires_at_ms: int


class ApprovalAnswer(Result, frozen=True, omit_defaults=False):
    """``decision`` is null where nobody decided."""

    id: str
    decision: str | None
    created_at_ms: int
    expires_at_ms: int

    @classmethod
    def of(cls, pending: Pending) -> "ApprovalAnswer":
        return cls(
            id=pending.id,
            decision=None if pending.decision is None else pending.decision.value,
            created_at_ms=pending.created_at_ms,
            expires_at_ms=pending.expires_at_ms,
        )


class ApprovalResolveParams(OfApproval, frozen=True):
    """``reviewer`` is whom a channel says it is: passed over, the connection says who it is."""

    decision: Decision
    reviewer: dict[str, str] | None = None
    grant_expires_in_days: Annotated[int, Meta(ge=1, le=3650)] | None = None


class ApprovalView(Result, frozen=True, omit_defaults=False):
    id: str
    command_text: str
    command_preview: str | None
    allowed_decisions: tuple[str, ...]
    host: str | None
    node_id: str | None
    agent_id: str | None
    expires_at_ms: int

    @classmethod
    def of(cls, pending: Pending) -> "ApprovalView":
        question = pending.question
        return cls(
            id=pending.id,
            command_text=shown(question.subject),
            command_preview=None,
            allowed_decisions=tuple(each.value for each in question.decisions),
            host=question.host,
            node_id=question.node_id,
            agent_id=question.agent or None,
            expires_at_ms=pending.expires_at_ms,
        )


class Resolved(Result, frozen=True):
    ok: bool


class GrantsListParams(Params, frozen=True):
    limit: Annotated[int, Meta(ge=1, le=500)] | None = None


class GrantView(Result, frozen=True, omit_defaults=False):
    """As newer clients know a standing grant; ours belong to no cron job.

    ``cwd`` is set for one that holds for exactly this command in this place;
    else ``command`` is a pattern of the allow-list.
    """

    grant_id: str
    minted_by_approval_id: str
    agent_id: str
    cron_job_id: str
    cron_job_name: str | None
    command: str
    cwd: str | None
    created_at_ms: int
    expires_at_ms: int | None
    revoked_at_ms: int | None
    revoked_by: str | None
    last_used_at_ms: int | None
    use_count: int

    @classmethod
    def of(cls, grant: Grant) -> "GrantView":
        return cls(
            grant_id=grant.id,
            minted_by_approval_id=grant.approval_id,
            agent_id=grant.agent,
            cron_job_id=_NO_CRON_JOB,
            cron_job_name=None,
            command=grant.command,
            cwd=grant.directory,
            created_at_ms=grant.created_at_ms,
            expires_at_ms=grant.expires_at_ms,
            revoked_at_ms=grant.revoked_at_ms,
            revoked_by=grant.revoked_by,
            last_used_at_ms=grant.last_used_at_ms,
            use_count=grant.use_count,
        )


class GrantsListResult(Result, frozen=True):
    grants: list[GrantView]


class GrantsRevokeParams(Params, frozen=True):
    grant_id: GrantIdText


class GrantsRevokeResult(Result, frozen=True):
    outcome: str


def read_policy(raw: dict[str, Any]) -> PolicyFile:
    """Raises :exc:`msgspec.ValidationError`, naming the place."""
    # A socket of the client's machine, with its secret: nothing of ours.
    return msgspec.convert({k: v for k, v in raw.items() if k != "socket"}, PolicyFile)
