from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from appliance.cli.gateway import Started, run_gateway
from appliance.cli.parts import Setup
from tests.stub_provider.server import StubProvider

ADMIN_KEY = "admin:0123456789abcdef"

CONFIG = """\
server: {{bind: "127.0.0.1:0", drain_timeout: 2, body_timeout: 2, websocket: {websocket}}}
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
  failover: {{smart: [dead/any, stub/fault-529, stub/mock]}}
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


class Gateway:
    """A running gateway, and what a client of it needs."""

    def __init__(self, started: Started, state_dir: Path, config: Path) -> None:
        self.url = started.url
        self.port = int(started.url.rsplit(":", 1)[1])
        self.tenants = started.tenants
        self.state_dir = state_dir
        self.config = config
        self.http = httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=60)

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
        with trio.fail_after(30):
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
async def gateway(
    stub_port: int, tmp_path: Path, nursery: trio.Nursery, websocket_limits: str
) -> AsyncIterator[Gateway]:
    state_dir, config = tmp_path / "state", tmp_path / "config.yaml"
    config.write_text(CONFIG.format(port=stub_port, websocket=websocket_limits))
    setup = Setup(
        state_dir=state_dir,
        config=config,
        environ={"OPENCLAW_ADMIN_KEY": ADMIN_KEY, "STUB_KEY": "sk-operators-own-key-0123456789"},
    )
    started: list[Started] = []
    ready = trio.Event()

    async def when_started(what: Started) -> None:
        started.append(what)
        ready.set()

    nursery.start_soon(partial(run_gateway, setup, when_started=when_started))
    with trio.fail_after(10):
        await ready.wait()
    gateway = Gateway(started[0], state_dir, config)
    async with gateway.http:
        yield gateway


@pytest.fixture
async def acme(gateway: Gateway) -> Tenant:
    return await gateway.create("acme")
