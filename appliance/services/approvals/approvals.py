"""Asking people before an agent does something, and keeping to what they said.

An answer holds for exactly what was asked (its digest) and for one time,
unless it was "always". Who does not answer has not agreed.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

import msgspec
import trio

from appliance.model.callers import Caller
from appliance.model.errors import AlreadyExists, InvalidRequest, NotFound
from appliance.model.exec_policy import Ask, ExecOrder, Judgement, Security, Verdict, unasked
from appliance.model.ids import new_id
from appliance.model.operator_scopes import OperatorScope, Role, covers
from appliance.services.approvals.events import ApprovalRequested, ApprovalResolved
from appliance.services.approvals.pending import (
    ApprovalAnswered,
    Decision,
    Ended,
    Pending,
    Question,
)
from appliance.services.approvals.policy import AgentRules, ApprovalPolicy, ApprovingTenant
from appliance.services.audit import GATEWAY, AuditTrail
from appliance.services.events import Audience
from appliance.services.tools.base import Effect, ToolCall, ToolFailed, ToolTenant
from appliance.storage.approvals import Grant

log = logging.getLogger(__name__)

# They know what they are about to do better than their arguments tell, and ask themselves.
_ASK_THEMSELVES = frozenset({"exec", "process"})
_WORTH_A_THREAD = 20_000  # characters of a command, times patterns it is compared with
_NOBODY = "nobody is connected who could approve it (operator.approvals); ask the user to connect"


class Approvals:
    """Satisfies ``tools.runner.Gate``."""

    def __init__(self, *, audit: AuditTrail, clock: Callable[[], datetime]) -> None:
        self._audit = audit
        self.policy = ApprovalPolicy(audit=audit, clock=clock)

    # -- asking ----------------------------------------------------------

    async def ask(self, tenant: ApprovingTenant, question: Question, *, limit: float) -> Pending:
        """Ask, and wait up to ``limit`` seconds; the result tells what was said.

        Where nobody could answer, it has ended at once. Cancelled, the question
        is taken back. Raises :exc:`RateLimited` when too many wait.
        """
        pending = self._put(tenant, question, limit=limit)
        try:
            await pending.wait()
        finally:
            self._end(tenant, pending)
        await self._note_silence(tenant, pending)
        return pending

    def request(
        self,
        tenant: ToolTenant,
        caller: Caller,
        question: Question,
        *,
        limit: float,
        requester: str,
        approval_id: str | None = None,
    ) -> Pending:
        """Ask for a client, which may go and come back for the answer.

        Raises :exc:`AlreadyExists` for an id that is taken, :exc:`RateLimited`.
        """
        if approval_id is not None and tenant.state.approvals.find(approval_id) is not None:
            raise AlreadyExists("approval id already pending")
        pending = self._put(
            tenant, question, limit=limit, requester=requester, approval_id=approval_id
        )
        if not pending.ended.is_set():
            tenant.start(partial(self._watch, tenant, pending), caller=caller)
        return pending

    async def resolve(
        self,
        tenant: ApprovingTenant,
        caller: Caller,
        approval_id: str,
        decision: Decision,
        *,
        by: str,
        days: int | None = None,
    ) -> Pending:
        """Answer; the first answer counts. On the audit log when this returns.

        ``days`` is how long an "always" lasts. Raises :exc:`NotFound`,
        :exc:`ApprovalAnswered` for one that was answered otherwise or is over,
        and :exc:`InvalidRequest` for an "always" that is not on offer.
        """
        book = tenant.state.approvals
        pending = self.require_known(tenant, approval_id)
        if pending.ended.is_set() and pending.decision is decision:
            return pending
        self._require_open(pending)
        if decision not in pending.question.decisions:
            raise InvalidRequest.at(
                "decision", f"{decision} is not available for this", "send allow-once or deny"
            )
        if days is not None and decision is not Decision.ALLOW_ALWAYS:
            raise InvalidRequest.at("grantExpiresInDays", "is for allow-always", "leave it out")
        details = {
            "decision": decision.value,
            "kind": pending.question.kind,
            "agent": pending.question.agent,
            "digest": pending.question.digest,
        }
        pending.is_claimed = True
        try:
            async with self._audit.action(
                caller, "approval", tenant=tenant.id, target=approval_id, details=details
            ):
                # Whoever asked may have gone while this was written down.
                if pending.ended.is_set():
                    raise _answered(pending)
                if decision is Decision.ALLOW_ALWAYS:
                    await self.policy.add_grants(tenant, pending, by=by, days=days)
                pending.finish(Ended.ANSWERED, decision, by)
        finally:
            pending.is_claimed = False
        book.close(pending)
        self._tell_resolved(tenant, pending)
        return pending

    def require_known(self, tenant: ApprovingTenant, approval_id: str) -> Pending:
        """Raises :exc:`NotFound`."""
        pending = tenant.state.approvals.find(approval_id)
        if pending is None:
            raise NotFound("unknown approval id")
        return pending

    def waiting(self, tenant: ApprovingTenant) -> list[Pending]:
        return list(tenant.state.approvals)

    # -- what tools ask --------------------------------------------------

    async def require(
        self, call: ToolCall, effect: Effect, arguments: Mapping[str, Any], /
    ) -> None:
        """Have somebody agree to a tool call. Raises :exc:`ToolFailed` unless they do."""
        if call.name in _ASK_THEMSELVES:
            call.tenant.state.approvals.note_wary(call.run_id, call.call_id)
            return
        said = msgspec.json.encode([call.name, arguments], order="sorted")
        question = Question(
            kind="tool",
            subject=f"{call.name} {msgspec.json.encode(arguments).decode()}",
            digest=hashlib.sha256(said).hexdigest(),
            agent=call.key.agent,
            session=call.key.short,
            run_id=call.run_id,
            reason=_why_wary(call, effect),
        )
        await self._require_yes(call, question)

    async def require_order(
        self,
        call: ToolCall,
        order: ExecOrder,
        *,
        security: Security | None = None,
        ask: Ask | None = None,
    ) -> bool:
        """Return once ``order`` may be run, exactly as it is; whether the allow-list covers it.

        Raises :exc:`ToolFailed` with the reason if it may not.
        """
        tenant = call.tenant
        is_wary = self.is_wary(call)
        rules = (await self.policy.rules(tenant, call.key.agent)).tightened(security, ask)
        rules = rules.tightened(*_of_session(call))
        judgement, grants = await _judged(tenant, rules, order)
        if judgement.verdict is Verdict.REFUSE:
            raise ToolFailed(f"the command is not allowed: {judgement.reason}")
        if judgement.verdict is Verdict.RUN and not is_wary:
            self.policy.note_use(tenant, grants)
            return judgement.is_covered
        question = _question(call, order, rules, judgement, is_wary=is_wary)
        spared = not is_wary and unasked(rules.rules, judgement)
        await self._require_yes(call, question, is_spared=spared)
        return judgement.is_covered

    async def require_input(
        self, call: ToolCall, order: ExecOrder, text: str, *, is_covered: bool
    ) -> None:
        """As :meth:`require_order`, for ``text`` that a running command is told.

        What was approved was the command, not what it may be told later: a
        shell does what it reads. One that the allow-list covers may read anything.
        """
        is_wary = self.is_wary(call)
        agents = await self.policy.rules(call.tenant, call.key.agent)
        rules = agents.tightened(*_of_session(call)).rules
        if rules.security is Security.DENY:
            raise ToolFailed("running commands is turned off")
        is_open = is_covered or rules.security is Security.FULL
        if is_open and rules.ask is not Ask.ALWAYS and not is_wary:
            return
        said = msgspec.json.encode([order.digest, text])
        question = Question(
            kind="exec",
            subject=f"{text}\n# is typed into: {order.command}",
            digest=hashlib.sha256(said).hexdigest(),
            agent=call.key.agent,
            session=call.key.short,
            run_id=call.run_id,
            directory=order.directory,
            security=rules.security.value,
            ask=rules.ask.value,
            reason=_why_wary(call, Effect.EXECUTE) if is_wary else "input of a running command",
        )
        await self._require_yes(call, question)

    def is_wary(self, call: ToolCall) -> bool:
        """Whether this call must be asked about whatever the allow-list says. Asked once a call."""
        noted = call.tenant.state.approvals.take_wary(call.run_id, call.call_id)
        needed = call.tenant.config.defaults.tools.untrusted.needs_approval
        return noted or (call.tainted and "exec" in needed)

    async def _require_yes(
        self, call: ToolCall, question: Question, *, is_spared: bool = False
    ) -> None:
        """``is_spared`` may be done where nobody is there to be asked."""
        tenant = call.tenant
        if tenant.state.approvals.was_denied(question.run_id, question.digest):
            raise ToolFailed("this was refused a moment ago; do not try it again, ask the user")
        limit = tenant.config.defaults.tools.exec.approval_timeout
        call.update(f"waiting for approval ({question.reason})")
        pending = await self.ask(tenant, question, limit=limit)
        if pending.is_allowed:
            return
        what = "the command" if question.kind == "exec" else call.name
        match pending.why:
            case Ended.NO_ROUTE if is_spared:
                log.info("ran unasked: nobody could approve", extra={"digest": question.digest})
            case Ended.NO_ROUTE:
                raise ToolFailed(f"{what} needs approval ({question.reason}), and {_NOBODY}")
            case Ended.ANSWERED:
                raise ToolFailed(f"{what} was refused by the user; do not try it another way")
            case _:
                raise ToolFailed(f"{what} needs approval, and nobody answered within {limit:g} s")

    # -- the life of a question ------------------------------------------

    def _put(
        self,
        tenant: ApprovingTenant,
        question: Question,
        *,
        limit: float,
        requester: str = "",
        approval_id: str | None = None,
    ) -> Pending:
        now_ms = self.policy.now_ms()
        pending = Pending(
            id=approval_id or new_id("approval"),
            question=question,
            created_at_ms=now_ms,
            expires_at_ms=now_ms + round(limit * 1000),
            deadline=trio.current_time() + limit,
            requester=requester,
        )
        if not _somebody_can_answer(tenant):
            pending.finish(Ended.NO_ROUTE)
            return pending
        tenant.state.approvals.add(pending)
        requested = ApprovalRequested.of(pending)
        tenant.events.publish("exec.approval.requested", requested, audience=Audience.APPROVERS)
        return pending

    async def _watch(self, tenant: ApprovingTenant, pending: Pending) -> None:
        """End a client's question when its time is over, or the client's rights are."""
        try:
            await pending.wait()
        finally:
            self._end(tenant, pending)
        await self._note_silence(tenant, pending)

    def _end(self, tenant: ApprovingTenant, pending: Pending) -> None:
        """Nobody waits for the answer any more."""
        if pending.ended.is_set():
            return
        is_late = trio.current_time() >= pending.deadline
        pending.finish(Ended.TIMED_OUT if is_late else Ended.CANCELLED)
        tenant.state.approvals.close(pending)
        self._tell_resolved(tenant, pending)

    def _tell_resolved(self, tenant: ApprovingTenant, pending: Pending) -> None:
        resolved = ApprovalResolved.of(pending, ts=self.policy.now_ms())
        tenant.events.publish("exec.approval.resolved", resolved, audience=Audience.APPROVERS)

    async def _note_silence(self, tenant: ApprovingTenant, pending: Pending) -> None:
        if pending.why is not Ended.TIMED_OUT:
            return
        details = {
            "decision": Decision.DENY.value,
            "reason": "timeout",
            "agent": pending.question.agent,
            "digest": pending.question.digest,
        }
        async with self._audit.action(
            GATEWAY, "approval", tenant=tenant.id, target=pending.id, details=details
        ):
            pass

    @staticmethod
    def _require_open(pending: Pending) -> None:
        if pending.is_claimed:
            raise ApprovalAnswered("somebody else is answering this")
        if pending.ended.is_set():
            raise _answered(pending)


def _answered(pending: Pending) -> ApprovalAnswered:
    if pending.decision is not None:
        return ApprovalAnswered(f"approval already resolved: {pending.decision}")
    return ApprovalAnswered("approval expired: nobody waits for the answer any more")


def _somebody_can_answer(tenant: ApprovingTenant) -> bool:
    return any(
        client.role is Role.OPERATOR and covers(client.scopes, OperatorScope.APPROVALS)
        for client in tenant.clients
    )


async def _judged(
    tenant: ToolTenant, rules: AgentRules, order: ExecOrder
) -> tuple[Judgement, tuple[Grant, ...]]:
    if len(order.command) * (1 + rules.patterns) < _WORTH_A_THREAD:
        return rules.judge(order)
    # A long line and a long list are both a tenant's to choose, and take a second.
    return await trio.to_thread.run_sync(rules.judge, order, limiter=tenant.state.workspace_threads)


def _of_session(call: ToolCall) -> tuple[Security | None, Ask | None]:
    """What was set for the conversation; it may only tighten."""
    session = call.store.find(call.key)
    if session is None:
        return None, None
    security, ask = (session.settings.get(name) for name in ("execSecurity", "execAsk"))
    return Security(str(security)) if security else None, Ask(str(ask)) if ask else None


def _why_wary(call: ToolCall, effect: Effect) -> str:
    if call.tainted:
        return "the agent has read what strangers may have written"
    return f"this session asks before every {effect.value}"


def _question(
    call: ToolCall, order: ExecOrder, rules: AgentRules, judgement: Judgement, *, is_wary: bool
) -> Question:
    return Question(
        kind="exec",
        subject=order.command,
        digest=order.digest,
        agent=call.key.agent,
        session=call.key.short,
        run_id=call.run_id,
        directory=order.directory,
        environment=tuple(sorted(order.environment)),
        security=rules.rules.security.value,
        ask=rules.rules.ask.value,
        reason=_why_wary(call, Effect.EXECUTE) if is_wary else judgement.reason,
        patterns=judgement.patterns,
        # An "always" would be no answer to a rule that asks each time.
        allows_always=not is_wary and rules.rules.ask is not Ask.ALWAYS,
    )
