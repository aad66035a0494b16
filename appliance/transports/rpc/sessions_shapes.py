"""What the ``sessions.*`` methods are given."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from appliance.transports.rpc.fields import (
    AgentIdText,
    IdempotencyKey,
    LabelText,
    MessageText,
    SessionIdText,
    SessionKeyText,
)
from appliance.transports.rpc.method import Params

Positive = Annotated[int, Meta(ge=1, le=2**53 - 1)]
Natural = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Short = Annotated[str, Meta(max_length=512)]
Transcript = Annotated[str, Meta(max_length=10 * 1024 * 1024)]
Permission = Literal["read-only", "guarded", "workspace", "full"]


class ToolOverrides(Params, frozen=True):
    mcp_servers: Annotated[dict[str, bool], Meta(max_length=500)] | UnsetType = UNSET
    mcp_tools_deny: Annotated[dict[str, list[str]], Meta(max_length=500)] | UnsetType = UNSET
    skills: Annotated[dict[str, bool], Meta(max_length=500)] | UnsetType = UNSET
    web_search: bool | UnsetType = UNSET


class ProfileRelation(Params, frozen=True):
    profile_id: Short
    relationship: Literal["owned", "created", "involving"]


class SessionsListParams(Params, frozen=True):
    """All conditions hold together. A tenant has one owner, so people are told apart by nothing."""

    limit: Positive | None = None
    offset: Natural = 0
    active_minutes: Annotated[int, Meta(ge=1, le=5_256_000)] | None = None
    active_only: bool = False
    require_last_interaction: bool = False
    sort_by: Literal["updatedAt", "lastInteractionAt", "activity"] = "updatedAt"
    include_global: bool = False
    include_unknown: bool = False
    exclude_subagents: bool = False
    exclude_cron: bool = False
    exclude_system: bool = False
    configured_agents_only: bool = False
    include_derived_titles: bool = False
    include_last_message: bool = False
    include_activity_summary: bool = False
    label: LabelText | None = None
    project_id: Short | None = None
    workspace_dir: Short | None = None
    group: Short | None = None
    pinned: bool | None = None
    board_face: Literal["chat", "dashboard"] | None = None
    has_board: bool | None = None
    creator_id: Short | None = None
    owner_id: Short | None = None
    owner_first: bool = False
    involving_me: bool = False
    profile_relation: ProfileRelation | None = None
    involving_profile_id: Short | None = None
    include_people: bool = False
    spawned_by: SessionKeyText | None = None
    agent_id: AgentIdText | None = None
    search: Short | None = None
    archived: bool | Literal["all"] = False


class SessionsPreviewParams(Params, frozen=True):
    keys: Annotated[list[SessionKeyText], Meta(max_length=64)]
    limit: Positive = 12
    max_chars: Annotated[int, Meta(ge=20, le=100_000)] = 240


class SessionsGetParams(Params, frozen=True):
    key: SessionKeyText | None = None
    session_key: SessionKeyText | None = None
    agent_id: AgentIdText | None = None
    limit: Positive = 200


class SessionsDescribeParams(Params, frozen=True):
    key: SessionKeyText
    agent_id: AgentIdText | None = None
    include_derived_titles: bool = False
    include_last_message: bool = False


class ResolveReference(Params, frozen=True):
    key: SessionKeyText
    slug: Short | None = None


class SessionsResolveParams(Params, frozen=True):
    key: SessionKeyText | None = None
    session_id: SessionIdText | None = None
    label: LabelText | None = None
    reference: ResolveReference | None = None
    short_id: SessionIdText | None = None
    slug_hint: Short | None = None
    agent_id: AgentIdText | None = None
    spawned_by: SessionKeyText | None = None
    include_global: bool = False
    include_unknown: bool = False
    allow_missing: bool = False


class SessionsCreateParams(Params, frozen=True):
    key: SessionKeyText | None = None
    idempotency_key: IdempotencyKey | None = None
    agent_id: AgentIdText | None = None
    label: LabelText | None = None
    display_name: Annotated[str, Meta(max_length=500)] | None = None
    title_source: Annotated[str, Meta(max_length=1000)] | None = None
    category: LabelText | None = None
    model: Short | None = None
    agent_runtime: Short | None = None
    context_window: Short | None = None
    thinking_level: Short | None = None
    fast_mode: bool | Literal["auto"] | None = None
    permission_mode: Permission | None = None
    tool_overrides: ToolOverrides | None = None
    incognito: bool = False
    visibility: Literal["shared", "read-only", "suggest", "draft"] = "shared"
    catalog_id: Short | None = None
    parent_session_key: SessionKeyText | None = None
    spawn_depth: Positive | None = None
    fork: bool = False
    fork_from: Literal["last-completed"] | None = None
    emit_command_hooks: bool = False
    succeeds_parent: bool = False
    timeout_ms: Natural | None = None
    task: MessageText | None = None
    message: MessageText | None = None
    mentions: list[dict[str, Any]] | None = None
    attachments: Annotated[list[dict[str, Any]], Meta(max_length=100)] | None = None
    project_id: Short | None = None
    project_git_url: Annotated[str, Meta(max_length=2048)] | None = None
    repository: dict[str, Any] | None = None
    worktree: bool = False
    worktree_source: Short | None = None
    worktree_base_ref: Short | None = None
    worktree_name: Short | None = None
    exec_node: Short | None = None
    cwd: Annotated[str, Meta(max_length=4096)] | None = None


class SessionsPatchParams(Params, frozen=True):
    """What is left out stays; null takes a setting back."""

    key: SessionKeyText
    agent_id: AgentIdText | None = None
    expected_session_id: SessionIdText | None = None
    expected_lifecycle_revision: Short | None = None
    expected_permission_mode: Permission | UnsetType | None = UNSET
    expected_sandbox_mode: Literal["off"] | UnsetType | None = UNSET
    expected_native_runtime_consent: Short | UnsetType | None = UNSET
    expected_tool_overrides: ToolOverrides | UnsetType | None = UNSET
    expected_marked_unread_at: float | UnsetType | None = UNSET
    label: LabelText | UnsetType | None = UNSET
    auto_label: Short | UnsetType | None = UNSET
    icon: Short | UnsetType | None = UNSET
    color: Short | UnsetType | None = UNSET
    category: Short | UnsetType | None = UNSET
    board_face: Literal["chat", "dashboard"] | UnsetType = UNSET
    board_presentation: Literal["split", "expanded"] | UnsetType | None = UNSET
    status_note: Annotated[str, Meta(max_length=120)] | UnsetType | None = UNSET
    attention: Short | UnsetType | None = UNSET
    ttl_minutes: Annotated[int, Meta(ge=1, le=120)] | UnsetType = UNSET
    archived: bool | UnsetType = UNSET
    pinned: bool | UnsetType = UNSET
    unread: bool | UnsetType = UNSET
    context_window: Short | UnsetType | None = UNSET
    thinking_level: Short | UnsetType | None = UNSET
    fast_mode: bool | Literal["auto"] | UnsetType | None = UNSET
    tool_overrides: ToolOverrides | UnsetType | None = UNSET
    verbose_level: Short | UnsetType | None = UNSET
    trace_level: Short | UnsetType | None = UNSET
    reasoning_level: Short | UnsetType | None = UNSET
    response_usage: Literal["off", "tokens", "full", "on"] | UnsetType | None = UNSET
    elevated_level: Short | UnsetType | None = UNSET
    exec_host: Short | UnsetType | None = UNSET
    exec_security: Short | UnsetType | None = UNSET
    exec_ask: Short | UnsetType | None = UNSET
    exec_node: Short | UnsetType | None = UNSET
    permission_mode: Permission | UnsetType | None = UNSET
    sandbox_mode: Literal["off"] | UnsetType | None = UNSET
    native_runtime_consent: Short | UnsetType | None = UNSET
    model: Short | UnsetType | None = UNSET
    agent_runtime: Short | UnsetType | None = UNSET
    spawned_by: SessionKeyText | UnsetType | None = UNSET
    spawn_depth: Positive | UnsetType | None = UNSET
    completion_owner_session_key: SessionKeyText | UnsetType | None = UNSET
    inherited_tool_policy_version: Literal[1] | UnsetType | None = UNSET
    inherited_tool_allow: Annotated[list[str], Meta(max_length=500)] | UnsetType | None = UNSET
    inherited_tool_deny: Annotated[list[str], Meta(max_length=500)] | UnsetType | None = UNSET
    send_policy: Literal["allow", "deny"] | UnsetType | None = UNSET
    group_activation: Literal["mention", "always"] | UnsetType | None = UNSET
    queue_mode: Short | UnsetType | None = UNSET


class SessionsResetParams(Params, frozen=True):
    key: SessionKeyText
    agent_id: AgentIdText | None = None
    reason: Literal["new", "reset"] = "reset"
    expected_session_id: SessionIdText | None = None


class SessionsDeleteParams(Params, frozen=True):
    key: SessionKeyText
    agent_id: AgentIdText | None = None
    delete_transcript: bool = True
    expected_session_id: SessionIdText | None = None
    expected_lifecycle_revision: Short | None = None
    expected_session_updated_at: Annotated[float, Meta(ge=0)] | None = None
    emit_lifecycle_hooks: bool = False
    archived_only: bool = False


class SessionsCompactParams(Params, frozen=True):
    key: SessionKeyText
    agent_id: AgentIdText | None = None
    max_lines: Positive | None = None
    instructions: Annotated[str, Meta(max_length=10_000)] | None = None


class SessionsCleanupParams(Params, frozen=True):
    """Without ``enforce`` nothing is deleted."""

    agent: AgentIdText | None = None
    all_agents: bool = False
    enforce: bool = False
    active_key: SessionKeyText | None = None
    fix_missing: bool = False
    fix_dm_scope: bool = False


class SessionsWatchParams(Params, frozen=True):
    key: SessionKeyText
    agent_id: AgentIdText | None = None
    include_approvals: bool = False


class SessionsUnwatchParams(Params, frozen=True):
    key: SessionKeyText
    agent_id: AgentIdText | None = None


class SearchScope(SessionsListParams, frozen=True):
    """The sessions to look in, chosen as in a list."""


class SessionsSearchParams(Params, frozen=True):
    query: Annotated[str, Meta(max_length=4096)]
    agent_id: AgentIdText | None = None
    session_keys: Annotated[list[SessionKeyText], Meta(max_length=1000)] | None = None
    scope: SearchScope | None = None
    limit: Annotated[int, Meta(ge=1, le=25)] = 10


class SessionsExportParams(Params, frozen=True):
    key: SessionKeyText | None = None
    session_id: SessionIdText | None = None
    agent_id: AgentIdText | None = None


class SessionsImportParams(Params, frozen=True):
    content: Transcript
    key: SessionKeyText | None = None
    agent_id: AgentIdText | None = None
    label: LabelText | None = None
    replace: bool = False
