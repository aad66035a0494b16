"""``agents.*`` as a tenant's client calls them."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance.model.errors import InvalidRequest, ModelUnknown, NotFound
from appliance.transports.rpc.agents import METHODS
from tests.transports.rpc.settings_bench import Bench, Heard, open_bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path, METHODS) as bench:
        yield bench


async def test_agents_are_listed_with_what_both_generations_read(bench: Bench) -> None:
    listed = await bench.call("agents.list")

    assert listed == {
        "defaultId": "main",
        "mainKey": "main",
        "scope": "per-sender",
        "ownership": "sole",
        "selectionRequired": False,
        "agents": [
            {
                "id": "main",
                "name": "main",
                "identity": {},
                "workspace": "workspace",
                "model": {"primary": "stub/mock"},
            }
        ],
    }


async def test_an_agent_comes_changes_and_goes(bench: Bench) -> None:
    made = await bench.call("agents.create", name="Blau", workspace="blau", emoji="🏴")
    await bench.call("agents.update", agentId="blau", name="Rot", model="stub/b", avatar="a.png")
    listed = (await bench.call("agents.list"))["agents"][1]
    gone = await bench.call("agents.delete", agentId="blau")

    assert made == {
        "ok": True,
        "agentId": "blau",
        "name": "Blau",
        "workspace": "workspace/agents/blau",
    }
    assert listed["identity"] == {"name": "Rot", "emoji": "🏴", "avatar": "a.png"}
    assert listed["model"] == {"primary": "stub/b"}
    assert gone == {"ok": True, "agentId": "blau", "removedBindings": 0}
    assert len((await bench.call("agents.list"))["agents"]) == 1
    assert [name for name in bench.tenancy.audit.names if name.startswith("agent")] == [
        "agent.create",
        "agent.update",
        "agent.delete",
    ]


async def test_null_gives_an_agent_the_usual_model_again(bench: Bench) -> None:
    await bench.call("agents.create", name="Blau", model="stub/b")

    await bench.call("agents.update", agentId="blau", model=None)

    assert (await bench.call("agents.list"))["agents"][1]["model"] == {"primary": "stub/mock"}


async def test_a_model_must_lead_somewhere(bench: Bench) -> None:
    for name in ("nowhere/x", "stubb"):
        with pytest.raises(ModelUnknown):
            await bench.call("agents.create", name="Blau", model=name)
    assert bench.tenant is not None
    bench.tenant.keys["own"] = "sk"
    await bench.call("agents.create", name="Blau", model="own/x")


async def test_what_cannot_be_honoured_is_refused_by_name(bench: Bench) -> None:
    with pytest.raises(InvalidRequest, match="workspace"):
        await bench.call("agents.create", name="Blau", workspace="/etc")
    with pytest.raises(InvalidRequest, match="workspace"):
        await bench.call("agents.update", agentId="main", workspace="../other")
    with pytest.raises(InvalidRequest, match="agentRuntime"):
        await bench.call("agents.update", agentId="main", agentRuntime="codex")
    with pytest.raises(InvalidRequest, match="cannot be deleted"):
        await bench.call("agents.delete", agentId="main")


async def test_files_are_named_below_the_workspace(bench: Bench) -> None:
    written = await bench.call("agents.files.set", agentId="main", name="AGENTS.md", content="hi")
    read = await bench.call("agents.files.get", agentId="main", name="AGENTS.md")
    listed = await bench.call("agents.files.list", agentId="main")

    file = read["file"]
    assert written["ok"] is True
    assert written["workspace"] == read["workspace"] == "workspace"
    assert (file["path"], file["content"], file["size"], file["missing"]) == (
        "AGENTS.md",
        "hi",
        2,
        False,
    )
    assert {entry["name"] for entry in listed["files"]} >= {"HEARTBEAT.md", "TOOLS.md", "SOUL.md"}
    assert "content" not in listed["files"][0]
    assert str(bench.tenancy.state.path) not in json.dumps([written, read, listed])


async def test_a_missing_file_is_no_failure(bench: Bench) -> None:
    read = await bench.call("agents.files.get", agentId="main", name="USER.md")

    assert read["file"] == {"name": "USER.md", "path": "USER.md", "missing": True}


async def test_other_files_and_other_agents_have_none(bench: Bench) -> None:
    with pytest.raises(InvalidRequest, match='unsupported file "x"'):
        await bench.call("agents.files.get", agentId="main", name="x")
    with pytest.raises(NotFound):
        await bench.call("agents.files.list", agentId="nobody")
    with pytest.raises(NotFound):
        await bench.call("agents.files.set", agentId="../..", name="SOUL.md", content="x")


async def test_clients_hear_of_a_new_agent(bench: Bench) -> None:
    heard = Heard()
    assert bench.tenant is not None

    with bench.tenant.events.subscribed(heard):
        await bench.call("agents.create", name="Blau")

    assert [event.name for event in heard.events] == ["config.changed"]
