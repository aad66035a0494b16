"""What ``chat.*`` and their relatives take and return.

Clients of both generations send more than a chat without tools, files and
channels can use. What only says where a message came from or how its answer
might be decorated is passed over; what would change the answer is refused.
"""

import hashlib
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from appliance.model.chat_commands import COMMANDS, Command
from appliance.model.errors import InvalidRequest
from appliance.transports.rpc.fields import (
    AgentIdText,
    IdempotencyKey,
    MessageIdText,
    MessageText,
    RunIdText,
    SessionIdText,
    SessionKeyText,
)
from appliance.transports.rpc.method import Params, Result

Attachment = dict[str, Any]
Text = Annotated[str, Meta(max_length=10_000)]
RECONNECT_RESUME = "__controlUiReconnectResume"  # on what a Control UI sends again
Milliseconds = Annotated[int, Meta(ge=0, le=86_400_000)]


class ChatSendParams(Params, frozen=True):
    session_key: SessionKeyText
    message: MessageText
    idempotency_key: IdempotencyKey
    agent_id: AgentIdText | None = None
    session_id: (
        Annotated[SessionIdText, Meta(description="Refused if the session has another id now.")]
        | None
    ) = None
    attachments: Annotated[tuple[Attachment, ...], Meta(max_length=64)] = ()
    thinking: Text | None = None
    timeout_ms: Annotated[Milliseconds, Meta(description="0 for no limit.")] | None = None
    queue_mode: Literal["steer", "followup", "collect", "interrupt", "steer-backlog"] | None = None
    suppress_command_interpretation: bool = False
    # Said of the message, without a meaning here yet.
    deliver: bool = False
    mentions: tuple[Any, ...] = ()
    work_context: dict[str, Any] | None = None
    fast_mode: bool | Literal["auto"] | None = None
    fast_auto_on_seconds: int | None = None
    originating_channel: Text | None = None
    originating_to: Text | None = None
    originating_account_id: Text | None = None
    originating_thread_id: Text | None = None
    reply_to_id: Text | None = None
    system_input_provenance: dict[str, Any] | None = None
    system_provenance_receipt: Text | None = None
    reconnect_resume: bool = field(default=False, name=RECONNECT_RESUME)
    # Refused: the answer would not be what was asked for.
    expected_leaf_entry_id: Text | UnsetType | None = UNSET
    expected_session_routing_contract: Text | None = None
    expected_permission_mode: Text | UnsetType | None = UNSET
    expected_tool_overrides: dict[str, Any] | UnsetType | None = UNSET
    intent: dict[str, Any] | None = None
    tool_bindings: dict[str, Any] | None = None


class ChatSendResult(Result, frozen=True):
    """A stop word is answered with ``ok``, ``aborted`` and ``runIds``."""

    run_id: str | UnsetType = UNSET
    status: str | UnsetType = UNSET
    summary: str | UnsetType = UNSET
    ok: bool | UnsetType = UNSET
    aborted: bool | UnsetType = UNSET
    run_ids: list[str] | UnsetType = UNSET


class SessionsSendParams(Params, frozen=True):
    key: SessionKeyText
    message: MessageText
    agent_id: AgentIdText | None = None
    mentions: tuple[Any, ...] = ()
    thinking: Text | None = None
    attachments: Annotated[tuple[Attachment, ...], Meta(max_length=64)] = ()
    timeout_ms: Milliseconds | None = None
    idempotency_key: IdempotencyKey | None = None


class ChatAbortParams(Params, frozen=True):
    session_key: SessionKeyText
    agent_id: AgentIdText | None = None
    run_id: RunIdText | None = None
    preserve_side_runs: bool = False


class SessionsAbortParams(Params, frozen=True):
    key: SessionKeyText | None = None
    run_id: RunIdText | None = None
    agent_id: AgentIdText | None = None
    clear_queued: Annotated[bool, Meta(description="End waiting messages too.")] = False


class AbortResult(Result, frozen=True):
    ok: bool
    aborted: bool
    run_ids: list[str]
    status: str | UnsetType = UNSET
    aborted_run_id: str | UnsetType = UNSET


class ChatInjectParams(Params, frozen=True):
    session_key: SessionKeyText
    message: Annotated[MessageText, Meta(min_length=1)]
    agent_id: AgentIdText | None = None
    label: Annotated[str, Meta(max_length=100)] | None = None


class ChatInjectResult(Result, frozen=True):
    ok: bool
    message_id: str


class ChatHistoryParams(Params, frozen=True):
    session_key: SessionKeyText
    agent_id: AgentIdText | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] | None = None
    offset: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 0
    cursor: Annotated[str, Meta(max_length=256)] | None = None
    session_id: SessionIdText | None = None
    max_chars: Annotated[int, Meta(ge=1, le=500_000)] | None = None
    max_bytes: Annotated[int, Meta(ge=1024)] | None = None
    message_id: MessageIdText | None = None
    pending_before: Annotated[int, Meta(ge=1)] | None = None
    input_run_ids: Annotated[tuple[RunIdText, ...], Meta(max_length=50)] = ()


class ChatStartupParams(ChatHistoryParams, frozen=True):
    """The same, for a client that has just been opened."""


class ChatMetadataParams(Params, frozen=True):
    agent_id: AgentIdText | None = None
    session_key: SessionKeyText | None = None
    auth_profile_id: Annotated[str, Meta(max_length=256)] | None = None


class ChatMessageGetParams(Params, frozen=True):
    session_key: SessionKeyText
    message_id: MessageIdText
    agent_id: AgentIdText | None = None
    max_chars: Annotated[int, Meta(ge=1, le=2_000_000)] = 500_000


class ChatMessageGetResult(Result, frozen=True):
    ok: bool
    message: dict[str, Any] | UnsetType = UNSET
    unavailable_reason: str | UnsetType = UNSET


class CommandsListParams(Params, frozen=True):
    session_key: SessionKeyText | None = None
    agent_id: AgentIdText | None = None
    provider: Text | None = None
    scope: Literal["text", "native", "both"] = "both"
    include_args: bool = True


class CommandArg(Result, frozen=True):
    name: str
    description: str
    type: Literal["string"] = "string"
    choices: list[dict[str, str]] | UnsetType = UNSET


class CommandEntry(Result, frozen=True):
    name: str
    text_aliases: list[str]
    description: str
    category: str
    source: str
    scope: str
    accepts_args: bool
    args: list[CommandArg] | UnsetType = UNSET

    @classmethod
    def of(cls, command: Command, *, with_args: bool) -> "CommandEntry":
        argument, args = command.argument, list[CommandArg]()
        if argument is not None:
            choices = [{"value": choice, "label": choice} for choice in argument.choices]
            args = [
                CommandArg(
                    name=argument.name,
                    description=argument.description,
                    choices=choices or UNSET,
                )
            ]
        return cls(
            name=command.name.value,
            text_aliases=[f"/{command.name}"],
            description=command.description,
            category=command.category,
            source="native",
            scope="text",
            accepts_args=argument is not None,
            args=args if with_args and args else UNSET,
        )


class CommandsListResult(Result, frozen=True):
    commands: list[CommandEntry]


def all_commands(*, with_args: bool) -> list[CommandEntry]:
    return [CommandEntry.of(command, with_args=with_args) for command in COMMANDS]


def refuse_set(**given: object) -> None:
    """Raise :exc:`InvalidRequest` for the first that is set: we could not honour it."""
    for name, value in given.items():
        if value:
            raise InvalidRequest.at(name, "is not supported in this release", "leave it out")


def fingerprint(params: Params) -> bytes:
    """What tells one request from another that uses its idempotency key."""
    fields = msgspec.to_builtins(params)
    fields.pop("idempotencyKey", None)
    fields.pop(RECONNECT_RESUME, None)
    return hashlib.sha256(msgspec.json.encode(fields, order="deterministic")).digest()
