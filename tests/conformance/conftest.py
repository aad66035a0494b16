"""One gateway process and one tenant for each client, all of them real."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import PROGRAMS
from tests.conformance.clients import FOLDER_VARIABLE, PROTOCOL_3, RELEASES, Cli, Clients
from tests.conformance.commands import MARK
from tests.system.conftest import CONFIG
from tests.system.conftest import stub_port as stub_port
from tests.system.processes import Gateway, Launcher, free_port, launching


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARK}(*covered): the commands a test covers")


@pytest.fixture(scope="session")
def clients() -> Clients:
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        pytest.skip("OpenClaw's own clients are tested by `make conformance`")
    return Clients(Path(folder))


@pytest.fixture(scope="session")
def browser() -> str:
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        pytest.skip("no Chromium here (Debian package chromium-headless-shell)")
    return found


@pytest.fixture(scope="session")
def control_ui_port() -> int:
    """Known before the gateway starts, which has to be told whose pages may connect."""
    return free_port()


@pytest.fixture(scope="session")
def gateway(
    clients: Clients, tmp_path_factory: pytest.TempPathFactory, stub_port: int, control_ui_port: int
) -> Iterator[Gateway]:
    with launching(tmp_path_factory.mktemp("gateway")) as launcher:
        yield serve(launcher, stub_port, control_ui_port)


def serve(launcher: Launcher, stub_port: int, control_ui_port: int) -> Gateway:
    launcher.environ["STUB_KEY"] = "sk-conformance-tests-of-the-stub"
    origin = f'server:\n  allowed_origins: ["http://127.0.0.1:{control_ui_port}"]\n'
    launcher.configure(CONFIG.format(port=stub_port) + origin)
    return launcher.serve()


@pytest.fixture(scope="session")
def tokens(gateway: Gateway) -> dict[str, str]:
    """A tenant of its own for each release's users."""
    return {release: gateway.create_tenant(f"v{release.replace('.', '-')}") for release in RELEASES}


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("homes")


@pytest.fixture
def cli(
    request: pytest.FixtureRequest,
    clients: Clients,
    gateway: Gateway,
    tokens: dict[str, str],
    homes: Path,
    tmp_path: Path,
) -> Cli:
    """The command line of the release that the test is parametrized with."""
    release = str(request.param)
    # The old release makes itself a device key at first use. The new one does not at this
    # distance, and takes thrice the time once it has made itself a database.
    home = homes / release if release == PROTOCOL_3 else tmp_path
    return Cli(
        clients=clients,
        release=release,
        url=f"ws://127.0.0.1:{gateway.port}",
        token=tokens[release],
        home=home,
    ).set_up()
