import pytest

from tests.transports.control.bench import Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()
