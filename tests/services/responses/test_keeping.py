"""When what a run has said is written down, and for how long."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from appliance.config.loading import parse_config
from appliance.services.responses.keeping import Keeper, expiry, limits
from tests.books import NOON
from tests.fakes.tenants import CALLER
from tests.services.responding import FakeSink, House, open_house

CONFIG = "defaults: {responses: {ttl_days: 2, max_stored: 3, max_bytes: 2097152}}"


def test_how_long_and_how_much_the_config_says() -> None:
    config = parse_config(CONFIG, name="config")

    assert expiry(config, NOON) == NOON + timedelta(days=2)
    assert (limits(config).responses, limits(config).bytes) == (3, 2 * 1024 * 1024)


async def keeper(house: House, **more: Any) -> Keeper:
    run = house.run(**more)
    run.request = run.asked.request
    return Keeper(house.tenant, house.tenant.found, run, clock=house.clock)


async def test_what_is_complete_is_not_broken_off_any_more(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        run = house.run(stream=True)
        await house.service.answer(house.tenant, CALLER, run, FakeSink())

        run.writer.failed(code="x", message="y")
        await Keeper(house.tenant, house.tenant.found, run, clock=house.clock).failed()

        shown = house.shown(run.id)
        assert shown is not None
        assert shown["status"] == "completed"


async def test_a_run_in_the_background_is_kept_from_its_beginning(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        kept = await keeper(house, background=True)
        kept._run.writer.queued()  # what the service does

        await kept.begin()

        events = house.tenant.found.events(kept._run.id, after=-1, now=house.clock())
        assert [msgspec.json.decode(event)["type"] for _, event in events] == [
            "response.created", "response.queued",
        ]  # fmt: skip
        assert kept._run.events == []
