"""A tenant's sessions as its clients list, find and preview them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from appliance.model import session_scopes as scopes
from appliance.model.errors import InvalidRequest, NotFound
from appliance.model.session_keys import DEFAULT_AGENT, SessionKey
from appliance.services.routing import Router
from appliance.services.session_policy import SessionPolicy
from appliance.services.session_views import (
    ModelInUse,
    SessionView,
    SessionViews,
    TenantWithSessions,
    key_of,
    with_words,
)
from appliance.storage.session_rows import SearchHit, Session, SessionFilter, SessionPreview
from appliance.storage.sessions import SessionStore

MOST_LISTED = 1_000
USUALLY_LISTED = 200
MOST_CONSIDERED = 10_000
MOST_PREVIEWED = 64
_SHORTEST_ID = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRequest:
    """All conditions hold together; None leaves one out."""

    limit: int | None = None
    offset: int = 0
    active_minutes: int | None = None
    active_only: bool = False
    require_last_interaction: bool = False
    by_interaction: bool = False
    include_global: bool = False
    include_unknown: bool = False
    exclude_subagents: bool = False
    exclude_cron: bool = False
    exclude_system: bool = False
    configured_agents_only: bool = False
    label: str | None = None
    category: str | None = None
    board_face: str | None = None
    pinned: bool | None = None
    spawned_by: str | None = None
    agent: str | None = None
    search: str = ""
    archived: bool | None = False
    nothing: bool = False  # asks for what no session here has
    derived_titles: bool = False
    last_messages: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether the store alone can tell what is asked for."""
        return not (
            self.active_only
            or self.require_last_interaction
            or self.by_interaction
            or self.exclude_subagents
            or self.exclude_cron
            or self.exclude_system
            or self.configured_agents_only
            or self.pinned is not None
            or self.category is not None
            or self.board_face is not None
        )


@dataclass(frozen=True, slots=True)
class Listing:
    """``total`` is what matched, ``limit`` what was applied."""

    views: tuple[SessionView, ...]
    total: int
    limit: int
    offset: int
    defaults: ModelInUse

    @property
    def next_offset(self) -> int | None:
        end = self.offset + len(self.views)
        return end if end < self.total and self.views else None


@dataclass(frozen=True, slots=True)
class Reference:
    """How a caller names a session: exactly one of these is given."""

    key: SessionKey | None = None
    session_id: str | None = None
    label: str | None = None
    short_id: str | None = None


class SessionListings:
    def __init__(
        self, *, policy: SessionPolicy, router: Router, clock: Callable[[], datetime]
    ) -> None:
        self._policy = policy
        self._router = router
        self._clock = clock

    async def list(self, tenant: TenantWithSessions, request: ListRequest) -> Listing:
        """What matches, the last used first."""
        store = await tenant.sessions()
        limit = min(request.limit or USUALLY_LISTED, MOST_LISTED)
        found, total = self._matching(tenant, store, request, limit)
        views = SessionViews(self._router, self._policy, tenant)
        shown = tuple(views.view(store, session) for session in found)
        if request.derived_titles or request.last_messages:
            shown = with_words(
                store, shown, titles=request.derived_titles, last=request.last_messages
            )
        defaults = views.of_agent(request.agent or DEFAULT_AGENT)
        return Listing(shown, total, limit, request.offset, defaults)

    async def describe(
        self,
        tenant: TenantWithSessions,
        key: SessionKey,
        *,
        derived_title: bool = False,
        last_message: bool = False,
    ) -> SessionView | None:
        """One session as a list shows it; None if there is none."""
        store = await tenant.sessions()
        session = store.find(key)
        if session is None:
            return None
        view = self.view(tenant, store, session)
        if derived_title or last_message:
            (view,) = with_words(store, (view,), titles=derived_title, last=last_message)
        return view

    def view(
        self, tenant: TenantWithSessions, store: SessionStore, session: Session
    ) -> SessionView:
        return SessionViews(self._router, self._policy, tenant).view(store, session)

    async def resolve(
        self,
        tenant: TenantWithSessions,
        reference: Reference,
        *,
        agent: str | None = None,
        spawned_by: str | None = None,
    ) -> Sequence[SessionView]:
        """The session meant: one, or several if a short id fits them all, or none.

        Raises :exc:`InvalidRequest` unless exactly one way of naming it is used.
        """
        given = (reference.key, reference.session_id, reference.label, reference.short_id)
        if sum(value is not None for value in given) != 1:
            raise InvalidRequest(
                "name the session by exactly one of key, sessionId, label, shortId"
            )
        store = await tenant.sessions()
        views = SessionViews(self._router, self._policy, tenant)
        return [
            views.view(store, session)
            for session in _referred(store, reference)
            if session.archived_at is None
            and agent in (None, session.agent)
            and spawned_by in (None, session.settings.get("spawnedBy"))
        ]

    async def require(self, tenant: TenantWithSessions, key: SessionKey) -> Session:
        """The session, or :exc:`NotFound`."""
        session = (await tenant.sessions()).find(key)
        if session is None:
            raise NotFound(f"No session found: {key.short}")
        return session

    async def previews(
        self,
        tenant: TenantWithSessions,
        keys: Sequence[SessionKey],
        *,
        limit: int,
        max_chars: int,
    ) -> Sequence[SessionPreview]:
        """The last things said in each session, in the order of ``keys``.

        Raises :exc:`InvalidRequest` for more than ``MOST_PREVIEWED`` of them.
        """
        if len(keys) > MOST_PREVIEWED:
            raise InvalidRequest.at("keys", f"more than {MOST_PREVIEWED}", "ask for fewer at once")
        store = await tenant.sessions()
        return store.previews(keys, limit=limit, max_chars=max_chars)

    async def search(
        self,
        tenant: TenantWithSessions,
        query: str,
        *,
        agent: str | None,
        keys: Sequence[SessionKey],
        limit: int,
    ) -> Sequence[SearchHit]:
        """Messages in which ``query`` stands, the newest first."""
        if not query.strip():
            return ()
        store = await tenant.sessions()
        return await store.search(query, agent=agent, keys=keys, limit=limit)

    def _matching(
        self,
        tenant: TenantWithSessions,
        store: SessionStore,
        request: ListRequest,
        limit: int,
    ) -> tuple[Sequence[Session], int]:
        if request.nothing:
            return (), 0
        since = None
        if request.active_minutes is not None:
            since = self._clock() - timedelta(minutes=request.active_minutes)
        wanted = SessionFilter(
            limit=limit,
            offset=request.offset,
            active_since=since,
            agent=request.agent,
            label=request.label,
            search=request.search,
            spawned_by=request.spawned_by,
            archived=request.archived,
        )
        if request.is_plain and not self._hides_some(tenant, store, request):
            listing = store.list(filters=wanted)
            return listing.sessions, listing.total
        matching = [s for s in considered(store, wanted) if _fits(tenant, s, request)]
        if request.by_interaction:
            matching.sort(key=lambda s: s.last_interaction_at or s.created_at, reverse=True)
        return matching[request.offset : request.offset + limit], len(matching)

    def _hides_some(
        self, tenant: TenantWithSessions, store: SessionStore, request: ListRequest
    ) -> bool:
        """Whether there is a session that a client sees only when it asks for it by kind."""
        hidden = []
        if not request.include_global:
            hidden.append(scopes.GLOBAL)
        if not request.include_unknown:
            hidden.append(scopes.UNKNOWN)
        agents = {DEFAULT_AGENT, *tenant.config.defaults.agents}
        return any(
            store.find(SessionKey(tenant.id, agent, rest)) is not None
            for rest in hidden
            for agent in ({request.agent} if request.agent is not None else agents)
        )


def considered(store: SessionStore, wanted: SessionFilter) -> list[Session]:
    """Every session that fits, up to ``MOST_CONSIDERED``; not a page of them."""
    found: list[Session] = []
    while len(found) < MOST_CONSIDERED:
        page = store.list(filters=replace(wanted, limit=MOST_LISTED, offset=len(found)))
        found += page.sessions
        if len(page.sessions) < MOST_LISTED:
            break
    return found


def _fits(tenant: TenantWithSessions, session: Session, request: ListRequest) -> bool:
    key = key_of(tenant.id, session)
    settings = session.settings
    refused = (
        (not request.include_global and key.rest == scopes.GLOBAL)
        or (not request.include_unknown and key.rest == scopes.UNKNOWN)
        or (request.exclude_subagents and scopes.is_subagent(key))
        or (request.exclude_cron and scopes.is_cron(key))
        or (request.exclude_system and scopes.is_system(key))
        or (request.active_only and not any(True for _ in tenant.runs.for_session(key.short)))
        or (request.require_last_interaction and session.last_interaction_at is None)
        or (request.configured_agents_only and not _is_configured(tenant, key.agent))
        or (request.pinned is not None and request.pinned != (settings.get("pinned") is True))
        or (request.category is not None and request.category != settings.get("category"))
        or (
            request.board_face is not None
            and request.board_face != settings.get("boardFace", "chat")
        )
    )
    return not refused


def _is_configured(tenant: TenantWithSessions, agent: str) -> bool:
    return agent == DEFAULT_AGENT or agent in tenant.config.defaults.agents


def _referred(store: SessionStore, reference: Reference) -> Sequence[Session]:
    if reference.key is not None:
        found = store.find(reference.key)
    elif reference.session_id is not None:
        found = store.find_by_id(reference.session_id)
    elif reference.label is not None:
        found = store.find_by_label(reference.label)
    else:
        return _by_short_id(store, reference.short_id or "")
    return [] if found is None else [found]


def _by_short_id(store: SessionStore, short_id: str) -> Sequence[Session]:
    wanted = short_id.lower()
    if len(wanted) < _SHORTEST_ID:
        raise InvalidRequest.at(
            "shortId", f"has fewer than {_SHORTEST_ID} characters", "send more of the id"
        )
    return [
        session
        for session in considered(store, SessionFilter(archived=None))
        if session.id.startswith(wanted) or session.id.partition("_")[2].startswith(wanted)
    ]
