"""What the ``sessions.*`` methods answer."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from appliance.transports.rpc.method import Result


class Origin(Result, frozen=True):
    provider: str | None = None
    surface: str | None = None
    chat_type: str | None = None


class SessionRow(Result, frozen=True):
    """A session in a list. Settings that were patched stand here under their names too."""

    key: str
    kind: Literal["direct", "group", "global", "unknown"]
    display_name: str
    updated_at: int
    session_id: str
    system_sent: bool
    input_tokens: int
    output_tokens: int
    total_tokens: Annotated[int, Meta(description="In the model's context now.")]
    total_tokens_fresh: bool
    model_provider: str
    model: str
    context_tokens: Annotated[int, Meta(description="What the model reads at most.")]
    chat_type: str
    aborted_last_run: bool
    agent_id: str
    created_at: int
    visibility: Literal["shared"]
    archived: bool
    pinned: bool
    unread: bool
    is_main: bool
    has_active_run: bool
    active_run_ids: list[str]
    label: str | None = None
    derived_title: str | None = None
    last_message_preview: str | None = None
    last_interaction_at: int | None = None
    status: Literal["queued", "running", "done", "failed", "killed"] | None = None
    started_at: int | None = None
    ended_at: int | None = None
    runtime_ms: int | None = None
    channel: str | None = None
    origin: dict[str, Any] | None = None
    delivery_context: dict[str, Any] | None = None
    last_channel: str | None = None
    last_to: str | None = None
    last_account_id: str | None = None
    thinking_level: str | None = None
    verbose_level: str | None = None
    spawned_by: str | None = None
    parent_session_key: str | None = None


class ModelDefaults(Result, frozen=True):
    model_provider: str
    model: str
    context_tokens: int


class SessionsListResult(Result, frozen=True):
    ts: int
    path: Annotated[str, Meta(description="In the tenant's directory.")]
    count: int
    total_count: int
    limit_applied: int
    offset: int
    has_more: bool
    next_offset: int | None
    owners: list[dict[str, Any]]
    defaults: ModelDefaults
    sessions: list[SessionRow]


class PreviewLine(Result, frozen=True):
    role: str
    text: str


class PreviewRow(Result, frozen=True):
    key: str
    status: Literal["ok", "empty", "missing", "error"]
    items: list[PreviewLine]


class SessionsPreviewResult(Result, frozen=True):
    ts: int
    previews: list[PreviewRow]


class SessionsGetResult(Result, frozen=True):
    messages: list[dict[str, Any]]


class SessionsDescribeResult(Result, frozen=True):
    session: SessionRow | None


class ResolveCandidate(Result, frozen=True):
    key: str
    agent_id: str
    display_name: str | None = None


class SessionsResolveResult(Result, frozen=True):
    ok: bool
    key: str | None = None
    agent_id: str | None = None
    display_name: str | None = None
    candidates: list[ResolveCandidate] | None = None


class ResolvedModel(Result, frozen=True):
    model_provider: str
    model: str


class SessionsChangeResult(Result, frozen=True):
    """``entry`` is the session as it is now, with everything that was patched."""

    ok: Literal[True]
    key: str
    path: str
    session_id: str
    entry: dict[str, Any]
    resolved: ResolvedModel


class SessionsCreateResult(SessionsChangeResult, frozen=True):
    run_started: bool
    run_id: str | None = None
    message_seq: int | None = None


class SessionsDeleteResult(Result, frozen=True):
    ok: Literal[True]
    key: str
    deleted: bool
    archived: Annotated[list[str], Meta(description="Ids whose transcripts are kept.")]


class SessionsCompactResult(Result, frozen=True):
    ok: Literal[True]
    key: str
    compacted: bool
    archived: str | None = None
    kept: int | None = None
    reason: str | None = None


class SessionsCleanupResult(Result, frozen=True):
    ok: Literal[True]
    mode: Literal["enforce", "warn"]
    dry_run: bool
    applied: bool
    before_count: int
    after_count: int
    missing: Annotated[int, Meta(description="Sessions in which nothing was said.")]
    pruned: int
    capped: Annotated[int, Meta(description="Sessions beyond defaults.session.max_sessions.")]
    would_mutate: bool
    keys: list[str]


class SessionsSubscribeResult(Result, frozen=True):
    subscribed: bool
    list: SessionsListResult | None = None


class SessionsWatchResult(Result, frozen=True):
    subscribed: bool
    key: str


class SearchHitRow(Result, frozen=True):
    session_key: str
    session_id: str
    message_id: str
    role: str
    timestamp: int
    snippet: str
    score: float


class SessionsSearchResult(Result, frozen=True):
    results: list[SearchHitRow]


class SessionsGroupsResult(Result, frozen=True):
    groups: list[dict[str, Any]]


class SessionsExportResult(Result, frozen=True):
    ok: Literal[True]
    key: str
    session_id: str
    format: Literal["openclaw-jsonl"]
    messages: int
    content: str


class SessionsImportResult(Result, frozen=True):
    ok: Literal[True]
    key: str
    session_id: str
    messages: int
    left_out: Annotated[int, Meta(description="Lines of other branches and unknown kinds.")]
