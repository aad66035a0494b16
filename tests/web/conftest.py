import shutil
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from appliance.cli import parts, websocket_parts
from appliance.transports.control.app import build_app
from appliance.transports.control.table import ROUTES
from appliance.transports.rpc.table import METHODS
from appliance.transports.web.pages import site
from tests.browser import PROGRAMS
from tests.gateway.conftest import Gateway, acme, drain_timeout, gateway, stub_port
from tests.web.fake_recordings import FakeRecordings
from tests.web.fake_terminals import FakeTerminals, methods
from tests.web.signed_in import Browser, browsing

__all__ = ["acme", "drain_timeout", "gateway", "stub_port"]


@pytest.fixture(scope="session")
def chromium() -> str:
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        pytest.skip("no Chromium here (Debian package chromium-headless-shell)")
    if not site().has_terminal:
        pytest.skip("the browser code of others was not fetched (make web, which needs npm)")
    return found


@pytest.fixture
def terminals(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeTerminals]:
    home = tmp_path / "home"
    home.mkdir()
    made = FakeTerminals(nursery, home)
    monkeypatch.setattr(websocket_parts, "METHODS", methods(made, METHODS))
    yield made
    made.close()


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> FakeRecordings:
    made = FakeRecordings()
    monkeypatch.setattr(parts, "build_app", partial(build_app, routes=made.routes(ROUTES)))
    return made


@pytest.fixture
def websocket_limits(terminals: FakeTerminals, recordings: FakeRecordings) -> str:
    """The gateway asks for its limits before it is built: this is how the fakes are in time."""
    return "{}"


@pytest.fixture
async def browser(chromium: str, gateway: Gateway, tmp_path: Path) -> AsyncIterator[Browser]:
    async with browsing(chromium, gateway, tmp_path) as opened:
        yield opened
