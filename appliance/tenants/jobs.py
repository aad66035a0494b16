"""The work that runs for one tenant right now."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, TypeVar, cast

import trio

from appliance.log import log_context
from appliance.model.callers import Caller
from appliance.model.errors import ApplianceError, Kind, Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[], Awaitable[T]]
Reason = Callable[[], ApplianceError]


class Revoked(ApplianceError):
    """The credential stopped being valid while its work was running."""

    code: ClassVar[str] = "token-revoked"
    title: ClassVar[str] = "The token was revoked"
    kind: ClassVar[Kind] = Kind.UNAUTHENTICATED

    def __init__(self) -> None:
        super().__init__("the token was revoked or expired while this was running")


class ClientLeft(Exception):
    """Whoever asked went away before the answer was complete."""


class Jobs:
    """Runs each piece of work as a task of the tenant, and hands back what came of it.

    ``is_live`` tells whether a caller's credential still grants anything.
    """

    def __init__(self, tenant: str, *, is_live: Callable[[Caller], bool]) -> None:
        self._tenant = tenant
        self._is_live = is_live
        self._jobs: dict[str, set[_Job]] = {}  # by credential
        self._count = 0
        self._nursery: trio.Nursery | None = None
        self._refusal: Reason = _not_running
        self._closed = trio.Event()
        self.last_active = trio.current_time()

    def __len__(self) -> int:
        return self._count

    @property
    def is_open(self) -> bool:
        return self._nursery is not None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take work until :meth:`close`; return when the last piece has ended."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await self._closed.wait()
        finally:
            self._nursery = None

    async def perform(
        self,
        work: Work[T],
        *,
        caller: Caller,
        left: Callable[[], Awaitable[object]] | None = None,
    ) -> T:
        """Run ``work`` in the tenant and return its result, or raise what it raised.

        If the waiter is cancelled, or ``left`` returns first (the client is
        gone), the work is cancelled and has ended before this returns; the
        latter raises :exc:`ClientLeft`. If the tenant's side ends the work,
        the reason is raised: :exc:`Revoked`, ``ShuttingDown``, ``TenantDisabled``.
        """
        nursery = self._nursery
        if nursery is None:
            raise self._refusal()
        # The token may have been revoked since the door looked: its body was
        # read slowly, or the tenant had to be woken first.
        if not self._is_live(caller):
            raise Revoked
        job = _Job(caller)
        self._add(job)
        nursery.start_soon(self._do, job, work)
        try:
            if left is None:
                await job.ended.wait()
            else:
                await job.wait_unless(left)
        except BaseException:
            job.scope.cancel()
            with trio.CancelScope(shield=True):
                await job.ended.wait()
            job.log_loss()
            raise
        return cast("T", job.outcome())

    def start(self, work: Callable[[], Awaitable[None]], *, caller: Caller) -> "Started":
        """Run ``work`` for whoever will ask about it later; nobody waits for it here.

        It ends like every other work: with its credential, its tenant, or by
        :meth:`Started.cancel`. It reports its own failures; one that it lets
        out is logged. Raises like :meth:`perform`.
        """
        nursery = self._nursery
        if nursery is None:
            raise self._refusal()
        if not self._is_live(caller):
            raise Revoked
        job = _Job(caller)
        self._add(job)
        nursery.start_soon(self._do_alone, job, work)
        return Started(job)

    async def _do_alone(self, job: "_Job", work: Callable[[], Awaitable[None]]) -> None:
        await self._do(job, work)
        job.log_loss()

    def close(self, refusal: Reason) -> None:
        """Take no more work, raising ``refusal()``; what runs may finish."""
        self._nursery = None
        self._refusal = refusal
        self._closed.set()

    def end_all(self, reason: Reason) -> None:
        """Cancel everything that runs; its waiters raise ``reason()``."""
        for job in self._all():
            job.end(reason)

    async def revoke(self, credential: str) -> None:
        """Cancel what runs with ``credential`` and wait until it has ended."""
        jobs = list(self._jobs.get(credential, ()))
        for job in jobs:
            job.end(Revoked)
        for job in jobs:
            await job.ended.wait()

    def recheck(self) -> None:
        """Cancel what runs with a credential that grants nothing any more."""
        for job in self._all():
            if not self._is_live(job.caller):
                job.end(Revoked)

    def _all(self) -> "list[_Job]":
        return [job for jobs in self._jobs.values() for job in jobs]

    async def _do(self, job: "_Job", work: Work[object]) -> None:
        try:
            # A task inherits the context of the request that started it, so
            # the tenant has to be named again in here.
            with log_context(tenant=self._tenant), job.scope:
                job.result = await work()
                job.finished = True
        except Exception as error:  # noqa: BLE001 - handed to the waiter, who raises it
            job.error = error
        except BaseExceptionGroup as group:
            # A failure in clean-up travels together with the cancellation; the
            # one is this job's, the other belongs to the nursery.
            job.error, cancelled = group.split(Exception)
            if cancelled is not None:
                raise cancelled from None
        finally:
            self._remove(job)
            if not job.scope.cancel_called:
                job.reason = self._refusal  # the nursery itself was cancelled
            job.end_wait()

    def _add(self, job: "_Job") -> None:
        self._jobs.setdefault(job.caller.credential, set()).add(job)
        self._count += 1
        self.last_active = trio.current_time()

    def _remove(self, job: "_Job") -> None:
        credential = job.caller.credential
        jobs = self._jobs[credential]
        jobs.discard(job)
        if not jobs:
            del self._jobs[credential]
        self._count -= 1
        self.last_active = trio.current_time()


class Started:
    """Work that runs without anybody waiting for it."""

    __slots__ = ("_job",)

    def __init__(self, job: "_Job") -> None:
        self._job = job

    @property
    def ended(self) -> trio.Event:
        return self._job.ended

    def cancel(self) -> None:
        self._job.scope.cancel()


def _not_running() -> ApplianceError:
    return Unavailable("the tenant is starting again; try again", retry_after=1)


class _Job:
    __slots__ = (
        "_watching", "caller", "ended", "error", "finished", "reason", "result", "scope",
    )  # fmt: skip

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.finished = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.reason: Callable[[], BaseException] = _not_running
        self._watching: trio.CancelScope | None = None

    def end(self, reason: Callable[[], BaseException]) -> None:
        """Cancel the work; the first reason counts."""
        if not self.scope.cancel_called:
            self.reason = reason
        self.scope.cancel()

    def end_wait(self) -> None:
        self.ended.set()
        if self._watching is not None:
            self._watching.cancel()

    async def wait_unless(self, left: Callable[[], Awaitable[object]]) -> None:
        """Wait for the end; cancel the work as soon as ``left`` returns.

        The waiting task itself watches the client: a task of its own would
        cost a third of what a job costs.
        """
        with trio.CancelScope() as self._watching:
            await left()
            self.end(ClientLeft)
        self._watching = None
        if not self.ended.is_set():
            with trio.CancelScope(shield=True):
                await self.ended.wait()

    def outcome(self) -> Any:
        """The result, or what the waiter has to raise instead."""
        if self.finished:
            return self.result
        error = self.error
        if error is not None and not self.scope.cancel_called:
            raise error
        self.log_loss()
        raise self.reason() from error

    def log_loss(self) -> None:
        """Log a failure that nobody is left to hear of."""
        if self.error is not None and not isinstance(self.error, ApplianceError):
            log.error("failed while it was being cancelled", exc_info=self.error)
