"""How a gateway leaves."""

import signal

import pytest
import trio

from appliance.tenants.directory import Supervisor
from tests.gateway.conftest import Gateway, Tenant, said
from tests.gateway.responding import numbers, read_events


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


@pytest.mark.parametrize("drain_timeout", [0.1])
async def test_a_response_that_is_broken_off_says_so_in_its_own_events(
    gateway: Gateway, acme: Tenant
) -> None:
    text = ""
    async with gateway.http.stream(
        "POST",
        "/v1/responses",
        json={"model": "stub/fault-hang", "input": "hi", "stream": True},
        headers=gateway.headers(acme.token),
    ) as response:
        with trio.fail_after(60):
            async for more in response.aiter_text():
                if "output_text.delta" in more and "output_text.delta" not in text:
                    signal.raise_signal(signal.SIGTERM)
                text += more
    events = read_events(text)

    assert numbers(events) == list(range(len(events)))
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    assert events[-1]["response"]["error"]["code"] == "shutting_down"
