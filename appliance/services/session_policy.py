"""What a tenant's config says about its sessions: whose they are, when they end, who may speak.

The rules themselves are values of the model; this reads them from the config
that holds now, and applies a reset that has come due.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from pathlib import Path
from typing import Protocol
from zoneinfo import ZoneInfo

from appliance.config.schema import GatewayConfig, SendMatch, SessionDefaults, SessionReset
from appliance.model import session_scopes as scopes
from appliance.model.session_keys import DEFAULT_AGENT, SessionKey
from appliance.model.session_resets import ResetMode, ResetRule, ResetRules
from appliance.model.session_scopes import ChatType, DmScope, IdentityLinks, Peer
from appliance.services.events import TenantEvents
from appliance.services.session_events import publish_changed
from appliance.storage.session_rows import Session
from appliance.storage.sessions import SessionStore

_LOCALTIME = Path("/etc/localtime")


class ActiveRuns(Protocol):
    """The part of a run book that tells who is busy."""

    def for_session(self, key: str, /) -> Iterable[object]: ...


class TenantWithPolicy(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def config(self) -> GatewayConfig: ...


class TenantWithRuns(TenantWithPolicy, Protocol):
    @property
    def events(self) -> TenantEvents: ...
    @property
    def runs(self) -> ActiveRuns: ...
    async def sessions(self) -> SessionStore: ...


def gateway_zone() -> tzinfo:
    """The time zone of this machine, with its rules; UTC where none is set."""
    with suppress(KeyError, ValueError, OSError):
        if name := os.environ.get("TZ", "").removeprefix(":"):
            return ZoneInfo(name)
    with suppress(ValueError, OSError), _LOCALTIME.open("rb") as file:
        return ZoneInfo.from_file(file, key="localtime")
    return UTC


class SessionPolicy:
    def __init__(self, *, local_zone: tzinfo) -> None:
        self._local_zone = local_zone

    # Keys

    def main_key(self, tenant: TenantWithPolicy, agent: str = DEFAULT_AGENT) -> SessionKey:
        """Where an agent's direct messages go unless they are told apart."""
        defaults = tenant.config.defaults.session
        rest = scopes.GLOBAL if defaults.scope == "global" else defaults.main_key
        return SessionKey(tenant.id, agent, rest)

    def canonical(self, tenant: TenantWithPolicy, key: SessionKey) -> SessionKey:
        """The session a caller means: ``main`` is a name for the main one, whatever its key."""
        if key.rest == scopes.MAIN:
            return self.main_key(tenant, key.agent)
        return key

    def is_main(self, tenant: TenantWithPolicy, key: SessionKey) -> bool:
        return self.canonical(tenant, key) == self.main_key(tenant, key.agent)

    def direct_key(
        self, tenant: TenantWithPolicy, peer: Peer, *, agent: str = DEFAULT_AGENT
    ) -> SessionKey:
        """The session of a direct message from ``peer``."""
        defaults = tenant.config.defaults.session
        if defaults.scope == "global":
            return self.main_key(tenant, agent)
        return scopes.direct_key(
            tenant.id,
            agent,
            peer,
            scope=DmScope(defaults.dm_scope),
            main_key=defaults.main_key,
            links=IdentityLinks(defaults.identity_links),
        )

    def group_key(
        self,
        tenant: TenantWithPolicy,
        *,
        channel: str,
        chat_type: ChatType,
        group: str,
        agent: str = DEFAULT_AGENT,
    ) -> SessionKey:
        """The session of a group or room."""
        if tenant.config.defaults.session.scope == "global":
            return self.main_key(tenant, agent)
        return scopes.group_key(tenant.id, agent, channel=channel, chat_type=chat_type, group=group)

    # Resets

    def due(
        self, tenant: TenantWithPolicy, key: SessionKey, session: Session, *, now: datetime
    ) -> str | None:
        """Why ``session`` is over (``daily`` or ``idle``), None if it goes on."""
        defaults = tenant.config.defaults.session
        rule = _rules(defaults).choose(
            chat_type=_chat_type(key, session),
            is_thread=scopes.is_thread(key),
            channel=channel_of(key, session),
        )
        last_used = session.last_interaction_at or session.updated_at
        return rule.due(last_used, now, self._zone(defaults))

    async def resolve(
        self, tenant: TenantWithRuns, key: SessionKey, *, now: datetime
    ) -> Session | None:
        """The session as the next message finds it: begun anew if its time is over.

        None if there is none yet. To be called by whoever holds the session's
        turn; nothing is reset under a run that is still going.
        """
        store = await tenant.sessions()
        session = store.find(key)
        # Jobs and hooks keep their own calendars.
        if session is None or scopes.is_system(key) or session.messages == 0:
            return session
        reason = self.due(tenant, key, session, now=now)
        if reason is None or any(True for _ in tenant.runs.for_session(key.short)):
            return session
        fresh = store.reset(key, reason=reason, now=now)
        publish_changed(tenant.events, key, reason=reason, now=now, session=fresh)
        return fresh

    def reset_trigger(self, tenant: TenantWithPolicy, text: str) -> str | None:
        """The command that ``text`` begins anew with (``/new``), None if it does not."""
        word = text.split(maxsplit=1)[0].lower() if text.strip() else ""
        triggers = tenant.config.defaults.session.reset_triggers
        return next((trigger for trigger in triggers if trigger.lower() == word), None)

    # Who may speak

    def may_send(
        self, tenant: TenantWithPolicy, key: SessionKey, session: Session | None = None
    ) -> bool:
        """Whether a message may start a turn here: the session's own word counts first."""
        own = None if session is None else session.settings.get("sendPolicy")
        if own in {"allow", "deny"}:
            return own == "allow"
        policy = tenant.config.defaults.session.send_policy
        for rule in policy.rules:
            if _matches(rule.match, key, session):
                return rule.action == "allow"
        return policy.default == "allow"

    def _zone(self, defaults: SessionDefaults) -> tzinfo:
        return self._local_zone if defaults.timezone is None else _zone(defaults.timezone)


def channel_of(key: SessionKey, session: Session | None) -> str | None:
    """The channel a session is on: the one its key names, else where it was last heard of."""
    named = scopes.channel(key)
    if named is not None or session is None:
        return named
    last = session.facts.get("lastChannel")
    return last if isinstance(last, str) and last else None


def _chat_type(key: SessionKey, session: Session | None) -> ChatType:
    known = None if session is None else session.facts.get("chatType")
    with suppress(ValueError):
        if isinstance(known, str):
            return ChatType(known)
    return scopes.chat_type(key)


def _matches(match: SendMatch, key: SessionKey, session: Session | None) -> bool:
    if match.channel is not None and match.channel != channel_of(key, session):
        return False
    if match.chat_type is not None and match.chat_type != _chat_type(key, session):
        return False
    prefix = match.key_prefix
    # With or without ``agent:<agent>:``, as people write it.
    return prefix is None or key.short.startswith(prefix) or key.rest.startswith(prefix)


def _rules(defaults: SessionDefaults) -> ResetRules:
    by_type = defaults.reset_by_type
    return ResetRules(
        general=_rule(defaults.reset),
        direct=_rule_or_none(by_type.direct),
        group=_rule_or_none(by_type.group),
        thread=_rule_or_none(by_type.thread),
        by_channel={name: _rule(rule) for name, rule in defaults.reset_by_channel.items()},
    )


def _rule_or_none(rule: SessionReset | None) -> ResetRule | None:
    return None if rule is None else _rule(rule)


def _rule(rule: SessionReset) -> ResetRule:
    return ResetRule(ResetMode(rule.mode), rule.at_hour, rule.idle_minutes)


@lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo:
    return ZoneInfo(name)
