"""``agent``, ``agent.wait``, ``agent.identity.get``, ``send`` and what goes with them."""

from typing import Any

from msgspec import UNSET

from appliance.model.chat_attachments import Part
from appliance.model.errors import InvalidRequest, ModelUnknown, NotFound
from appliance.model.operator_scopes import OperatorScope
from appliance.model.periods import to_ms
from appliance.model.session_keys import DEFAULT_AGENT, SessionKey
from appliance.model.tokens import Scope
from appliance.services.chat import Message, Taken
from appliance.services.runs import RunOutcome
from appliance.services.turns.requests import agent_of
from appliance.transports.rpc.agent_shapes import (
    AgentAccepted,
    AgentIdentityParams,
    AgentIdentityResult,
    AgentParams,
    AgentResult,
    AgentWaitParams,
    AgentWaitResult,
    MessageActionParams,
    SendParams,
    SendResult,
    WakeParams,
)
from appliance.transports.rpc.chat_shapes import fingerprint, refuse_set
from appliance.transports.rpc.method import Method, MethodCall

WEBCHAT = "webchat"
EXPLICIT = "explicit:"  # begins the key of a session that its caller gave an id


async def agent(call: MethodCall[AgentParams]) -> AgentResult:
    """Answers twice: the run is accepted; the run has ended."""
    params, tenant = call.params, call.awake
    _refuse_foreign_engines(params)
    key = await _session_of(call)
    if params.spawned_by is not None:
        call.session_key(params.spawned_by, field="spawnedBy")
    message = Message(
        key=key,
        text=params.message,
        idempotency_key=params.idempotency_key,
        fingerprint=fingerprint(params),
        attachments=params.attachments,
        thinking=params.thinking,
        timeout=params.timeout,
        queue_mode="followup",
        model=_model(params),
        system=params.extra_system_prompt or "",
        has_commands=False,
        expected_sessions=_expected_sessions(params, key),
        stays_in_session=params.expected_existing_session_id is not None,
    )
    taken = await call.services.chat.send(
        tenant,
        call.caller,
        message,
        space="agent",
        acknowledge=lambda taken: call.respond(_accepted(taken)),
    )
    if taken.outcome is not None:
        return _result(taken.outcome)
    if taken.status == "in_flight":
        call.respond(_accepted(taken))
    run = tenant.runs.find(taken.run_id)
    if run is not None:
        await run.ended.wait()
    outcome = tenant.runs.finished(taken.run_id) if run is None else run.outcome
    if outcome is None:
        raise NotFound("the run is not known any more; send agent.wait")
    return _result(outcome)


async def wait(call: MethodCall[AgentWaitParams]) -> AgentWaitResult:
    params = call.params
    outcome = await call.services.chat.wait(call.awake, params.run_id, params.timeout_ms / 1000)
    if outcome is None:
        run = call.awake.runs.find(params.run_id)
        started = None if run is None else run.started_at
        return AgentWaitResult(
            run_id=params.run_id,
            status="timeout",
            started_at=UNSET if started is None else to_ms(started),
        )
    return AgentWaitResult(
        run_id=params.run_id,
        # An aborted run gave no answer; ``timeout`` is what its own limit ended.
        status="error" if outcome.status == "aborted" else outcome.status,
        started_at=outcome.started_at or UNSET,
        ended_at=outcome.ended_at or UNSET,
        error=outcome.error or ("aborted" if outcome.status == "aborted" else UNSET),
        stop_reason=outcome.stop_reason or UNSET,
    )


async def identity(call: MethodCall[AgentIdentityParams]) -> AgentIdentityResult:
    params, tenant = call.params, call.awake
    named = params.agent_id or DEFAULT_AGENT
    if params.session_key is not None:
        named = call.session_key(params.session_key, agent=params.agent_id).agent
    call.services.agents.require(tenant, named)
    shown = await call.services.agents.identity(tenant, named)
    return AgentIdentityResult(
        agent_id=named,
        name=shown.name or UNSET,
        avatar=shown.avatar or UNSET,
        emoji=shown.emoji or UNSET,
    )


async def send(call: MethodCall[SendParams]) -> SendResult:
    params = call.params
    _require_webchat(params.channel)
    refuse_set(mediaUrl=params.media_url, mediaUrls=params.media_urls, buffer=params.buffer)
    if params.session_key is not None:
        key = call.session_key(params.session_key, agent=params.agent_id)
    else:
        key = call.session_key(params.to, field="to", agent=params.agent_id)
    return await _deliver(call, key, params.message, params.idempotency_key, fingerprint(params))


async def message_action(call: MethodCall[MessageActionParams]) -> SendResult:
    params = call.params
    _require_webchat(params.channel)
    if params.action != "send":
        raise InvalidRequest(f"unsupported action for {WEBCHAT}: {params.action}")
    given = params.params
    text = given.get("message") or given.get("text")
    to = params.session_key or given.get("to") or given.get("target")
    if not isinstance(text, str) or not isinstance(to, str):
        raise InvalidRequest.at("params", "needs the texts 'message' and 'to'")
    field = "sessionKey" if params.session_key is not None else "params.to"
    key = call.session_key(to, field=field, agent=params.agent_id)
    return await _deliver(call, key, text, params.idempotency_key, fingerprint(params))


async def _deliver(
    call: MethodCall[Any], key: SessionKey, text: str, request_key: str, print_: bytes
) -> SendResult:
    message = Message(key=key, text=text, idempotency_key=request_key, fingerprint=print_)
    delivered = await call.services.chat.deliver(call.awake, message)
    return SendResult(
        run_id=delivered.run_id,
        message_id=delivered.message_id,
        channel=delivered.channel,
        session_key=delivered.session_key,
    )


def _require_webchat(channel: str | None) -> None:
    if channel is not None and channel.strip().lower() != WEBCHAT:
        raise InvalidRequest(f"unsupported channel: {channel[:128]}")


def _refuse_foreign_engines(params: AgentParams) -> None:
    refuse_set(
        cwd=params.cwd,
        modelRun=params.model_run,
        acpTurnSource=params.acp_turn_source,
        internalRuntimeHandoffId=params.internal_runtime_handoff_id,
        internalExecutionIdentityRetry=params.internal_execution_identity_retry,
        internalExecutionIdentityRecoveryAttempt=params.internal_execution_identity_recovery_attempt,
        execApprovalFollowupExpectedSessionId=params.exec_approval_followup_expected_session_id,
        internalEvents=params.internal_events,
        suppressPromptPersistence=params.suppress_prompt_persistence,
        swarmCollector=params.swarm_collector,
        swarmOutputSchema=params.swarm_output_schema,
    )


async def _session_of(call: MethodCall[AgentParams]) -> SessionKey:
    """By its key, else by its id, else the agent's main session."""
    params, tenant = call.params, call.awake
    if params.session_key is not None:
        key = call.session_key(params.session_key, agent=params.agent_id)
    elif params.session_id is not None:
        key = await _session_of_id(call, params.session_id)
    else:
        key = call.session_key("main", agent=params.agent_id)
    try:
        agent_of(tenant, key.agent)
    except ModelUnknown:
        raise InvalidRequest(f'invalid agent params: unknown agent id "{key.agent}"') from None
    return key


async def _session_of_id(call: MethodCall[AgentParams], session_id: str) -> SessionKey:
    """The session of this id, or one that the caller so names, as the ``openclaw`` CLI does."""
    store = await call.awake.sessions()
    found = store.find_by_id(session_id)
    if found is None:
        return call.session_key(
            f"{EXPLICIT}{session_id.strip()}", field="sessionId", agent=call.params.agent_id
        )
    if found.archived_at is not None:
        raise NotFound(f"No session found: {session_id}")
    key = SessionKey.parse(found.key, tenant=call.awake.id)
    if call.params.agent_id not in {None, key.agent}:
        raise InvalidRequest.at("agentId", "is not the agent of sessionId", "leave it out")
    return key


def _expected_sessions(params: AgentParams, key: SessionKey) -> dict[str, str]:
    expected: dict[str, str] = {}
    named = params.session_id if params.session_key is not None else None
    # Of a session that its caller gave an id, that stands in the key.
    if named is not None and key.rest != f"{EXPLICIT}{named.strip().lower()}":
        expected["sessionId"] = named
    if params.expected_existing_session_id is not None:
        expected["expectedExistingSessionId"] = params.expected_existing_session_id
    return expected


def _model(params: AgentParams) -> str | None:
    if params.model and params.provider and "/" not in params.model:
        return f"{params.provider}/{params.model}"
    return params.model or None


def _accepted(taken: Taken) -> AgentAccepted:
    return AgentAccepted(
        run_id=taken.run_id, status="accepted", accepted_at=to_ms(taken.accepted_at)
    )


def _result(outcome: RunOutcome) -> AgentResult:
    payloads: list[Part] = [{"text": outcome.text, "mediaUrl": None}] if outcome.text else []
    about: dict[str, Any] = {
        "sessionId": outcome.session_id,
        "provider": outcome.provider,
        "model": outcome.model,
    }
    if outcome.usage is not None:
        about |= {"usage": outcome.usage, "lastCallUsage": outcome.usage}
        read = ("input", "cacheRead", "cacheWrite")
        about["promptTokens"] = sum(outcome.usage.get(name, 0) for name in read)
    meta: dict[str, Any] = {
        "durationMs": max(0, outcome.ended_at - outcome.started_at),
        "agentMeta": about,
        "aborted": outcome.status == "aborted",
    }
    if outcome.stop_reason:
        meta["stopReason"] = outcome.stop_reason
    failed = outcome.status in {"error", "timeout"}
    return AgentResult(
        run_id=outcome.run_id,
        status="error" if failed else "ok",
        summary=outcome.error if failed else _SUMMARIES.get(outcome.status, outcome.status),
        result={"payloads": payloads, "meta": meta},
        error=outcome.error if failed else UNSET,
    )


_SUMMARIES = {"ok": "completed", "aborted": "aborted"}
_READ, _WRITE = OperatorScope.READ, OperatorScope.WRITE

METHODS: tuple[Method, ...] = (
    Method(
        name="agent",
        summary="Run an agent on a message; answers when it is accepted and when it has ended",
        scope=_WRITE,
        needs=Scope.CHAT,
        params=AgentParams,
        result=AgentResult,
        handler=agent,
        replies_twice=True,
    ),
    Method(
        name="agent.wait",
        summary="Wait for the end of a run, also of one before a reconnect or a restart",
        scope=_WRITE,
        needs=Scope.CHAT,
        params=AgentWaitParams,
        result=AgentWaitResult,
        handler=wait,
    ),
    Method(
        name="agent.identity.get",
        summary="Who an agent is: its name, picture and emoji",
        scope=_READ,
        needs=Scope.CHAT,
        params=AgentIdentityParams,
        result=AgentIdentityResult,
        handler=identity,
    ),
    Method(
        name="send",
        summary="Put a message in front of those who are connected, in an agent's session",
        scope=_WRITE,
        needs=Scope.CHAT,
        params=SendParams,
        result=SendResult,
        handler=send,
    ),
    Method(
        name="message.action",
        summary="What channels can do with messages; for WebChat: send",
        scope=_WRITE,
        needs=Scope.CHAT,
        params=MessageActionParams,
        result=SendResult,
        handler=message_action,
    ),
    Method(
        name="wake",
        summary="Tell an agent something between its turns",
        scope=_WRITE,
        needs=Scope.CHAT,
        params=WakeParams,
    ),
)
