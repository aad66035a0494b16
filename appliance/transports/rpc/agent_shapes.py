"""What ``agent*``, ``send``, ``message.action`` and ``wake`` take and return."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from appliance.transports.rpc.chat_shapes import Attachment, Text
from appliance.transports.rpc.fields import (
    AgentIdText,
    IdempotencyKey,
    LabelText,
    MessageText,
    RunIdText,
    SessionIdText,
    SessionKeyText,
)
from appliance.transports.rpc.method import Params, Result


class AgentParams(Params, frozen=True):
    message: Annotated[MessageText, Meta(min_length=1)]
    idempotency_key: IdempotencyKey
    agent_id: AgentIdText | None = None
    session_key: (
        Annotated[SessionKeyText, Meta(description="Else sessionId, else main.")] | None
    ) = None
    session_id: (
        Annotated[
            SessionIdText,
            Meta(description="With sessionKey, refused if that has another; unknown, a new one."),
        ]
        | None
    ) = None
    to: Text | None = None
    provider: Text | None = None
    model: Text | None = None
    thinking: Text | None = None
    attachments: Annotated[tuple[Attachment, ...], Meta(max_length=64)] = ()
    timeout: (
        Annotated[int, Meta(ge=0, le=86_400, description="Seconds; 0 for no limit.")] | None
    ) = None
    extra_system_prompt: Annotated[str, Meta(max_length=100_000)] | None = None
    expected_existing_session_id: SessionIdText | None = None
    label: LabelText | None = None
    spawned_by: SessionKeyText | None = None
    # Said of the message, without a meaning while there are no channels and tools.
    deliver: bool = False
    best_effort_deliver: bool = False
    reply_to: Text | None = None
    channel: Text | None = None
    reply_channel: Text | None = None
    account_id: Text | None = None
    reply_account_id: Text | None = None
    thread_id: Text | None = None
    group_id: Text | None = None
    group_channel: Text | None = None
    group_space: Text | None = None
    lane: Text | None = None
    input_provenance: dict[str, Any] | None = None
    bootstrap_context_mode: Literal["full", "lightweight"] | None = None
    bootstrap_context_run_kind: Literal["default", "heartbeat", "cron"] | None = None
    cleanup_bundle_mcp_on_run_end: bool = False
    voice_wake_trigger: Text | None = None
    disable_message_tool: bool = False
    force_restart_safe_tools: bool = False
    force_code_mode_tools: bool = False
    source_reply_delivery_mode: Literal["automatic", "message_tool_only"] | None = None
    prompt_mode: Literal["full", "minimal", "none"] | None = None
    session_effects: Literal["visible", "internal"] | None = None
    # Refused: the answer would not be what was asked for.
    cwd: Text | None = None
    model_run: bool = False
    acp_turn_source: Literal["manual_spawn"] | None = None
    internal_runtime_handoff_id: Text | None = None
    internal_execution_identity_retry: bool = False
    internal_execution_identity_recovery_attempt: int | None = None
    exec_approval_followup_expected_session_id: Text | None = None
    internal_events: tuple[Any, ...] = ()
    suppress_prompt_persistence: bool = False
    swarm_collector: bool = False
    swarm_output_schema: dict[str, Any] | None = None


class AgentAccepted(Result, frozen=True):
    run_id: str
    status: str
    accepted_at: int


class AgentResult(Result, frozen=True):
    """The second answer."""

    run_id: str
    status: str
    summary: str
    result: dict[str, Any] | UnsetType = UNSET
    error: str | UnsetType = UNSET


class AgentWaitParams(Params, frozen=True):
    run_id: RunIdText
    timeout_ms: Annotated[int, Meta(ge=0, le=86_400_000)] = 30_000


class AgentWaitResult(Result, frozen=True):
    run_id: str
    status: Literal["ok", "error", "timeout"]
    started_at: int | UnsetType = UNSET
    ended_at: int | UnsetType = UNSET
    error: str | UnsetType = UNSET
    stop_reason: str | UnsetType = UNSET


class AgentIdentityParams(Params, frozen=True):
    agent_id: AgentIdText | None = None
    session_key: SessionKeyText | None = None


class AgentIdentityResult(Result, frozen=True):
    agent_id: str
    name: str | UnsetType = UNSET
    avatar: str | UnsetType = UNSET
    emoji: str | UnsetType = UNSET


class SendParams(Params, frozen=True):
    to: Annotated[str, Meta(min_length=1, max_length=512, extra={"kind": "session-key"})]
    idempotency_key: IdempotencyKey
    message: MessageText = ""
    channel: Text | None = None
    session_key: SessionKeyText | None = None
    agent_id: AgentIdText | None = None
    account_id: Text | None = None
    thread_id: Text | None = None
    reply_to_id: Text | None = None
    gif_playback: bool = False
    as_voice: bool = False
    force_document: bool = False
    silent: bool = False
    parse_mode: Literal["HTML"] | None = None
    # Refused: WebChat shows text.
    media_url: Text | None = None
    media_urls: Annotated[tuple[Text, ...], Meta(max_length=32)] = ()
    buffer: str | None = None
    filename: Text | None = None
    content_type: Text | None = None


class SendResult(Result, frozen=True):
    run_id: str
    message_id: str
    channel: str
    session_key: str


class MessageActionParams(Params, frozen=True):
    channel: Annotated[str, Meta(min_length=1, max_length=128)]
    action: Annotated[str, Meta(min_length=1, max_length=128)]
    params: dict[str, Any]
    idempotency_key: IdempotencyKey
    session_key: SessionKeyText | None = None
    session_id: SessionIdText | None = None
    agent_id: AgentIdText | None = None
    account_id: Text | None = None
    requester_account_id: Text | None = None
    requester_sender_id: Text | None = None
    sender_is_owner: bool | None = None
    inbound_turn_kind: Literal["user_request", "room_event"] | None = None
    reply: dict[str, Any] | None = None
    tool_context: dict[str, Any] | None = None
    conversation_read_origin: Literal["direct-operator"] | None = None


class WakeParams(Params, frozen=True):
    mode: Literal["now", "next-heartbeat"]
    text: Annotated[str, Meta(min_length=1, max_length=100_000)]
    session_key: SessionKeyText | None = None
    agent_id: AgentIdText | None = None
