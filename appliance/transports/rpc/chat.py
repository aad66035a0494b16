"""``chat.*``: talk to an agent and see what was said."""

from typing import Any

from msgspec import UNSET

from appliance.model.errors import InvalidRequest
from appliance.model.ids import new_id
from appliance.model.operator_scopes import OperatorScope
from appliance.model.periods import to_ms
from appliance.model.session_keys import SessionKey
from appliance.model.tokens import Scope
from appliance.services import chat_history
from appliance.services.chat import Message, Taken
from appliance.services.chat_history import HistoryPage
from appliance.services.context_windows import context_window
from appliance.transports.rpc import agents, models
from appliance.transports.rpc.chat_shapes import (
    AbortResult,
    ChatAbortParams,
    ChatHistoryParams,
    ChatInjectParams,
    ChatInjectResult,
    ChatMessageGetParams,
    ChatMessageGetResult,
    ChatMetadataParams,
    ChatSendParams,
    ChatSendResult,
    ChatStartupParams,
    CommandsListParams,
    CommandsListResult,
    SessionsAbortParams,
    SessionsSendParams,
    all_commands,
    fingerprint,
    refuse_set,
)
from appliance.transports.rpc.method import Method, MethodCall, NoParams
from appliance.transports.rpc.models import ModelsListParams


async def chat_send(call: MethodCall[ChatSendParams]) -> ChatSendResult:
    params = call.params
    refuse_set(
        intent=params.intent,
        toolBindings=params.tool_bindings,
        expectedLeafEntryId=params.expected_leaf_entry_id is not UNSET,
        expectedSessionRoutingContract=params.expected_session_routing_contract,
        expectedPermissionMode=params.expected_permission_mode is not UNSET,
        expectedToolOverrides=params.expected_tool_overrides is not UNSET,
    )
    message = Message(
        key=_key(call, params.session_key, params.agent_id),
        text=params.message,
        idempotency_key=params.idempotency_key,
        fingerprint=fingerprint(params),
        attachments=params.attachments,
        thinking=params.thinking,
        timeout=None if params.timeout_ms is None else params.timeout_ms / 1000,
        queue_mode=params.queue_mode,
        has_commands=not params.suppress_command_interpretation,
        expected_sessions={} if params.session_id is None else {"sessionId": params.session_id},
    )
    return await _send(call, message)


async def _send(call: MethodCall[Any], message: Message) -> ChatSendResult:
    taken = await call.services.chat.send(
        call.awake, call.caller, message, acknowledge=lambda taken: call.respond(_taken(taken))
    )
    return _taken(taken)


async def sessions_send(call: MethodCall[SessionsSendParams]) -> ChatSendResult:
    params = call.params
    message = Message(
        key=_key(call, params.key, params.agent_id, field="key"),
        text=params.message,
        idempotency_key=params.idempotency_key or new_id("send"),
        fingerprint=fingerprint(params),
        attachments=params.attachments,
        thinking=params.thinking,
        timeout=None if params.timeout_ms is None else params.timeout_ms / 1000,
    )
    return await _send(call, message)


async def chat_abort(call: MethodCall[ChatAbortParams]) -> AbortResult:
    params = call.params
    key = _key(call, params.session_key, params.agent_id)
    ended = await call.services.chat.abort(call.awake, key, params.run_id)
    return AbortResult(ok=True, aborted=bool(ended), run_ids=ended)


async def sessions_abort(call: MethodCall[SessionsAbortParams]) -> AbortResult:
    params = call.params
    if params.key is None and params.run_id is None:
        raise InvalidRequest.at("key", "neither key nor runId is given", "name a session or a run")
    key = None if params.key is None else _key(call, params.key, params.agent_id, field="key")
    ended = await call.services.chat.abort(
        call.awake, key, params.run_id, with_waiting=params.clear_queued
    )
    return AbortResult(
        ok=True,
        aborted=bool(ended),
        run_ids=ended,
        status="aborted" if ended else "no-active-run",
        aborted_run_id=ended[0] if ended else UNSET,
    )


async def chat_inject(call: MethodCall[ChatInjectParams]) -> ChatInjectResult:
    params = call.params
    key = _key(call, params.session_key, params.agent_id)
    stored = await call.services.chat.inject(
        call.awake, key, params.message, label=params.label or ""
    )
    return ChatInjectResult(ok=True, message_id=stored.id)


async def history(call: MethodCall[ChatHistoryParams]) -> dict[str, Any]:
    params, tenant = call.params, call.awake
    key = _canonical(call, _key(call, params.session_key, params.agent_id))
    if params.cursor is not None:
        missed = await chat_history.missed(tenant, key, params.cursor)
        if missed is None:
            return {"kind": "reset"}
        return {"kind": "delta"} | _page(call, key, missed)
    page = await chat_history.page(
        tenant,
        key,
        limit=params.limit,
        offset=params.offset,
        session_id=params.session_id,
        max_chars=params.max_chars,
    )
    answer = _page(call, key, page)
    answer |= {
        "offset": params.offset,
        "hasMore": page.next_offset is not None,
        "totalMessages": page.total,
    }
    if page.next_offset is not None:
        answer["nextOffset"] = page.next_offset
    return answer


async def startup(call: MethodCall[ChatStartupParams]) -> dict[str, Any]:
    answer = await history(call)  # type: ignore[arg-type]  # the params are a kind of the other's
    agents_list = await agents.list_all(call.with_params(NoParams()))  # type: ignore[arg-type]  # reads none
    return answer | {"agentsList": agents_list, "metadata": await _metadata(call)}


async def metadata(call: MethodCall[ChatMetadataParams]) -> dict[str, Any]:
    if call.params.session_key is not None:
        _key(call, call.params.session_key, call.params.agent_id)
    return await _metadata(call)


async def get_message(call: MethodCall[ChatMessageGetParams]) -> ChatMessageGetResult:
    params = call.params
    key = _canonical(call, _key(call, params.session_key, params.agent_id))
    found = await chat_history.one(call.awake, key, params.message_id, max_chars=params.max_chars)
    if found.message is None:
        return ChatMessageGetResult(ok=False, unavailable_reason=found.reason)
    return ChatMessageGetResult(ok=True, message=found.message)


def commands_list(call: MethodCall[CommandsListParams]) -> CommandsListResult:
    params = call.params
    if params.session_key is not None:
        _key(call, params.session_key, params.agent_id)
    if params.scope == "native":
        return CommandsListResult(commands=[])  # those of channels, which have none here
    return CommandsListResult(commands=all_commands(with_args=params.include_args))


def _key(
    call: MethodCall[Any], text: str, agent: str | None, *, field: str = "sessionKey"
) -> SessionKey:
    return call.session_key(text, field=field, agent=agent)


def _canonical(call: MethodCall[Any], key: SessionKey) -> SessionKey:
    return call.services.chat.policy.canonical(call.awake, key)


def _taken(taken: Taken) -> ChatSendResult:
    if taken.stopped is not None:
        ended = list(taken.stopped)
        return ChatSendResult(ok=True, aborted=bool(ended), run_ids=ended)
    error = "" if taken.outcome is None else taken.outcome.error
    return ChatSendResult(run_id=taken.run_id, status=taken.status, summary=error or UNSET)


def _page(call: MethodCall[Any], key: SessionKey, page: HistoryPage) -> dict[str, Any]:
    tenant, session = call.awake, page.session
    settings = {} if session is None else session.settings
    chosen = settings.get("model")
    agent = tenant.config.defaults.agents.get(key.agent)
    model = str(chosen or (agent and agent.model) or tenant.config.models.default or "")
    active = tenant.runs.for_session(key.short)
    window = context_window(tenant.config, model)
    provider, _, name = tenant.config.models.aliases.get(model, model).rpartition("/")
    defaults = {"modelProvider": provider, "model": name, "contextTokens": window}
    info: dict[str, Any] = {
        "key": key.short,
        "agentId": key.agent,
        "hasActiveRun": bool(active),
        "activeRunIds": [run.id for run in active],
    } | defaults
    if session is not None:
        info |= {
            "sessionId": session.id,
            "updatedAt": to_ms(session.updated_at),
            "inputTokens": session.input_tokens,
            "outputTokens": session.output_tokens,
            "totalTokens": session.context_tokens,
            "totalTokensFresh": True,
        } | dict(settings)
    answer: dict[str, Any] = {
        "sessionKey": key.short,
        "messages": page.messages,
        "thinkingLevel": settings.get("thinkingLevel", "off"),
        "defaults": defaults,
        "sessionInfo": info,
        "pendingInputs": {"items": [], "total": 0},
    }
    if session is not None:
        answer |= {"sessionId": session.id, "deltaCursor": page.cursor}
        if "verboseLevel" in settings:
            answer["verboseLevel"] = settings["verboseLevel"]
    if active:
        first = active[0]
        answer["inFlightRun"] = {
            "runId": first.id,
            "text": first.text,
            "startedAt": to_ms(first.started_at or first.accepted_at),
            "sessionAbortable": True,
        }
    return answer


async def _metadata(call: MethodCall[Any]) -> dict[str, Any]:
    listed = await models.list_all(call.with_params(ModelsListParams(view="configured")))
    return {
        "models": listed.models,
        "commands": all_commands(with_args=True),
        "swarmEnabled": False,
    }


_READ, _WRITE, _ADMIN = OperatorScope.READ, OperatorScope.WRITE, OperatorScope.ADMIN

METHODS: tuple[Method, ...] = (
    Method(
        name="chat.send",
        summary="Say something to an agent; the answer comes as events",
        scope=_WRITE,
        needs=Scope.CHAT,
        params=ChatSendParams,
        result=ChatSendResult,
        handler=chat_send,
    ),
    Method(
        name="chat.abort",
        summary="Stop what an agent is doing in a session; what it said is kept",
        scope=_WRITE,
        needs=Scope.CHAT,
        params=ChatAbortParams,
        result=AbortResult,
        handler=chat_abort,
    ),
    Method(
        name="chat.inject",
        summary="Add a message in the agent's name, without asking a model",
        scope=_ADMIN,
        needs=Scope.CHAT,
        params=ChatInjectParams,
        result=ChatInjectResult,
        handler=chat_inject,
    ),
    Method(
        name="chat.history",
        summary="The latest messages of a session, bounded in number and size",
        scope=_READ,
        needs=Scope.CHAT,
        params=ChatHistoryParams,
        handler=history,
    ),
    Method(
        name="chat.startup",
        summary="What a chat client needs when it opens: history, agents, models, commands",
        scope=_READ,
        needs=Scope.CHAT,
        params=ChatStartupParams,
        handler=startup,
    ),
    Method(
        name="chat.metadata",
        summary="The models and commands that a chat client offers",
        scope=_READ,
        needs=Scope.CHAT,
        params=ChatMetadataParams,
        handler=metadata,
    ),
    Method(
        name="chat.message.get",
        summary="One message of a session in full",
        scope=_READ,
        needs=Scope.CHAT,
        params=ChatMessageGetParams,
        result=ChatMessageGetResult,
        handler=get_message,
    ),
    Method(
        name="commands.list",
        summary="The commands that a message may be",
        scope=_READ,
        needs=Scope.CHAT,
        params=CommandsListParams,
        result=CommandsListResult,
        inline=commands_list,
    ),
    Method(
        name="sessions.send",
        summary="Say something in a session; the same as chat.send",
        scope=_WRITE,
        needs=Scope.CHAT,
        params=SessionsSendParams,
        result=ChatSendResult,
        handler=sessions_send,
    ),
    Method(
        name="sessions.abort",
        summary="Stop a run, or what runs in a session",
        scope=_WRITE,
        needs=Scope.CHAT,
        params=SessionsAbortParams,
        result=AbortResult,
        handler=sessions_abort,
    ),
)
