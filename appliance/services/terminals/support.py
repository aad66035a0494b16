"""Support: an operator looks into a tenant's terminals, with the tenant's consent and in its sight.

An operator asks, with a reason and for some minutes. Unless the tenant's
settings consent already, somebody of the tenant answers. Access ends by
itself, or when either side ends it. Each step is in the audit log, and the
tenant's connections are told of each, with the label of the operator's key.

What is asked or granted is a job of the tenant under the operator's key, so it
ends with either of them, and the tenant stays awake for the answer.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

import trio

from appliance.model.callers import Caller
from appliance.model.errors import (
    ApplianceError,
    Forbidden,
    InvalidRequest,
    NotFound,
    RateLimited,
)
from appliance.model.ids import new_id
from appliance.model.operator_scopes import OperatorScope, Role, covers
from appliance.model.periods import to_ms
from appliance.model.terminals import EndReason, Mode, SupportPolicy, SupportState
from appliance.model.tokens import Scope
from appliance.services.audit import GATEWAY, AuditTrail
from appliance.services.clients import Client
from appliance.services.terminals.life import Terminal
from appliance.services.terminals.parts import TerminalTenant

log = logging.getLogger(__name__)

UNANSWERED = timedelta(minutes=15)  # that a request waits for an answer
MOST_REQUESTS = 10
EVENT = "terminal.support"


@dataclass(eq=False, slots=True, kw_only=True)
class SupportRequest:
    id: str
    terminal_id: str | None  # None: all of the tenant's
    mode: Mode
    admin: str  # the label of the operator's key
    reason: str
    lasts: timedelta
    requested_at: datetime
    expires_at: datetime  # the request, or the access once it is granted
    asker: Client
    state: SupportState = SupportState.REQUESTED
    answered: trio.Event = field(default_factory=trio.Event)
    over: trio.Event = field(default_factory=trio.Event)

    @property
    def minutes(self) -> int:
        """How long it is asked for."""
        return round(self.lasts.total_seconds() / 60)

    def covers(self, terminal: Terminal | None, mode: Mode) -> bool:
        """Whether it grants ``mode`` on ``terminal``; None is every one there may be."""
        if self.state is not SupportState.GRANTED:
            return False
        if mode is Mode.WRITE and self.mode is not Mode.WRITE:
            return False
        return self.terminal_id is None or (
            terminal is not None and self.terminal_id == terminal.id
        )


class SupportDesk:
    def __init__(self, *, audit: AuditTrail, clock: Callable[[], datetime]) -> None:
        self._audit = audit
        self._clock = clock

    # -- what an operator may do -----------------------------------------

    def find(
        self, tenant: TerminalTenant, caller: Caller, terminal: Terminal | None, mode: Mode
    ) -> SupportRequest | None:
        """What lets an operator do ``mode`` there."""
        if _policy(tenant) is SupportPolicy.NEVER:
            return None
        for request in tenant.state.terminals.support.values():
            if request.admin == caller.credential and request.covers(terminal, mode):
                return request
        return None

    def require(
        self, tenant: TerminalTenant, caller: Caller, terminal: Terminal | None, mode: Mode
    ) -> SupportRequest:
        """Raise :exc:`Forbidden` for an operator to whom the tenant has not consented."""
        request = self.find(tenant, caller, terminal, mode)
        if request is None:
            raise no_consent(mode)
        return request

    # -- asking and answering --------------------------------------------

    async def request(
        self,
        tenant: TerminalTenant,
        caller: Caller,
        client: Client,
        *,
        terminal_id: str | None,
        mode: Mode,
        reason: str,
        lasts: timedelta | None,
    ) -> SupportRequest:
        """Ask for access. It is granted at once where the tenant's settings consent.

        Raises :exc:`Forbidden` where they never do, ``NotFound`` for a terminal
        that is not there, and :exc:`RateLimited` for too many requests.
        """
        caller.require_admin()
        book = tenant.state.terminals
        policy = _policy(tenant)
        if policy is SupportPolicy.NEVER:
            raise Forbidden("the tenant's settings allow no support access to its terminals")
        if terminal_id is not None:
            book.require_live(terminal_id)
        if len(book.support) >= MOST_REQUESTS:
            raise RateLimited(
                f"{MOST_REQUESTS} support requests are open; end one", limit=MOST_REQUESTS
            )
        now = self._clock()
        request = SupportRequest(
            id=new_id("sup"),
            terminal_id=terminal_id,
            mode=mode,
            admin=caller.credential,
            reason=reason,
            lasts=_allowed(tenant, lasts),
            requested_at=now,
            expires_at=now + UNANSWERED,
            asker=client,
        )
        await self._note(tenant, caller, request, "request")
        # Only from here: nothing is granted that is not in the log.
        book.support[request.id] = request
        try:
            tenant.start(partial(self._attend, tenant, request), caller=caller)
        except ApplianceError:
            del book.support[request.id]
            raise
        _tell(tenant, request)
        if policy.consents_to(mode):
            await self._note(tenant, GATEWAY, request, "allow", by="settings")
            if request.state is SupportState.REQUESTED:  # nobody has answered meanwhile
                self._grant(tenant, request)
        return request

    async def resolve(
        self, tenant: TerminalTenant, caller: Caller, request_id: str, *, allow: bool
    ) -> SupportRequest:
        """The tenant's answer. Raises ``NotFound``, also for what was answered already."""
        if caller.is_admin:
            raise Forbidden("only the tenant itself can consent")
        caller.require(Scope.TERMINAL)
        request = tenant.state.terminals.support.get(request_id)
        if request is None or request.state is not SupportState.REQUESTED:
            raise _unknown()
        await self._note(tenant, caller, request, "allow" if allow else "deny")
        if request.state is not SupportState.REQUESTED:
            raise _unknown()  # it was withdrawn, or its time was up, meanwhile
        if allow:
            self._grant(tenant, request)
        else:
            self._finish(tenant, request, SupportState.DENIED)
        return request

    async def end(self, tenant: TerminalTenant, caller: Caller, request_id: str) -> SupportRequest:
        """Withdraw a request, or end access; either side may. Raises ``NotFound``."""
        request = tenant.state.terminals.support.get(request_id)
        if request is None:
            raise _unknown()
        await self._note(tenant, caller, request, "end")
        self._finish(tenant, request, SupportState.ENDED)
        return request

    def list(self, tenant: TerminalTenant) -> tuple[SupportRequest, ...]:
        """What is asked or granted now."""
        return tuple(tenant.state.terminals.support.values())

    # -- life ------------------------------------------------------------

    async def _attend(self, tenant: TerminalTenant, request: SupportRequest) -> None:
        """Watch over one request until its end: a job under the operator's key."""
        try:
            with trio.move_on_after(UNANSWERED.total_seconds()):
                await request.answered.wait()
            if request.state is SupportState.GRANTED:
                with trio.move_on_after(request.lasts.total_seconds()):
                    await request.over.wait()
            if not request.over.is_set():
                await self._expire(tenant, request)
        finally:
            self._finish(tenant, request, SupportState.ENDED)

    async def _expire(self, tenant: TerminalTenant, request: SupportRequest) -> None:
        self._finish(tenant, request, SupportState.ENDED)
        try:
            await self._note(tenant, GATEWAY, request, "end", by="time")
        except ApplianceError as error:
            log.error(  # noqa: TRY400 - an expected failure, its text says it all
                "the end of support access is not in the audit log",
                extra={"request": request.id, "reason": error.detail},
            )

    def _grant(self, tenant: TerminalTenant, request: SupportRequest) -> None:
        request.state = SupportState.GRANTED
        request.expires_at = self._clock() + request.lasts
        request.answered.set()
        _tell(tenant, request)

    def _finish(self, tenant: TerminalTenant, request: SupportRequest, state: SupportState) -> None:
        if request.over.is_set():
            return
        request.state = state
        tenant.state.terminals.support.pop(request.id, None)
        request.answered.set()
        request.over.set()
        _tell(tenant, request)
        for terminal in tenant.state.terminals.live:
            _shut_out(terminal, request)

    async def _note(
        self,
        tenant: TerminalTenant,
        caller: Caller,
        request: SupportRequest,
        step: str,
        *,
        by: str = "",
    ) -> None:
        details: dict[str, object] = {
            "admin": request.admin,
            "mode": request.mode.value,
            "reason": request.reason,
            "minutes": request.minutes,
        }
        if request.terminal_id is not None:
            details["terminal"] = request.terminal_id
        if by:
            details["by"] = by
        async with self._audit.action(
            caller,
            f"terminal.support.{step}",
            tenant=tenant.id,
            target=request.id,
            details=details,
        ):
            pass


def no_consent(mode: Mode) -> Forbidden:
    return Forbidden(
        f"this needs the tenant's consent to {mode.value}; ask for it with terminal.support.request"
    )


def facts_of(request: SupportRequest) -> dict[str, object]:
    """A request as clients are told of it."""
    facts: dict[str, object] = {
        "requestId": request.id,
        "state": request.state.value,
        "mode": request.mode.value,
        "admin": request.admin,
        "reason": request.reason,
        "minutes": request.minutes,
        "expiresAtMs": to_ms(request.expires_at),
    }
    if request.terminal_id is not None:
        facts["terminalId"] = request.terminal_id
    return facts


def _shut_out(terminal: Terminal, request: SupportRequest) -> None:
    for viewer in list(terminal.output.viewers.values()):
        if viewer.request_id == request.id:
            terminal.output.detach(viewer.client.id)
    if terminal.request_id == request.id:
        terminal.end(EndReason.SUPPORT, by=GATEWAY)


def _tell(tenant: TerminalTenant, request: SupportRequest) -> None:
    """Tell whoever of the tenant may use terminals, and who asked."""
    payload = facts_of(request)
    told = [client for client in tenant.clients if _concerns(client, request)]
    if request.asker not in told:
        told.append(request.asker)
    for client in told:
        client.send_event(EVENT, payload)


def _concerns(client: Client, request: SupportRequest) -> bool:
    if client.role is not Role.OPERATOR or not covers(client.scopes, OperatorScope.READ):
        return False
    if client.caller.is_admin:
        return client.caller.credential == request.admin
    return client.caller.may(Scope.TERMINAL)


def _policy(tenant: TerminalTenant) -> SupportPolicy:
    return SupportPolicy(tenant.config.defaults.sandbox.terminal.support)


def _allowed(tenant: TerminalTenant, lasts: timedelta | None) -> timedelta:
    longest = timedelta(seconds=tenant.config.defaults.sandbox.terminal.support_limit)
    if lasts is None:
        return min(longest, timedelta(minutes=30))
    if lasts > longest:
        most = longest.total_seconds() / 60
        raise InvalidRequest.at("minutes", f"are more than the tenant allows ({most:g})")
    return lasts


def _unknown() -> NotFound:
    return NotFound("there is no such support request")
