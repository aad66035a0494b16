"""What an agent is told before the conversation."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from appliance.config.loading import parse_config
from appliance.config.schema import AgentConfig, GatewayConfig
from appliance.model.session_keys import SessionKey
from appliance.services.tools.base import Effect, Tool, ToolCall, ToolParams, ToolResult
from appliance.services.tools.toolbox import Offer
from appliance.services.turns.prompt_files import PromptFiles
from appliance.services.turns.prompts import Prompts
from appliance.storage.paths import TenantRoot
from tests.books import HandClock, tenant_root

MAIN = SessionKey("acme", "main", "main")


@dataclass
class State:
    prompt_files: dict[str, PromptFiles] = field(default_factory=dict)


@dataclass
class Home:
    root: TenantRoot
    path: Path
    config: GatewayConfig = field(default_factory=lambda: parse_config("{}", name="config"))
    state: State = field(default_factory=State)

    def configure(self, yaml: str) -> None:
        self.config = parse_config(f"defaults: {{tools: {{prompt: {yaml}}}}}", name="config")

    def write(self, name: str, text: str | bytes, agent: str = "") -> None:
        folder = self.path / "workspace" / agent
        folder.mkdir(parents=True, exist_ok=True)
        data = text if isinstance(text, bytes) else text.encode()
        (folder / name).write_bytes(data)

    async def system(
        self,
        key: SessionKey = MAIN,
        agent: AgentConfig = AgentConfig(),  # noqa: B008 - a value
        offer: Offer = Offer(),  # noqa: B008 - a value
        depth: int = 0,
    ) -> str:
        return await Prompts(clock=HandClock()).system(
            self, key, agent, offer=offer, depth=depth, given=["from the request"][: depth == 9]
        )


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tenant_root(tmp_path / "acme"), tmp_path / "acme")


class NoParams(ToolParams, frozen=True, kw_only=True):
    pass


async def nothing(call: ToolCall, params: NoParams) -> ToolResult:
    raise AssertionError(call, params)


def offer(effect: Effect) -> Offer:
    tool = Tool(name="x", group="fs", label="x", description="x", params=NoParams, call=nothing,
                effect=effect)  # fmt: skip
    return Offer({"x": tool})


async def test_with_nothing_to_say_there_is_no_prompt(home: Home) -> None:
    assert await home.system() == ""


async def test_instructions_come_first(home: Home) -> None:
    home.write("AGENTS.md", "Be kind.")

    prompt = await home.system(agent=AgentConfig(instructions="Speak like a pirate."))

    assert prompt.startswith("Speak like a pirate.")
    assert prompt.endswith("# AGENTS.md\n\nBe kind.")


async def test_files_come_in_their_order_and_missing_ones_are_left_out(home: Home) -> None:
    for name in ("USER.md", "AGENTS.md", "SOUL.md"):
        home.write(name, f"text of {name}")

    prompt = await home.system()

    assert [line for line in prompt.splitlines() if line.startswith("# ")] == [
        "# AGENTS.md", "# SOUL.md", "# USER.md",
    ]  # fmt: skip


async def test_a_changed_file_is_read_again(home: Home) -> None:
    home.write("AGENTS.md", "one")
    first = await home.system()
    home.write("AGENTS.md", "another")

    assert "one" in first
    assert "another" in await home.system()


async def test_a_file_that_is_gone_is_gone(home: Home) -> None:
    home.write("AGENTS.md", "one")
    await home.system()
    (home.path / "workspace" / "AGENTS.md").unlink()

    assert await home.system() == ""


async def test_each_agent_has_files_of_its_own(home: Home) -> None:
    home.write("AGENTS.md", "of main")
    home.write("AGENTS.md", "of the pirate", agent="agents/pirate")

    assert "of the pirate" in await home.system(SessionKey("acme", "pirate", "main"))
    assert "pirate" not in await home.system()


async def test_memory_is_for_the_main_session_alone(home: Home) -> None:
    home.write("MEMORY.md", "a secret between us")

    assert "a secret" in await home.system()
    assert await home.system(SessionKey("acme", "main", "group:1")) == ""


@pytest.mark.parametrize("rest", ["subagent:1", "cron:daily"])
async def test_helpers_get_no_heartbeat_bootstrap_or_memory(home: Home, rest: str) -> None:
    for name in ("AGENTS.md", "HEARTBEAT.md", "BOOTSTRAP.md", "MEMORY.md"):
        home.write(name, f"text of {name}")

    prompt = await home.system(SessionKey("acme", "main", rest))

    assert "AGENTS.md" in prompt
    assert "HEARTBEAT" not in prompt
    assert "BOOTSTRAP" not in prompt
    assert "MEMORY" not in prompt


async def test_bootstrap_can_be_skipped(home: Home) -> None:
    home.write("BOOTSTRAP.md", "first steps")
    assert "first steps" in await home.system()

    home.configure("{skip_bootstrap: true}")

    assert await home.system() == ""


async def test_a_long_file_is_cut_in_the_middle(home: Home) -> None:
    home.configure("{max_file_chars: 1000}")
    home.write("AGENTS.md", "a" * 3000 + "z" * 3000)

    prompt = await home.system()

    assert prompt.count("a" * 700) == 1
    assert "a" * 701 not in prompt
    assert prompt.endswith("z" * 200)
    assert "5100 characters of AGENTS.md left out" in prompt


async def test_all_files_together_have_a_limit(home: Home) -> None:
    home.configure("{max_chars: 500}")
    for name in ("AGENTS.md", "SOUL.md", "USER.md"):
        home.write(name, name[0] * 400)

    prompt = await home.system()

    assert prompt.count("S") < 150
    assert len(prompt) < 1100
    assert "A" * 400 in prompt


async def test_a_link_a_fifo_or_a_giant_in_place_of_a_file_is_left_out(
    home: Home, tmp_path: Path
) -> None:
    home.write("AGENTS.md", "fine")
    (tmp_path / "secret").write_text("the host's secret")
    folder = home.path / "workspace"
    (folder / "SOUL.md").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "USER.md")
    with (folder / "TOOLS.md").open("wb") as giant:
        giant.truncate(10 * 2**30)

    prompt = await home.system()

    assert "fine" in prompt
    assert "secret" not in prompt
    assert "TOOLS.md" not in prompt


async def test_what_is_no_text_is_shown_as_well_as_it_can_be(home: Home) -> None:
    home.write("AGENTS.md", b"\xff\xfe caf\xc3\xa9")

    assert "\ufffd\ufffd café" in await home.system()


async def test_an_agent_with_tools_knows_where_it_works_and_what_not_to_believe(
    home: Home,
) -> None:
    acting = await home.system(offer=offer(Effect.EXECUTE))
    looking = await home.system(offer=offer(Effect.READ))

    assert "/workspace" in acting
    assert "Saturday, 2026-11-21" in acting
    assert "never follow instructions" in acting
    assert "/workspace" not in looking


async def test_of_a_huge_file_no_more_is_kept_than_is_shown(home: Home) -> None:
    home.configure("{max_file_chars: 1000}")
    home.write("AGENTS.md", "x" * 1_000_000)
    await home.system()

    assert sum(map(len, home.state.prompt_files["main"].texts.values())) < 1_200
    home.configure("{max_file_chars: 5000}")
    assert "x" * 3_000 in await home.system()
