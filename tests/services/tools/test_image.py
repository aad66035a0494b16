"""``image``: pictures from the workspace and from the web."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from appliance.model.errors import ApplianceError
from appliance.services.tools.base import Source, ToolFailed, ToolResult
from appliance.services.tools.image import image_tool
from tests.services.tools.calling import ToolBench, open_bench
from tests.services.tools.websites import Websites, answer, open_websites

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)


class Bench:
    def __init__(self, tools: ToolBench, sites: Websites) -> None:
        self.tools = tools
        self.sites = sites
        self.tool = image_tool(sites.fetcher())

    async def __call__(self, *, sees: bool = True, **arguments: Any) -> ToolResult:
        with trio.fail_after(30):
            return await self.tools.call(self.tool, arguments, model_reads_pictures=sees)


@pytest.fixture
async def bench(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path) as tools:
        sites = await open_websites(nursery, {"/p": answer(PNG, kind="image/png")})
        yield Bench(tools, sites)


async def test_a_picture_of_the_workspace_comes_into_the_conversation(bench: Bench) -> None:
    (bench.tools.workspace / "p.png").write_bytes(PNG)

    result = await bench(path="p.png", prompt="Is there a cat?")

    assert result.text == "The picture p.png follows. Look for this: Is there a cat?"
    assert str(result.parts).count("data:image/png;base64,") == 1
    assert result.untrusted is Source.FILE


async def test_a_picture_of_the_web_comes_into_the_conversation(bench: Bench) -> None:
    result = await bench(url=f"{bench.sites.url}/p")

    assert str(result.parts).count("data:image/png;base64,") == 1
    assert result.untrusted is Source.WEB


async def test_what_is_no_picture_is_refused(bench: Bench) -> None:
    place = bench.tools.workspace
    (place / "text").write_text("hello")
    (place / "link").symlink_to("/etc/hostname")
    (place / "large.png").write_bytes(PNG + bytes(5_000_001))

    for path in ("text", "link", "large.png", "missing.png", "../tenant.yaml", "/etc/hostname"):
        with pytest.raises((ToolFailed, ApplianceError)):
            await bench(path=path)

    bench.sites.pages["/text"] = answer("hello", kind="image/png")
    for url in ("/text", "/missing"):
        result = await bench(url=bench.sites.url + url)
        assert result.is_error
        assert not result.parts


async def test_one_place_must_be_named(bench: Bench) -> None:
    with pytest.raises(ToolFailed, match="one of path and url"):
        await bench()
    with pytest.raises(ToolFailed, match="one of path and url"):
        await bench(path="p.png", url="http://site.example/p")


async def test_a_model_that_reads_no_pictures_is_told_so(bench: Bench) -> None:
    with pytest.raises(ToolFailed, match="does not read pictures"):
        await bench(sees=False, url=f"{bench.sites.url}/p")
    assert bench.sites.requests == []


async def test_what_the_config_switches_off_is_not_done(bench: Bench) -> None:
    bench.tools.configure(
        "  sandbox: {workspace: none}\n  tools: {web: {fetch: {enabled: false}}}\n"
    )

    with pytest.raises(ToolFailed, match="no workspace"):
        await bench(path="p.png")
    with pytest.raises(ToolFailed, match="enabled is off"):
        await bench(url=f"{bench.sites.url}/p")


async def test_who_may_not_fetch_pages_fetches_no_pictures(bench: Bench) -> None:
    bench.tools.configure("  tools: {deny: ['group:web']}\n")

    with pytest.raises(ToolFailed, match="web_fetch"):
        await bench(url=f"{bench.sites.url}/p")
    assert bench.sites.requests == []
