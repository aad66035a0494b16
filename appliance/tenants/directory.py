"""The tenants that are awake: woken on first use, put to sleep when idle."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial
from operator import itemgetter
from typing import Protocol, TypeVar

import trio

from appliance.log import log_context
from appliance.model.callers import Caller
from appliance.model.errors import (
    ApplianceError,
    Kind,
    ShuttingDown,
    TenantBroken,
    TenantDisabled,
    Unavailable,
)
from appliance.tenants.jobs import Reason
from appliance.tenants.memory import return_memory
from appliance.tenants.runtime import Conditions, Resources, TenantRuntime
from appliance.tenants.supervision import BackOff, Task, run_contained
from appliance.tenants.wakeups import WakeTimes

log = logging.getLogger(__name__)

T = TypeVar("T")

# How long a request waits for a tenant to open or to close. Both take
# milliseconds; what takes longer hangs, and must not hang its callers too.
_PATIENCE = 30.0  # seconds
# How long closing may take after everything was cancelled.
_CLOSING_PATIENCE = 10.0
# Whoever was handed a runtime has this long to begin to use it.
_IN_HAND = 5.0
# Cron jobs of many tenants fall due on the hour; the disk serves them in turn.
_WAKING_AT_ONCE = 8


class AwakeLimits(Protocol):
    """The part of ``server`` that matters here; read again at every use."""

    @property
    def hibernate_after(self) -> float: ...
    @property
    def awake_tenants(self) -> int: ...


class OpenTenant(Protocol):
    """Opens what a tenant needs while it is awake.

    Entering raises ``TenantUnknown``, ``TenantDisabled`` or ``TenantBroken``.
    Leaving must come to an end in a cancelled scope too.
    """

    def __call__(self, tenant: str, /) -> AbstractAsyncContextManager[Resources]: ...


class Supervisor:
    """Wakes tenants, finds them, stops them, and contains their crashes."""

    def __init__(
        self,
        open_tenant: OpenTenant,
        *,
        limits: Callable[[], AwakeLimits],
        conditions: Conditions,
        clock: Callable[[], datetime],
        fell_asleep: Callable[[str], Awaitable[None]],
    ) -> None:
        self._open = open_tenant
        self._limits = limits
        self._conditions = conditions
        self._fell_asleep = fell_asleep
        self._flats: dict[str, _Flat] = {}
        self._back_off = BackOff(conditions.policy, conditions.random)
        self._nursery: trio.Nursery | None = None
        self._draining = False
        self._drained = trio.Event()
        self._waking = trio.Semaphore(_WAKING_AT_ONCE)
        self.wake_times = WakeTimes(clock=clock)

    # -- for the doors ---------------------------------------------------

    async def runtime(self, tenant: str) -> TenantRuntime:
        """Return the awake tenant, waking it first if it sleeps.

        However many ask at once, it is opened once. Whoever gets it uses it at
        once or asks again. Raises ``TenantUnknown``, ``TenantDisabled``,
        ``TenantBroken``, ``ShuttingDown``, or ``Unavailable`` if it takes too long.
        """
        flat = self._flats.get(tenant)
        if flat is not None and (runtime := flat.awake) is not None:
            runtime.touch()
            return runtime
        with trio.move_on_after(_PATIENCE):
            return await self._wake(tenant)
        raise Unavailable("the tenant takes too long to wake up", retry_after=_PATIENCE)

    async def perform(
        self,
        tenant: str,
        work: Callable[[TenantRuntime], Awaitable[T]],
        *,
        caller: Caller,
        left: Callable[[], Awaitable[object]] | None = None,
    ) -> T:
        """Wake ``tenant`` if need be and run ``work`` in it; see :meth:`Jobs.perform`."""
        runtime = await self.runtime(tenant)
        return await runtime.perform(partial(work, runtime), caller=caller, left=left)

    @property
    def awake(self) -> list[str]:
        """The tenants that take work now."""
        return [tenant for tenant, flat in self._flats.items() if flat.awake is not None]

    @property
    def awake_tenants(self) -> list[TenantRuntime]:
        """The same with what goes on in them."""
        flats = self._flats.values()
        return [runtime for flat in flats if (runtime := flat.awake) is not None]

    # -- for the services (``Running``) ----------------------------------

    async def stop(self, tenant: str, *, reason: str) -> None:
        """Cancel everything of ``tenant`` and close it; it may be woken again afterwards."""
        self.wake_times.forget(tenant)
        self._back_off.forget(tenant)
        flat = self._flats.get(tenant)
        if flat is None:
            return
        log.info("stopping the tenant", extra={"tenant": tenant, "reason": reason})
        flat.stop(partial(TenantDisabled, f"the tenant was stopped: {reason}"))
        with trio.move_on_after(_CLOSING_PATIENCE) as patience:
            await flat.gone.wait()
        if patience.cancelled_caught:
            log.error("the tenant does not come to an end", extra={"tenant": tenant})

    async def revoke(self, tenant: str, token_id: str, *, reason: str) -> None:
        """Cancel what ``token_id`` has running."""
        flat = self._flats.get(tenant)
        if flat is None or flat.runtime is None:
            return
        log.info("revoked", extra={"tenant": tenant, "token": token_id, "reason": reason})
        with trio.move_on_after(_CLOSING_PATIENCE) as patience:
            await flat.runtime.jobs.revoke(token_id)
        if patience.cancelled_caught:
            log.error("revoked work does not come to an end", extra={"tenant": tenant})

    def refresh(self, tenant: str) -> None:
        """Let an awake tenant read its record and config again."""
        self._back_off.forget(tenant)  # what kept it from opening may be mended
        flat = self._flats.get(tenant)
        if flat is None or (runtime := flat.awake) is None:
            return
        try:
            runtime.resources.refresh()
        except ApplianceError as error:
            log.error(  # noqa: TRY400 - an expected failure, its text says it all
                "the tenant keeps its old settings",
                extra={"tenant": tenant, "reason": error.detail},
            )

    def refresh_all(self) -> None:
        """The gateway's config changed."""
        for tenant in self.awake:
            self.refresh(tenant)

    # -- life ------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the tenants until :meth:`drain` is through."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                chores: dict[str, Task] = {
                    "sweep": self._sweep_forever,
                    "recheck": self._recheck_forever,
                    "wake-ups": self._wake_when_due,
                }
                for name, chore in chores.items():
                    nursery.start_soon(self._keep_up, name, chore)
                task_status.started()
                await self._drained.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._nursery = None

    async def drain(self, *, grace: float) -> None:
        """Take nothing new, let what runs finish for ``grace`` seconds, then cancel it."""
        self._draining = True
        for flat in self._flats.values():
            flat.close(_shutting_down)
        with trio.move_on_after(grace):
            await self._wait_all_gone()
        for flat in self._flats.values():
            flat.stop(_shutting_down)
        with trio.move_on_after(_CLOSING_PATIENCE):
            await self._wait_all_gone()
        self._drained.set()

    async def _wait_all_gone(self) -> None:
        for flat in list(self._flats.values()):
            await flat.gone.wait()

    async def _wake(self, tenant: str) -> TenantRuntime:
        while True:
            if self._draining or self._nursery is None:
                raise _shutting_down()
            flat = self._flats.get(tenant)
            if flat is None:
                flat = self._start(tenant, self._nursery)
            if flat.is_closing:
                await flat.gone.wait()
                continue
            await flat.ready.wait()
            if flat.failure is not None:
                raise flat.failure()
            if (runtime := flat.awake) is not None:
                runtime.touch()
                return runtime

    def _start(self, tenant: str, nursery: trio.Nursery) -> "_Flat":
        remaining = self._back_off.remaining(tenant)
        if remaining:
            raise _failed(remaining)
        self._make_room()
        flat = self._flats[tenant] = _Flat(tenant)
        # A task of ours, not of whoever asked: if they leave, the others who
        # wait for the same tenant must not lose it.
        nursery.start_soon(self._live, flat)
        return flat

    async def _live(self, flat: "_Flat") -> None:
        tenant = flat.tenant
        began = trio.current_time()
        with log_context(tenant=tenant):
            try:
                with flat.scope:
                    async with self._open(tenant) as resources:
                        await self._run(flat, resources)
            except ApplianceError as error:
                self._note_refusal(flat, error)
            except Exception:
                log.exception("the tenant crashed", extra={"tenant": tenant})
                self._note_crash(flat, began)
            else:
                self._back_off.forget(tenant)
            finally:
                with trio.CancelScope(shield=True):
                    await self._leave(flat)

    async def _run(self, flat: "_Flat", resources: Resources) -> None:
        flat.runtime = TenantRuntime(flat.tenant, resources, self._conditions)
        try:
            await flat.runtime.run(task_status=flat)
        finally:
            # However it ended: nobody new comes in while it is being closed.
            flat.is_closing = True

    async def _leave(self, flat: "_Flat") -> None:
        del self._flats[flat.tenant]
        flat.leave()
        # Afterwards: it takes the tenant's lock, which whoever stops a tenant
        # may hold while waiting for it to be gone.
        if flat.runtime is not None:
            await run_contained("falling asleep", partial(self._fell_asleep, flat.tenant))

    def _note_refusal(self, flat: "_Flat", error: ApplianceError) -> None:
        flat.failure = lambda: error
        # What cannot be opened now is not tried again for every request.
        if error.kind is Kind.UNAVAILABLE:
            log.error("the tenant cannot be opened", extra={"reason": error.detail})
            self._back_off.note_failure(flat.tenant)

    def _note_crash(self, flat: "_Flat", began: float) -> None:
        until = self._back_off.note_failure(flat.tenant, ran=trio.current_time() - began)
        flat.failure = lambda: _failed(self._back_off.remaining(flat.tenant))
        services = flat.runtime is not None and flat.runtime.resources.services
        # Without services it can wait for the next request.
        if services and not self._draining and self._nursery is not None:
            self._nursery.start_soon(self._start_again, flat.tenant, until)

    async def _start_again(self, tenant: str, at: float) -> None:
        await trio.sleep_until(at)
        await self._wake_up(tenant)

    # -- chores ----------------------------------------------------------

    async def _keep_up(self, name: str, chore: Task) -> None:
        # A fault in a chore must not end the tenants; it is logged and the
        # chore goes on with its next round.
        while True:
            await run_contained(name, chore)
            await trio.sleep(1)

    async def _sweep_forever(self) -> None:
        while True:
            after = self._limits().hibernate_after
            await trio.sleep(min(max(after / 2, 1), 30))
            await self._sweep()

    async def _sweep(self) -> None:
        """Put to sleep whoever was idle for long enough."""
        sleepy = self._idle(self._limits().hibernate_after)
        for flat in sleepy:
            flat.close(_falling_asleep)
        if not sleepy:
            return
        with trio.move_on_after(_CLOSING_PATIENCE):
            for flat in sleepy:
                await flat.gone.wait()
        await return_memory()

    def _make_room(self) -> None:
        """Beyond the limit, whoever was idle longest goes to sleep; who is busy may stay."""
        excess = len(self._flats) + 1 - self._limits().awake_tenants
        if excess <= 0:
            return
        for flat in self._idle(0)[:excess]:
            flat.close(_falling_asleep)

    def _idle(self, seconds: float) -> "list[_Flat]":
        """Who did nothing for ``seconds``, the longest idle first."""
        now = trio.current_time()
        idle = [
            (runtime.last_active, flat)
            for flat in self._flats.values()
            if (runtime := flat.awake) is not None
            and runtime.is_idle
            and runtime.last_active <= now - seconds
            and runtime.in_hand_since <= now - _IN_HAND
        ]
        return [flat for _, flat in sorted(idle, key=itemgetter(0))]

    async def _recheck_forever(self) -> None:
        # Tokens expire by themselves, and whoever takes a grant away might
        # forget what runs with it: nothing outlives its grant by more than this.
        while True:
            await trio.sleep(1)
            self._recheck()

    def _recheck(self) -> None:
        # Not in the loop that sleeps: its variable would keep the last tenant that
        # was awake, and its answers, in memory until another one wakes.
        for flat in list(self._flats.values()):
            if flat.runtime is not None:
                flat.runtime.jobs.recheck()

    async def _wake_when_due(self) -> None:
        while self._nursery is not None:
            for tenant in await self.wake_times.wait_due():
                self._nursery.start_soon(self._wake_up, tenant)

    async def _wake_up(self, tenant: str) -> None:
        async with self._waking:
            try:
                await self.runtime(tenant)
            except ApplianceError as error:
                log.warning("not woken", extra={"tenant": tenant, "reason": error.detail})


class _Flat:
    """Where a tenant lives while it is awake; it satisfies ``trio.TaskStatus``."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.scope = trio.CancelScope()
        self.ready = trio.Event()  # awake, or failed
        self.gone = trio.Event()
        self.runtime: TenantRuntime | None = None
        self.failure: Reason | None = None
        self.is_closing = False

    @property
    def awake(self) -> TenantRuntime | None:
        """The tenant if it takes work now."""
        return self.runtime if self.ready.is_set() and not self.is_closing else None

    def started(self, value: None = None) -> None:
        self.ready.set()

    def close(self, refusal: Reason) -> None:
        """Let what runs finish, and take nothing new."""
        self.is_closing = True
        if self.runtime is None:
            self.scope.cancel()
        else:
            self.runtime.close(refusal)

    def stop(self, reason: Reason) -> None:
        """Cancel what runs, and take nothing new."""
        self.close(reason)
        if self.runtime is not None:
            self.runtime.jobs.end_all(reason)

    def leave(self) -> None:
        self.is_closing = True
        self.ready.set()
        self.gone.set()


def _failed(retry_after: float) -> ApplianceError:
    return TenantBroken(
        "the tenant failed and will be started again; the operator's log says why",
        retry_after=retry_after,
    )


def _shutting_down() -> ApplianceError:
    return ShuttingDown("the gateway is shutting down; try again in a moment", retry_after=5)


def _falling_asleep() -> ApplianceError:
    return Unavailable("the tenant was falling asleep; try again", retry_after=1)
