"""A session with what its tenant's clients are shown of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from appliance.config.schema import GatewayConfig
from appliance.model.errors import ModelUnknown
from appliance.model.session_keys import SessionKey
from appliance.services.context_windows import context_window
from appliance.services.events import TenantEvents
from appliance.services.routing import Router, Target
from appliance.services.session_policy import SessionPolicy
from appliance.storage.session_rows import RunRecord, Session
from appliance.storage.sessions import SessionStore

LONGEST_TITLE = 60
LONGEST_PREVIEW = 240


class ActiveRun(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def status(self) -> str:
        """``queued`` or ``running``."""

    @property
    def started_at(self) -> datetime | None: ...
    def cancel(self) -> object: ...


class Runs(Protocol):
    """The part of a tenant's run book that sessions need."""

    def for_session(self, key: str, /) -> Iterable[ActiveRun]:
        """Those under way in the session of this short key."""

    async def wait(self, run_id: str, timeout: float) -> object | None:  # noqa: ASYNC109 - the run book's
        """Return when the run has ended, or None after ``timeout`` seconds."""


class TenantWithSessions(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def config(self) -> GatewayConfig: ...
    @property
    def events(self) -> TenantEvents: ...
    @property
    def runs(self) -> Runs: ...
    async def sessions(self) -> SessionStore: ...


@dataclass(frozen=True, slots=True)
class ModelInUse:
    """What answers in a session; both names are empty where no model is configured."""

    provider: str
    model: str
    window: int  # tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """A session with what a list shows of it."""

    key: SessionKey
    session: Session
    model: ModelInUse
    is_main: bool
    active: tuple[ActiveRun, ...] = ()
    last_run: RunRecord | None = None
    derived_title: str | None = None
    last_message: str | None = None


class SessionViews:
    """Makes the views of one tenant's sessions, for as long as one request takes."""

    def __init__(self, router: Router, policy: SessionPolicy, tenant: TenantWithSessions) -> None:
        self._policy = policy
        self._tenant = tenant
        self._models = ModelsInUse(router, tenant)

    def view(self, store: SessionStore, session: Session) -> SessionView:
        key = key_of(self._tenant.id, session)
        return SessionView(
            key=key,
            session=session,
            model=self._models.of(session),
            is_main=self._policy.is_main(self._tenant, key),
            active=tuple(self._tenant.runs.for_session(key.short)),
            last_run=next(iter(store.runs(key, limit=1)), None),
        )

    def of_agent(self, agent: str) -> ModelInUse:
        """What answers an agent's sessions unless they say otherwise."""
        return self._models.of_agent(agent)


class ModelsInUse:
    """What answers where, each name looked up once."""

    def __init__(self, router: Router, tenant: TenantWithSessions) -> None:
        self._router = router
        self._config = tenant.config
        self._known: dict[str, ModelInUse] = {}

    def of(self, session: Session) -> ModelInUse:
        chosen = session.settings.get("model")
        if isinstance(chosen, str) and chosen:
            return self._named(chosen)
        return self.of_agent(session.agent)

    def of_agent(self, name: str) -> ModelInUse:
        agent = self._config.defaults.agents.get(name)
        own = None if agent is None else agent.model
        return self._named(own or self._config.models.default or "")

    def _named(self, name: str) -> ModelInUse:
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = self._look_up(name)
        return known

    def _look_up(self, name: str) -> ModelInUse:
        try:
            target = self._router.resolve(name, self._config).targets[0]
        except ModelUnknown:
            # Chosen when it was still configured, or never: a list shows it all the same.
            target = Target.parse(name) or Target("", name)
        return ModelInUse(target.provider, target.model, context_window(self._config, name))


def key_of(tenant: str, session: Session) -> SessionKey:
    """The key of a stored session, which names no tenant there."""
    rest = session.key.removeprefix(f"agent:{session.agent}:")
    return SessionKey(tenant, session.agent, rest)


def with_words(
    store: SessionStore, views: Sequence[SessionView], *, titles: bool, last: bool
) -> tuple[SessionView, ...]:
    """The views with what was said first, as a title, and with what was said last."""
    previews: dict[str, str] = {}
    if last:
        keys = [view.key for view in views]
        for preview in store.previews(keys, limit=1, max_chars=LONGEST_PREVIEW):
            if preview.items:
                previews[preview.key] = preview.items[-1].text
    return tuple(
        replace(
            view,
            derived_title=_title(store.first_user_text(view.key)) if titles else None,
            last_message=previews.get(view.key.short),
        )
        for view in views
    )


def _title(text: str) -> str | None:
    words = " ".join(text[: 4 * LONGEST_TITLE].split())
    if len(words) <= LONGEST_TITLE:
        return words or None
    cut = words[: LONGEST_TITLE - 1]
    whole, _, _ = cut.rpartition(" ")
    # A word cut in two reads badly, unless it is nearly all there is.
    return (whole if len(whole) > LONGEST_TITLE // 2 else cut) + "…"
