"""When a connection to an MCP server begins, ends, and is tried again."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from appliance.config.loading import parse_config
from appliance.config.schema import GatewayConfig
from appliance.config.tool_schema import McpServerConfig
from appliance.model.mcp_tools import RemoteTool, read_tools
from appliance.services.mcp.host import McpHost
from appliance.services.mcp.server import IDLE, Link, McpServer, ServerGone, ServerRefused


@dataclass
class FakeLink:
    """Satisfies ``mcp_server.Link``."""

    changed: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)
    reason: str = ""
    names: list[str] = field(default_factory=lambda: ["a"])
    listed: int = 0

    async def list(self) -> Sequence[RemoteTool]:
        await trio.lowlevel.checkpoint()
        self.changed = trio.Event()
        self.listed += 1
        return read_tools("s", [{"name": name} for name in self.names])

    async def call(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        limit: float,
        progress: Callable[[str], None],
    ) -> Mapping[str, Any]:
        raise AssertionError(name, arguments, limit, progress)

    def end(self, reason: str) -> None:
        self.reason = reason
        self.ended.set()


@dataclass
class Door:
    """Opens connections as it is told."""

    takes: float = 0.0
    problem: Exception | None = None
    leaves: float = 0.0  # seconds to close
    links: list[FakeLink] = field(default_factory=list)
    opened: int = 0
    closed: int = 0

    @asynccontextmanager
    async def __call__(self, name: str, config: McpServerConfig) -> AsyncIterator[Link]:
        self.opened += 1
        await trio.sleep(self.takes)
        if self.problem is not None:
            raise self.problem
        self.links.append(FakeLink())
        try:
            yield self.links[-1]
            await trio.sleep(self.leaves)
        finally:
            self.closed += 1


def server(door: Door, **more: Any) -> McpServer:
    return McpServer("s", McpServerConfig(command=["x"], **more), door, settings=None)


@pytest.fixture
async def room() -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        with trio.fail_after(100_000):
            yield nursery
        nursery.cancel_scope.cancel()


async def test_all_who_wait_get_the_same_connection(
    autojump_clock: MockClock, room: trio.Nursery
) -> None:
    door = Door(takes=3)
    one = server(door)
    found: list[Link] = []

    async def want() -> None:
        found.append(await one.ready(room))

    async with trio.open_nursery() as waiting:
        for _ in range(5):
            waiting.start_soon(want)
    assert found == door.links * 5
    assert [tool.offered_as for tool in one.tools] == ["s__a"]


async def test_a_start_has_its_time(autojump_clock: MockClock, room: trio.Nursery) -> None:
    began = trio.current_time()
    with pytest.raises(ServerGone, match="it did not start within 7 s"):
        await server(Door(takes=8), startup_timeout=7).ready(room)
    assert trio.current_time() - began == pytest.approx(7)


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (ServerGone("the door is shut"), "the door is shut"),
        (ServerRefused("<script>"), "it refuses to be used"),
        (KeyError("<script>"), r"the connection broke \(KeyError\)"),
        (ExceptionGroup("", [ExceptionGroup("", [OSError("x")])]), r"broke \(OSError\)"),
    ],
)
async def test_whatever_goes_wrong_is_the_servers_failure(
    autojump_clock: MockClock, room: trio.Nursery, problem: Exception, said: str
) -> None:
    with pytest.raises(ServerGone, match=said):
        await server(Door(problem=problem)).ready(room)


async def test_pauses_between_attempts_grow(autojump_clock: MockClock, room: trio.Nursery) -> None:
    door = Door(problem=ServerGone("no"))
    one = server(door)
    began = trio.current_time()
    for _ in range(12):
        with pytest.raises(ServerGone):
            await one.ready(room)
        await trio.sleep(max(one._not_before - trio.current_time(), 0))
    assert door.opened == 12
    assert 1000 < trio.current_time() - began < 2000
    with pytest.raises(ServerGone):
        await one.ready(room)
    with pytest.raises(ServerGone, match="no; it is tried again in 300 s"):
        await one.ready(room)
    assert door.opened == 13


async def test_after_a_good_while_a_failure_is_the_first_again(
    autojump_clock: MockClock, room: trio.Nursery
) -> None:
    door = Door()
    one = server(door)
    one.failures = 5
    await one.ready(room)
    await trio.sleep(100)
    door.links[0].end("it ended by itself")
    await trio.sleep(0.1)
    assert (one.failures, one.problem) == (1, "it ended by itself")
    began = trio.current_time()
    assert await one.ready(room) is door.links[1]
    assert trio.current_time() - began <= 1


async def test_an_idle_connection_is_closed_and_one_in_use_is_not(
    autojump_clock: MockClock, room: trio.Nursery
) -> None:
    door = Door()
    one = server(door)
    with one.in_use():
        await one.ready(room)
        await trio.sleep(3 * IDLE)
        assert door.closed == 0
    await trio.sleep(IDLE + 2)
    assert (door.closed, one.is_connected, one.is_listed) == (1, False, True)
    await one.ready(room)
    assert (door.opened, one.failures) == (2, 0)


async def test_whoever_comes_while_it_closes_waits_for_the_next(
    autojump_clock: MockClock, room: trio.Nursery
) -> None:
    door = Door(leaves=4)
    one = server(door)
    await one.ready(room)
    door.links[0].end("it ended by itself")
    assert await one.ready(room) is door.links[1]
    assert door.closed == 1


async def test_a_goodbye_is_not_drawn_out(autojump_clock: MockClock, room: trio.Nursery) -> None:
    door = Door(leaves=1000)
    one = server(door)
    await one.ready(room)
    door.links[0].end("x")
    await trio.sleep(11)
    assert door.closed == 1
    assert one.problem == "x"


async def test_who_changes_all_the_time_is_asked_now_and_then(
    autojump_clock: MockClock, room: trio.Nursery
) -> None:
    door = Door()
    one = server(door)
    await one.ready(room)
    (link,) = door.links
    link.names = ["a", "b"]
    for _ in range(600):
        link.changed.set()
        await trio.sleep(0.1)
    assert 5 < link.listed < 15
    assert len(one.tools) == 2


def config(yaml: str) -> GatewayConfig:
    text = "providers: {stub: {dialect: openai}}\nmodels: {default: stub/mock}\n"
    return parse_config(f"{text}{yaml}", name="config")


async def test_a_host_keeps_what_is_configured_and_ends_the_rest(
    autojump_clock: MockClock,
) -> None:
    host, door = McpHost(), Door()
    first = config("defaults: {tools: {mcp: {a: {command: [x]}, b: {command: [y]}}}}")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.run)
        with trio.fail_after(100):
            a, b = host.enabled(first, door)
            for each in (a, b):
                await host.ready(each)
            host.use(config("defaults: {tools: {mcp: {b: {command: [y]}}}}"))
            await trio.testing.wait_all_tasks_blocked()
            assert (a.is_connected, b.is_connected, door.closed) == (False, True, 1)
            with pytest.raises(ServerGone, match="not configured any more"):
                await host.ready(a)
            # What it may reach is part of what it is.
            host.use(
                config(
                    "defaults: {tools: {mcp: {b: {command: [y]}}}}\negress: {allow_private: true}"
                )
            )
            assert dict(host.servers) == {}
        nursery.cancel_scope.cancel()
    assert door.closed == 2
    with pytest.raises(ServerGone, match="going to sleep"):
        await host.ready(b)
