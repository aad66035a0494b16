"""``sessions.export`` and ``sessions.import``: a session as OpenClaw's JSONL, out and in."""

import hashlib

from appliance.model.errors import InvalidRequest, NotFound
from appliance.model.operator_scopes import OperatorScope
from appliance.model.session_keys import DEFAULT_AGENT, SessionKey
from appliance.model.tokens import Scope
from appliance.services.session_views import key_of
from appliance.transports.rpc.method import Method, MethodCall
from appliance.transports.rpc.sessions_keys import agent_id, session_key
from appliance.transports.rpc.sessions_results import SessionsExportResult, SessionsImportResult
from appliance.transports.rpc.sessions_shapes import SessionsExportParams, SessionsImportParams


async def export_session(call: MethodCall[SessionsExportParams]) -> SessionsExportResult:
    params = call.params
    store = await call.awake.sessions()
    if params.session_id is not None and params.key is None:
        session = store.find_by_id(params.session_id)
        named = params.session_id
    elif params.key is not None and params.session_id is None:
        key = session_key(call, params.key, agent=params.agent_id)
        session, named = store.find(key), key.short
    else:
        raise InvalidRequest("name the session by one of key and sessionId")
    if session is None:
        raise NotFound(f"No session found: {named}")
    exported = await call.services.sessions.transcripts.export(store, session)
    return SessionsExportResult(
        ok=True,
        key=key_of(call.awake.id, session).short,
        session_id=session.id,
        format="openclaw-jsonl",
        messages=exported.lines,
        content=exported.content,
    )


async def import_session(call: MethodCall[SessionsImportParams]) -> SessionsImportResult:
    params = call.params
    if params.key is None:
        key = SessionKey(
            call.awake.id,
            agent_id(params.agent_id or DEFAULT_AGENT),
            # The same file imported twice is the same session, and then refused.
            f"import:{hashlib.sha256(params.content.encode(errors='replace')).hexdigest()[:24]}",
        )
    else:
        key = session_key(call, params.key, agent=params.agent_id)
    view, left_out = await call.services.sessions.import_transcript(
        call.awake, key, params.content, label=params.label, replace=params.replace
    )
    return SessionsImportResult(
        ok=True,
        key=view.key.short,
        session_id=view.session.id,
        messages=view.session.messages,
        left_out=left_out,
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="sessions.export",
        summary="Read a session as a transcript in OpenClaw's format",
        scope=OperatorScope.READ,
        needs=Scope.CHAT,
        params=SessionsExportParams,
        result=SessionsExportResult,
        handler=export_session,
    ),
    Method(
        name="sessions.import",
        summary="Make a session of a transcript in OpenClaw's format",
        scope=OperatorScope.ADMIN,
        needs=Scope.CHAT,
        params=SessionsImportParams,
        result=SessionsImportResult,
        handler=import_session,
    ),
)
