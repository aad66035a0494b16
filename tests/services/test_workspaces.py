"""Where agents' files lie, who owns them, and who does not see them."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance.config.loading import parse_config
from appliance.services import workspaces
from appliance.services.workspaces import (
    find_workspace,
    hidden_from,
    make_ready,
    open_workspace,
    sandbox_owner,
    workspace_of,
)
from appliance.storage import tree_walk
from appliance.storage.paths import PathRefused
from tests.fakes.tenants import FakeTenant, open_tenant


@pytest.fixture
async def tenant(tmp_path: Path) -> AsyncIterator[FakeTenant]:
    async with open_tenant(tmp_path) as tenant:
        yield tenant


def test_other_agents_lie_in_the_first_ones_workspace_and_are_hidden_from_it() -> None:
    assert workspace_of("main") == "workspace"
    assert workspace_of("pirate") == "workspace/agents/pirate"
    assert hidden_from("main") == {"agents"}
    assert hidden_from("pirate") == frozenset()


async def test_a_workspace_is_found_once_it_was_made(tenant: FakeTenant) -> None:
    assert find_workspace(tenant, "main") is None
    open_workspace(tenant, "main").close()
    found = find_workspace(tenant, "main")
    assert found is not None
    found.close()


async def test_one_that_is_ready_belongs_to_who_runs_in_it(
    tenant: FakeTenant, tmp_path: Path
) -> None:
    with await make_ready(tenant, "pirate") as workspace:
        assert workspace.is_handed_over
    owner = sandbox_owner(tenant.config)
    place = tmp_path / "tenant/workspace/agents/pirate"
    assert place.stat().st_uid == (os.geteuid() if owner is None else owner)


def test_only_root_gives_workspaces_away(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_config("{}", name="config")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert sandbox_owner(config) == 60_900
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert sandbox_owner(config) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_a_workspace_beyond_measure_is_refused(
    tenant: FakeTenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tenant/workspace/a").mkdir(parents=True)
    monkeypatch.setattr(tree_walk, "MOST_WAITING", 0)
    with pytest.raises(PathRefused, match="cannot be prepared"):
        await make_ready(tenant, "main")
    assert workspaces.OTHER_AGENTS == "agents"
