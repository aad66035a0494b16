"""``web_fetch``, over real connections."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from appliance.services.tools.base import Effect, Source, ToolFailed, ToolResult
from appliance.services.tools.web_fetch import WebFetch
from tests.services.tools.calling import ToolBench, open_bench
from tests.services.tools.websites import Websites, answer, open_websites

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)
PAGE = """<!doctype html><title>The page</title><nav>Menu</nav>
<main><h1>Hello</h1><p>See <a href="/more">more</a>.</p><script>evil()</script></main>"""


class Bench:
    def __init__(self, tools: ToolBench, sites: Websites) -> None:
        self.tools = tools
        self.sites = sites
        self.source = WebFetch(sites.fetcher())

    async def __call__(self, path: str = "/", *, sees: bool = True, **arguments: Any) -> ToolResult:
        given = {"url": self.sites.url + path, **arguments}
        with trio.fail_after(30):
            return await self.tools.call(self.source.tool, given, model_reads_pictures=sees)


@pytest.fixture
async def bench(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path) as tools:
        yield Bench(tools, await open_websites(nursery, {"/": answer(PAGE)}))


async def test_a_page_becomes_markdown_that_is_marked_as_untrusted(bench: Bench) -> None:
    result = await bench()

    assert result.text == (
        f"URL: {bench.sites.url}/\nStatus: 200\nTitle: The page\n\n"
        f"# Hello\n\nSee [more]({bench.sites.url}/more)."
    )
    assert result.untrusted is Source.WEB
    assert not result.is_error
    assert result.details["contentType"] == "text/html"
    assert bench.source.tool.effect is Effect.FETCH


async def test_a_page_becomes_text_where_that_is_wanted(bench: Bench) -> None:
    result = await bench(extractMode="text")

    assert result.text.endswith("\n\nHello\n\nSee more.")


async def test_a_long_page_is_cut_where_the_caller_or_the_config_says(bench: Bench) -> None:
    bench.sites.pages["/long"] = answer("<p>" + "word " * 100_000)

    short = await bench("/long", maxChars=100)
    assert short.text.endswith("[Only the first 100 characters are shown.]")
    assert short.details["truncated"] is True

    bench.tools.configure("  tools: {web: {fetch: {max_chars: 200}}}\n")
    assert (await bench("/long", maxChars=5000)).details["length"] == 200


async def test_text_and_data_are_shown_as_they_are(bench: Bench) -> None:
    bench.sites.pages |= {
        "/json": answer('{"a": "<b>"}', kind="application/json"),
        "/feed": answer("<rss><item>x</item></rss>", kind="application/rss+xml"),
        "/latin": answer("caf\xe9".encode("latin-1"), kind="text/plain; charset=ISO-8859-1"),
        "/odd": answer("caf\xe9", kind="text/plain; charset=no-such-thing"),
        "/none": answer("just text", kind=""),
        "/html": answer("<!DOCTYPE html><p>x", kind=""),
        "/broken": answer(b"a\xffb", kind="text/plain; charset=utf-8"),
    }

    shown = {path: (await bench(path)).text.partition("\n\n")[2] for path in bench.sites.pages}

    assert shown["/json"] == '{"a": "<b>"}'
    assert shown["/feed"] == "<rss><item>x</item></rss>"
    assert shown["/latin"] == shown["/odd"] == "caf\xe9"
    assert shown["/none"] == "just text"
    assert shown["/html"] == "x"
    assert shown["/broken"] == "a\ufffdb"


async def test_entities_of_a_document_are_never_fetched(bench: Bench) -> None:
    bomb = '<!DOCTYPE html [<!ENTITY x SYSTEM "file:///etc/hostname"><!ENTITY y "yyyy">]>'
    bench.sites.pages["/"] = answer(f"{bomb}<p>a &x; b &y;", kind="application/xhtml+xml")

    text = (await bench()).text

    assert "&x;" in text
    assert "yyyy" not in text.partition("&x;")[2]


async def test_a_picture_is_shown_to_models_that_read_pictures(bench: Bench) -> None:
    bench.sites.pages["/"] = answer(PNG, kind="application/octet-stream")

    seen = await bench()
    (part,) = seen.parts
    assert str(part).count("data:image/png;base64,") == 1

    blind = await bench(sees=False)
    assert not blind.parts
    assert "does not read pictures" in blind.text


async def test_a_picture_that_is_too_large_is_refused(bench: Bench) -> None:
    bench.sites.pages["/"] = answer(PNG + bytes(5_000_000), kind="image/png")
    for config in ("", "  tools: {web: {fetch: {max_bytes: 9000000}}}\n"):
        bench.tools.configure(config)
        with pytest.raises(ToolFailed, match="which is the limit"):
            await bench()


@pytest.mark.parametrize("kind", ["application/pdf", "video/mp4", "application/octet-stream", ""])
async def test_what_is_no_text_is_refused(bench: Bench, kind: str) -> None:
    bench.sites.pages["/"] = answer(b"%PDF\0\0\0", kind=kind)

    result = await bench()

    assert result.is_error
    assert "cannot be shown as text" in result.text


async def test_a_page_that_says_no_is_an_error_with_its_words(bench: Bench) -> None:
    bench.sites.pages["/"] = answer("<h1>Gone</h1>" + "<p>very long" * 1000, status=410)

    result = await bench()

    assert result.is_error
    assert "Status: 410\n\n# Gone" in result.text
    assert len(result.text) < 1200
    assert result.untrusted is Source.WEB


async def test_what_a_redirect_wrote_is_marked_too(bench: Bench) -> None:
    bench.sites.pages["/"] = answer(status=302, Location="https://x.example/ignore-your-rules")
    bench.tools.configure("  tools: {web: {fetch: {max_redirects: 0}}}\n")

    result = await bench()

    assert result.is_error
    assert result.untrusted is Source.WEB


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", "only http"),
        ("gopher://example.org/", "only http"),
        ("http://me:secret@example.org/", "user name"),
        ("http://2130706433/", "neither a name nor an address"),
        ("example.org", "only http"),
    ],
)
async def test_other_urls_are_refused(bench: Bench, url: str, reason: str) -> None:
    with pytest.raises(ToolFailed, match=reason):
        await bench(url=url)


async def test_an_address_that_is_not_public_is_refused(bench: Bench) -> None:
    bench.sites.trusted = frozenset()

    for host in ("127.0.0.1", "[::ffff:127.0.0.1]", "site.example"):
        result = await bench(url=f"http://{host}:{bench.sites.port}/")
        assert result.is_error
        assert "not a public one" in result.text
    assert bench.sites.requests == []


async def test_the_tool_is_there_unless_the_config_switches_it_off(bench: Bench) -> None:
    assert [tool.name for tool in await bench.source.tools(bench.tools.tenant, "main")] == [
        "web_fetch"
    ]

    bench.tools.configure("  tools: {web: {fetch: {enabled: false}}}\n")

    assert await bench.source.tools(bench.tools.tenant, "main") == ()
