"""One gateway for all clients; where they are installed, ``make test-clients`` says."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.gateway import Serving, serving
from tests.system.conftest import stub_port as stub_port

# They belong to other environments; test_clients.py runs them there.
collect_ignore = ["python", "node"]

PYTHONS = "OPENCLAWMU_CLIENT_PYTHONS"  # programs, separated by a colon
NODE = "OPENCLAWMU_CLIENT_NODE"  # the folder of build/node_clients.py


def _told(variable: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        pytest.skip("others' programs are needed: `make test-clients compliance fuzz-api`")
    return value


@pytest.fixture(scope="session")
def pythons() -> dict[str, str]:
    """By the name of the lock file each was made from."""
    programs = _told(PYTHONS).split(":")
    return {Path(each).parent.parent.name.rpartition("-")[0]: each for each in programs}


@pytest.fixture(scope="session")
def node_folder() -> Path:
    return Path(_told(NODE))


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, stub_port: int) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("gateway"), stub_port) as what:
        yield what
