from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.tenancy import Tenancy


@pytest.fixture
def tenancy(tmp_path: Path) -> Iterator[Tenancy]:
    tenancy = Tenancy(tmp_path / "state")
    yield tenancy
    tenancy.close()
