"""How a gateway leaves."""

import signal

import pytest
import trio

from appliance.tenants.directory import Supervisor
from tests.gateway.conftest import Gateway, Tenant, said


@pytest.mark.parametrize("drain_timeout", [1])
async def test_what_runs_is_given_the_time_once_whoever_waits_for_it(
    gateway: Gateway, acme: Tenant, monkeypatch: pytest.MonkeyPatch, drain_timeout: float
) -> None:
    given: list[float] = []
    drains = trio.Event()
    drain = Supervisor.drain

    async def noted(supervisor: Supervisor, *, grace: float) -> None:
        given.append(grace)
        drains.set()
        await drain(supervisor, grace=grace)

    monkeypatch.setattr(Supervisor, "drain", noted)
    async with gateway.http.stream(
        "POST",
        "/v1/chat/completions",
        json=said("hi", model="stub/fault-hang", stream=True),
        headers=gateway.headers(acme.token),
    ) as response:
        assert response.status_code == 200
        signal.raise_signal(signal.SIGTERM)
        with trio.fail_after(60):
            await drains.wait()

    assert given[0] < drain_timeout / 2, "the stream had all of it"
