from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.conftest import drain_timeout, gateway, stub_port, websocket_limits
from tests.isolation.gateway import House, open_house

__all__ = ["drain_timeout", "gateway", "house", "stub_port", "websocket_limits"]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "state") as opened:
        yield opened
