"""One tenant that is awake: what it holds open, its services and its jobs."""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

from appliance.log import log_context
from appliance.model.callers import Caller
from appliance.model.tenants import TenantRecord
from appliance.tenants.jobs import Jobs, Reason, Started
from appliance.tenants.supervision import RestartPolicy, keep_running

if TYPE_CHECKING:
    from appliance.config.schema import GatewayConfig
    from appliance.providers.base import Provider
    from appliance.services.clients import ConnectedClients
    from appliance.services.events import TenantEvents
    from appliance.services.meter import Meter
    from appliance.services.runs import RunBook
    from appliance.services.tenant_state import TenantState
    from appliance.services.turns.queue import TurnQueue
    from appliance.storage.paths import TenantRoot
    from appliance.storage.responses import ResponseStore
    from appliance.storage.sessions import SessionStore

T = TypeVar("T")


class Service(Protocol):
    """Something that runs as long as its tenant is awake: a channel, the cron loop."""

    @property
    def keeps_awake(self) -> bool:
        """Whether the tenant must not sleep now, because this waits for somebody."""

    async def run(self) -> None: ...


class Resources(Protocol):
    """What is open while a tenant is awake. Whoever opened it closes it."""

    @property
    def root(self) -> "TenantRoot": ...
    @property
    def record(self) -> TenantRecord: ...
    @property
    def config(self) -> "GatewayConfig": ...
    @property
    def meter(self) -> "Meter": ...
    @property
    def turns(self) -> "TurnQueue": ...
    @property
    def events(self) -> "TenantEvents": ...
    @property
    def clients(self) -> "ConnectedClients": ...
    @property
    def runs(self) -> "RunBook": ...
    @property
    def state(self) -> "TenantState": ...
    @property
    def services(self) -> Mapping[str, Service]: ...
    def provider_key(self, provider: str) -> str | None: ...
    def own_provider(self, provider: str) -> "Provider | None": ...
    async def sessions(self) -> "SessionStore": ...
    async def responses(self) -> "ResponseStore": ...
    def refresh(self) -> None:
        """Read the record and the config again."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What every tenant runs under."""

    is_live: Callable[[Caller], bool]
    policy: RestartPolicy
    random: Random


class TenantRuntime:
    """Everything that happens on behalf of one tenant happens in here.

    Only a service that cannot be kept running ends the tenant; nothing in
    here can end another tenant.
    """

    def __init__(self, tenant: str, resources: Resources, conditions: Conditions) -> None:
        self.id = tenant
        self.resources = resources
        self.jobs = Jobs(tenant, is_live=conditions.is_live)
        self._conditions = conditions
        # When somebody was last given this runtime and has not used it yet.
        self.in_hand_since = -math.inf

    @property
    def last_active(self) -> float:
        return max(self.jobs.last_active, self.in_hand_since)

    @property
    def root(self) -> "TenantRoot":
        return self.resources.root

    @property
    def record(self) -> TenantRecord:
        return self.resources.record

    @property
    def config(self) -> "GatewayConfig":
        return self.resources.config

    @property
    def meter(self) -> "Meter":
        return self.resources.meter

    @property
    def turns(self) -> "TurnQueue":
        return self.resources.turns

    @property
    def events(self) -> "TenantEvents":
        """What happens here, for whoever listens."""
        return self.resources.events

    @property
    def clients(self) -> "ConnectedClients":
        return self.resources.clients

    @property
    def runs(self) -> "RunBook":
        """The runs of agents that are under way or ended lately."""
        return self.resources.runs

    @property
    def state(self) -> "TenantState":
        """What is known only while the tenant is awake."""
        return self.resources.state

    def provider_key(self, provider: str) -> str | None:
        """The tenant's own key for ``provider``, None to use the gateway's."""
        return self.resources.provider_key(provider)

    def own_provider(self, provider: str) -> "Provider | None":
        """A provider at an address that this tenant gave."""
        return self.resources.own_provider(provider)

    async def sessions(self) -> "SessionStore":
        """The session store, opened on first use."""
        return await self.resources.sessions()

    async def responses(self) -> "ResponseStore":
        """The store of responses and conversations, opened on first use."""
        return await self.resources.responses()

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be interrupted if the tenant went to sleep now."""
        services = self.resources.services.values()
        return not len(self.jobs) and not any(service.keeps_awake for service in services)

    async def perform(
        self,
        work: Callable[[], Awaitable[T]],
        *,
        caller: Caller,
        left: Callable[[], Awaitable[object]] | None = None,
    ) -> T:
        """Run ``work`` as a job of this tenant; see :meth:`Jobs.perform`."""
        self.in_hand_since = -math.inf
        return await self.jobs.perform(work, caller=caller, left=left)

    def start(self, work: Callable[[], Awaitable[None]], *, caller: Caller) -> Started:
        """Run ``work`` without waiting for it; see :meth:`Jobs.start`."""
        self.in_hand_since = -math.inf
        return self.jobs.start(work, caller=caller)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until :meth:`close`; jobs end before the services they use.

        Raises a group with :exc:`GaveUp` if a service cannot be kept running.
        """
        async with trio.open_nursery() as services:
            for name, service in self.resources.services.items():
                services.start_soon(self._serve, f"{self.id}/{name}", service)
            await self.jobs.run(task_status=task_status)
            services.cancel_scope.cancel()

    def close(self, refusal: Reason) -> None:
        """Take no more work and come to an end when what runs has finished."""
        self.jobs.close(refusal)

    def touch(self) -> None:
        """Somebody is about to use this tenant."""
        self.in_hand_since = trio.current_time()

    async def _serve(self, name: str, service: Service) -> None:
        conditions = self._conditions
        with log_context(tenant=self.id):
            await keep_running(name, service.run, conditions.policy, conditions.random)
