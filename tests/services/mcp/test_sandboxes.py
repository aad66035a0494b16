"""MCP servers in real sandboxes, from the tool to the process and back."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from appliance.services.mcp.servers import McpServers
from appliance.services.tools.base import ToolFailed
from appliance.services.workspaces import open_workspace
from tests.sandboxes.workshop import HAS_BWRAP, NO_BWRAP
from tests.services.mcp_bench import SCRIPT, McpBench, PlainSandboxes, vault
from tests.services.test_real_sandboxes import left_over, real_sandboxes

pytestmark = pytest.mark.skipif(not HAS_BWRAP, reason=NO_BWRAP)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[McpBench]:
    async with real_sandboxes(tmp_path) as real, trio.open_nursery() as nursery:
        with open_workspace(real.tenant, "main") as workspace:
            workspace.write_atomic("server.py", SCRIPT.read_bytes())
        nursery.start_soon(real.tenant.state.mcp.run)
        servers = McpServers(real.sandboxes, vault=vault())
        yield McpBench(real.tenant, servers, PlainSandboxes(), vault())
        nursery.cancel_scope.cancel()
    assert left_over("/workspace/server.py") == []


def boxed(mode: str = "good", **more: Any) -> dict[str, Any]:
    return {"command": ["/usr/bin/python3", "/workspace/server.py", mode], **more}


async def test_a_server_works_inside_and_sees_the_workspace_only(bench: McpBench) -> None:
    bench.configure({"notes": boxed(environment={"MODE": "boxed"})})
    facts = json.loads((await bench.call("notes__where")).text)

    assert (facts["cwd"], facts["mode"]) == ("/workspace", "boxed")
    assert "server.py" in facts["files"]
    assert "acme" not in json.dumps(facts)


async def test_servers_that_misbehave_inside_cost_nobody_else(bench: McpBench) -> None:
    bench.configure(
        {
            "good": boxed(),
            "hung": boxed("hang", startup_timeout=3),
            "loud": boxed("flood", startup_timeout=10),
            "dead": boxed("dead"),
        }
    )
    assert {name.partition("__")[0] for name in await bench.tools()} == {"good"}
    for tool in ("die", "huge", "flood"):
        with pytest.raises(ToolFailed, match="good is not available"):
            await bench.call(f"good__{tool}")
        assert (await bench.call("good__echo", text=tool)).text == tool
        # It has failed often enough by now to be left alone for a while.
        bench.tenant.state.mcp.servers["good"].failures = 0


async def test_what_a_server_used_is_in_the_books(bench: McpBench) -> None:
    bench.configure({"notes": boxed()})
    await bench.call("notes__echo", text="x")
    bench.configure({})
    assert await bench.tools() == {}
    with trio.fail_after(20):
        while not cast("Any", bench.tenant).entries("sandbox_ms"):  # noqa: ASYNC110 - another process
            await trio.sleep(0.05)
