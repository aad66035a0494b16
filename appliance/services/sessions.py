"""What a tenant's clients do with its sessions: make, change, begin anew, shorten, delete.

Every change is on disk before it is acknowledged, and told to whoever watches
the list. A session that is taken from under a run has the run stopped first.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from msgspec import UNSET, UnsetType

from appliance.model.callers import Caller
from appliance.model.errors import AlreadyExists, InvalidRequest, Unavailable
from appliance.model.session_keys import DEFAULT_AGENT, SessionKey
from appliance.services import session_settings
from appliance.services.compaction import TenantToCompact
from appliance.services.routing import Router
from appliance.services.session_events import publish_changed
from appliance.services.session_export import SessionTranscripts
from appliance.services.session_listing import SessionListings, considered
from appliance.services.session_policy import SessionPolicy
from appliance.services.session_settings import Settings
from appliance.services.session_views import SessionView, TenantWithSessions, key_of
from appliance.services.subagents import is_tainted
from appliance.services.turns.rounds import TAINT
from appliance.storage.session_rows import Session, SessionFilter
from appliance.storage.sessions import SessionStore

_RUN_ENDS_WITHIN = 15.0  # seconds after it was told to
_LONGEST_LABEL = 512


class CompactableTenant(TenantWithSessions, TenantToCompact, Protocol):
    """A tenant whose sessions a model can sum up."""


class CompactionResult(Protocol):
    @property
    def happened(self) -> bool: ...


class Compaction(Protocol):
    async def compact(
        self,
        tenant: TenantToCompact,
        caller: Caller,
        key: SessionKey,
        instructions: str | None = None,
        *,
        model: str | None = None,
    ) -> CompactionResult:
        """Have a model sum up the older part; to be called by whoever holds the turn."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """``kept`` is how many lines are left, None where a summary stands for the others."""

    compacted: bool
    kept: int | None = None
    archived: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Deleted:
    deleted: bool
    archived: tuple[str, ...] = ()  # ids under which the transcript is still found


@dataclass(frozen=True, slots=True)
class Cleanup:
    """What was, or with ``applied`` False would be, tidied away."""

    before: int
    empty: tuple[str, ...]
    surplus: tuple[str, ...]
    applied: bool

    @property
    def after(self) -> int:
        return self.before - len(self.empty) - len(self.surplus)


class SessionService:
    def __init__(
        self,
        *,
        policy: SessionPolicy,
        router: Router,
        compaction: Compaction,
        clock: Callable[[], datetime],
    ) -> None:
        self.policy = policy
        self.listing = SessionListings(policy=policy, router=router, clock=clock)
        self.transcripts = SessionTranscripts(clock=clock)
        self._router = router
        self._compaction = compaction
        self._clock = clock

    async def create(
        self,
        tenant: TenantWithSessions,
        *,
        key: SessionKey | None = None,
        agent: str = DEFAULT_AGENT,
        label: str | None = None,
        settings: Settings | None = None,
        parent: SessionKey | None = None,
        fork: bool = False,
    ) -> SessionView:
        """A session, new unless ``key`` names one that exists.

        ``fork`` begins it with what was said in ``parent``. Raises
        :exc:`InvalidRequest` for settings that are not known,
        :exc:`ModelUnknown`, :exc:`NotFound` for a parent that does not exist,
        :exc:`AlreadyExists` for a label in use or a fork into something.
        """
        if key is None:
            key = SessionKey(tenant.id, agent, f"dashboard:{uuid.uuid4()}")
        key = self.policy.canonical(tenant, key)
        if key.agent != DEFAULT_AGENT and key.agent not in tenant.config.defaults.agents:
            raise InvalidRequest.at("agentId", f'unknown agent id "{key.agent}"', "see agents.list")
        store = await tenant.sessions()
        before = store.find(key)
        checked = self._checked(tenant, key, before, settings or {})
        label = _label(label)
        if parent is not None:
            checked["parentSessionKey"] = parent.short
            source = await self.listing.require(tenant, parent)
            if fork and before is not None:
                raise AlreadyExists(f"{key.short} exists already; fork into a new key")
        _require_free(store, label, key)
        now = self._clock()
        session = before or store.open_session(key, now=now)
        if fork and parent is not None:
            await self.transcripts.copy(store, source, key)
            if is_tainted(source):  # what strangers wrote has been copied, too
                copied = store.find(key) or session
                store.note_facts(key, {TAINT: copied.id}, now=now)
        if label is not None or checked:
            changed_label = UNSET if label is None else label
            session = store.patch(key, label=changed_label, settings=checked, now=now)
        await store.durable()
        reason = "create" if before is None else "patch"
        publish_changed(tenant.events, key, reason=reason, now=now, session=session)
        return self.listing.view(tenant, store, store.find(key) or session)

    async def patch(
        self,
        tenant: TenantWithSessions,
        key: SessionKey,
        *,
        label: str | UnsetType | None = UNSET,
        settings: Settings,
        expected_session_id: str | None = None,
        expected_settings: Settings | None = None,
    ) -> SessionView:
        """Change a session's settings; None takes one back.

        Raises :exc:`PreconditionFailed` if it is not as expected,
        :exc:`AlreadyExists` for a label in use, :exc:`ModelUnknown`,
        :exc:`InvalidRequest`.
        """
        store = await tenant.sessions()
        key = self.policy.canonical(tenant, key)
        before = store.find(key)
        session_settings.require_unchanged(
            before, session_id=expected_session_id, settings=expected_settings
        )
        checked = self._checked(tenant, key, before, settings)
        if checked.get("archived") is True and self.policy.is_main(tenant, key):
            raise InvalidRequest(f"Cannot archive the main session ({key.short}).")
        changed_label = label if label is UNSET or label is None else _label(label)
        now = self._clock()
        if before is None:
            _require_free(store, None if changed_label is UNSET else changed_label, key)
            store.open_session(key, now=now)
        session = store.patch(key, label=changed_label, settings=checked, now=now)
        await store.durable()
        publish_changed(tenant.events, key, reason="patch", now=now, session=session)
        return self.listing.view(tenant, store, session)

    async def reset(
        self,
        tenant: TenantWithSessions,
        key: SessionKey,
        *,
        reason: str = "reset",
        expected_session_id: str | None = None,
        spare_run: str | None = None,
    ) -> SessionView:
        """Begin a session anew; what was said stays in the archive under its old id.

        Runs are stopped first, but for ``spare_run``: that of the command itself.
        """
        key = self.policy.canonical(tenant, key)
        store = await tenant.sessions()
        session_settings.require_unchanged(store.find(key), session_id=expected_session_id)
        await self._stop_runs(tenant, key, spare=spare_run)
        now = self._clock()
        session = store.reset(key, reason=reason, now=now)
        await store.durable()
        publish_changed(tenant.events, key, reason=reason, now=now, session=session)
        return self.listing.view(tenant, store, session)

    async def delete(
        self,
        tenant: TenantWithSessions,
        key: SessionKey,
        *,
        delete_transcript: bool = True,
        expected_session_id: str | None = None,
        expected_updated_at: float | None = None,
        archived_only: bool = False,
    ) -> Deleted:
        """Delete a session; runs of it are stopped first.

        Raises :exc:`InvalidRequest` for the main session.
        """
        key = self.policy.canonical(tenant, key)
        if self.policy.is_main(tenant, key):
            raise InvalidRequest(f"Cannot delete the main session ({key.short}).")
        store = await tenant.sessions()
        session = store.find(key)
        session_settings.require_unchanged(
            session, session_id=expected_session_id, updated_at=expected_updated_at
        )
        if session is None:
            return Deleted(deleted=False)
        if archived_only and session.settings.get("archived") is not True:
            raise InvalidRequest.at("archivedOnly", "the session is not archived", "archive it")
        await self._stop_runs(tenant, key)
        deleted, archived = _remove(store, key, keep=not delete_transcript, now=self._clock())
        await store.durable()
        if deleted:
            publish_changed(tenant.events, key, reason="delete", now=self._clock())
        return Deleted(deleted, archived)

    async def compact(
        self,
        tenant: CompactableTenant,
        caller: Caller,
        key: SessionKey,
        *,
        max_lines: int | None = None,
        instructions: str | None = None,
    ) -> Compacted:
        """Shorten a session: to its newest ``max_lines``, or by a model's summary.

        The latter waits for the session's turn.
        """
        key = self.policy.canonical(tenant, key)
        store = await tenant.sessions()
        session = store.find(key)
        if session is None:
            return Compacted(compacted=False, reason="no session")
        if session.messages == 0:
            return Compacted(compacted=False, reason="no transcript")
        if max_lines is None:
            return await self._summarise(tenant, caller, key, session, instructions)
        if session.messages <= max_lines:
            return Compacted(compacted=False, kept=session.messages)
        await self._stop_runs(tenant, key)
        now = self._clock()
        kept = store.truncate(key, keep_last=max_lines, now=now)
        await store.durable()
        publish_changed(tenant.events, key, reason="compact", now=now, session=store.find(key))
        return Compacted(compacted=True, kept=kept, archived=session.id)

    async def cleanup(
        self,
        tenant: TenantWithSessions,
        *,
        agent: str | None = None,
        enforce: bool = False,
        empty: bool = False,
        active: SessionKey | None = None,
    ) -> Cleanup:
        """Find sessions beyond ``max_sessions``, the least used first, and with ``empty``
        those in which nothing was ever said; delete them with ``enforce``.

        Main, pinned and busy sessions stay, and so does ``active``.
        """
        store = await tenant.sessions()
        sessions = considered(store, SessionFilter(agent=agent, archived=None))
        spare = None if active is None else self.policy.canonical(tenant, active).short
        found = [s for s in sessions if s.key != spare and self._may_go(tenant, s)]
        silent = [s for s in found if empty and s.messages == 0]
        rest = [s for s in found if s not in silent]
        left = len(sessions) - len(silent)
        surplus = max(left - tenant.config.defaults.session.max_sessions, 0)
        oldest = rest[len(rest) - min(surplus, len(rest)) :]
        if enforce:
            for session in (*silent, *oldest):
                store.delete(key_of(tenant.id, session))
            await store.durable()
            for session in (*silent, *oldest):
                key = key_of(tenant.id, session)
                publish_changed(tenant.events, key, reason="delete", now=self._clock())
        return Cleanup(
            len(sessions),
            tuple(session.key for session in silent),
            tuple(session.key for session in oldest),
            applied=enforce,
        )

    async def import_transcript(
        self,
        tenant: TenantWithSessions,
        key: SessionKey,
        content: str,
        *,
        label: str | None = None,
        replace: bool = False,
    ) -> tuple[SessionView, int]:
        """Make a session of a transcript; return it and how many lines were left out.

        Raises :exc:`InvalidRequest` naming the line that cannot be used,
        :exc:`TooLarge`, and :exc:`AlreadyExists` for a session that holds
        something, unless ``replace`` archives it.
        """
        key = self.policy.canonical(tenant, key)
        label = _label(label)
        planned = await self.transcripts.read(content)
        store = await tenant.sessions()
        _require_free(store, label, key)
        before = store.find(key)
        if before is not None and before.messages:
            if not replace:
                raise AlreadyExists(
                    f"{key.short} holds {before.messages} messages; send replace:true to archive"
                    " them, or import under another key"
                )
            await self._stop_runs(tenant, key)
        await self.transcripts.write(store, key, planned, anew=before is not None)
        now = self._clock()
        if label is not None:
            store.patch(key, label=label, now=now)
        await store.durable()
        session = store.find(key)
        if session is None:
            raise Unavailable("the session was deleted meanwhile; import it again")
        publish_changed(tenant.events, key, reason="import", now=now, session=session)
        return self.listing.view(tenant, store, session), planned.left_out

    async def _summarise(
        self,
        tenant: CompactableTenant,
        caller: Caller,
        key: SessionKey,
        session: Session,
        instructions: str | None,
    ) -> Compacted:
        chosen = session.settings.get("model")
        model = chosen if isinstance(chosen, str) else None
        limit = tenant.meter.limits.concurrent_sessions
        async with tenant.turns.turn(key, limit=limit):
            # It tells the watchers of the list itself.
            done = await self._compaction.compact(tenant, caller, key, instructions, model=model)
        if not done.happened:
            return Compacted(compacted=False, reason="nothing to compact")
        return Compacted(compacted=True)

    def _may_go(self, tenant: TenantWithSessions, session: Session) -> bool:
        key = key_of(tenant.id, session)
        return not (
            self.policy.is_main(tenant, key)
            or session.settings.get("pinned") is True
            or any(True for _ in tenant.runs.for_session(key.short))
        )

    def _checked(
        self,
        tenant: TenantWithSessions,
        key: SessionKey,
        session: Session | None,
        settings: Settings,
    ) -> dict[str, object | None]:
        checked = session_settings.checked(settings, key=key, session=session)
        model = checked.get("model")
        if isinstance(model, str):
            self._router.resolve(model, tenant.config)  # or ModelUnknown
        return checked

    async def _stop_runs(
        self, tenant: TenantWithSessions, key: SessionKey, *, spare: str | None = None
    ) -> None:
        """End the session's runs; raise :exc:`Unavailable` if one does not end."""
        running = [run for run in tenant.runs.for_session(key.short) if run.id != spare]
        for run in running:
            run.cancel()
        for run in running:
            if await tenant.runs.wait(run.id, _RUN_ENDS_WITHIN) is None:
                raise Unavailable("a run of the session has not ended yet", retry_after=1)


def _label(text: str | None) -> str | None:
    if text is None:
        return None
    label = text.strip()
    if not 0 < len(label) <= _LONGEST_LABEL:
        raise InvalidRequest.at(
            "label", f"holds 1 to {_LONGEST_LABEL} characters", "send null to take it back"
        )
    return label


def _require_free(store: SessionStore, label: str | None, key: SessionKey) -> None:
    """Refuse a label in use before anything is made: the store would refuse it after."""
    if label is None:
        return
    holder = store.find_by_label(label)
    if holder is not None and holder.key != key.short:
        raise AlreadyExists(f"label already in use: {label}")


def _remove(
    store: SessionStore, key: SessionKey, *, keep: bool, now: datetime
) -> tuple[bool, tuple[str, ...]]:
    if not keep:
        return store.delete(key), ()
    archived = store.archive(key, now=now, reason="deleted")
    return archived is not None, () if archived is None else (archived.id,)
