"""A session as clients see it: a row of a list, and the entry that a change returns."""

from typing import Any

from appliance.model import session_scopes as scopes
from appliance.model.periods import to_ms
from appliance.services.session_policy import channel_of
from appliance.services.session_views import SessionView
from appliance.storage.session_rows import RunStatus

PATH = "sessions/sessions.sqlite"  # in the tenant's directory, which has no name outside

_STATUS = {
    RunStatus.RUNNING: "running",
    RunStatus.DONE: "done",
    RunStatus.FAILED: "failed",
    RunStatus.CANCELLED: "killed",
    RunStatus.CRASHED: "failed",
}
# Settings under another name than the one they are patched by.
_RENAMED = {"model": "modelOverride"}
_FACTS = ("origin", "deliveryContext", "lastChannel", "lastTo", "lastAccountId", "lastThreadId")


def row(view: SessionView) -> dict[str, Any]:
    """The session in a list."""
    session = view.session
    shown = _settings(view)
    shown |= _facts(view)
    shown |= {
        "key": view.key.short,
        "kind": scopes.kind(view.key),
        "displayName": _display_name(view),
        "updatedAt": to_ms(session.updated_at),
        "sessionId": session.id,
        "systemSent": session.messages > 0,
        "inputTokens": session.input_tokens,
        "outputTokens": session.output_tokens,
        "totalTokens": session.context_tokens,
        "totalTokensFresh": True,
        "modelProvider": view.model.provider,
        "model": view.model.model,
        "contextTokens": view.model.window,
        "abortedLastRun": session.aborted,
        "agentId": view.key.agent,
        "createdAt": to_ms(session.created_at),
        "visibility": "shared",
        "archived": session.settings.get("archived") is True,
        "pinned": session.settings.get("pinned") is True,
        "unread": session.settings.get("unread") is True,
        "isMain": view.is_main,
        "hasActiveRun": bool(view.active),
        "activeRunIds": [run.id for run in view.active],
    }
    if session.label is not None:
        shown["label"] = session.label
    if view.derived_title is not None:
        shown["derivedTitle"] = view.derived_title
    if view.last_message is not None:
        shown["lastMessagePreview"] = view.last_message
    if session.last_interaction_at is not None:
        shown["lastInteractionAt"] = to_ms(session.last_interaction_at)
    return shown | _latest_run(view)


def entry(view: SessionView) -> dict[str, Any]:
    """The session as a change of it returns it."""
    session = view.session
    shown = _settings(view)
    shown |= _facts(view)
    shown |= {
        "sessionId": session.id,
        "updatedAt": to_ms(session.updated_at),
        "systemSent": session.messages > 0,
        "abortedLastRun": session.aborted,
        "compactionCount": session.compactions,
        "modelProvider": view.model.provider,
        "model": view.model.model,
        "contextTokens": view.model.window,
        "inputTokens": session.input_tokens,
        "outputTokens": session.output_tokens,
        "cacheRead": session.cache_read_tokens,
        "cacheWrite": session.cache_write_tokens,
        "totalTokens": session.context_tokens,
        "totalTokensFresh": True,
    }
    if session.label is not None:
        shown["label"] = session.label
    return shown


def changed(view: SessionView) -> dict[str, Any]:
    """What a method that changed the session answers."""
    return {
        "ok": True,
        "path": PATH,
        "key": view.key.short,
        "sessionId": view.session.id,
        "entry": entry(view),
        "resolved": {"modelProvider": view.model.provider, "model": view.model.model},
    }


def _settings(view: SessionView) -> dict[str, Any]:
    return {_RENAMED.get(name, name): value for name, value in view.session.settings.items()}


def _facts(view: SessionView) -> dict[str, Any]:
    facts = view.session.facts
    shown: dict[str, Any] = {name: facts[name] for name in _FACTS if name in facts}
    shown["chatType"] = facts.get("chatType") or scopes.chat_type(view.key).value
    channel = channel_of(view.key, view.session)
    if channel is not None:
        shown["channel"] = channel
    return shown


def _latest_run(view: SessionView) -> dict[str, Any]:
    if view.active:
        first = view.active[0]
        shown: dict[str, Any] = {"status": first.status}
        if first.started_at is not None:
            shown["startedAt"] = to_ms(first.started_at)
        return shown
    last = view.last_run
    if last is None:
        return {}
    shown = {"status": _STATUS[last.status], "startedAt": to_ms(last.started_at)}
    if last.ended_at is not None:
        shown["endedAt"] = to_ms(last.ended_at)
        shown["runtimeMs"] = shown["endedAt"] - shown["startedAt"]
    return shown


def _display_name(view: SessionView) -> str:
    session = view.session
    named = session.settings.get("displayName")
    if isinstance(named, str) and named:
        return named
    return session.label or view.key.short
