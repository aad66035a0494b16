"""The tool that speaks to people outside of the conversation it is called in."""

import uuid
from typing import Annotated, Any, Literal, Protocol

from msgspec import Meta

from appliance.model.errors import ApplianceError
from appliance.model.session_keys import SessionKey
from appliance.services.chat import Message
from appliance.services.chat_notes import CHANNEL, Delivered
from appliance.services.chat_tasks import ChattingTenant
from appliance.services.tools.base import (
    Effect,
    Tool,
    ToolCall,
    ToolFailed,
    ToolParams,
    ToolResult,
)


class Delivery(Protocol):
    async def deliver(
        self, tenant: ChattingTenant, message: Message, *, space: str = "send"
    ) -> Delivered: ...


class MessageParams(ToolParams, frozen=True, kw_only=True):
    message: Annotated[str, Meta(min_length=1, max_length=200_000)]
    action: Literal["send"] = "send"
    session_key: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    label: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    channel: Annotated[str, Meta(max_length=64)] = CHANNEL


def message_tool(delivery: Delivery) -> Tool[Any]:
    async def send(call: ToolCall, params: MessageParams) -> ToolResult:
        if params.channel != CHANNEL:
            raise ToolFailed(f"the channel {params.channel!r} is not connected; there is {CHANNEL}")
        key = _key(call, params)
        session = call.store.find(key)
        if session is None and key != call.key:
            raise ToolFailed(f"there is no session {key.short!r}; sessions_list shows those")
        request_id = f"message-{uuid.uuid4()}"
        delivered = await delivery.deliver(
            call.tenant,
            Message(
                key=key,
                text=params.message,
                idempotency_key=request_id,
                fingerprint=request_id.encode(),
            ),
        )
        if call.tainted and session is not None:
            call.store.note_facts(key, {"untrusted": session.id}, now=session.updated_at)
        return ToolResult(text=f"sent to {key.short}", details={"messageId": delivered.message_id})

    return Tool(
        name="message",
        group="messaging",
        label="Send a message",
        description=(
            "Send a message to the people of a conversation, now, without waiting for an answer. "
            "To answer in this conversation, just answer."
        ),
        params=MessageParams,
        call=send,
        effect=Effect.SEND,
    )


def _key(call: ToolCall, params: MessageParams) -> SessionKey:
    if params.label is not None:
        session = call.store.find_by_label(params.label)
        if session is None:
            raise ToolFailed(f"there is no session labelled {params.label!r}")
        _, agent, rest = session.key.split(":", 2)
        return SessionKey(call.tenant.id, agent, rest)
    if params.session_key is None:
        return call.key
    try:
        return SessionKey.parse(params.session_key, tenant=call.tenant.id, agent=call.key.agent)
    except ApplianceError as error:
        raise ToolFailed(error.detail) from error
