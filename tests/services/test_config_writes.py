"""How often settings may be written."""

import pytest

from appliance.model.errors import RateLimited
from appliance.services.config_writes import ConfigWrites


def test_the_fourth_write_in_a_minute_is_refused_with_the_time_to_wait() -> None:
    writes = ConfigWrites()
    for now in (0.0, 10.0, 20.0):
        writes.note("anna", method="config.patch", now=now)

    with pytest.raises(RateLimited) as caught:
        writes.note("anna", method="config.patch", now=30.5)

    assert str(caught.value) == "rate limit exceeded for config.patch; retry after 30s"
    assert caught.value.retry_after == 30
    writes.note("ben", method="config.patch", now=30.5)
    writes.note("anna", method="config.patch", now=60.5)


def test_many_clients_do_not_fill_the_memory() -> None:
    writes = ConfigWrites()
    for number in range(3_000):
        writes.note(str(number), method="config.set", now=0.0)

    assert len(writes._clients) == 1_000
