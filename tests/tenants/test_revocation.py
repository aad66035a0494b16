"""Revocation from end to end: the record, the index and what runs, within a second."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from appliance.model.errors import ApplianceError, TenantDisabled, TokenRejected
from appliance.services.last_use import LastUse
from appliance.services.tenants import CreatedTenant
from appliance.tenants.directory import Supervisor
from appliance.tenants.jobs import Revoked
from appliance.tenants.runtime import Conditions
from appliance.tenants.supervision import RestartPolicy
from tests.services.tenancy import ADMIN, Tenancy
from tests.tenants.conftest import FakeResources, Limits


class Gateway(Tenancy):
    """A tenancy with a supervisor that wakes its tenants."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.supervisor = Supervisor(
            self._open,
            limits=Limits,
            conditions=Conditions(
                is_live=self.access.is_live,
                policy=RestartPolicy(),
                random=Random(1),  # noqa: S311 - jitter, not a secret
            ),
            clock=self.clock,
            fell_asleep=LastUse(self.registry).flush,
        )
        self.tenants._running = self.supervisor

    @asynccontextmanager
    async def _open(self, tenant: str) -> AsyncIterator[Any]:
        record = self.registry.require(tenant)
        if record.disabled:
            raise TenantDisabled("the tenant is disabled")
        yield FakeResources(tenant)


@pytest.fixture
async def gateway(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Gateway]:
    gateway = Gateway(tmp_path / "state")
    await nursery.start(gateway.supervisor.run)
    yield gateway
    await gateway.supervisor.drain(grace=0)
    gateway.close()


async def disable(gateway: Gateway, _: CreatedTenant) -> None:
    await gateway.tenants.update(ADMIN, "acme", disabled=True)


async def delete(gateway: Gateway, _: CreatedTenant) -> None:
    await gateway.tenants.delete(ADMIN, "acme", delete_data=True)


async def rotate(gateway: Gateway, _: CreatedTenant) -> None:
    await gateway.tenants.rotate(ADMIN, "acme")


async def rotate_own(gateway: Gateway, created: CreatedTenant) -> None:
    await gateway.tenants.rotate(gateway.access.authenticate(created.token_text), "acme")


async def revoke(gateway: Gateway, created: CreatedTenant) -> None:
    await gateway.tenants.revoke_token(ADMIN, "acme", created.token.id)


async def disable_by_hand(gateway: Gateway, _: CreatedTenant) -> None:
    text = gateway.file("acme").read_text()
    gateway.file("acme").write_text(text.replace('"disabled": false', '"disabled": true'))
    await gateway.tenants.reload()


async def break_by_hand(gateway: Gateway, _: CreatedTenant) -> None:
    gateway.file("acme").write_text("{")
    await gateway.tenants.reload()


class Stream:
    """Work that goes on for as long as it is let."""

    def __init__(self, gateway: Gateway, created: CreatedTenant) -> None:
        self._gateway = gateway
        self._text = created.token_text
        self.began = trio.Event()
        self.ended = trio.Event()
        self.reason: type[Exception] | None = None

    async def run(self) -> None:
        caller = self._gateway.access.authenticate(self._text)
        try:
            await self._gateway.supervisor.perform(
                caller.require_tenant(), self._work, caller=caller
            )
        except ApplianceError as error:
            self.reason = type(error)
        self.ended.set()

    async def _work(self, _: object) -> None:
        self.began.set()
        await trio.sleep_forever()


@pytest.mark.parametrize(
    "end", [disable, delete, rotate, rotate_own, revoke, disable_by_hand, break_by_hand]
)
async def test_whichever_way_a_token_ends_what_it_runs_ends_within_a_second(
    gateway: Gateway,
    nursery: trio.Nursery,
    end: Callable[[Gateway, CreatedTenant], Awaitable[None]],
) -> None:
    created, bystander = await gateway.make(), await gateway.make("other")
    streams = [Stream(gateway, created), Stream(gateway, bystander)]
    for stream in streams:
        nursery.start_soon(stream.run)
        await stream.began.wait()
    # There is a last use to be written down when the tenant falls asleep.
    gateway.access.authenticate(created.token_text)

    with trio.fail_after(1):
        await end(gateway, created)
        await streams[0].ended.wait()

    assert streams[0].reason in {Revoked, TenantDisabled}
    assert not streams[1].ended.is_set()
    with pytest.raises(TokenRejected):
        gateway.access.authenticate(created.token_text)
    assert gateway.access.authenticate(bystander.token_text).tenant == "other"


async def test_when_the_grace_is_over_what_the_old_token_runs_ends(
    gateway: Gateway, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    created = await gateway.make()
    stream = Stream(gateway, created)
    nursery.start_soon(stream.run)
    await stream.began.wait()
    await gateway.tenants.rotate(ADMIN, "acme", grace=timedelta(minutes=10))
    await trio.sleep(60)
    assert not stream.ended.is_set()

    gateway.clock.go_on(minutes=10)
    with trio.fail_after(1.1):
        await stream.ended.wait()

    assert stream.reason is Revoked


async def test_a_disabled_tenant_is_not_woken_by_the_operator_either(gateway: Gateway) -> None:
    await gateway.make()
    await gateway.supervisor.runtime("acme")
    await disable(gateway, await gateway.make("x"))

    with pytest.raises(TenantDisabled):
        await gateway.supervisor.runtime("acme")

    await gateway.tenants.update(ADMIN, "acme", disabled=False)
    assert (await gateway.supervisor.runtime("acme")).id == "acme"
