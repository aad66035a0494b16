"""A stub provider for all tests, and for each test a home of its own."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.system.processes import (
    FROM_SOURCE,
    PATIENCE,
    Launcher,
    Process,
    environment,
    free_port,
    launching,
    wait_until,
)

CONFIG = """\
providers:
  stub:
    dialect: openai
    base_url: "http://127.0.0.1:{port}/v1"
    api_key: "env:STUB_KEY"
models:
  default: stub/mock
  rate_card:
    "stub/mock": {{input: "1.00", output: "2.00"}}
"""


@pytest.fixture(scope="session")
def stub_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a model provider that answers at once and costs nothing."""
    port = free_port()
    process = Process(
        command=[FROM_SOURCE[0], "-m", "tests.stub_provider", "--port", str(port)],
        home=tmp_path_factory.mktemp("stub"),
        environ=environment(),
    ).start()

    def listening() -> bool:
        assert process.exit_code is None, process.said
        try:
            httpx.get(f"http://127.0.0.1:{port}/v1/models", timeout=PATIENCE)
        except httpx.TransportError:
            return False
        return True

    try:
        wait_until(listening, "the stub provider")
        yield port
    finally:
        process.kill()


@pytest.fixture
def launcher(tmp_path: Path, stub_port: int) -> Iterator[Launcher]:
    """Starts gateways from source whose only provider is the stub."""
    with launching(tmp_path) as launcher:
        launcher.environ["STUB_KEY"] = "sk-system-tests-of-the-stub"
        launcher.configure(CONFIG.format(port=stub_port))
        yield launcher
