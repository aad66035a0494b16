"""``sessions.create``: a new session, empty, forked, or with its first message."""

import hashlib
import uuid
from typing import Any

import msgspec

from appliance.model.errors import ApplianceError, InvalidRequest
from appliance.model.operator_scopes import OperatorScope
from appliance.model.session_keys import DEFAULT_AGENT
from appliance.model.tokens import Scope
from appliance.services.chat import Message, Taken
from appliance.services.session_views import SessionView
from appliance.transports.rpc.method import Method, MethodCall
from appliance.transports.rpc.sessions_keys import agent_id, camel, named_settings, session_key
from appliance.transports.rpc.sessions_results import SessionsCreateResult
from appliance.transports.rpc.sessions_rows import changed
from appliance.transports.rpc.sessions_shapes import SessionsCreateParams

_SPACE = "sessions.create"
_SETTINGS = (
    "display_name", "category", "model", "context_window", "thinking_level", "fast_mode",
    "permission_mode", "tool_overrides", "spawn_depth", "exec_node",
)  # fmt: skip
_NOT_HERE = (
    ("incognito", "every session is kept here"),
    ("catalog_id", "there are no catalogues of sessions here"),
    ("project_git_url", "there are no working trees here"),
    ("repository", "there are no working trees here"),
    ("worktree", "there are no working trees here"),
    ("cwd", "a session works in its agent's workspace"),
    ("agent_runtime", "there is one runtime"),
)


async def create(call: MethodCall[SessionsCreateParams]) -> dict[str, Any]:
    params = call.params
    _refuse_what_is_not_here(params)
    view = await _made_before(call, params) or await _make(call, params)
    answer = {**changed(view), "runStarted": False}
    if params.message or params.task or params.attachments:
        answer |= await _say(call, params, view, answer)
    return answer


async def _make(
    call: MethodCall[SessionsCreateParams], params: SessionsCreateParams
) -> SessionView:
    parent = params.parent_session_key
    if params.fork and parent is None:
        raise InvalidRequest.at("fork", "needs parentSessionKey", "name what to fork")
    view = await call.services.sessions.create(
        call.awake,
        key=None if params.key is None else session_key(call, params.key, agent=params.agent_id),
        agent=agent_id(params.agent_id or DEFAULT_AGENT),
        label=params.label,
        settings=named_settings(params, _SETTINGS, absent=None),
        parent=None if parent is None else session_key(call, parent, field="parentSessionKey"),
        fork=params.fork,
    )
    await _remember(call, params, view)
    return view


async def _say(
    call: MethodCall[SessionsCreateParams],
    params: SessionsCreateParams,
    view: SessionView,
    answer: dict[str, Any],
) -> dict[str, Any]:
    """Send the first message; the session is there even if that is refused."""
    run_id = params.idempotency_key or str(uuid.uuid4())
    message = Message(
        key=view.key,
        text=params.message or params.task or "",
        idempotency_key=run_id,
        fingerprint=_fingerprint(params),
        attachments=tuple(params.attachments or ()),
        thinking=params.thinking_level,
        timeout=None if params.timeout_ms is None else params.timeout_ms / 1000,
    )
    try:
        taken = await call.services.chat.send(
            call.awake,
            call.caller,
            message,
            acknowledge=lambda taken: call.respond(answer | _started(taken)),
        )
    except ApplianceError as exc:
        code = exc.code.replace("-", "_").upper()
        return {"runError": {"code": code, "message": exc.detail}}
    return _started(taken)


def _started(taken: Taken) -> dict[str, Any]:
    return {"runStarted": True, "runId": taken.run_id}


async def _made_before(
    call: MethodCall[SessionsCreateParams], params: SessionsCreateParams
) -> SessionView | None:
    """What the same request made when it was sent first."""
    if params.idempotency_key is None:
        return None
    store = await call.awake.sessions()
    seen = store.requests.find(_SPACE, params.idempotency_key)
    if seen is None:
        return None
    if seen.fingerprint != _fingerprint(params):
        raise InvalidRequest.at("idempotencyKey", "was used for another request", "send a new one")
    session = None if seen.outcome is None else store.find_by_id(seen.outcome.decode())
    if session is None or session.archived_at is not None:
        return None
    return call.services.sessions.listing.view(call.awake, store, session)


async def _remember(
    call: MethodCall[SessionsCreateParams], params: SessionsCreateParams, view: SessionView
) -> None:
    if params.idempotency_key is None:
        return
    store = await call.awake.sessions()
    now = call.services.clock()
    store.requests.begin(
        _SPACE,
        params.idempotency_key,
        fingerprint=_fingerprint(params),
        run_id=view.session.id,
        now=now,
    )
    store.requests.finish(_SPACE, params.idempotency_key, view.session.id.encode(), now=now)
    await store.durable()


def _refuse_what_is_not_here(params: SessionsCreateParams) -> None:
    for name, reason in _NOT_HERE:
        if getattr(params, name) not in (None, False):
            raise InvalidRequest.at(camel(name), reason, "leave it out")
    if params.visibility != "shared":
        raise InvalidRequest.at("visibility", "all of a tenant see its sessions", "leave it out")


def _fingerprint(params: msgspec.Struct) -> bytes:
    return hashlib.sha256(msgspec.json.encode(params, order="deterministic")).digest()


METHODS: tuple[Method, ...] = (
    Method(
        name="sessions.create",
        summary="Make a session: empty, with what was said in another, or with a first message",
        scope=OperatorScope.WRITE,
        needs=Scope.CHAT,
        params=SessionsCreateParams,
        result=SessionsCreateResult,
        handler=create,
    ),
)
