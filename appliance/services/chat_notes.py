"""What is put into a conversation without a model having said it."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

import msgspec

from appliance.model.errors import InvalidRequest
from appliance.model.ids import new_id
from appliance.model.periods import to_ms
from appliance.model.session_keys import SessionKey
from appliance.services.chat_events import message_payload, text_message
from appliance.services.events import Audience, TenantEvents
from appliance.services.session_events import publish_changed
from appliance.storage.session_rows import MessageKind, StoredMessage
from appliance.storage.sessions import SessionStore

CHANNEL = "webchat"  # the only one so far


class TenantWithEvents(Protocol):
    @property
    def events(self) -> TenantEvents: ...
    async def sessions(self) -> SessionStore: ...


def note_exchange(
    store: SessionStore,
    key: SessionKey,
    said: str,
    answer: str,
    *,
    run_id: str,
    now: datetime,
) -> StoredMessage:
    """Keep a command and its answer, for people; the model does not see them."""
    meta = {"idempotencyKey": run_id, "command": True}
    for role, text in (("user", said), ("assistant", answer)):
        message = {"role": role, "content": text}
        stored = store.append(
            key, role=role, message=message, kind=MessageKind.NOTE, meta=meta, now=now
        )
    return stored


class Delivered(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What ``send`` answers; kept for whoever sends it again."""

    run_id: str
    message_id: str
    channel: str
    session_key: str


class ChatNotes:
    """Appends what somebody says in the agent's name, and shows it to who is connected."""

    def __init__(self, *, clock: Callable[[], datetime]) -> None:
        self._clock = clock

    async def append(
        self, tenant: TenantWithEvents, key: SessionKey, text: str, *, label: str = ""
    ) -> StoredMessage:
        """Add a message of the assistant; it is on disk when this returns."""
        store = await tenant.sessions()
        shown = f"[{label}]\n\n{text}" if label else text
        run_id = new_id("inject")
        stored = self._add(tenant, store, key, shown, run_id=run_id)
        await store.durable()
        return stored

    async def deliver(
        self,
        tenant: TenantWithEvents,
        key: SessionKey,
        text: str,
        *,
        space: str,
        request_key: str,
        fingerprint: bytes,
    ) -> Delivered:
        """Add it once, however often it is sent.

        Raises :exc:`InvalidRequest` for a request key that was used for another.
        """
        store = await tenant.sessions()
        now = self._clock()
        # Nothing waits in here, so no second one finds it half done.
        seen = store.requests.begin(
            space, request_key, fingerprint=fingerprint, run_id=request_key, now=now
        )
        if seen is not None and seen.fingerprint != fingerprint:
            raise InvalidRequest.at(
                "idempotencyKey", "was used for another request", "send a new one"
            )
        if seen is not None and seen.outcome is not None:
            await store.durable()
            return msgspec.json.decode(seen.outcome, type=Delivered)
        try:
            stored = self._add(tenant, store, key, text, run_id=request_key)
            delivered = Delivered(
                run_id=request_key, message_id=stored.id, channel=CHANNEL, session_key=key.short
            )
            store.requests.finish(space, request_key, msgspec.json.encode(delivered), now=now)
        except BaseException:
            store.requests.forget(space, request_key)
            raise
        await store.durable()
        return delivered

    def _add(
        self,
        tenant: TenantWithEvents,
        store: SessionStore,
        key: SessionKey,
        text: str,
        *,
        run_id: str,
    ) -> StoredMessage:
        now = self._clock()
        stored = store.append(
            key,
            role="assistant",
            message={"role": "assistant", "content": text},
            meta={"stopReason": "stop", "injected": True, "idempotencyKey": run_id},
            now=now,
        )
        session = store.find(key)
        tenant.events.publish(
            "chat",
            {
                "runId": run_id,
                "sessionKey": key.short,
                "agentId": key.agent,
                "seq": 1,
                "state": "final",
                "message": text_message(text, to_ms(now), stopReason="stop"),
                "stopReason": "stop",
            },
            session=key.short,
        )
        tenant.events.publish(
            "session.message",
            message_payload(key, "" if session is None else session.id, stored, run_id=run_id),
            audience=Audience.SESSION,
            session=key.short,
        )
        publish_changed(tenant.events, key, reason="inject", now=now, session=session)
        return stored
