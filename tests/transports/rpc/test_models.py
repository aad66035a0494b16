"""``models.*`` as a tenant's client calls them."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance.model.errors import NotFound
from appliance.services.routing import CatalogueEntry
from appliance.transports.rpc.models import METHODS
from tests.transports.rpc.settings_bench import Bench, open_bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    aliases = {"models": {"aliases": {"fast": "stub/a", "gone": "nowhere/x"}}}
    async with open_bench(tmp_path, METHODS, config=aliases) as bench:
        bench.catalogue = [
            CatalogueEntry("openclaw", "openclaw"),
            CatalogueEntry("openclaw/pirate", "openclaw"),
            CatalogueEntry("fast", "stub"),
            CatalogueEntry("stub/mock", "stub"),
            CatalogueEntry("stub/other/one", "stub"),
        ]
        yield bench


async def test_models_are_listed_once_the_default_first(bench: Bench) -> None:
    listed = await bench.call("models.list")

    assert listed["models"] == [
        {
            "id": "mock",
            "name": "mock",
            "provider": "stub",
            "tags": ["default"],
            "contextWindow": 128_000,
        },
        {
            "id": "a",
            "name": "a",
            "provider": "stub",
            "alias": "fast",
            "contextWindow": 128_000,
        },
        {"id": "other/one", "name": "other/one", "provider": "stub", "contextWindow": 128_000},
    ]


async def test_only_what_is_configured_may_be_asked_for(bench: Bench) -> None:
    listed = await bench.call("models.list", view="configured", refresh=True, agentId="main")

    assert [model["id"] for model in listed["models"]] == ["mock", "a"]
    with pytest.raises(NotFound):
        await bench.call("models.list", agentId="nobody")


async def test_nobody_is_shown_a_key(bench: Bench) -> None:
    assert bench.tenant is not None
    bench.tenant.keys["stub"] = "sk-secret"

    shown = await bench.call("models.authStatus")

    assert shown["providers"] == [
        {
            "provider": "stub",
            "displayName": "stub",
            "status": "static",
            "profiles": [{"profileId": "stub:own", "type": "api_key", "status": "static"}],
        }
    ]
    assert "sk-secret" not in json.dumps(shown)
