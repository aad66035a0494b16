"""The audit log as everybody uses it: say what is about to happen, then do it.

A line is on disk before the action begins, so whatever happened is in the log,
and what cannot be logged does not happen. If the action then fails, a second
line says so. A crash between the two leaves an ``ok`` for something that was
not done: the log may say too much, never too little.

Refused attempts are not in here. Anybody may make as many as they like, and a
stranger must not be able to fill the operator's disk; they are in the ordinary
log.
"""

import logging
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

import trio

from appliance.model.audit import Actor, AuditEntry, Result, clean_details, clean_text
from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import ApplianceError, AuditUnavailable
from appliance.model.tokens import Scope

log = logging.getLogger(__name__)

GATEWAY = Caller(ActorKind.SYSTEM, "gateway", None)
"""Who acts when nobody asked."""

CREATED = "tenant.create"
"""The action with which the lines of a tenant begin."""

# Lines that wait for the disk. One sync takes milliseconds and serves all of
# them, so a queue this long means that the disk hangs: refuse, don't wait.
_MOST_WAITING = 256
_MOST_IN_TAIL = 1000
_PROBLEM_LASTS = timedelta(minutes=1)


class Log(Protocol):
    """``storage.audit_log``; every method blocks."""

    def append(self, drafts: Sequence[AuditEntry]) -> list[AuditEntry]: ...
    def tail(self, *, limit: int, tenant: str | None, before: int | None) -> list[AuditEntry]: ...
    def reopen(self) -> None: ...


class AuditTrail(Protocol):
    """What a service needs of the log: see :meth:`Audit.action`."""

    def action(
        self,
        caller: Caller,
        action: str,
        *,
        tenant: str | None = None,
        target: str = "",
        details: Mapping[str, object] | None = None,
    ) -> AbstractAsyncContextManager[None]: ...


class Audit:
    def __init__(self, log_file: Log, *, clock: Callable[[], datetime]) -> None:
        self._log = log_file
        self._clock = clock
        self._send, self._receive = trio.open_memory_channel[_Pending](_MOST_WAITING)
        self._running = False
        self._problem = ""
        self._failed_at = clock()

    @property
    def problem(self) -> str | None:
        """Why the last line could not be written, for a minute.

        Audited actions are rare: a disk that has room again must not keep the
        gateway from being ready until the next one shows it.
        """
        recent = self._clock() - self._failed_at < _PROBLEM_LASTS
        return self._problem if self._problem and recent else None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what :meth:`record` hands over, until cancelled."""
        self._running = True
        task_status.started()
        try:
            while True:
                batch = [await self._receive.receive(), *self._waiting()]
                try:
                    await self._write(batch)
                finally:
                    for pending in batch:
                        pending.done.set()
        finally:
            self._running = False
            for pending in self._waiting():
                pending.done.set()

    async def record(
        self,
        caller: Caller,
        action: str,
        *,
        tenant: str | None = None,
        target: str = "",
        result: Result = Result.OK,
        details: Mapping[str, object] | None = None,
    ) -> int:
        """Write one line and return its number once it is on disk.

        Raises :exc:`AuditUnavailable`; then there is no such line. Cancelled,
        the line may be there or not.
        """
        draft = AuditEntry(
            ts=self._clock(),
            seq=0,
            actor=Actor(caller.kind, clean_text(caller.credential)),
            tenant=tenant,
            action=action,
            target=clean_text(target),
            result=result,
            ip=clean_text(caller.ip),
            request_id=clean_text(caller.request_id),
            details=clean_details(details or {}),
        )
        pending = _Pending(draft)
        if not self._running:
            raise AuditUnavailable("the audit log is not being written")
        try:
            self._send.send_nowait(pending)
        except trio.WouldBlock:
            raise AuditUnavailable("the audit log is too slow; try again", retry_after=1) from None
        await pending.done.wait()
        if pending.entry is None:
            raise AuditUnavailable("the audit log cannot be written; nothing was changed")
        return pending.entry.seq

    @asynccontextmanager
    async def action(
        self,
        caller: Caller,
        action: str,
        *,
        tenant: str | None = None,
        target: str = "",
        details: Mapping[str, object] | None = None,
    ) -> AsyncIterator[None]:
        """Record ``action``, then let the block do it.

        From here to the end of the block nothing is cancelled: half of a
        revocation would be worse than a client that no longer waits for it.
        The block keeps its own time limits. Raises :exc:`AuditUnavailable`
        before the block begins.
        """
        with trio.CancelScope(shield=True):
            seq = await self.record(caller, action, tenant=tenant, target=target, details=details)
            try:
                yield
            except Exception as error:
                reason = error.code if isinstance(error, ApplianceError) else type(error).__name__
                await self._record_failure(
                    partial(self.record, caller, action, tenant=tenant, target=target),
                    {"of": seq, "reason": reason},
                )
                raise

    async def tail(
        self,
        caller: Caller,
        *,
        limit: int = 100,
        tenant: str | None = None,
        before: int | None = None,
    ) -> list[AuditEntry]:
        """The newest lines, newest first: an admin's choice, a tenant's own (``read``).

        ``before`` asks for lines with a lower number. A tenant sees neither
        numbers nor the operator's addresses, and nothing from before its
        creation: its id may have been somebody else's.
        """
        if not caller.is_admin:
            tenant = caller.require_tenant()
            caller.require(Scope.READ)
        entries = await trio.to_thread.run_sync(
            partial(self._log.tail, limit=min(limit, _MOST_IN_TAIL), tenant=tenant, before=before)
        )
        return entries if caller.is_admin else list(_own(entries))

    def reopen(self) -> None:
        """The file was moved away (SIGHUP): the next line begins a new one."""
        self._log.reopen()

    def _waiting(self) -> "Iterator[_Pending]":
        while True:
            try:
                yield self._receive.receive_nowait()
            except trio.WouldBlock:
                return

    async def _write(self, batch: "Sequence[_Pending]") -> None:
        drafts = [pending.draft for pending in batch]
        try:
            entries = await trio.to_thread.run_sync(self._log.append, drafts)
        except (OSError, ApplianceError) as error:
            self._problem, self._failed_at = str(error), self._clock()
            log.exception("the audit log cannot be written")
            return
        self._problem = ""
        for pending, entry in zip(batch, entries, strict=True):
            pending.entry = entry

    async def _record_failure(
        self, record: Callable[..., Awaitable[int]], details: Mapping[str, object]
    ) -> None:
        try:
            await record(result=Result.FAILED, details=details)
        except AuditUnavailable:
            log.exception("a failed action could not be marked as failed", extra=dict(details))


def _own(entries: Iterable[AuditEntry]) -> Iterator[AuditEntry]:
    """Of lines about a tenant's id, newest first, those about the tenant that has it now."""
    for entry in entries:
        yield entry.for_tenant()
        if entry.action == CREATED and entry.result is Result.OK:
            return


class _Pending:
    __slots__ = ("done", "draft", "entry")

    def __init__(self, draft: AuditEntry) -> None:
        self.draft = draft
        self.entry: AuditEntry | None = None
        self.done = trio.Event()
