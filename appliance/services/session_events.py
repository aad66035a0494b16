"""Tells those who watch a tenant's list of sessions that it changed."""

from datetime import datetime

from appliance.model import session_scopes as scopes
from appliance.model.periods import to_ms
from appliance.model.session_keys import SessionKey
from appliance.services.events import Audience, Event, TenantEvents
from appliance.storage.session_rows import Session

NAME = "sessions.changed"


def publish_changed(
    events: TenantEvents,
    key: SessionKey,
    *,
    reason: str,
    now: datetime,
    session: Session | None = None,
) -> Event:
    """``reason`` is what happened: create, patch, reset, delete, compact, send, daily, idle."""
    payload: dict[str, object] = {
        "sessionKey": key.short,
        "agentId": key.agent,
        "reason": reason,
        "kind": scopes.kind(key),
        "ts": to_ms(now),
    }
    if session is not None:
        payload["sessionId"] = session.id
        payload["updatedAt"] = to_ms(session.updated_at)
        payload["totalTokens"] = session.context_tokens
        if session.label is not None:
            payload["label"] = session.label
    return events.publish(NAME, payload, audience=Audience.SESSION_LIST, session=key.short)
