from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from appliance.model.tokens import Scope
from tests.fakes.sandboxes import Script
from tests.services.conftest import tenancy
from tests.services.tenancy import Tenancy
from tests.services.terminal_bench import TerminalBench, open_bench
from tests.transports.control.bench import Bench

__all__ = ["tenancy"]
PATH = "/v1/tenants/acme/terminals"


@pytest.fixture
async def terminals(bench: Bench, tenancy: Tenancy) -> AsyncIterator[TerminalBench]:
    async with open_bench(tenancy) as opened:
        opened.tenant.settle(record=True)
        bench.services = replace(bench.services, terminals=opened.terminals)
        yield opened


async def test_terminals_are_listed_and_closed(bench: Bench, terminals: TerminalBench) -> None:
    token = bench.tenants.add("acme", Scope.TERMINAL)
    terminal, sandbox = await terminals.spawn(terminals.connect(), title="work")
    async with bench.client(token) as client:
        (shown,) = (await client.get(PATH)).json()["terminals"]
        closed = await client.delete(f"{PATH}/{terminal.id}")
        again = await client.delete(f"{PATH}/{terminal.id}")

    assert (shown["id"], shown["title"], shown["attached"]) == (terminal.id, "work", 1)
    assert (shown["support"], shown["ended"]) == (None, None)
    assert (closed.status_code, again.status_code) == (204, 404)
    assert sandbox.killed


async def test_who_sleeps_has_none(bench: Bench, terminals: TerminalBench) -> None:
    token = bench.tenants.add("other")
    async with bench.client(token) as client:
        listed = await client.get("/v1/tenants/other/terminals")
        closed = await client.delete("/v1/tenants/other/terminals/guessed")
    async with bench.admin() as admin:
        unknown = await admin.get("/v1/tenants/ghost/terminals")

    assert listed.json() == {"terminals": []}
    assert (closed.status_code, unknown.status_code) == (404, 404)


@pytest.mark.parametrize("scope", [Scope.READ, Scope.CHAT, Scope.MANAGE])
async def test_other_tokens_are_no_use(
    bench: Bench, terminals: TerminalBench, scope: Scope
) -> None:
    async with bench.client(bench.tenants.add("acme", scope)) as client:
        for path in (PATH, f"{PATH}/recordings", f"{PATH}/recordings/x"):
            assert (await client.get(path)).status_code == 403


async def test_recordings_are_downloaded_by_their_tenant(
    bench: Bench, terminals: TerminalBench
) -> None:
    token = bench.tenants.add("acme")
    terminal, _ = await terminals.spawn(terminals.connect(), Script(output=b"bye"))
    await terminal.ended.wait()
    async with bench.client(token) as client:
        (shown,) = (await client.get(f"{PATH}/recordings")).json()["recordings"]
        got = await client.get(f"{PATH}/recordings/{shown['id']}")
        async with bench.admin() as admin:
            refused = await admin.get(f"{PATH}/recordings/{shown['id']}")
            listed = await admin.get(f"{PATH}/recordings")
        gone = await client.delete(f"{PATH}/recordings/{shown['id']}")
        missing = await client.get(f"{PATH}/recordings/{shown['id']}")

    assert got.headers["content-type"] == "application/x-asciicast"
    assert got.headers["content-disposition"] == f'attachment; filename="{shown["id"]}.cast"'
    assert len(got.content) == shown["size"]
    assert shown["ended"] == "exit"
    assert refused.status_code == 403
    assert "consent" in refused.json()["detail"]
    assert listed.status_code == 200
    assert (gone.status_code, missing.status_code) == (204, 404)
