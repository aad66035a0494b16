"""What a client may set for one session, and what it may not.

A patch is a mapping of the names that clients use; ``None`` takes a setting
back. Whatever a setting is for, its engine trusts what is stored here, so what
is not known is refused now and not when it is used.
"""

from collections.abc import Mapping
from datetime import datetime

from appliance.model import session_scopes as scopes
from appliance.model.errors import InvalidRequest, PreconditionFailed
from appliance.model.periods import to_ms
from appliance.model.session_keys import SessionKey
from appliance.storage.session_rows import Session

Settings = Mapping[str, object | None]

THINKING = ("off", "minimal", "low", "medium", "high", "xhigh", "adaptive", "max")
_LEVELS: dict[str, tuple[str, ...]] = {
    "thinkingLevel": THINKING,
    "verboseLevel": ("off", "on", "full"),
    "traceLevel": ("off", "on", "raw"),
    "reasoningLevel": ("off", "on", "stream"),
    "elevatedLevel": ("off", "on", "ask", "full"),
    "responseUsage": ("off", "tokens", "full"),
    "execHost": ("auto", "sandbox", "gateway", "node"),
    "execSecurity": ("deny", "allowlist", "full"),
    "execAsk": ("off", "on-miss", "always"),
    "permissionMode": ("read-only", "guarded", "workspace", "full"),
    "sendPolicy": ("allow", "deny"),
    "groupActivation": ("mention", "always"),
    "queueMode": ("steer", "followup", "collect", "interrupt", "steer-backlog"),
    "boardFace": ("chat", "dashboard"),
    "boardPresentation": ("split", "expanded"),
    "attention": ("hand", "key", "alert", "flag", "lock", "hourglass"),
}
# How people write it.
_SAME = {
    ("thinkingLevel", "none"): "off",
    ("thinkingLevel", "on"): "low",
    ("thinkingLevel", "med"): "medium",
    ("thinkingLevel", "mid"): "medium",
    ("thinkingLevel", "highest"): "high",
    ("responseUsage", "on"): "tokens",
    ("execAsk", "on_miss"): "on-miss",
}
_LONGEST = {
    "autoLabel": 512,
    "category": 512,
    "color": 64,
    "contextWindow": 64,
    "displayName": 500,
    "execNode": 128,
    "icon": 256,
    "model": 256,
    "statusNote": 120,
}
_OF_SUBAGENTS = {"spawnedBy", "spawnDepth", "completionOwnerSessionKey"}


def checked(
    patch: Settings, *, key: SessionKey, session: Session | None
) -> dict[str, object | None]:
    """``patch`` as it is stored, or :exc:`InvalidRequest` naming what is wrong with it."""
    stored = {name: _checked(name, value) for name, value in patch.items()}
    for name in stored.keys() & _OF_SUBAGENTS:
        value = stored[name]
        before = None if session is None else session.settings.get(name)
        if value is None and before is None:
            continue
        if not scopes.is_subagent(key):
            raise InvalidRequest.at(name, "only a session subagent:… has it", "leave it out")
        if before not in (None, value):
            raise InvalidRequest.at(name, "cannot be changed once it is set", "leave it out")
    return stored


def marks(
    *,
    archived: bool | None,
    pinned: bool | None,
    unread: bool | None,
    now: datetime,
    note_minutes: int | None = None,
) -> dict[str, object | None]:
    """The settings behind switches that also remember when they were thrown."""
    at = to_ms(now)
    settings: dict[str, object | None] = {}
    if archived is not None:
        settings |= {"archived": True, "archivedAt": at} if archived else _gone("archived")
    if pinned is not None:
        settings |= {"pinned": True, "pinnedAt": at} if pinned else _gone("pinned")
    if unread is True:
        settings |= {"unread": True, "markedUnreadAt": at}
    elif unread is False:
        settings |= {"unread": None, "markedUnreadAt": None, "lastReadAt": at}
    if note_minutes is not None:
        settings["statusNoteExpiresAt"] = at + note_minutes * 60_000
    return settings


def require_unchanged(
    session: Session | None,
    *,
    session_id: str | None = None,
    updated_at: float | None = None,
    settings: Settings | None = None,
) -> None:
    """Raise :exc:`PreconditionFailed` unless the session is still what the client saw."""
    if session_id is not None and (session is None or session.id != session_id):
        raise PreconditionFailed("expectedSessionId: the session was begun anew since; read it")
    if updated_at is not None and (session is None or to_ms(session.updated_at) != int(updated_at)):
        raise PreconditionFailed("expectedSessionUpdatedAt: the session was used since; read it")
    for name, value in (settings or {}).items():
        if (None if session is None else session.settings.get(name)) != value:
            raise PreconditionFailed(f"{name} of the session was changed since; read it")


def _gone(name: str) -> dict[str, object | None]:
    return {name: None, f"{name}At": None}


def _checked(name: str, value: object | None) -> object | None:
    if value is None:
        return None
    if name in _LEVELS:
        return _level(name, value)
    longest = _LONGEST.get(name)
    if longest is None:
        return value
    text = str(value).strip()
    if not text or len(text) > longest:
        raise InvalidRequest.at(
            name, f"holds 1 to {longest} characters", "send null to take it back"
        )
    return text


def _level(name: str, value: object) -> str:
    text = str(value).strip().lower()
    text = _SAME.get((name, text), text)
    if text not in _LEVELS[name]:
        known = ", ".join(_LEVELS[name])
        raise InvalidRequest.at(name, f"{text[:40]!r} is not a known level", f"use one of {known}")
    return text
