"""``sessions.*`` that look: lists, previews, transcripts, search, and watching."""

from typing import Any

from appliance.model.errors import InvalidRequest
from appliance.model.operator_scopes import OperatorScope
from appliance.model.periods import to_ms
from appliance.model.session_keys import SessionKey
from appliance.model.tokens import Scope
from appliance.services.session_listing import Listing, ListRequest, Reference
from appliance.storage.session_rows import MessageKind, StoredMessage
from appliance.transports.rpc.method import Method, MethodCall, NoParams
from appliance.transports.rpc.sessions_keys import own_key_text, session_key
from appliance.transports.rpc.sessions_results import (
    SearchHitRow,
    SessionsDescribeResult,
    SessionsGetResult,
    SessionsGroupsResult,
    SessionsListResult,
    SessionsPreviewResult,
    SessionsResolveResult,
    SessionsSearchResult,
    SessionsSubscribeResult,
    SessionsWatchResult,
)
from appliance.transports.rpc.sessions_rows import PATH, row
from appliance.transports.rpc.sessions_shapes import (
    SessionsDescribeParams,
    SessionsGetParams,
    SessionsListParams,
    SessionsPreviewParams,
    SessionsResolveParams,
    SessionsSearchParams,
    SessionsUnwatchParams,
    SessionsWatchParams,
)

MOST_MESSAGES = 1_000
MOST_WATCHED = 1_000  # sessions of one connection
_NOTHING_SAID = SessionsListParams()


async def list_sessions(call: MethodCall[SessionsListParams]) -> dict[str, Any]:
    listing = await call.services.sessions.listing.list(call.awake, _request(call, call.params))
    return _listed(call, listing)


async def preview(call: MethodCall[SessionsPreviewParams]) -> dict[str, Any]:
    params = call.params
    keys = [session_key(call, text, field="keys") for text in params.keys]
    found = await call.services.sessions.listing.previews(
        call.awake, keys, limit=params.limit, max_chars=params.max_chars
    )
    return {
        "ts": _now(call),
        "previews": [
            {
                # As it was asked for, so that the client finds it again.
                "key": asked,
                "status": "missing" if not one.found else "ok" if one.items else "empty",
                "items": [{"role": item.role, "text": item.text} for item in one.items],
            }
            for asked, one in zip(params.keys, found, strict=True)
        ],
    }


async def get(call: MethodCall[SessionsGetParams]) -> dict[str, Any]:
    params = call.params
    if (params.key is None) == (params.session_key is None):
        raise InvalidRequest.at("key", "name one session", "send key")
    key = session_key(call, params.key or params.session_key or "", agent=params.agent_id)
    store = await call.awake.sessions()
    messages = store.messages(key, limit=min(params.limit, MOST_MESSAGES))
    return {"messages": [_message(message) for message in messages]}


async def describe(call: MethodCall[SessionsDescribeParams]) -> dict[str, Any]:
    params = call.params
    view = await call.services.sessions.listing.describe(
        call.awake,
        session_key(call, params.key, agent=params.agent_id),
        derived_title=params.include_derived_titles,
        last_message=params.include_last_message,
    )
    return {"session": None if view is None else row(view)}


async def resolve(call: MethodCall[SessionsResolveParams]) -> dict[str, Any]:
    params = call.params
    text = params.reference.key if params.reference is not None else params.key
    if params.reference is not None and params.key is not None:
        raise InvalidRequest("name the session by one of key and reference")
    key = None if text is None else session_key(call, text, agent=params.agent_id)
    found = await call.services.sessions.listing.resolve(
        call.awake,
        Reference(key, params.session_id, params.label, params.short_id),
        agent=params.agent_id,
        spawned_by=own_key_text(call, params.spawned_by, field="spawnedBy"),
    )
    candidates = [
        {"key": view.key.short, "agentId": view.key.agent, "displayName": row(view)["displayName"]}
        for view in found
    ]
    if len(candidates) == 1:
        return {"ok": True, **candidates[0]}
    if params.allow_missing or len(candidates) > 1:
        return {"ok": False, **({"candidates": candidates} if candidates else {})}
    named = text or params.session_id or params.label or params.short_id
    raise InvalidRequest(f"No session found: {named}")


async def search(call: MethodCall[SessionsSearchParams]) -> SessionsSearchResult:
    params = call.params
    keys = [session_key(call, text, field="sessionKeys") for text in params.session_keys or ()]
    if params.scope is not None:
        keys = await _in_scope(call, keys, narrowed=params.session_keys is not None)
    if not keys and (params.scope is not None or params.session_keys is not None):
        return SessionsSearchResult(results=[])
    hits = await call.services.sessions.listing.search(
        call.awake, params.query, agent=params.agent_id, keys=keys, limit=params.limit
    )
    return SessionsSearchResult(
        results=[
            SearchHitRow(
                session_key=hit.key,
                session_id=hit.session_id,
                message_id=hit.message_id,
                role=hit.role,
                timestamp=to_ms(hit.created_at),
                snippet=hit.text,
                score=1 / place,
            )
            for place, hit in enumerate(hits, start=1)
        ]
    )


async def groups(call: MethodCall[NoParams]) -> SessionsGroupsResult:
    return SessionsGroupsResult(groups=[])


async def subscribe(call: MethodCall[SessionsListParams]) -> dict[str, Any]:
    call.client.watches_sessions = True
    if call.params == _NOTHING_SAID:
        return {"subscribed": True}
    return {"subscribed": True, "list": await list_sessions(call)}


async def unsubscribe(call: MethodCall[NoParams]) -> SessionsSubscribeResult:
    call.client.watches_sessions = False
    return SessionsSubscribeResult(subscribed=False)


async def watch(call: MethodCall[SessionsWatchParams]) -> dict[str, Any]:
    key = session_key(call, call.params.key, agent=call.params.agent_id)
    watched = call.client.watched_sessions
    if len(watched) >= MOST_WATCHED and key.short not in watched:
        raise InvalidRequest.at(
            "key", f"this connection watches {MOST_WATCHED} sessions", "unsubscribe from others"
        )
    watched.add(key.short)
    answer: dict[str, Any] = {"subscribed": True, "key": key.short}
    if call.params.include_approvals:
        answer["approvalReplay"] = {
            "sessionKey": key.short,
            "updatedAtMs": _now(call),
            "approvals": [],
            "truncated": False,
        }
    return answer


async def unwatch(call: MethodCall[SessionsUnwatchParams]) -> SessionsWatchResult:
    key = session_key(call, call.params.key, agent=call.params.agent_id)
    call.client.watched_sessions.discard(key.short)
    return SessionsWatchResult(subscribed=False, key=key.short)


def _request(call: MethodCall[Any], params: SessionsListParams) -> ListRequest:
    # There are no people, projects and boards here: nothing belongs to one.
    elsewhere = (
        params.project_id,
        params.workspace_dir,
        params.creator_id,
        params.owner_id,
        params.profile_relation,
        params.involving_profile_id,
        params.has_board or None,
    )
    return ListRequest(
        limit=params.limit,
        offset=params.offset,
        active_minutes=params.active_minutes,
        active_only=params.active_only,
        require_last_interaction=params.require_last_interaction,
        by_interaction=params.sort_by == "lastInteractionAt",
        include_global=params.include_global,
        include_unknown=params.include_unknown,
        exclude_subagents=params.exclude_subagents,
        exclude_cron=params.exclude_cron,
        exclude_system=params.exclude_system,
        configured_agents_only=params.configured_agents_only,
        label=params.label,
        category=params.group,
        board_face=params.board_face,
        pinned=params.pinned,
        spawned_by=own_key_text(call, params.spawned_by, field="spawnedBy"),
        agent=params.agent_id,
        search=params.search or "",
        archived=None if params.archived == "all" else params.archived,
        nothing=any(value is not None for value in elsewhere),
        derived_titles=params.include_derived_titles,
        last_messages=params.include_last_message,
    )


def _listed(call: MethodCall[Any], listing: Listing) -> dict[str, Any]:
    following = listing.next_offset
    return {
        "ts": _now(call),
        "path": PATH,
        "count": len(listing.views),
        "totalCount": listing.total,
        "limitApplied": listing.limit,
        "offset": listing.offset,
        "hasMore": following is not None,
        "nextOffset": following,
        "owners": [],
        "defaults": {
            "modelProvider": listing.defaults.provider,
            "model": listing.defaults.model,
            "contextTokens": listing.defaults.window,
        },
        "sessions": [row(view) for view in listing.views],
    }


async def _in_scope(
    call: MethodCall[SessionsSearchParams], keys: list[SessionKey], *, narrowed: bool
) -> list[SessionKey]:
    scope = call.params.scope
    if scope is None:
        return keys
    listing = await call.services.sessions.listing.list(call.awake, _request(call, scope))
    within = [view.key for view in listing.views]
    return [key for key in keys if key in within] if narrowed else within


def _message(message: StoredMessage) -> dict[str, Any]:
    content = message.meta.get("parts") or message.message.get("content")
    shown: dict[str, Any] = {
        **{k: v for k, v in message.message.items() if k != "content"},
        "role": message.role,
        "content": [{"type": "text", "text": content}] if isinstance(content, str) else content,
        "timestamp": to_ms(message.created_at),
        "__openclaw": {"id": message.id, "seq": message.seq},
    }
    if message.kind is not MessageKind.MESSAGE:
        shown["__openclaw"]["kind"] = message.kind.value
    return shown


def _now(call: MethodCall[Any]) -> int:
    return to_ms(call.services.clock())


def _looks(name: str, summary: str, **more: Any) -> Method:
    return Method(name=name, summary=summary, scope=OperatorScope.READ, needs=Scope.CHAT, **more)


METHODS: tuple[Method, ...] = (
    _looks(
        "sessions.list",
        "List the sessions, the last used first",
        params=SessionsListParams,
        result=SessionsListResult,
        handler=list_sessions,
    ),
    _looks(
        "sessions.preview",
        "Show the last things said in some sessions",
        params=SessionsPreviewParams,
        result=SessionsPreviewResult,
        handler=preview,
    ),
    _looks(
        "sessions.get",
        "Read the newest messages of a session",
        params=SessionsGetParams,
        result=SessionsGetResult,
        handler=get,
    ),
    _looks(
        "sessions.describe",
        "Show one session as the list does",
        params=SessionsDescribeParams,
        result=SessionsDescribeResult,
        handler=describe,
    ),
    _looks(
        "sessions.resolve",
        "Find a session by key, id, label or the beginning of its id",
        params=SessionsResolveParams,
        result=SessionsResolveResult,
        handler=resolve,
    ),
    _looks(
        "sessions.search",
        "Find messages by their words",
        params=SessionsSearchParams,
        result=SessionsSearchResult,
        handler=search,
    ),
    _looks(
        "sessions.groups.list",
        "List groups of sessions; there are none in this release",
        result=SessionsGroupsResult,
        handler=groups,
    ),
    _looks(
        "sessions.subscribe",
        "Be told when the list changes; with conditions also get the list",
        params=SessionsListParams,
        result=SessionsSubscribeResult,
        handler=subscribe,
    ),
    _looks(
        "sessions.unsubscribe",
        "No longer be told when the list changes",
        result=SessionsSubscribeResult,
        handler=unsubscribe,
    ),
    _looks(
        "sessions.messages.subscribe",
        "Be told of the messages of a session",
        params=SessionsWatchParams,
        result=SessionsWatchResult,
        handler=watch,
    ),
    _looks(
        "sessions.messages.unsubscribe",
        "No longer be told of the messages of a session",
        params=SessionsUnwatchParams,
        result=SessionsWatchResult,
        handler=unwatch,
    ),
)
