"""Tools about the tenant's other conversations and agents."""

import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from appliance.model.errors import ApplianceError
from appliance.model.session_keys import SessionKey
from appliance.services import chat_history
from appliance.services.chat import Message, Taken
from appliance.services.session_listing import ListRequest, SessionListings
from appliance.services.subagents import Chat, Errand, Subagents, is_tainted
from appliance.services.tools.base import (
    Effect,
    Source,
    Tool,
    ToolCall,
    ToolFailed,
    ToolParams,
    ToolResult,
)
from appliance.storage.session_rows import Session

Key = Annotated[str, Meta(min_length=1, max_length=512)]
Text = Annotated[str, Meta(min_length=1, max_length=200_000)]
Label = Annotated[str, Meta(min_length=1, max_length=512)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]

_LONGEST_PREVIEW = 500


class ListParams(ToolParams, frozen=True, kw_only=True):
    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    active_minutes: Annotated[int, Meta(ge=1)] | None = None
    agent_id: Name | None = None
    search: Annotated[str, Meta(max_length=200)] = ""
    message_limit: Annotated[int, Meta(ge=0, le=20)] = 0


class HistoryParams(ToolParams, frozen=True, kw_only=True):
    session_key: Key
    limit: Annotated[int, Meta(ge=1, le=200)] = 20
    include_tools: bool = False


class SendParams(ToolParams, frozen=True, kw_only=True):
    message: Text
    session_key: Key | None = None
    label: Label | None = None
    timeout_seconds: Seconds = 30.0


class SpawnParams(ToolParams, frozen=True, kw_only=True):
    task: Text
    label: Label | None = None
    agent_id: Name | None = None
    model: Annotated[str, Meta(max_length=256)] | None = None
    thinking: Name | None = None
    run_timeout_seconds: Seconds | None = None
    cleanup: Literal["keep", "delete"] = "keep"


class AgentsParams(ToolParams, frozen=True, kw_only=True):
    pass


class SessionTools:
    def __init__(self, listings: SessionListings, chat: Chat, subagents: Subagents) -> None:
        self._listings = listings
        self._chat = chat
        self._subagents = subagents

    async def list(self, call: ToolCall, params: ListParams) -> ToolResult:
        request = ListRequest(
            limit=params.limit,
            active_minutes=params.active_minutes,
            agent=params.agent_id,
            search=params.search,
        )
        found = await self._listings.list(call.tenant, request)
        rows: list[dict[str, object]] = []
        tainted = False
        for view in found.views:
            session = view.session
            tainted |= is_tainted(session)
            row: dict[str, object] = {
                "key": session.key,
                "agent": session.agent,
                "label": session.label,
                "title": session.title,
                "updatedAt": session.updated_at.isoformat(),
                "messages": session.messages,
                "model": session.model,
                "running": bool(call.tenant.runs.for_session(session.key)),
            }
            if params.message_limit:
                page = await self._page(call, session, limit=params.message_limit)
                row["last"] = [_line(m, _LONGEST_PREVIEW) for m in page if _is_said(m)]
            rows.append(row)
        return _told({"count": len(rows), "sessions": rows}, tainted=tainted)

    async def history(self, call: ToolCall, params: HistoryParams) -> ToolResult:
        session = await self._session(call, params.session_key, None)
        messages = await self._page(call, session, limit=params.limit)
        if not params.include_tools:
            messages = [message for message in messages if _is_said(message)]
        lines = [_line(message, chat_history.LONGEST_TEXT) for message in messages]
        return _told({"key": session.key, "messages": lines}, tainted=is_tainted(session))

    async def send(self, call: ToolCall, params: SendParams) -> ToolResult:
        if (params.session_key is None) == (params.label is None):
            raise ToolFailed("name the session by one of sessionKey and label")
        session = await self._session(call, params.session_key, params.label)
        key = _key(call, session)
        if key == call.key:
            raise ToolFailed("this is the session you are in; just answer")
        run_id = f"sessions-send-{uuid.uuid4()}"
        if call.tainted:
            call.store.note_facts(key, {"untrusted": session.id}, now=session.updated_at)
        message = Message(
            key=key,
            text=params.message,
            idempotency_key=run_id,
            fingerprint=run_id.encode(),
            has_commands=False,
            meta={"fromSession": call.key.short},
        )
        await self._chat.send(
            call.tenant, call.caller, message, space="agent", acknowledge=_nothing
        )
        if not params.timeout_seconds:
            return _told({"status": "accepted", "runId": run_id, "sessionKey": key.short})
        outcome = await self._chat.wait(call.tenant, run_id, params.timeout_seconds)
        if outcome is None:
            return _told({"status": "timeout", "runId": run_id, "sessionKey": key.short})
        answer = {"status": outcome.status, "reply": outcome.text, "sessionKey": key.short}
        if outcome.error:
            answer["error"] = outcome.error
        after = call.store.find(key)
        return _told(answer, tainted=after is not None and is_tainted(after))

    async def spawn(self, call: ToolCall, params: SpawnParams) -> ToolResult:
        limits = call.tenant.config.defaults.tools.subagents
        if call.depth >= limits.max_depth:
            raise ToolFailed(f"sub-agents go {limits.max_depth} deep at most; do it yourself")
        errand = Errand(
            task=params.task,
            agent=params.agent_id or call.key.agent,
            label=params.label,
            model=params.model,
            thinking=params.thinking,
            timeout=params.run_timeout_seconds,
            keeps_session=params.cleanup == "keep",
        )
        spawned = await self._subagents.spawn(
            call.tenant,
            call.caller,
            call.key,
            errand,
            depth=call.depth,
            is_tainted=call.tainted,
            channel=call.channel,
        )
        return _told(
            {
                "status": "accepted",
                "runId": spawned.run_id,
                "childSessionKey": spawned.key.short,
                "note": "its result will be told in this session when it is done; do not wait",
            }
        )

    async def agents(self, call: ToolCall, params: AgentsParams) -> ToolResult:
        del params
        configured = call.tenant.config.defaults.agents
        rows = [
            {
                "id": name,
                "name": configured[name].name if name in configured else None,
                "configured": name in configured,
            }
            for name in sorted({"main", *configured})
        ]
        return _told({"requester": call.key.agent, "agents": rows})

    async def _session(self, call: ToolCall, key: str | None, label: str | None) -> Session:
        session = None
        if label is not None:
            session = call.store.find_by_label(label)
        elif key is not None:
            try:
                parsed = SessionKey.parse(key, tenant=call.tenant.id, agent=call.key.agent)
            except ApplianceError as error:
                raise ToolFailed(error.detail) from error
            session = call.store.find(parsed)
        if session is None:
            raise ToolFailed(f"there is no session {label or key!r}; sessions_list shows those")
        return session

    async def _page(
        self, call: ToolCall, session: Session, *, limit: int
    ) -> Sequence[dict[str, object]]:
        page = await chat_history.page(call.tenant, _key(call, session), limit=limit)
        return page.messages


def tools(made: SessionTools) -> tuple[Tool[Any], ...]:
    return (
        Tool(
            name="sessions_list",
            group="sessions",
            label="List conversations",
            description="List the conversations there are, newest first, with what was said last.",
            params=ListParams,
            call=made.list,
        ),
        Tool(
            name="sessions_history",
            group="sessions",
            label="Read a conversation",
            description="Read the latest messages of another conversation.",
            params=HistoryParams,
            call=made.history,
        ),
        Tool(
            name="sessions_send",
            group="sessions",
            label="Write to a conversation",
            description=(
                "Send a message to the agent of another conversation and wait for its reply, "
                "up to timeoutSeconds (0: do not wait)."
            ),
            params=SendParams,
            call=made.send,
            effect=Effect.SEND,
        ),
        Tool(
            name="sessions_spawn",
            group="sessions",
            label="Start a sub-agent",
            description=(
                "Give a task to a sub-agent that works in the background in a session of its "
                "own. Its result comes back as a message."
            ),
            params=SpawnParams,
            call=made.spawn,
            effect=Effect.WRITE,
        ),
        Tool(
            name="agents_list",
            group="agents",
            label="List agents",
            description="List the agents that sessions_spawn can be given.",
            params=AgentsParams,
            call=made.agents,
        ),
    )


def _key(call: ToolCall, session: Session) -> SessionKey:
    _, agent, rest = session.key.split(":", 2)
    return SessionKey(call.tenant.id, agent, rest)


def _is_said(message: dict[str, object]) -> bool:
    return message.get("role") in {"user", "assistant"}


def _line(message: dict[str, object], limit: int) -> dict[str, object]:
    content = message.get("content")
    texts = [
        str(part.get("text", "")) if part.get("type") == "text" else f"[{part.get('type')}]"
        for part in (content if isinstance(content, list) else ())
        if isinstance(part, dict)
    ]
    return {"role": message.get("role"), "text": "\n".join(texts)[:limit]}


def _told(value: object, *, tainted: bool = False) -> ToolResult:
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    return ToolResult(text=text, untrusted=Source.MESSAGE if tainted else None)


def _nothing(taken: Taken) -> None:
    del taken
