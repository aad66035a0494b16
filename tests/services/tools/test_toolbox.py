"""Which tools are offered on which occasion, and how they are described to a model."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
import trio
from msgspec import Meta

from appliance.config.loading import parse_config
from appliance.model.errors import ModelUnknown
from appliance.model.session_keys import SessionKey
from appliance.services.tools.base import (
    Effect,
    Tool,
    ToolCall,
    ToolParams,
    ToolResult,
    ToolTenant,
)
from appliance.services.tools.toolbox import (
    Occasion,
    Offer,
    OnBehalf,
    Toolbox,
    occasion_of,
    schema_of,
)
from tests.fakes.tenants import CONFIG, FakeTenant, open_tenant

MAIN = SessionKey("acme", "main", "main")
PIRATE = SessionKey("acme", "pirate", "main")


class Place(ToolParams, frozen=True, kw_only=True):
    """Where."""

    line_no: int


class Params(ToolParams, frozen=True, kw_only=True):
    file_path: Annotated[str, Meta(max_length=10, description="which file")]
    places: tuple[Place, ...] = ()


async def nothing(call: ToolCall, params: Any) -> ToolResult:
    raise AssertionError(call, params)


def tool(name: str, group: str, effect: Effect = Effect.READ, **more: Any) -> Tool[Params]:
    return Tool(name=name, group=group, label=name, description=f"does {name}", params=Params,
                call=nothing, effect=effect, **more)  # fmt: skip


TOOLS = (
    tool("read", "fs"),
    tool("write", "fs", Effect.WRITE),
    tool("exec", "runtime", Effect.EXECUTE),
    tool("web_fetch", "web", Effect.FETCH),
    tool("message", "messaging", Effect.SEND),
    tool("sessions_spawn", "sessions", Effect.WRITE),
)
ALL = {each.name for each in TOOLS}


@pytest.fixture
async def tenant(tmp_path: Path) -> AsyncIterator[FakeTenant]:
    async with open_tenant(tmp_path) as tenant:
        yield tenant


async def offered(tenant: FakeTenant, yaml: str, key: SessionKey = MAIN, **more: Any) -> set[str]:
    tenant.config = parse_config(CONFIG + yaml, name="config")
    return set((await Toolbox(TOOLS).offer(tenant, Occasion(key=key, **more))).tools)


async def test_all_are_offered_where_nothing_is_said(tenant: FakeTenant) -> None:
    assert await offered(tenant, "") == ALL


async def test_rules_of_tenant_agent_and_channel_all_count(tenant: FakeTenant) -> None:
    yaml = """
  tools: {deny: [web_fetch], by_channel: {irc: {profile: coding}}}
"""
    config = CONFIG.replace(
        "max_output_tokens: 7}", "max_output_tokens: 7, tools: {deny: ['group:fs']}}"
    )
    tenant.config = parse_config(config + yaml, name="config")
    box = Toolbox(TOOLS)

    async def names(key: SessionKey, channel: str) -> set[str]:
        return set((await box.offer(tenant, Occasion(key=key, channel=channel))).tools)

    assert await names(MAIN, "http") == ALL - {"web_fetch"}
    assert await names(MAIN, "irc") == ALL - {"web_fetch", "message"}
    assert await names(PIRATE, "irc") == {"exec", "sessions_spawn"}


async def test_a_session_may_be_read_only_or_stay_in_its_workspace(tenant: FakeTenant) -> None:
    assert await offered(tenant, "", permission="read-only") == {"read", "web_fetch"}
    assert await offered(tenant, "", permission="workspace") == ALL - {"message"}
    assert await offered(tenant, "", permission="full") == ALL


async def test_a_guarded_session_asks_before_anything_is_done(tenant: FakeTenant) -> None:
    offer = await Toolbox(TOOLS).offer(tenant, Occasion(key=MAIN, permission="guarded"))

    assert set(offer.tools) == ALL
    assert offer.needs_approval == {Effect.EXECUTE, Effect.SEND, Effect.WRITE}


async def test_sub_agents_may_use_less(tenant: FakeTenant) -> None:
    yaml = "  tools: {subagents: {max_depth: 2, deny: [message]}}\n"

    assert await offered(tenant, yaml, depth=0) == ALL
    assert await offered(tenant, yaml, depth=1) == ALL - {"message"}
    assert await offered(tenant, yaml, depth=2) == ALL - {"message", "sessions_spawn"}


async def test_over_http_the_dangerous_ones_are_left_out(tenant: FakeTenant) -> None:
    assert await offered(tenant, "", over_http=True) == {"read", "web_fetch", "message"}
    assert "exec" in await offered(tenant, "  tools: {http_deny: []}\n", over_http=True)


async def test_an_unknown_agent_has_no_tools(tenant: FakeTenant) -> None:
    with pytest.raises(ModelUnknown):
        await offered(tenant, "", SessionKey("acme", "nobody", "main"))


async def test_sources_add_tools_but_replace_none(tenant: FakeTenant) -> None:
    class Server:
        async def tools(self, tenant: ToolTenant, agent: str) -> Sequence[Tool[Any]]:
            await trio.lowlevel.checkpoint()
            return [tool("files__read", "mcp"), tool("read", "mcp")]

    offer = await Toolbox(TOOLS, sources=[Server()]).offer(tenant, Occasion(key=MAIN))

    assert offer.tools["read"].group == "fs"
    assert offer.tools["files__read"].group == "mcp"


def test_a_callers_name_is_left_to_it() -> None:
    offer = Offer({"read": TOOLS[0], "own_read": TOOLS[1]})

    renamed = offer.without_names(["read", "own_read", "other"])

    assert len(renamed.tools) == 2
    assert not {"read", "own_read"} & renamed.tools.keys()
    assert offer.without_names(["other"]) is offer


def test_a_schema_is_complete_in_itself_and_closed() -> None:
    schema = msgspec.json.decode(msgspec.json.encode(schema_of(TOOLS[0])))

    assert schema == {
        "type": "object",
        "properties": {
            "filePath": {"type": "string", "maxLength": 10, "description": "which file"},
            "places": {"type": "array", "items": {"$ref": "#/$defs/Place"}, "default": []},
        },
        "required": ["filePath"],
        "additionalProperties": False,
        "$defs": {
            "Place": {
                "title": "Place",
                "description": "Where.",
                "type": "object",
                "properties": {"lineNo": {"type": "integer"}},
                "required": ["lineNo"],
                "additionalProperties": False,
            }
        },
    }


def test_a_schema_of_somebody_else_is_passed_on() -> None:
    assert schema_of(tool("x", "mcp", schema={"type": "object"})) == {"type": "object"}


def test_tools_are_described_as_a_chat_completion_wants_them() -> None:
    (described,) = Offer({"look": TOOLS[0]}).described()

    assert described["type"] == "function"
    assert described["function"] == {
        "name": "look", "description": "does read", "parameters": schema_of(TOOLS[0]),
    }  # fmt: skip


def test_an_occasion_follows_from_how_the_session_is_set() -> None:
    assert occasion_of(MAIN, None, channel="http") == Occasion(key=MAIN, channel="http")


async def test_a_sub_agent_is_bound_by_all_on_whose_behalf_it_works(tmp_path: Path) -> None:
    async with open_tenant(tmp_path) as tenant:
        config = CONFIG.replace(
            "max_output_tokens: 7}", "max_output_tokens: 7, tools: {deny: ['group:fs']}}"
        )
        tenant.config = parse_config(
            config + "  tools: {by_channel: {irc: {deny: [web_fetch]}}}\n", name="config"
        )
        child = SessionKey("acme", "main", "subagent:x")
        behalf = OnBehalf().and_for(PIRATE.agent, "irc").and_for("main", "subagent")
        offer = await Toolbox(TOOLS).offer(tenant, Occasion(key=child, on_behalf=behalf))

    free = ALL - {tool.name for tool in TOOLS if tool.group == "fs"}
    assert set(offer.tools) == free - {"web_fetch"}


async def test_who_calls_over_http_cannot_leave_its_rules_by_naming_another_channel(
    tenant: FakeTenant,
) -> None:
    yaml = "  tools: {http_deny: [], by_channel: {http: {deny: [exec]}, irc: {deny: [read]}}}\n"

    assert await offered(tenant, yaml, channel="x", over_http=True) == ALL - {"exec"}
    assert await offered(tenant, yaml, channel="irc", over_http=True) == ALL - {"exec", "read"}
