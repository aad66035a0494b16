"""``web_search``, against a service of each kind."""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trio

from appliance.services.tools.base import Source, ToolFailed, ToolResult
from appliance.services.tools.web_search import WebSearch
from appliance.storage.credentials import CredentialStore, ProviderCredential, Vault
from tests.services.tools.calling import ToolBench, open_bench
from tests.services.tools.websites import Websites, answer, open_websites

VAULT = Vault(bytes(32))
FOUND = [
    {"title": f"T{n}", "url": f"https://r{n}.example/", "content": f"about {n}"} for n in range(9)
]
BRAVE = {"web": {"results": [{**each, "description": each["content"]} for each in FOUND]}}


class Bench:
    def __init__(self, tools: ToolBench, sites: Websites) -> None:
        self.tools = tools
        self.sites = sites
        self.source = WebSearch(sites.fetcher(), vault=VAULT)

    def configure(self, *, is_private: bool = True, **search: Any) -> None:
        settings = json.dumps({"tools": {"web": {"search": search}}})[1:-1]
        egress = "egress: {allow_private: true}\n" if is_private else ""
        self.tools.configure(f"  {settings}\n{egress}")

    def keep_key(self, name: str, key: str = "the-key") -> None:
        credential = ProviderCredential(name, None, None, key)
        CredentialStore(self.tools.tenant.root, VAULT).set(credential)

    async def is_offered(self) -> bool:
        return bool(await self.source.tools(self.tools.tenant, "main"))

    async def __call__(self, **arguments: Any) -> ToolResult:
        (tool,) = await self.source.tools(self.tools.tenant, "main")
        with trio.fail_after(30):
            return await self.tools.call(tool, {"query": "cats & dogs", **arguments})

    def asked(self) -> tuple[str, Mapping[str, list[str]], str]:
        """Path, parameters, and the whole of the last request."""
        request = self.sites.requests[-1]
        url = urlsplit(request.split(" ")[1])
        return url.path, parse_qs(url.query), request


@pytest.fixture
async def bench(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path) as tools:
        pages = {
            "/base/search": answer(json.dumps({"results": FOUND}), kind="application/json"),
            "/res/v1/web/search": answer(json.dumps(BRAVE), kind="application/json"),
        }
        yield Bench(tools, await open_websites(nursery, pages))


async def test_searxng_is_asked_without_a_key(bench: Bench) -> None:
    bench.configure(provider="searxng", base_url=f"{bench.sites.url}/base/")

    result = await bench(count=2, freshness="week")

    assert result.text == (
        "1. T0\n   https://r0.example/\n   about 0\n\n2. T1\n   https://r1.example/\n   about 1"
    )
    assert result.untrusted is Source.WEB
    assert result.details["count"] == 2
    path, asked, _ = bench.asked()
    assert path == "/base/search"
    assert asked == {"q": ["cats & dogs"], "format": ["json"], "time_range": ["week"]}


async def test_brave_is_asked_with_the_tenants_key(bench: Bench) -> None:
    bench.configure(provider="brave", base_url=bench.sites.url, max_results=3)
    bench.keep_key("brave")

    result = await bench(count=20, country="de", freshness="day")

    assert result.details["count"] == 3
    path, asked, request = bench.asked()
    assert path == "/res/v1/web/search"
    assert asked["count"] == ["3"]
    assert (asked["country"], asked["freshness"]) == (["DE"], ["pd"])
    assert "X-Subscription-Token: the-key\r\n" in request
    assert "the-key" not in result.text


async def test_tavily_is_asked_with_a_key_of_another_name(bench: Bench) -> None:
    bench.configure(
        provider="tavily", base_url=f"{bench.sites.url}/base", credential="my-searching"
    )
    bench.keep_key("my-searching")

    await bench()

    _, _, request = bench.asked()
    assert request.startswith("POST /base/search HTTP/1.1\r\n")
    assert "Authorization: Bearer the-key\r\n" in request
    assert json.loads(request.partition("\r\n\r\n")[2]) == {
        "query": "cats & dogs",
        "max_results": 5,
    }


async def test_the_tool_is_not_offered_where_anything_is_missing(bench: Bench) -> None:
    assert not await bench.is_offered()

    bench.configure(provider="brave")
    assert not await bench.is_offered()
    bench.keep_key("brave")
    assert await bench.is_offered()

    bench.configure(provider="searxng")
    assert not await bench.is_offered()
    bench.configure(provider="searxng", base_url="https://search.example", credential="lost")
    assert not await bench.is_offered()
    bench.keep_key("lost", "two\r\nlines")
    assert not await bench.is_offered()


async def test_a_key_that_cannot_be_opened_is_as_none(bench: Bench) -> None:
    bench.configure(provider="brave")
    bench.keep_key("brave")
    bench.source = WebSearch(bench.sites.fetcher(), vault=Vault(b"x" * 32))

    assert not await bench.is_offered()


async def test_a_key_is_not_sent_over_the_internet_in_the_clear(bench: Bench) -> None:
    bench.configure(provider="brave", base_url="http://search.example", is_private=False)
    bench.keep_key("brave")

    assert not await bench.is_offered()


async def test_a_tenants_service_must_be_public(bench: Bench) -> None:
    bench.sites.trusted = frozenset()
    bench.configure(provider="searxng", base_url=f"{bench.sites.url}/base", is_private=False)

    with pytest.raises(ToolFailed, match="not a public one"):
        await bench()
    assert bench.sites.requests == []


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ("no", 401, "status 401"),
        ("<html>", 200, "no list of results"),
        ('{"results": 5}', 200, "no list of results"),
        ("", 302, "redirects"),
    ],
)
async def test_a_service_that_fails_is_told(
    bench: Bench, body: str, status: int, reason: str
) -> None:
    bench.sites.pages["/base/search"] = answer(body, status=status, Location="/elsewhere")
    bench.configure(provider="searxng", base_url=f"{bench.sites.url}/base")

    with pytest.raises(ToolFailed, match=reason):
        await bench()
    assert len(bench.sites.requests) == 1


async def test_nothing_found_is_no_failure(bench: Bench) -> None:
    bench.sites.pages["/base/search"] = answer('{"results": []}')
    bench.configure(provider="searxng", base_url=f"{bench.sites.url}/base")

    assert (await bench()).text == "Nothing was found."
