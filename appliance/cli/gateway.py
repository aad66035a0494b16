"""The tree of tasks: starts a gateway's parts in order and ends them in reverse.

Leaving :func:`run_gateway` ends everything it started. The nurseries nest in
the order of starting, so shutting down is the same list read backwards: no
new connections, requests finish, tenants close, then the writers of audit and
log, which the others need to the last.
"""

import gc
import logging
import resource
import signal
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial

import hypercorn.trio
import trio

from appliance.cli.init import NewState, write_config
from appliance.cli.parts import Parts, Setup
from appliance.cli.systemd import ServiceNotifier
from appliance.model.callers import ActorKind, Caller
from appliance.services.last_use import LastUse
from appliance.services.tenants import TenantService
from appliance.services.tickets import TicketService
from appliance.storage.state import StateDirectory
from appliance.tenants.supervision import Task, run_contained
from appliance.transports import hypercorn_door
from appliance.transports.http_server import hypercorn_config

log = logging.getLogger(__name__)

_GC_THRESHOLD = 50_000  # allocations between two collections of the youngest generation

# Who acts when the operator started us with this very process.
OPERATOR = Caller(ActorKind.SYSTEM, "operator", None)


@dataclass(frozen=True, slots=True)
class Started:
    """A gateway that answers."""

    url: str
    tenants: TenantService
    tickets: TicketService
    new_state: NewState | None


WhenStarted = Callable[[Started], Awaitable[None]]


async def run_gateway(setup: Setup, *, when_started: WhenStarted) -> None:
    """Serve until SIGTERM or SIGINT. Raises ``ApplianceError`` for what keeps it from starting."""
    _raise_descriptor_limit()
    with ExitStack() as stack:
        state = stack.enter_context(StateDirectory.open(setup.state_dir))
        stack.enter_context(state.lock())
        new_state = None
        if setup.config is None:
            new_state = write_config(state, environ=setup.environ)
        parts = Parts(setup, state)
        stack.callback(parts.close)

        async def announce(url: str) -> None:
            await when_started(Started(url, parts.tenants, parts.tickets, new_state))

        stop = trio.Event()
        async with trio.open_nursery() as signals:
            await signals.start(_watch_signals, parts, stop)
            try:
                await _serve(parts, ServiceNotifier(setup.environ), stop, announce)
            finally:
                # However it ended: all that ran in sandboxes has ended with it.
                await parts.sandbox.aclose()
            signals.cancel_scope.cancel()


async def _serve(
    parts: Parts,
    systemd: ServiceNotifier,
    stop: trio.Event,
    announce: Callable[[str], Awaitable[None]],
) -> None:
    last_use = LastUse(parts.registry)
    async with trio.open_nursery() as background:
        await background.start(parts.log.flush_forever)
        background.start_soon(parts.lag.run)
        await background.start(parts.audit.run)
        await background.start(parts.live.watch)
        await background.start(last_use.run)
        await background.start(parts.providers.run)
        await background.start(parts.supervisor.run)
        await parts.sandbox.prepare()
        background.start_soon(_keep_up, "sandboxes", parts.sandbox.run)
        background.start_soon(_keep_up, "resources", parts.websocket.resources.run)
        background.start_soon(_keep_up, "websocket chores", parts.websocket.door.run)
        background.start_soon(systemd.watchdog)
        async with trio.open_nursery() as http:
            url = await _listen(parts, http, stop)
            _settle_memory()
            parts.health.serving()
            systemd.ready()
            log.info("ready", extra={"url": url, "tenants": len(parts.registry)})
            await announce(url)
            await stop.wait()
            # One for all that runs: requests first, what nobody waits for beside them.
            deadline = trio.current_time() + parts.live.current.server.drain_timeout
            parts.health.draining()
            systemd.stopping()
            log.info("draining")
            parts.websocket.door.shut_down()
            parts.app.shut_down()
            parts.terminals.shut_down()
        # Every request has ended or was cancelled: nothing new can arrive.
        await parts.supervisor.drain(grace=max(deadline - trio.current_time(), 0))
        await last_use.flush_all()
        log.info("stopped")
        background.cancel_scope.cancel()


async def _keep_up(name: str, chore: Task) -> None:
    """Run ``chore`` for ever: what goes wrong in it is logged, and ends nothing else."""
    while True:
        await run_contained(name, chore)
        await trio.sleep(1)


async def _listen(parts: Parts, nursery: trio.Nursery, stop: trio.Event) -> str:
    """Open the door; return the address it has."""
    if not hypercorn_door.install():
        log.warning("this Hypercorn is not the one the door was written for; using its own")
    binds: list[str] = await nursery.start(
        partial(
            hypercorn.trio.serve,
            parts.app,  # type: ignore[arg-type]  # an ASGI app by shape
            hypercorn_config(parts.live.current.server, bind=parts.bind),
            shutdown_trigger=stop.wait,
            mode="asgi",
        )
    )
    return binds[0]


def _raise_descriptor_limit() -> None:
    """Every connection is a descriptor, and the usual soft limit of 1,024 is for ``select``."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # then it stays as it is, and the door knows
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _settle_memory() -> None:
    """What is there now lives as long as the process; the collector need not look at it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)


async def _watch_signals(
    parts: Parts,
    stop: trio.Event,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    watched = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    with trio.open_signal_receiver(*watched) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGHUP:
                await run_contained("reload", parts.reload)
            else:
                stop.set()
