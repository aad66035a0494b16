"""Tickets: how a browser gets a session without ever holding a token.

Whoever holds a token (the tenant's own back end, the operator) asks for a
ticket and sends the browser to ``/login?ticket=…``. A link may end up in a
history, a log or a chat, so it is good once and for minutes, and it opens no
more than the token it was issued with. Tickets live in memory: a restart
forgets them, which costs one more request and no promise.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import InvalidRequest, TenantDisabled, TicketRejected, Unavailable
from appliance.model.tokens import Scope
from appliance.services import tokens as rules
from appliance.services.audit import AuditTrail
from appliance.services.registry import TenantRegistry

LONGEST_TTL = timedelta(minutes=15)
USUAL_TTL = timedelta(minutes=5)
SESSION_LIFE = timedelta(hours=12)
_MOST_OF_ALL = 10_000
_MOST_OF_ONE = 100  # of one tenant; a page that asks in a loop hurts itself only
_PREFIX = "ticket_"


@dataclass(frozen=True, slots=True)
class Ticket:
    text: str
    tenant: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """``cookie`` is the value to set; it ends at ``expires_at`` or when it is revoked."""

    cookie: str
    tenant: str
    id: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Promise:
    """What a ticket is good for."""

    issuer: Caller
    tenant: str
    scopes: frozenset[Scope]
    expires_at: datetime


class TicketBook:
    """The tickets that were issued and not yet used, by the hash of their text."""

    def __init__(self) -> None:
        self._promises: dict[bytes, Promise] = {}

    def __len__(self) -> int:
        return len(self._promises)

    def add(self, promise: Promise, *, now: datetime) -> str:
        """Return the text of a new ticket; raise ``Unavailable`` if there are too many."""
        self._drop(lambda other: other.expires_at <= now)
        own = sum(other.tenant == promise.tenant for other in self._promises.values())
        if own >= _MOST_OF_ONE or len(self._promises) >= _MOST_OF_ALL:
            raise Unavailable(
                "too many tickets wait to be used; try again when some have expired",
                retry_after=LONGEST_TTL.total_seconds(),
            )
        text = _PREFIX + secrets.token_urlsafe(32)
        self._promises[_digest(text)] = promise
        return text

    def take(self, text: str, *, now: datetime, tenant: str | None = None) -> Promise:
        """Use a ticket up; raise ``TicketRejected`` for whatever reason, in the same words.

        With ``tenant`` it must be one of that tenant's, else it stays as it is.
        """
        key = _digest(text)
        promise = self._promises.get(key)
        if promise is None or promise.expires_at <= now:
            raise _rejected()
        if tenant is not None and promise.tenant != tenant:
            raise _rejected()
        del self._promises[key]
        return promise

    def void(self, tenant: str) -> None:
        """Forget the tickets of ``tenant``."""
        self._drop(lambda promise: promise.tenant == tenant)

    def _drop(self, unwanted: Callable[[Promise], bool]) -> None:
        for key in [key for key, promise in self._promises.items() if unwanted(promise)]:
            del self._promises[key]


class Cookies(Protocol):
    """The part of ``Access`` that a session needs."""

    def cookie(self, tenant: str, session: str) -> str: ...
    def is_live(self, caller: Caller) -> bool: ...


class TicketService:
    def __init__(
        self,
        book: TicketBook,
        registry: TenantRegistry,
        *,
        access: Cookies,
        audit: AuditTrail,
        clock: Callable[[], datetime],
    ) -> None:
        self._book = book
        self._registry = registry
        self._access = access
        self._audit = audit
        self._clock = clock

    async def issue(
        self,
        caller: Caller,
        tenant_id: str,
        *,
        ttl: timedelta | None = None,
        scopes: Iterable[Scope | str] | None = None,
    ) -> Ticket:
        """Promise one browser session with the caller's scopes, or some of them.

        Admin, or any token of the tenant. Raises ``InvalidRequest``,
        ``ScopeMissing``, ``TenantUnknown``, ``TenantDisabled``, ``Unavailable``.
        """
        life = USUAL_TTL if ttl is None else ttl
        if not timedelta() < life <= LONGEST_TTL:
            raise InvalidRequest.at("ttl", "is at most 15 minutes", "say 5m")
        granted = _scopes(caller, tenant_id, scopes)
        if self._registry.require(tenant_id).disabled:
            raise TenantDisabled("the tenant is disabled")
        now = self._clock()
        promise = Promise(caller, tenant_id, granted, now + life)
        details = {"scopes": sorted(granted), "expires_at": promise.expires_at}
        async with self._audit.action(caller, "ticket.issue", tenant=tenant_id, details=details):
            text = self._book.add(promise, now=now)
        return Ticket(text, tenant_id, promise.expires_at)

    async def redeem(
        self, text: str, *, tenant: str | None = None, request_id: str = "", ip: str = ""
    ) -> BrowserSession:
        """Turn a ticket into a browser session, once. Raises ``TicketRejected``.

        ``tenant`` is the one in the path, which must be the ticket's. The
        session ends with the token that the ticket was issued with.
        """
        now = self._clock()
        promise = self._book.take(text, now=now, tenant=tenant)
        tenant, issuer = promise.tenant, promise.issuer
        async with self._registry.locked(tenant):
            if tenant not in self._registry.index or not self._access.is_live(issuer):
                raise _rejected()
            record = self._registry.require(tenant)
            parent = record.token(issuer.credential) if not issuer.is_admin else None
            expires_at = now + SESSION_LIFE
            if parent is not None and parent.expires_at is not None:
                expires_at = min(expires_at, parent.expires_at)
            session = rules.open_session(
                tenant,
                scopes=promise.scopes,
                now=now,
                expires_at=expires_at,
                parent=None if parent is None else parent.id,
                models=issuer.models,
            )
            changed = rules.with_token(record, session, now=now)
            who = Caller(
                ActorKind.TENANT,
                session.id,
                tenant,
                promise.scopes,
                request_id=request_id,
                ip=ip,
                models=issuer.models,
            )
            details = {"issued_by": issuer.credential, "issuer_kind": issuer.kind.value}
            async with self._audit.action(
                who, "login", tenant=tenant, target=session.id, details=details
            ):
                await self._registry.write(changed)
        return BrowserSession(
            self._access.cookie(tenant, session.id), tenant, session.id, expires_at
        )

    async def end(self, caller: Caller) -> None:
        """Log out: end the browser session that ``caller`` is, and the sessions it opened.

        What runs with them ends within the second in which running work is
        held against the valid tokens. Raises ``InvalidRequest`` for a caller
        who is no browser session.
        """
        tenant = caller.require_tenant()
        async with self._registry.changing(tenant) as record:
            session = record.token(caller.credential)
            if session is None or not rules.is_session(session):
                raise InvalidRequest("only a browser session logs out; revoke a token instead")
            async with self._audit.action(caller, "logout", tenant=tenant, target=session.id):
                await self._registry.write(rules.without_token(record, session.id))


def _scopes(caller: Caller, tenant: str, wanted: Iterable[Scope | str] | None) -> frozenset[Scope]:
    """What a ticket may grant: what is asked for, if the caller has it; else all the caller has."""
    if wanted is not None:
        scopes = rules.parse_scopes(wanted)
    else:
        scopes = frozenset({Scope.FULL}) if caller.is_admin else caller.scopes
    # Any scope will do to let a browser in, since it gets no more than that.
    caller.require_access(tenant, next(iter(sorted(scopes)), Scope.FULL))
    rules.require_grantable(caller, scopes)
    return scopes


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _rejected() -> TicketRejected:
    return TicketRejected("the ticket is unknown, used up or expired; ask for a new one")
