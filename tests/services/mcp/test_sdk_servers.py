"""Servers made with the official SDK, as other people make them."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from appliance.services.tools.base import ToolFailed
from tests.services.mcp_bench import open_mcp

SERVER = """
import sys
import anyio
from mcp.server import MCPServer

server = MCPServer("theirs")

@server.tool()
def add(a: int, b: int) -> int:
    "Adds."
    return a + b

@server.tool()
async def wait() -> str:
    await anyio.sleep(60)
    return "late"

if len(sys.argv) == 1:
    server.run()
else:
    server.run(transport="streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
"""


@pytest.fixture
def port() -> Iterator[int]:
    """Where one listens, in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield port
    process.kill()
    process.wait()


async def test_one_in_a_process(tmp_path: Path) -> None:
    async with open_mcp(tmp_path) as bench:
        bench.configure({"theirs": {"command": [sys.executable, "-c", SERVER], "call_timeout": 5}})
        assert set(await bench.tools()) == {"theirs__add", "theirs__wait"}
        assert (await bench.call("theirs__add", a=2, b=3)).text == "5"
        assert (await bench.call("theirs__add", a="x")).is_error


async def test_one_over_http(tmp_path: Path, port: int) -> None:
    with trio.fail_after(60):
        while True:
            try:
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                break
            except OSError:
                await trio.sleep(0.1)
    async with open_mcp(tmp_path) as bench:
        config = {"url": f"http://127.0.0.1:{port}/mcp", "call_timeout": 2}
        bench.configure({"theirs": config}, egress={"allow_private": True})
        assert set(await bench.tools()) == {"theirs__add", "theirs__wait"}
        assert (await bench.call("theirs__add", a=2, b=3)).text == "5"
        with pytest.raises(ToolFailed, match="did not answer within 2 s"):
            await bench.call("theirs__wait")
        assert (await bench.call("theirs__add", a=2, b=4)).text == "6"
