"""A tenant's agents."""

from collections.abc import AsyncIterator

import pytest
import trio

from appliance.config.loading import parse_config
from appliance.model.agent_identity import AgentIdentity
from appliance.model.errors import (
    AlreadyExists,
    ConfigInvalid,
    Forbidden,
    InvalidRequest,
    NotFound,
    ScopeMissing,
)
from appliance.model.tokens import Scope
from appliance.services.agents import AgentChanges, AgentService, require_workspace
from tests.services.tenancy import ADMIN, CONFIG, Tenancy
from tests.transports.rpc.settings_bench import Bench, FakeTenant

GATEWAY = CONFIG + "\ndefaults: {agents: {helper: {name: Helper, instructions: Be kind.}}}\n"


@pytest.fixture
async def tenant(tenancy: Tenancy) -> AsyncIterator[FakeTenant]:
    tenancy.gateway = parse_config(GATEWAY, name="config.yaml")
    tenant = await Bench(tenancy, ()).open()
    yield tenant
    tenant.root.close()


@pytest.fixture
def agents(tenancy: Tenancy) -> AgentService:
    return AgentService(tenancy.tenants, gateway=lambda: tenancy.gateway, audit=tenancy.audit)


async def test_main_is_there_before_anybody_made_it(
    agents: AgentService, tenant: FakeTenant
) -> None:
    assert [agent.id for agent in agents.list(tenant)] == ["main", "helper"]
    assert agents.require(tenant, "main").model == "stub/mock"
    with pytest.raises(NotFound, match='agent "nobody" not found'):
        agents.require(tenant, "nobody")


async def test_an_agent_is_called_after_its_name(
    agents: AgentService, tenant: FakeTenant, tenancy: Tenancy
) -> None:
    agent = await agents.create(
        tenant, ADMIN, AgentChanges(name="Käpt'n Blau!", model="stub/a", emoji="🏴")
    )

    assert agent.id == "k-pt-n-blau"
    assert agent.name == "Käpt'n Blau!"
    assert agent.identity.emoji == "🏴"
    assert agents.require(tenant, agent.id) == agent
    assert tenancy.audit.actions[-1]["action"] == "agent.create"
    assert tenancy.audit.actions[-1]["target"] == agent.id


@pytest.mark.parametrize("name", ["main", "Main", "helper", "HELPER "])
async def test_two_agents_have_two_names(
    agents: AgentService, tenant: FakeTenant, name: str
) -> None:
    with pytest.raises(AlreadyExists):
        await agents.create(tenant, ADMIN, AgentChanges(name=name))


@pytest.mark.parametrize("name", ["", "!!!", "日本"])
async def test_a_name_without_letters_makes_no_id(
    agents: AgentService, tenant: FakeTenant, name: str
) -> None:
    with pytest.raises(InvalidRequest, match="name"):
        await agents.create(tenant, ADMIN, AgentChanges(name=name))


async def test_a_change_leaves_what_it_does_not_name(
    agents: AgentService, tenant: FakeTenant
) -> None:
    await agents.create(tenant, ADMIN, AgentChanges(name="Blau", model="stub/a", emoji="🏴"))

    changed = await agents.update(tenant, ADMIN, "blau", AgentChanges(name="Rot", model=""))

    assert (changed.name, changed.model, changed.identity.emoji) == ("Rot", "stub/mock", "🏴")
    with pytest.raises(NotFound):
        await agents.update(tenant, ADMIN, "nobody", AgentChanges(name="x"))
    with pytest.raises(ConfigInvalid, match="avatar"):
        await agents.update(tenant, ADMIN, "blau", AgentChanges(avatar="javascript:x"))


async def test_one_of_the_gateways_agents_is_taken_away_for_this_tenant(
    agents: AgentService, tenant: FakeTenant, tenancy: Tenancy
) -> None:
    await agents.delete(tenant, ADMIN, "helper", delete_files=True)

    assert [agent.id for agent in agents.list(tenant)] == ["main"]
    assert "helper" in tenancy.gateway.defaults.agents
    await agents.create(tenant, ADMIN, AgentChanges(name="Helper"))
    assert tenant.config.defaults.agents["helper"].instructions is None


@pytest.mark.parametrize("overlay", [{"defaults": None}, {"defaults": {"agents": None}}])
async def test_what_null_took_away_stays_away(
    agents: AgentService, tenant: FakeTenant, tenancy: Tenancy, overlay: dict[str, object]
) -> None:
    await tenancy.tenants.put_config(ADMIN, "acme", overlay)

    await agents.create(tenant, ADMIN, AgentChanges(name="Blau"))

    assert [agent.id for agent in agents.list(tenant)] == ["main", "blau"]


async def test_main_cannot_be_deleted(agents: AgentService, tenant: FakeTenant) -> None:
    with pytest.raises(InvalidRequest, match="cannot be deleted"):
        await agents.delete(tenant, ADMIN, "main", delete_files=False)
    with pytest.raises(NotFound):
        await agents.delete(tenant, ADMIN, "nobody", delete_files=False)


async def test_agents_made_together_are_all_there(agents: AgentService, tenant: FakeTenant) -> None:
    async def create(name: str) -> None:
        await agents.create(tenant, ADMIN, AgentChanges(name=name))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(create, f"a{number}")

    assert len(agents.list(tenant)) == 22


async def test_changes_need_a_token_that_manages(
    agents: AgentService, tenant: FakeTenant, tenancy: Tenancy
) -> None:
    reader = await tenancy.caller("acme", Scope.READ, Scope.CHAT)
    await tenancy.make("other")
    stranger = await tenancy.caller("other")

    for caller, refusal in ((reader, ScopeMissing), (stranger, Forbidden)):
        with pytest.raises(refusal):
            await agents.create(tenant, caller, AgentChanges(name="x"))
        with pytest.raises(refusal):
            await agents.delete(tenant, caller, "helper", delete_files=True)
        with pytest.raises(refusal):
            await agents.write_file(tenant, caller, "main", "SOUL.md", "x")


async def test_files_belong_to_an_agent_that_exists(
    agents: AgentService, tenant: FakeTenant, tenancy: Tenancy
) -> None:
    await agents.write_file(tenant, ADMIN, "helper", "SOUL.md", "kind")

    assert (await agents.read_file(tenant, "helper", "SOUL.md")).content == "kind"
    assert (await agents.read_file(tenant, "main", "SOUL.md")).missing
    assert tenancy.audit.actions[-1]["target"] == "helper/SOUL.md"
    with pytest.raises(NotFound):
        await agents.files(tenant, "nobody")
    with pytest.raises(InvalidRequest, match="unsupported file"):
        await agents.read_file(tenant, "main", "../tenant.json")

    await agents.delete(tenant, ADMIN, "helper", delete_files=True)
    assert not tenant.root.exists("workspace/agents/helper")


async def test_who_an_agent_is_comes_from_the_config_and_then_its_file(
    agents: AgentService, tenant: FakeTenant
) -> None:
    written = "- **Name:** Other\n- **Emoji:** 🐙\n- **Avatar:** javascript:x\n- **Vibe:** calm\n"
    await agents.write_file(tenant, ADMIN, "helper", "IDENTITY.md", written)

    found = await agents.identity(tenant, "helper")

    assert found == AgentIdentity("Helper", "🐙", None, "calm")
    assert await agents.identity(tenant, "main") == AgentIdentity()


@pytest.mark.parametrize("place", [None, "", "pirate", "agents/pirate"])
def test_a_workspace_may_be_named_where_it_means_nothing(place: str | None) -> None:
    require_workspace(place)


@pytest.mark.parametrize("place", ["/etc", "~/clawd", "../x", "a/../b", "a//b", "a\x00", "."])
def test_a_workspace_elsewhere_is_refused(place: str) -> None:
    with pytest.raises(InvalidRequest, match="workspace"):
        require_workspace(place)
