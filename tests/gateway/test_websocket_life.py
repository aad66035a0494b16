"""How connections end, on a whole gateway: revocation, expiry, restarts, limits, slow readers."""

import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

from appliance.services.events import TenantEvents
from tests.gateway.conftest import ADMIN_KEY, Gateway, Tenant
from tests.gateway.raw_websocket import UPGRADE, RawWebSocket, raw
from tests.gateway.vitals import is_failure, resident, wait_quiet
from tests.gateway.websocket import Refused, connected, dialled

# Seconds, of a busy machine. What is not ended at once goes on for a minute.
AT_ONCE = 20


@pytest.fixture(autouse=True)
async def unharmed(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Afterwards nothing is left running, and the log has no failure."""
    yield
    with trio.fail_after(60):
        await wait_quiet()
    assert [record.getMessage() for record in caplog.records if is_failure(record)] == []


async def http(gateway: Gateway, verb: str, path: str, **body: Any) -> Any:
    answer = await gateway.http.request(
        verb, path, json=body or None, headers=gateway.headers(ADMIN_KEY)
    )
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


async def revoke(gateway: Gateway) -> None:
    listed = await http(gateway, "GET", "/v1/tenants/acme/tokens")
    (token,) = listed["tokens"] if "tokens" in listed else listed["data"]
    await http(gateway, "DELETE", f"/v1/tenants/acme/tokens/{token['id']}")


async def rotate(gateway: Gateway) -> None:
    await http(gateway, "POST", "/v1/tenants/acme/rotate")


async def disable(gateway: Gateway) -> None:
    await http(gateway, "PATCH", "/v1/tenants/acme", disabled=True)


async def delete(gateway: Gateway) -> None:
    await http(gateway, "DELETE", "/v1/tenants/acme?delete_data=true")


@pytest.mark.parametrize("end", [revoke, rotate, disable, delete])
async def test_what_ends_a_token_ends_its_connections_at_once(
    gateway: Gateway, acme: Tenant, end: Any
) -> None:
    other = await gateway.create("other")
    async with (
        connected(gateway.port, acme.token) as client,
        connected(gateway.port, other.token) as bystander,
    ):
        pending = await client.ask("agent.wait", runId="no-such-run", timeoutMs=60_000)
        with trio.fail_after(AT_ONCE):
            await end(gateway)
            code, reason = await client.closed()
        assert (code, bool(reason)) == (1008, True)
        assert client.answered("r1") == 0  # the greeting was answered, and only once
        assert client.answered(pending) <= 1
        assert (await bystander.call("health"))["ok"] is True
    if end is not disable:
        async with dialled(gateway.port) as late:
            with pytest.raises(Refused, match="token mismatch"):
                await late.connect(acme.token)


@pytest.mark.parametrize("generation", [3, 4])
async def test_rotating_over_the_socket_brings_the_new_token_first(
    gateway: Gateway, acme: Tenant, generation: int
) -> None:
    async with connected(gateway.port, acme.token, maxProtocol=generation) as client:
        with trio.fail_after(AT_ONCE):
            rotated = await client.call("tenants.rotate", tenantId="acme")
            assert (await client.closed())[0] == 1008
    async with connected(gateway.port, rotated["token"]) as client:
        assert (await client.call("health"))["ok"] is True


async def test_a_tenant_may_end_itself_and_is_told(gateway: Gateway, acme: Tenant) -> None:
    async with connected(gateway.port, acme.token) as client:
        with trio.fail_after(AT_ONCE):
            ended = await client.call("tenants.delete", tenantId="acme", confirm=True)
            assert ended["deleted"] is True
            assert (await client.closed())[0] == 1008


async def test_a_token_may_revoke_itself(gateway: Gateway, acme: Tenant) -> None:
    minted = await http(gateway, "POST", "/v1/tenants/acme/tokens", label="x", scopes=["manage"])
    async with connected(gateway.port, acme.token) as bystander:
        async with connected(gateway.port, minted["token"]) as client:
            with trio.fail_after(AT_ONCE):
                revoked = await client.call("tokens.revoke", tenantId="acme", tokenId=minted["id"])
                assert revoked["revoked"] is True
                assert (await client.closed())[0] == 1008
        assert (await bystander.call("health"))["ok"] is True


async def test_an_expired_token_closes_soon(gateway: Gateway, acme: Tenant) -> None:
    minted = await http(
        gateway, "POST", "/v1/tenants/acme/tokens", label="x", scopes=["read"], expires_in="3s"
    )
    async with connected(gateway.port, minted["token"]) as client:
        assert (await client.call("health"))["ok"] is True
        with trio.fail_after(AT_ONCE):
            assert await client.closed() == (1008, "token revoked")


@pytest.mark.parametrize("drain_timeout", [60])
@pytest.mark.parametrize("silent", [0, 3], ids=["alone", "beside clients that say nothing"])
async def test_a_restart_is_told_before_the_goodbye(
    gateway: Gateway, acme: Tenant, silent: int
) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(silent):
            stream = await trio.open_tcp_stream("127.0.0.1", gateway.port)
            stack.push_async_callback(trio.aclose_forcefully, stream)
            await stream.send_all(UPGRADE)
            await stream.receive_some(1)
        tenant = await stack.enter_async_context(connected(gateway.port, acme.token))
        admin = await stack.enter_async_context(connected(gateway.port, ADMIN_KEY))
        pending = await tenant.ask("agent.wait", runId="no-such-run", timeoutMs=60_000)
        await trio.sleep(0.1)
        with trio.fail_after(AT_ONCE):
            signal.raise_signal(signal.SIGTERM)
            for client in (tenant, admin):
                await client.event("shutdown", reason="service restart")
                assert await client.closed() == (1012, "service restart")
            assert tenant.answered(pending) == 0
            await wait_quiet()  # nobody holds the restart up


@pytest.mark.parametrize("websocket_limits", ["{max_connections_per_tenant: 2}"])
async def test_a_tenant_has_only_so_many_connections(gateway: Gateway, acme: Tenant) -> None:
    other = await gateway.create("other")
    async with connected(gateway.port, acme.token), connected(gateway.port, acme.token) as last:
        async with dialled(gateway.port) as third:
            with pytest.raises(Refused, match="connections") as caught:
                await third.connect(acme.token)
            assert caught.value.error["retryable"] is True
            assert (await third.closed())[0] == 1013
        async with connected(gateway.port, other.token):
            pass
        await last.socket.aclose()
        with trio.fail_after(60):
            while True:
                async with dialled(gateway.port) as again:
                    try:
                        await again.connect(acme.token)
                    except Refused:
                        continue
                    break


@pytest.mark.parametrize("websocket_limits", ["{login_failures_per_minute: 3}"])
async def test_wrong_tokens_slow_down_nobody_who_has_a_right_one(
    gateway: Gateway, acme: Tenant
) -> None:
    details = []
    for number in range(5):
        async with dialled(gateway.port) as client:
            with pytest.raises(Refused) as caught:
                await client.connect(f"tenant:acme:wrong-{number}")
            details.append(caught.value.error["details"]["code"])
    assert details == ["AUTH_TOKEN_MISMATCH"] * 3 + ["AUTH_RATE_LIMITED"] * 2
    assert caught.value.error["retryAfterMs"] > 0
    async with connected(gateway.port, acme.token) as client:
        assert (await client.call("health"))["ok"] is True


# -- slow readers ------------------------------------------------------------


def events_of(gateway: Gateway, tenant: str) -> TenantEvents:
    supervisor: Any = gateway.tenants._running
    (awake,) = [each for each in supervisor.awake_tenants if each.id == tenant]
    found: TenantEvents = awake.events
    return found


@pytest.mark.parametrize("websocket_limits", ["{max_buffered_bytes: 2097152}"])
async def test_who_never_reads_is_told_and_dropped_and_costs_little(
    gateway: Gateway, acme: Tenant
) -> None:
    heard: list[dict[str, Any]] = []

    async def listen(client: RawWebSocket) -> None:
        while not heard or heard[-1]["payload"].get("n") != "last":
            heard.append(json.loads((await client.frame())[1]))

    async with raw(gateway.port) as slow, raw(gateway.port) as quick:
        await slow.connect(acme.token)
        await quick.connect(acme.token)
        events = events_of(gateway, "acme")
        before = resident()
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen, quick)
                for number in range(10_000):
                    events.publish("agent", {"n": number, "text": "x" * 1_000}, droppable=True)
                    if number % 20 == 0:
                        events.publish("chat", {"n": number, "text": "y" * 8_000})
                        await trio.sleep(0.002)
                events.publish("chat", {"n": "last"})
            assert resident() - before < 40 * 1024 * 1024  # 14 of it what the quick one keeps
            assert await slow.closed() == 1008
        assert "events.lag" in slow.events
        numbers = [each["seq"] for each in heard]
        assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("websocket_limits", ["{max_buffered_bytes: 2097152}"])
async def test_deltas_that_a_slow_reader_misses_show_as_a_gap(
    gateway: Gateway, acme: Tenant
) -> None:
    async with connected(gateway.port, acme.token) as client:
        events = events_of(gateway, "acme")
        for number in range(1_000):  # more than the kernel takes and half of what may wait
            events.publish("agent", {"n": number, "text": "x" * 8_000}, droppable=True)
        await trio.sleep(0.2)
        with trio.fail_after(60):
            await client.event("agent", n=0)
            while (await client.call("health"))["ok"] and events.last < 1_002:
                events.publish("chat", {"n": "final"})
            final = await client.event("chat", n="final")
        lag = await client.event("events.lag")
        assert lag["payload"]["lost"] > 0
        assert lag["seq"] < final["seq"]
        arrived = [each["seq"] for each in client.events if each["event"] == "agent"]
        assert len(arrived) + 1 + lag["payload"]["lost"] == 1_000


async def test_a_client_that_comes_back_gets_what_it_missed(gateway: Gateway, acme: Tenant) -> None:
    async with connected(gateway.port, acme.token) as client:
        conn_id = client.hello["server"]["connId"]
        events = events_of(gateway, "acme")
        events.publish("chat", {"n": 1})
        seq = (await client.event("chat", n=1))["seq"]
    with trio.fail_after(60):
        await wait_quiet()
        for number in range(2, 5):
            events.publish("chat", {"n": number})
        resume = {"connId": conn_id, "seq": seq}
        async with connected(gateway.port, acme.token, resume=resume) as back:
            heard = [(await back.event("chat"))["payload"]["n"] for _ in range(3)]
    assert heard == [2, 3, 4]


async def test_a_large_message_holds_nobody_else_up(gateway: Gateway, acme: Tenant) -> None:
    rows = [[number] * 7 for number in range(11_000)]
    large = json.dumps({"type": "req", "id": "1", "method": "health", "params": {"rows": rows}})
    async with (
        connected(gateway.port, acme.token) as client,
        connected(gateway.port, acme.token) as other,
    ):
        worst = []
        for _ in range(3):  # somebody else's work may hold it up once, its own each time
            longest = 0.0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send, large)
                for _ in range(50):
                    began = time.monotonic()
                    await other.call("health")
                    longest = max(longest, time.monotonic() - began)
            with pytest.raises(Refused, match="unexpected property"):
                await client.answer("1")
            worst.append(longest)
    assert min(worst) < 0.5
