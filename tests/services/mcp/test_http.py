"""MCP servers over HTTP: what is dialled, what is sent, and what a bad one can do."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from appliance.services.mcp.address import Address
from appliance.services.mcp.server import ServerGone
from appliance.services.tools.base import Source, ToolFailed
from appliance.storage.credentials import CredentialStore, ProviderCredential
from tests.fakes.mcp_http_server import HttpServer, http_server
from tests.services.mcp_bench import McpBench, open_mcp

PRIVATE = {"allow_private": True}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[McpBench]:
    async with open_mcp(tmp_path) as bench:
        yield bench


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with http_server() as server:
        yield server


def use(bench: McpBench, server: HttpServer, **more: Any) -> None:
    bench.configure({"web": {"url": server.url, **more}}, egress=PRIVATE)


def problem(bench: McpBench) -> str:
    return bench.tenant.state.mcp.servers["web"].problem


@pytest.mark.parametrize("behaviour", ["good", "events"])
async def test_tools_are_used_over_http(
    bench: McpBench, server: HttpServer, behaviour: str
) -> None:
    server.behaviour = behaviour
    use(bench, server, headers={"X-Team": "a"})
    result = await bench.call("web__echo", text="hello")

    assert (result.text, result.untrusted) == ("hello", Source.MCP)
    assert (await bench.tools())["web__echo"].is_parallel
    sent = [headers for method, headers, _ in server.heard if method == "POST"]
    assert {headers["x-team"] for headers in sent} == {"a"}
    assert {headers["accept-encoding"] for headers in sent} == {"identity"}
    assert {headers["host"] for headers in sent} == {f"127.0.0.1:{server.port}"}
    assert not any("authorization" in headers for headers in sent)


async def test_calls_go_out_at_once(bench: McpBench, server: HttpServer) -> None:
    use(bench, server)
    await bench.tools()
    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(partial(bench.call, "web__echo", text=str(number)))
    assert server.sessions == 1


async def test_a_credential_goes_along_as_it_is_now(bench: McpBench, server: HttpServer) -> None:
    store = CredentialStore(bench.tenant.root, bench.vault)
    use(bench, server, credential="github")
    for key in ("k-first", "k-second"):
        store.set(ProviderCredential("github", None, None, api_key=key))
        await bench.call("web__echo", text="x")
        assert server.heard[-1][1]["authorization"] == f"Bearer {key}"


async def test_a_credential_that_is_missing_is_named(bench: McpBench, server: HttpServer) -> None:
    use(bench, server, credential="github")
    assert await bench.tools() == {}
    assert server.heard == []


async def test_a_credential_goes_nowhere_in_the_clear(bench: McpBench, server: HttpServer) -> None:
    bench.configure({"web": {"url": "http://mcp.example.org/", "credential": "github"}})
    assert await bench.tools() == {}
    assert "https only" in problem(bench)


async def test_private_addresses_are_not_dialled(bench: McpBench, server: HttpServer) -> None:
    bench.configure({"web": {"url": server.url}})
    assert await bench.tools() == {}
    assert server.heard == []


async def test_hosts_beyond_the_operators_bound_are_not_dialled(
    bench: McpBench, server: HttpServer
) -> None:
    for host in ("localhost", "127.0.0.1", "evil.example.com"):
        url = f"http://{host}:{server.port}/mcp"
        egress = {**PRIVATE, "only": ["*.example.org"]}
        bench.configure({"web": {"url": url}}, egress=egress)
        assert await bench.tools() == {}
        assert "egress.only" in problem(bench)
    assert server.heard == []


@pytest.mark.parametrize("location", ["http://localhost:1/x", "http://169.254.169.254/latest"])
async def test_redirects_elsewhere_are_not_followed(
    bench: McpBench, server: HttpServer, location: str
) -> None:
    server.behaviour, server.location = "redirect", location
    use(bench, server)
    assert await bench.tools() == {}
    assert len(server.heard) == 1


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("broken", "HTTP 500"),
        ("huge", "more than"),
        ("compressed", "compressed"),
        ("garbage", "not MCP"),
        ("lost", "lost"),
        ("endless-events", "more than"),
    ],
)
async def test_a_call_that_goes_wrong_fails_alone(
    bench: McpBench, server: HttpServer, behaviour: str, said: str
) -> None:
    use(bench, server)
    await bench.tools()
    server.behaviour = behaviour
    result = await bench.call("web__echo", text="x")
    assert result.is_error
    assert said in result.text
    server.behaviour = "good"
    assert (await bench.call("web__echo", text="on")).text == "on"
    assert server.sessions == 1


@pytest.mark.parametrize("behaviour", ["hang", "trickle"])
async def test_a_call_without_an_answer_ends(
    bench: McpBench, server: HttpServer, behaviour: str
) -> None:
    use(bench, server, call_timeout=0.4)
    await bench.tools()
    server.behaviour = behaviour
    began = trio.current_time()
    with pytest.raises(ToolFailed, match=r"did not answer within 0\.4 s"):
        await bench.call("web__echo", text="x")
    assert trio.current_time() - began < 5
    server.behaviour = "good"
    assert (await bench.call("web__echo", text="on")).text == "on"


async def test_a_session_that_the_server_ended_is_made_anew(
    bench: McpBench, server: HttpServer
) -> None:
    use(bench, server)
    await bench.tools()
    server.sessions += 1
    with pytest.raises(ToolFailed, match="web is not available"):
        await bench.call("web__echo", text="x")
    assert (await bench.call("web__echo", text="again")).text == "again"


async def test_who_wants_to_be_asked_again_at_once_for_ever_is_not(
    bench: McpBench, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.services.mcp.http._FIRST_PAUSE", 0.0)
    monkeypatch.setattr("appliance.services.mcp.address._BURST", 20.0)
    monkeypatch.setattr("appliance.services.mcp.address._PER_SECOND", 0.001)
    server.behaviour = "reconnect"
    use(bench, server)
    await bench.tools()
    await trio.sleep(0.5)
    assert len(server.heard) <= 20


async def test_a_flood_ends_the_connection(bench: McpBench, server: HttpServer) -> None:
    server.behaviour = "flood"
    use(bench, server)
    await bench.tools()
    with trio.fail_after(20):
        while "floods" not in problem(bench):  # noqa: ASYNC110 - the server does not tell
            await trio.sleep(0.02)


async def test_a_denial_names_the_remedy(bench: McpBench, server: HttpServer) -> None:
    server.behaviour = "denied"
    use(bench, server)
    assert await bench.tools() == {}
    assert "HTTP 401; look at its credential" in problem(bench)


async def test_a_header_cannot_bring_another_one(bench: McpBench, server: HttpServer) -> None:
    use(bench, server)
    config = bench.tenant.config.defaults.tools.mcp["web"]
    address = Address(cast("Any", bench.tenant), server.url, config, vault=bench.vault)
    for value in ("b\r\nx-c: d", "b\nx", "b\0"):
        with pytest.raises(ServerGone, match="control character"):
            await address.exchange("POST", {"x-a": value}, b"", patience=1)
    assert server.heard == []
