"""``sessions.*`` that change a session: patch, reset, delete, compact, cleanup."""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from appliance.model.errors import InvalidRequest
from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope
from appliance.services import session_settings
from appliance.transports.rpc.method import Method, MethodCall
from appliance.transports.rpc.sessions_keys import camel, named_settings, own_key_text, session_key
from appliance.transports.rpc.sessions_results import (
    SessionsChangeResult,
    SessionsCleanupResult,
    SessionsCompactResult,
    SessionsDeleteResult,
)
from appliance.transports.rpc.sessions_rows import changed
from appliance.transports.rpc.sessions_shapes import (
    SessionsCleanupParams,
    SessionsCompactParams,
    SessionsDeleteParams,
    SessionsPatchParams,
    SessionsResetParams,
)

# Stored as they are sent; everything else of a patch is treated by itself.
_SETTINGS = (
    "auto_label", "icon", "color", "category", "board_face", "board_presentation", "status_note",
    "attention", "context_window", "thinking_level", "fast_mode", "verbose_level", "trace_level",
    "reasoning_level", "response_usage", "elevated_level", "exec_host", "exec_security",
    "exec_ask", "exec_node", "permission_mode", "model", "agent_runtime", "spawn_depth",
    "inherited_tool_policy_version", "inherited_tool_allow", "inherited_tool_deny",
    "send_policy", "group_activation", "queue_mode", "tool_overrides",
)  # fmt: skip
_KEYS = ("spawned_by", "completion_owner_session_key")


async def patch(call: MethodCall[SessionsPatchParams]) -> dict[str, Any]:
    params = call.params
    if params.expected_lifecycle_revision is not None:
        raise InvalidRequest.at(
            "expectedLifecycleRevision", "no revisions are kept here", "send expectedSessionId"
        )
    for name in ("sandboxMode", "nativeRuntimeConsent"):
        if getattr(params, _snake(name)) not in (None, UNSET):
            raise InvalidRequest.at(name, "is the operator's to decide", "leave it out")
    key = session_key(call, params.key, agent=params.agent_id)
    settings = named_settings(params, _SETTINGS, absent=UNSET)
    for name in _KEYS:
        value = getattr(params, name)
        if value is not UNSET:
            settings[camel(name)] = own_key_text(call, value, field=camel(name))
    settings |= session_settings.marks(
        archived=_or_none(params.archived),
        pinned=_or_none(params.pinned),
        unread=_or_none(params.unread),
        now=call.services.clock(),
        note_minutes=_or_none(params.ttl_minutes),
    )
    view = await call.services.sessions.patch(
        call.awake,
        key,
        label=params.label,
        settings=settings,
        expected_session_id=params.expected_session_id,
        expected_settings=_expected(params),
    )
    return changed(view)


async def reset(call: MethodCall[SessionsResetParams]) -> dict[str, Any]:
    params = call.params
    view = await call.services.sessions.reset(
        call.awake,
        session_key(call, params.key, agent=params.agent_id),
        reason=params.reason,
        expected_session_id=params.expected_session_id,
    )
    return changed(view)


async def delete(call: MethodCall[SessionsDeleteParams]) -> SessionsDeleteResult:
    params = call.params
    if params.expected_lifecycle_revision is not None:
        raise InvalidRequest.at(
            "expectedLifecycleRevision", "no revisions are kept here", "send expectedSessionId"
        )
    key = session_key(call, params.key, agent=params.agent_id)
    done = await call.services.sessions.delete(
        call.awake,
        key,
        delete_transcript=params.delete_transcript,
        expected_session_id=params.expected_session_id,
        expected_updated_at=params.expected_session_updated_at,
        archived_only=params.archived_only,
    )
    return SessionsDeleteResult(
        ok=True, key=key.short, deleted=done.deleted, archived=list(done.archived)
    )


async def compact(call: MethodCall[SessionsCompactParams]) -> SessionsCompactResult:
    params = call.params
    key = session_key(call, params.key, agent=params.agent_id)
    done = await call.services.sessions.compact(
        call.awake,
        call.caller,
        key,
        max_lines=params.max_lines,
        instructions=params.instructions,
    )
    return SessionsCompactResult(
        ok=True,
        key=key.short,
        compacted=done.compacted,
        archived=done.archived,
        kept=done.kept,
        reason=done.reason or None,
    )


async def cleanup(call: MethodCall[SessionsCleanupParams]) -> SessionsCleanupResult:
    params = call.params
    if params.fix_dm_scope:
        raise InvalidRequest.at("fixDmScope", "sessions are never joined here", "leave it out")
    active = params.active_key
    done = await call.services.sessions.cleanup(
        call.awake,
        agent=params.agent,
        enforce=params.enforce,
        empty=params.fix_missing,
        active=None if active is None else session_key(call, active, field="activeKey"),
    )
    keys = [*done.empty, *done.surplus]
    return SessionsCleanupResult(
        ok=True,
        mode="enforce" if params.enforce else "warn",
        dry_run=not params.enforce,
        applied=done.applied,
        before_count=done.before,
        after_count=done.after,
        missing=len(done.empty),
        pruned=0,
        capped=len(done.surplus),
        would_mutate=bool(keys),
        keys=keys,
    )


def _expected(params: SessionsPatchParams) -> dict[str, object]:
    names = (
        ("permissionMode", params.expected_permission_mode),
        ("sandboxMode", params.expected_sandbox_mode),
        ("nativeRuntimeConsent", params.expected_native_runtime_consent),
        ("toolOverrides", params.expected_tool_overrides),
        ("markedUnreadAt", params.expected_marked_unread_at),
    )
    return {
        name: msgspec.to_builtins(value) if isinstance(value, msgspec.Struct) else value
        for name, value in names
        if value is not UNSET
    }


def _or_none(value: Any) -> Any:
    return None if isinstance(value, UnsetType) else value


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


def _changes(name: str, summary: str, *, scope: OperatorScope, **more: Any) -> Method:
    return Method(name=name, summary=summary, scope=scope, needs=Scope.CHAT, **more)


METHODS: tuple[Method, ...] = (
    _changes(
        "sessions.patch",
        "Change a session's settings; null takes one back",
        scope=OperatorScope.WRITE,
        params=SessionsPatchParams,
        result=SessionsChangeResult,
        handler=patch,
    ),
    _changes(
        "sessions.reset",
        "Begin a session anew; what was said is archived",
        scope=OperatorScope.ADMIN,
        params=SessionsResetParams,
        result=SessionsChangeResult,
        handler=reset,
    ),
    _changes(
        "sessions.delete",
        "Delete a session and, unless told otherwise, its transcript",
        scope=OperatorScope.ADMIN,
        params=SessionsDeleteParams,
        result=SessionsDeleteResult,
        handler=delete,
    ),
    _changes(
        "sessions.compact",
        "Shorten a session to its newest lines, or by a model's summary",
        scope=OperatorScope.ADMIN,
        params=SessionsCompactParams,
        result=SessionsCompactResult,
        handler=compact,
    ),
    _changes(
        "sessions.cleanup",
        "Find sessions beyond the limit, and delete them if enforced",
        scope=OperatorScope.ADMIN,
        params=SessionsCleanupParams,
        result=SessionsCleanupResult,
        handler=cleanup,
    ),
)
