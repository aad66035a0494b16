"""The command line, with a gateway in memory at the other end."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from appliance.cli.main import main
from tests.cli.fake_gateway import TOKEN, FakeGateway, fake_gateway
from tests.transports.control.bench import ADMIN, Bench


class Cli:
    """Runs commands against ``bench``, or against ``door`` where a test sets one."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.door: Any = None
        self.environ: dict[str, str | None] = {"OPENCLAW_GATEWAY_TOKEN": ADMIN.text}

    def run(self, *arguments: str, typed: str | None = None) -> Result:
        app = self.door or self.bench.app()
        transport = httpx.ASGITransport(app, client=("192.0.2.1", 4000))
        return CliRunner().invoke(
            main, list(arguments), obj=transport, env=self.environ, input=typed
        )

    def ok(self, *arguments: str, typed: str | None = None) -> str:
        """Run a command that must succeed and return what it printed on stdout."""
        result = self.run(*arguments, typed=typed)
        assert result.exit_code == 0, result.output
        return result.stdout


class SocketCli:
    """Runs commands against a gateway's WebSocket."""

    def __init__(self, gateway: FakeGateway) -> None:
        self.gateway = gateway
        self.environ: dict[str, str | None] = {
            "OPENCLAW_GATEWAY_TOKEN": TOKEN,
            "OPENCLAW_GATEWAY_URL": gateway.url,
        }

    def run(self, *arguments: str, typed: str | None = None) -> Result:
        return CliRunner().invoke(main, list(arguments), env=self.environ, input=typed)

    def ok(self, *arguments: str, typed: str | None = None) -> str:
        """Run a command that must succeed and return what it printed on stdout."""
        result = self.run(*arguments, typed=typed)
        assert result.exit_code == 0, result.output
        return result.stdout


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with fake_gateway() as gateway:
        yield gateway


@pytest.fixture
def socket_cli(gateway: FakeGateway) -> SocketCli:
    return SocketCli(gateway)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def cli(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Cli:
    for name in ("OPENCLAW_GATEWAY_URL", "OPENCLAW_STATE_DIR", "OPENCLAW_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    return Cli(bench)
