"""The shapes of ``terminal.*``."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from trio.testing import wait_all_tasks_blocked

from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import Forbidden, InvalidRequest, NotFound
from appliance.services.agents import AgentService
from appliance.transports.rpc import terminal_recordings, terminal_support, terminals
from tests.fakes.sandboxes import Script
from tests.services.tenancy import Tenancy
from tests.services.terminal_bench import TerminalBench, Viewer, open_bench
from tests.transports.rpc.method_calls import Methods

AT_LARGE = Caller(ActorKind.ADMIN, "helpdesk", None)
METHODS = (*terminals.METHODS, *terminal_recordings.METHODS, *terminal_support.METHODS)


@pytest.fixture
async def bench(tenancy: Tenancy) -> AsyncIterator[TerminalBench]:
    async with open_bench(tenancy) as opened:
        yield opened


class Calls:
    def __init__(self, bench: TerminalBench, tenancy: Tenancy) -> None:
        self._bench = bench
        agents = AgentService(tenancy.tenants, gateway=lambda: tenancy.gateway, audit=bench.audit)
        services = SimpleNamespace(terminals=bench.terminals, agents=agents)
        self._methods = Methods(METHODS, services)

    async def __call__(self, client: Viewer, name: str, **params: Any) -> Any:
        tenant: Any = None if client.caller.tenant is None else self._bench.tenant
        return await self._methods.call(tenant, client, f"terminal.{name}", params)


@pytest.fixture
def call(bench: TerminalBench, tenancy: Tenancy) -> Calls:
    return Calls(bench, tenancy)


async def test_what_the_original_asked_for_is_enough(bench: TerminalBench, call: Calls) -> None:
    client = bench.connect()
    asked = {"cols": 5, "rows": 999, "shell": "/bin/sh", "env": {"A": "b"}}
    opened = await call(client, "spawn", **asked)

    assert opened == {
        "terminalId": opened["terminalId"],
        "pid": 2,
        "cols": 10,
        "rows": 200,
        "title": "sh",
        "createdAt": opened["createdAt"],
        "idleTimeoutMs": 1_800_000,
        "maxLifetimeMs": 43_200_000,
        "recording": False,
    }
    name = opened["terminalId"]
    assert await call(client, "write", terminalId=name, data="a😀") == {"written": 3}
    assert await call(client, "resize", terminalId=name, cols=80, rows=1) == {
        "cols": 80,
        "rows": 5,
    }
    assert await call(client, "close", terminalId=name) == {"closed": True}


async def test_a_terminal_is_listed_with_what_concerns_it(
    bench: TerminalBench, call: Calls
) -> None:
    bench.limited(terminals=4)
    client = bench.connect()
    opened = await call(client, "spawn", title="work")

    listed = await call(client, "list")
    assert listed["quota"] == 4
    (line,) = listed["sessions"]
    assert line == {
        "terminalId": opened["terminalId"],
        "tenantId": "acme",
        "agentId": "main",
        "pid": 2,
        "cols": 80,
        "rows": 24,
        "title": "work",
        "createdAt": opened["createdAt"],
        "lastActivityAt": line["lastActivityAt"],
        "attached": 1,
        "recording": False,
        "support": None,
        "exited": None,
    }


async def test_attaching_acknowledging_detaching(bench: TerminalBench, call: Calls) -> None:
    client = bench.connect()
    name = (await call(client, "spawn"))["terminalId"]
    await call(client, "write", terminalId=name, data="hello")
    await wait_all_tasks_blocked(0.01)

    other = bench.connect("other")
    assert await call(other, "attach", terminalId=name, offset=2, mode="read") == {
        "terminalId": name,
        "cols": 80,
        "rows": 24,
        "title": "bash",
        "offset": 5,
        "data": "llo",
        "truncated": False,
        "mode": "read",
        "exited": None,
    }
    assert await call(other, "ack", terminalId=name, offset=5) == {"offset": 5}
    assert await call(other, "detach", terminalId=name) == {"detached": True}
    assert await call(other, "detach", terminalId=name) == {"detached": False}


async def test_who_comes_back_late_learns_how_it_ended(bench: TerminalBench, call: Calls) -> None:
    client = bench.connect()
    bench.sandboxes.will(Script(output=b"bye", exit_code=9, signal=9))
    name = (await call(client, "spawn"))["terminalId"]
    await bench.tenant.state.terminals.all[0].ended.wait()

    found = await call(client, "attach", terminalId=name)
    assert found["data"] == "bye"
    assert found["exited"] == {"exitCode": 9, "signal": 9, "reason": "exit"}
    with pytest.raises(NotFound):
        await call(client, "write", terminalId=name, data="x")


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("spawn", {"cols": 80.5}),
        ("spawn", {"rows": "24"}),
        ("spawn", {"cols": -1}),
        ("spawn", {"shell": ""}),
        ("spawn", {"env": {"A": 1}}),
        ("spawn", {"agentId": ""}),
        ("spawn", {"nonsense": 1}),
        ("resize", {"terminalId": "x", "cols": 80}),
        ("resize", {"terminalId": "x", "cols": 1e9, "rows": 24}),
        ("write", {"terminalId": "x"}),
        ("write", {"data": "x"}),
        ("write", {"terminalId": "x", "data": "y" * 100_001}),
        ("attach", {"terminalId": "x", "offset": -1}),
        ("attach", {"terminalId": "x", "mode": "admin"}),
        ("ack", {"terminalId": "x"}),
        ("support.resolve", {"requestId": "x", "decision": "maybe"}),
        ("support.request", {"reason": ""}),
        ("support.request", {"reason": "x", "minutes": 0}),
    ],
)
async def test_what_makes_no_sense_is_refused(
    bench: TerminalBench, call: Calls, name: str, params: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest, match=rf"invalid terminal\.{name} params"):
        await call(bench.connect(), name, **params)


async def test_an_agent_that_is_not_there_has_no_workspace(
    bench: TerminalBench, call: Calls
) -> None:
    with pytest.raises(NotFound, match="agent"):
        await call(bench.connect(), "spawn", agentId="ghost")


async def test_an_operator_at_large_names_the_tenant(bench: TerminalBench, call: Calls) -> None:
    client = bench.connect()
    name = (await call(client, "spawn"))["terminalId"]
    large = Viewer(id="large", caller=AT_LARGE)
    with pytest.raises(Forbidden):
        await call(large, "support.request", reason="x")

    asked = await call(large, "support.request", tenantId="acme", reason="x", minutes=3)
    assert asked == {
        "requestId": asked["requestId"],
        "state": "requested",
        "mode": "read",
        "admin": "helpdesk",
        "reason": "x",
        "minutes": 3,
        "expiresAtMs": asked["expiresAtMs"],
    }
    assert (await call(large, "support.list", tenantId="acme"))["requests"] == [asked]
    assert (await call(client, "support.list"))["requests"] == [asked]
    granted = await call(client, "support.resolve", requestId=asked["requestId"], decision="allow")
    assert granted["state"] == "granted"
    assert [line["terminalId"] for line in (await call(large, "list"))["sessions"]] == [name]
    ended = await call(large, "support.end", tenantId="acme", requestId=asked["requestId"])
    assert ended["state"] == "ended"
    with pytest.raises(Forbidden, match="another tenant"):
        await call(client, "support.list", tenantId="other")


async def test_recordings_are_listed_read_and_removed(bench: TerminalBench, call: Calls) -> None:
    bench.tenant.settle(record=True)
    client = bench.connect()
    bench.sandboxes.will(Script(output=b"bye"))
    assert (await call(client, "spawn", title="work"))["recording"] is True
    await bench.tenant.state.terminals.all[0].ended.wait()

    (line,) = (await call(client, "recordings.list"))["recordings"]
    assert (line["title"], line["agentId"], line["ended"]) == ("work", "main", "exit")
    name = line["recordingId"]
    got = await call(client, "recordings.get", recordingId=name)
    assert (got["size"], got["nextOffset"]) == (line["size"], None)
    assert len(got["data"].encode()) == line["size"]
    with pytest.raises(Forbidden, match="consent"):
        await call(bench.support(), "recordings.get", recordingId=name)
    assert await call(client, "recordings.delete", recordingId=name) == {"deleted": True}
    with pytest.raises(NotFound):
        await call(client, "recordings.get", recordingId=name)
