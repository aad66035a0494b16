"""A tenant without anything behind it, and a supervisor over such tenants."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
import trio

from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import ApplianceError
from appliance.model.tokens import Scope
from appliance.tenants.directory import Supervisor
from appliance.tenants.runtime import Conditions, Service
from appliance.tenants.supervision import RestartPolicy

START = datetime(2026, 11, 21, 12, tzinfo=UTC)


def caller(tenant: str = "acme", credential: str = "tok_1") -> Caller:
    return Caller(ActorKind.TENANT, credential, tenant, frozenset({Scope.FULL}))


@dataclass
class FakeResources:
    """What a tenant holds open, as far as supervision looks at it."""

    tenant: str
    services: Mapping[str, Service] = field(default_factory=dict)
    refreshed: int = 0
    refusal: ApplianceError | None = None

    def refresh(self) -> None:
        self.refreshed += 1
        if self.refusal is not None:
            raise self.refusal


@dataclass
class FakeDisk:
    """Opens tenants, and can be told to be slow, to hang or to fail."""

    services: dict[str, dict[str, Service]] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)
    delays: dict[str, float] = field(default_factory=dict)
    closing_delays: dict[str, float] = field(default_factory=dict)
    closing_failures: dict[str, Exception] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)
    open: dict[str, FakeResources] = field(default_factory=dict)

    @asynccontextmanager
    async def __call__(self, tenant: str) -> AsyncIterator[Any]:
        self.opened.append(tenant)
        assert tenant not in self.open, "opened twice"
        await trio.sleep(self.delays.get(tenant, 0))
        if tenant in self.failures:
            raise self.failures[tenant]
        resources = FakeResources(tenant, self.services.get(tenant, {}))
        self.open[tenant] = resources
        try:
            yield resources
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(self.closing_delays.get(tenant, 0))
            del self.open[tenant]
            if tenant in self.closing_failures:
                raise self.closing_failures[tenant]


@dataclass
class Limits:
    hibernate_after: float = 300.0
    awake_tenants: int = 100


@dataclass
class House:
    """A supervisor with everything around it."""

    disk: FakeDisk = field(default_factory=FakeDisk)
    limits: Limits = field(default_factory=Limits)
    dead: set[str] = field(default_factory=set)  # credentials that grant nothing
    asleep: list[str] = field(default_factory=list)
    policy: RestartPolicy = field(default_factory=lambda: RestartPolicy(jitter=0))
    supervisor: Supervisor = field(init=False)

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(
            self.disk,
            limits=lambda: self.limits,
            conditions=Conditions(
                is_live=lambda caller: caller.credential not in self.dead,
                policy=self.policy,
                random=Random(1),  # noqa: S311 - jitter, not a secret
            ),
            clock=clock_from(START),
            fell_asleep=self._fell_asleep,
        )

    async def _fell_asleep(self, tenant: str) -> None:
        self.asleep.append(tenant)


def clock_from(start: datetime) -> Callable[[], datetime]:
    """A wall clock that goes with trio's."""
    return lambda: start + timedelta(seconds=trio.current_time())


@pytest.fixture
async def house(nursery: trio.Nursery) -> House:
    house = House()
    await nursery.start(house.supervisor.run)
    return house
