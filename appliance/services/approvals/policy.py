"""What a tenant's agents may run: its config, its approvals file and the lasting answers."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

import msgspec
import trio

from appliance.config.schema import GatewayConfig
from appliance.model.callers import Caller
from appliance.model.errors import InvalidRequest, PreconditionFailed
from appliance.model.exec_policy import (
    Ask,
    ExecOrder,
    ExecRules,
    Judgement,
    Security,
    judge,
    more_asking,
    stricter,
)
from appliance.model.ids import new_id
from appliance.model.periods import to_ms
from appliance.services.approvals.pending import ApprovalBook, Pending
from appliance.services.audit import AuditTrail
from appliance.services.clients import ConnectedClients
from appliance.services.events import TenantEvents
from appliance.storage.approvals import (
    MOST_GRANTS,
    AgentPolicy,
    ApprovalStore,
    Files,
    Grant,
    PolicyFile,
    StoredApprovals,
)

EVERY_AGENT = "*"
_DAY_MS = 24 * 60 * 60 * 1000
_LONGEST_SHOWN = 512  # characters of a command in a list


class StateWithApprovals(Protocol):
    @property
    def approvals(self) -> ApprovalBook: ...


class ApprovingTenant(Protocol):
    """A running tenant in which things wait for approval."""

    @property
    def id(self) -> str: ...
    @property
    def root(self) -> Files: ...
    @property
    def config(self) -> GatewayConfig: ...
    @property
    def state(self) -> StateWithApprovals: ...
    @property
    def clients(self) -> ConnectedClients: ...
    @property
    def events(self) -> TenantEvents: ...


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """The file as clients know it. ``in_force`` holds for whoever has no entry in it."""

    file: PolicyFile
    exists: bool
    in_force: ExecRules


@dataclass(frozen=True, slots=True)
class AgentRules:
    """``rules`` without the lasting answers, and those that hold now."""

    rules: ExecRules
    grants: tuple[Grant, ...]
    trusts_path: bool

    def tightened(self, security: Security | None, ask: Ask | None) -> "AgentRules":
        return replace(self, rules=self.rules.tightened(security, ask))

    @property
    def patterns(self) -> int:
        """How many there are to compare a command with."""
        return len(self.rules.allowlist) + len(self.grants)

    def judge(self, order: ExecOrder) -> tuple[Judgement, tuple[Grant, ...]]:
        """What becomes of ``order``, and the lasting answers that it owes that to."""
        plain = judge(self.rules, order, trusts_path=self.trusts_path)
        if plain.is_covered:
            return plain, ()
        used = tuple(
            grant
            for grant in self.grants
            if grant.digest == order.digest or (grant.pattern and grant.pattern in plain.patterns)
        )
        granted = replace(
            self.rules,
            allowlist=(*self.rules.allowlist, *(g.pattern for g in self.grants if g.pattern)),
            exact=frozenset(grant.digest for grant in self.grants if grant.digest),
        )
        judgement = judge(granted, order, trusts_path=self.trusts_path)
        return judgement, used if judgement.is_covered else ()


class ApprovalPolicy:
    def __init__(self, *, audit: AuditTrail, clock: Callable[[], datetime]) -> None:
        self._audit = audit
        self._clock = clock

    async def document(self, tenant: ApprovingTenant) -> PolicyDocument:
        policy = (await self._read(tenant)).policy
        file = policy or PolicyFile()
        return PolicyDocument(file, policy is not None, _rules(tenant.config, file, None))

    async def replace(
        self, tenant: ApprovingTenant, caller: Caller, file: PolicyFile, *, base_hash: str | None
    ) -> PolicyDocument:
        """Make ``file`` the policy; on disk when this returns.

        Raises :exc:`InvalidRequest` without ``base_hash`` where there is a file
        and :exc:`PreconditionFailed` if that is not its hash.
        """
        async with self._changing(tenant) as stored:
            current = stored.policy or PolicyFile()
            if stored.policy is not None and base_hash is None:
                raise InvalidRequest(
                    "exec approvals base hash required; re-run exec.approvals.get and retry"
                )
            if base_hash is not None and base_hash != current.hash:
                raise PreconditionFailed(
                    "exec approvals changed since last load; re-run exec.approvals.get and retry"
                )
            details = {"hash": file.hash, "agents": len(file.agents)}
            async with self._audit.action(
                caller, "approvals.set", tenant=tenant.id, details=details
            ):
                await self._save(tenant, msgspec.structs.replace(stored, policy=file))
        return await self.document(tenant)

    async def rules(self, tenant: ApprovingTenant, agent: str) -> AgentRules:
        """What ``agent`` may run: the stricter of config and file, the sum of their lists."""
        stored = await self._read(tenant)
        now_ms = self.now_ms()
        return AgentRules(
            _rules(tenant.config, stored.policy or PolicyFile(), agent),
            tuple(grant for grant in stored.grants if grant.holds(agent, now_ms)),
            trusts_path="PATH" not in tenant.config.defaults.sandbox.environment,
        )

    # -- lasting answers -------------------------------------------------

    async def grants(self, tenant: ApprovingTenant, *, limit: int) -> list[Grant]:
        """The newest first."""
        stored = await self._read(tenant)
        return [_used(grant, tenant.state.approvals) for grant in reversed(stored.grants)][:limit]

    async def add_grants(
        self, tenant: ApprovingTenant, pending: Pending, *, by: str, days: int | None
    ) -> None:
        """Remember what was allowed for good.

        A full list loses what holds no more, or else the oldest.
        """
        now_ms, question = self.now_ms(), pending.question
        made = [
            Grant(
                id=new_id("grant"),
                approval_id=pending.id,
                agent=question.agent,
                command=(pattern or question.subject)[:_LONGEST_SHOWN],
                pattern=pattern,
                digest="" if pattern else question.digest,
                directory=None if pattern else question.directory,
                created_at_ms=now_ms,
                granted_by=by,
                expires_at_ms=None if days is None else now_ms + days * _DAY_MS,
            )
            for pattern in question.patterns or ("",)
        ]
        async with self._changing(tenant) as stored:
            grants = [*stored.grants, *made]
            over = len(grants) - MOST_GRANTS
            if over > 0:
                held = sorted(grants, key=lambda g: (g.holds(g.agent, now_ms), g.created_at_ms))
                gone = {grant.id for grant in held[:over]}
                grants = [grant for grant in grants if grant.id not in gone]
            await self._save(tenant, msgspec.structs.replace(stored, grants=tuple(grants)))

    async def revoke(self, tenant: ApprovingTenant, caller: Caller, grant_id: str) -> str:
        """``revoked``, ``already-revoked`` or ``not-found``."""
        async with self._changing(tenant) as stored:
            found = next((grant for grant in stored.grants if grant.id == grant_id), None)
            if found is None:
                return "not-found"
            if found.revoked_at_ms is not None:
                return "already-revoked"
            revoked = msgspec.structs.replace(
                found, revoked_at_ms=self.now_ms(), revoked_by=caller.credential
            )
            grants = tuple(revoked if grant is found else grant for grant in stored.grants)
            async with self._audit.action(
                caller, "approval.revoke", tenant=tenant.id, target=grant_id
            ):
                await self._save(tenant, msgspec.structs.replace(stored, grants=grants))
        return "revoked"

    def note_use(self, tenant: ApprovingTenant, grants: tuple[Grant, ...]) -> None:
        """Count it; written down when the file is written next."""
        uses = tenant.state.approvals.uses
        for grant in grants:
            uses[grant.id] = (self.now_ms(), uses.get(grant.id, (0, 0))[1] + 1)

    def now_ms(self) -> int:
        return to_ms(self._clock())

    # -- the file --------------------------------------------------------

    async def _read(self, tenant: ApprovingTenant) -> StoredApprovals:
        known = tenant.state.approvals.stored
        if known is not None:
            return known
        async with self._changing(tenant) as stored:
            return stored

    @asynccontextmanager
    async def _changing(self, tenant: ApprovingTenant) -> AsyncIterator[StoredApprovals]:
        book = tenant.state.approvals
        async with book.changing:
            if book.stored is None:
                book.stored = await trio.to_thread.run_sync(ApprovalStore(tenant.root).load)
            yield book.stored

    async def _save(self, tenant: ApprovingTenant, stored: StoredApprovals) -> None:
        book = tenant.state.approvals
        stored = msgspec.structs.replace(
            stored, grants=tuple(_used(grant, book) for grant in stored.grants)
        )
        # Should saving fail half-way, the disk says what holds.
        book.stored = None
        await trio.to_thread.run_sync(ApprovalStore(tenant.root).save, stored)
        book.stored = stored
        book.uses.clear()


def _used(grant: Grant, book: ApprovalBook) -> Grant:
    if grant.id not in book.uses:
        return grant
    last, count = book.uses[grant.id]
    return msgspec.structs.replace(grant, last_used_at_ms=last, use_count=grant.use_count + count)


def _rules(config: GatewayConfig, file: PolicyFile, agent: str | None) -> ExecRules:
    settings = config.defaults.tools.exec
    names = [] if agent is None else [agent, EVERY_AGENT]
    own = [file.agents[name] for name in names if name in file.agents]
    words = [*own, file.defaults]
    security = next((each.security for each in words if each.security), None)
    ask = next((each.ask for each in words if each.ask), None)
    fallback = next((each.ask_fallback for each in words if each.ask_fallback), None)
    rules = ExecRules(
        security=Security(settings.security),
        ask=Ask(settings.ask),
        fallback=Security(fallback or settings.ask_fallback),
        allowlist=(*settings.allowlist, *_patterns(own)),
    )
    return replace(
        rules,
        security=stricter(rules.security, Security(security)) if security else rules.security,
        ask=more_asking(rules.ask, Ask(ask)) if ask else rules.ask,
    )


def _patterns(policies: list[AgentPolicy]) -> list[str]:
    return [entry.pattern for policy in policies for entry in policy.allowlist]
