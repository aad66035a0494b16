import secrets
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from appliance.cli.gateway import Started, run_gateway
from appliance.cli.parts import Setup
from appliance.services.tenants import TenantService
from tests.stub_provider.server import StubProvider

ADMIN_KEY = "admin:0123456789abcdef"

CONFIG = """\
server:
  bind: "127.0.0.1:0"
  drain_timeout: {drain}
  body_timeout: 2
  websocket: {websocket}
providers:
  stub:
    dialect: openai
    base_url: "http://127.0.0.1:{port}/v1"
    api_key: "env:STUB_KEY"
    stream_idle_timeout: 2
  claude:
    dialect: anthropic
    base_url: "http://127.0.0.1:{port}/v1"
    api_key: "env:STUB_KEY"
    stream_idle_timeout: 2
  replies:
    dialect: openai-responses
    base_url: "http://127.0.0.1:{port}/v1"
    api_key: "env:STUB_KEY"
  llama: {{dialect: ollama, base_url: "http://127.0.0.1:{port}"}}
  dead: {{dialect: openai, base_url: "http://127.0.0.1:1/v1", connect_timeout: 1}}
models:
  default: stub/mock
  aliases: {{fast: stub/mock}}
  failover:
    smart: [dead/any, stub/fault-529, stub/mock]
    shaky: [stub/fault-error-in-200, stub/mock]
  rate_card:
    stub/mock: {{input: "1.00", output: "2.00"}}
    stub/mock-300: {{input: "1.00", output: "2.00"}}
    claude/mock: {{input: "3.00", output: "15.00"}}
defaults:
  agents:
    pirate: {{instructions: "Speak like a pirate."}}
"""


@dataclass(frozen=True)
class Tenant:
    id: str
    token: str


# Nothing here speaks TLS; reading all certificates for each client would take 40 ms.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Gateway:
    """A running gateway, and what a client of it needs."""

    def __init__(self, url: str, folder: Path, tenants: TenantService | None = None) -> None:
        self.url = url
        self._tenants = tenants
        self.port = int(url.rsplit(":", 1)[1])
        self.state_dir = folder / "state"
        self.config = folder / "config.yaml"
        self.http = httpx.AsyncClient(base_url=url, trust_env=False, timeout=60, verify=_NO_TLS)

    @property
    def tenants(self) -> TenantService:
        """Of a gateway that runs in this very process."""
        assert self._tenants is not None
        return self._tenants

    def headers(self, credential: str, **more: str) -> dict[str, str]:
        return {"authorization": f"Bearer {credential}", **more}

    async def create(self, tenant: str, **body: Any) -> Tenant:
        answer = await self.http.post(
            "/v1/tenants", json={"id": tenant, **body}, headers=self.headers(ADMIN_KEY)
        )
        assert answer.status_code == 201, answer.text
        return Tenant(tenant, answer.json()["token"])

    async def chat(self, tenant: Tenant, body: Mapping[str, Any], **headers: str) -> httpx.Response:
        return await self.http.post(
            "/v1/chat/completions", json=body, headers=self.headers(tenant.token, **headers)
        )

    async def configure(self, tenant: Tenant, overlay: Mapping[str, Any]) -> None:
        answer = await self.http.patch(
            f"/v1/tenants/{tenant.id}/config", json=overlay, headers=self.headers(tenant.token)
        )
        assert answer.status_code == 200, answer.text

    async def sandbox_proved(self) -> None:
        """Wait until the self-test of the isolation has ended well."""
        with trio.fail_after(60):
            while True:
                answer = await self.http.get("/v1/status", headers=self.headers(ADMIN_KEY))
                sandbox = answer.json()["sandbox"]
                if sandbox["backend"]:
                    assert not sandbox["problem"], sandbox
                    return
                await trio.sleep(0.05)

    async def usage(self, tenant: Tenant) -> dict[str, Any]:
        answer = await self.http.get(
            f"/v1/tenants/{tenant.id}/usage", headers=self.headers(tenant.token)
        )
        assert answer.status_code == 200, answer.text
        totals: dict[str, Any] = answer.json()["totals"]
        return totals


def setup_in(folder: Path, *, stub_port: int, websocket: str = "{}", drain: float = 2) -> Setup:
    """A gateway whose providers are the stub, with all that it keeps in ``folder``."""
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(port=stub_port, websocket=websocket, drain=drain))
    return Setup(
        state_dir=folder / "state",
        config=config,
        environ={"OPENCLAW_ADMIN_KEY": ADMIN_KEY, "STUB_KEY": "sk-operators-own-key-0123456789"},
    )


def said(text: str, **more: Any) -> dict[str, Any]:
    """A minimal request to the stub's good model."""
    return {"model": "stub/mock", "messages": [{"role": "user", "content": text}], **more}


@pytest.fixture
async def stub_port(nursery: trio.Nursery) -> AsyncIterator[int]:
    serve = partial(trio.serve_tcp, StubProvider().serve, 0, host="127.0.0.1")
    listeners: list[trio.SocketListener] = await nursery.start(serve)
    yield listeners[0].socket.getsockname()[1]
    nursery.cancel_scope.cancel()


@pytest.fixture
def websocket_limits() -> str:
    """What ``server.websocket`` says; tests that need other limits override it."""
    return "{}"


@pytest.fixture
def drain_timeout() -> float:
    """The seconds that running work is given at the end; a test may need more than it takes."""
    return 2


@pytest.fixture
async def gateway(
    stub_port: int,
    tmp_path: Path,
    nursery: trio.Nursery,
    websocket_limits: str,
    drain_timeout: float,
) -> AsyncIterator[Gateway]:
    setup = setup_in(tmp_path, stub_port=stub_port, websocket=websocket_limits, drain=drain_timeout)
    gateway = await started(setup, tmp_path, nursery)
    async with gateway.http:
        yield gateway


async def started(setup: Setup, home: Path, nursery: trio.Nursery) -> Gateway:
    """A gateway that runs in ``nursery`` until the end of the test."""
    news, running = trio.open_memory_channel[Started](1)
    nursery.start_soon(partial(run_gateway, setup, when_started=news.send))
    with trio.fail_after(60):
        what = await running.receive()
    return Gateway(what.url, home, what.tenants)


@pytest.fixture
async def acme(gateway: Gateway) -> Tenant:
    return await gateway.create("acme")


@pytest.fixture(scope="session")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The URL and the folder of a gateway that all tests share which need no fresh one."""
    folder = tmp_path_factory.mktemp("lasting")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.gateway.lasting", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    with process:  # which ends its input and waits for it
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        assert url, (folder / "log").read_text()
        yield url, folder


@pytest.fixture
async def lasting_gateway(lasting: tuple[str, Path]) -> AsyncIterator[Gateway]:
    """For a module whose tests keep to tenants of their own: let ``gateway`` return it."""
    gateway = Gateway(*lasting)
    async with gateway.http:
        yield gateway


@pytest.fixture
async def fresh_tenant(lasting_gateway: Gateway) -> Tenant:
    """A tenant of the lasting gateway that nobody else knows."""
    return await lasting_gateway.create(f"acme-{secrets.token_hex(4)}")
