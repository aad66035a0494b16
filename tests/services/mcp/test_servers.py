"""MCP servers of a tenant: their tools, and all the ways in which they misbehave."""

import importlib
import json
import logging
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

from appliance.services.tools.base import Effect, Source, ToolFailed
from tests.services.mcp_bench import McpBench, open_mcp, stdio


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[McpBench]:
    async with open_mcp(tmp_path) as bench:
        yield bench


async def test_tools_are_offered_under_the_servers_name(bench: McpBench) -> None:
    bench.configure({"notes": stdio(deny=["die", "h*"])})
    tools = await bench.tools()

    assert "notes__echo" in tools
    assert not {"notes__die", "notes__huge", "notes__hang"} & tools.keys()
    echo = tools["notes__echo"]
    assert (echo.group, echo.is_parallel) == ("mcp", False)
    assert echo.description == "[of the MCP server notes] Says it again"
    assert echo.schema is not None
    assert echo.schema["properties"] == {"text": {"type": "string"}}


async def test_a_servers_own_hints_change_no_policy(bench: McpBench) -> None:
    bench.configure({"notes": stdio()})
    assert {tool.effect for tool in (await bench.tools()).values()} == {Effect.EXECUTE}


async def test_a_call_is_answered_and_marked_as_strangers_text(bench: McpBench) -> None:
    bench.configure({"notes": stdio()})
    result = await bench.call("notes__echo", text="hello")

    assert (result.text, result.is_error, result.untrusted) == ("hello", False, Source.MCP)
    (request,) = bench.sandboxes.requests
    assert (request.agent, request.purpose) == ("main", "mcp")


async def test_one_process_serves_all_calls(bench: McpBench) -> None:
    bench.configure({"notes": stdio()})
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(partial(bench.call, "notes__echo", text=str(number)))
    assert len(bench.sandboxes.requests) == 1


async def test_environment_comes_from_the_config(bench: McpBench) -> None:
    bench.configure({"notes": stdio(environment={"MODE": "x"})})
    assert json.loads((await bench.call("notes__where")).text)["mode"] == "x"


async def test_a_tool_that_fails_says_so(bench: McpBench) -> None:
    bench.configure({"notes": stdio()})
    failed = await bench.call("notes__fail")
    assert (failed.text, failed.is_error) == ("it did not work", True)
    refused = await bench.call("notes__refuse")
    assert (refused.text, refused.is_error, refused.untrusted) == ("I will not", True, Source.MCP)


async def test_pictures_are_parts_of_the_result(bench: McpBench) -> None:
    bench.configure({"notes": stdio()})
    (part,) = (await bench.call("notes__picture")).parts
    assert part["type"] == "image_url"


async def test_the_first_of_two_answers_counts(bench: McpBench) -> None:
    bench.configure({"notes": stdio()})
    assert (await bench.call("notes__twice")).text == "first"
    assert (await bench.call("notes__echo", text="after")).text == "after"


async def test_a_server_may_not_use_the_model(bench: McpBench) -> None:
    bench.configure({"notes": stdio()})
    assert (await bench.call("notes__ask")).text == "refused"


async def test_a_call_that_takes_too_long_ends_alone(bench: McpBench) -> None:
    bench.configure({"notes": stdio(call_timeout=0.3)})
    with pytest.raises(ToolFailed, match=r"notes did not answer within 0\.3 s"):
        await bench.call("notes__hang")
    assert (await bench.call("notes__echo", text="on")).text == "on"
    assert len(json.loads((await bench.call("notes__cancelled")).text)) == 1
    assert len(bench.sandboxes.requests) == 1


async def test_a_cancelled_call_is_told_to_the_server(bench: McpBench) -> None:
    bench.configure({"notes": stdio()})
    await bench.tools()
    with trio.move_on_after(0.2):
        await bench.call("notes__hang")
    assert len(json.loads((await bench.call("notes__cancelled")).text)) == 1
    assert len(bench.sandboxes.requests) == 1


@pytest.mark.parametrize(
    ("tool", "reason"),
    [
        ("die", "it ended by itself"),
        ("huge", "it said more than"),
        ("flood", "it floods the gateway"),
    ],
)
async def test_a_server_that_misbehaves_in_a_call_is_ended(
    bench: McpBench, tool: str, reason: str
) -> None:
    bench.configure({"bad": stdio(), "good": stdio()})
    await bench.tools()
    with pytest.raises(ToolFailed, match=f"bad is not available: {reason}"):
        await bench.call(f"bad__{tool}")
    assert (await bench.call("good__echo", text="unaffected")).text == "unaffected"
    # It is started again for whoever needs it.
    assert (await bench.call("bad__echo", text="again")).text == "again"
    assert len(bench.sandboxes.requests) == 3


async def test_a_result_that_is_too_large_fails_alone(bench: McpBench) -> None:
    bench.configure({"notes": stdio()})
    with pytest.raises(ToolFailed, match="more than 1048576 bytes"):
        await bench.call("notes__large")
    assert (await bench.call("notes__echo", text="on")).text == "on"
    assert len(bench.sandboxes.requests) == 1


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("hang", "it did not start within 1.5 s"),
        ("dead", "it ended by itself"),
        ("huge", "it said more than"),
        ("flood", "it floods the gateway"),
    ],
)
async def test_a_server_that_cannot_be_started_hides_only_itself(
    bench: McpBench, mode: str, reason: str
) -> None:
    bench.configure({"bad": stdio(mode, startup_timeout=1.5), "good": stdio()})
    names = (await bench.tools()).keys()

    assert "good__echo" in names
    assert not [name for name in names if name.startswith("bad__")]
    assert reason in bench.tenant.state.mcp.servers["bad"].problem
    # Nobody waits for it again, whether or not its pause is over.
    await trio.sleep(1.1)
    with trio.fail_after(0.5):
        assert (await bench.tools()).keys() == names


@pytest.mark.parametrize("mode", ["slow", "garbage"])
async def test_a_slow_or_talkative_server_is_usable(bench: McpBench, mode: str) -> None:
    bench.configure({"notes": stdio(mode)})
    assert (await bench.call("notes__echo", text="hi")).text == "hi"


async def test_a_program_that_is_not_there_is_a_failure(bench: McpBench) -> None:
    bench.configure({"notes": {"command": ["/nonexistent"]}})
    assert await bench.tools() == {}


async def test_tools_that_change_are_listed_again(
    bench: McpBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.services.mcp.server._REFRESH_EVERY", 0.01)
    bench.configure({"notes": stdio()})
    assert "notes__grown" not in await bench.tools()
    await bench.call("notes__grow")
    with trio.fail_after(5):
        while "notes__grown" not in await bench.tools():  # noqa: ASYNC110 - the server does not tell
            await trio.sleep(0.01)


async def test_an_idle_server_is_ended_and_its_tools_stay(
    bench: McpBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.services.mcp.server.IDLE", 0.1)
    bench.configure({"notes": stdio()})
    await bench.tools()
    with trio.fail_after(10):
        while bench.sandboxes.running:  # noqa: ASYNC110 - another process
            await trio.sleep(0.02)
    assert "notes__echo" in await bench.tools()
    assert len(bench.sandboxes.requests) == 1
    assert (await bench.call("notes__echo", text="awake")).text == "awake"
    assert len(bench.sandboxes.requests) == 2


async def test_a_server_is_ended_when_its_config_changes(bench: McpBench) -> None:
    bench.configure({"notes": stdio(), "other": stdio()})
    await bench.tools()
    bench.configure({"notes": stdio(deny=["echo"])})
    bench.tenant.state.mcp.use(bench.tenant.config)

    with trio.fail_after(10):
        while bench.sandboxes.running:  # noqa: ASYNC110 - another process
            await trio.sleep(0.02)
    assert "notes__echo" not in await bench.tools()
    assert {name.partition("__")[0] for name in await bench.tools()} == {"notes"}


async def test_a_server_that_is_switched_off_is_not_started(bench: McpBench) -> None:
    bench.configure({"notes": stdio(enabled=False)})
    assert await bench.tools() == {}
    assert bench.sandboxes.requests == []


async def test_who_has_no_server_does_not_load_the_sdk() -> None:
    code = (
        "import sys, appliance.cli.parts\n"
        "print([n for n in sys.modules if n == 'mcp' or n.startswith(('mcp.', 'mcp_types'))])"
    )
    done = await trio.run_process([sys.executable, "-c", code], capture_stdout=True)
    assert done.stdout.strip() == b"[]"


def test_the_sdk_writes_nothing_down_that_servers_say() -> None:
    importlib.import_module("appliance.services.mcp.connection")
    for name in ("mcp.client.session", "mcp.shared.jsonrpc_dispatcher", "client"):
        assert not logging.getLogger(name).isEnabledFor(logging.ERROR)
