"""What is fetched from the web for a tenant, and what never is."""

import gzip
import socket
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from appliance.model.web_addresses import WebAddress
from appliance.sandboxes.egress_certificates import Authority
from appliance.services.web_pages import Fetched, FetchFailed, FetchLimits, WebFetcher, WebRequest
from tests.services.tools.calling import ToolBench, open_bench
from tests.services.tools.websites import Websites, answer, open_websites, raw

LIMITS = FetchLimits(max_bytes=100_000, timeout=20, max_redirects=3)
PRIVATE = "egress: {allow_private: true}\n"


class Bench:
    def __init__(self, tools: ToolBench, sites: Websites) -> None:
        self.tools = tools
        self.sites = sites

    async def fetch(
        self, url: str, *, limits: FetchLimits = LIMITS, is_configured: bool = False
    ) -> Fetched:
        request = WebRequest(address=WebAddress.parse(url), is_configured=is_configured)
        with trio.fail_after(30):
            return await self.sites.fetcher().fetch(self.tools.tenant, request, limits)

    async def refusal(self, url: str, *, limits: FetchLimits = LIMITS) -> str:
        with pytest.raises(FetchFailed) as refused:
            await self.fetch(url, limits=limits)
        return str(refused.value)


@pytest.fixture
async def bench(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path) as tools:
        yield Bench(tools, await open_websites(nursery, {}))


async def test_a_page_is_fetched_and_nothing_of_the_tenant_goes_along(bench: Bench) -> None:
    bench.sites.pages["/a b"] = bench.sites.pages["/a%20b"] = answer("<p>hello")

    fetched = await bench.fetch(f"{bench.sites.url}/a b?q=ü#part")

    assert (fetched.status, fetched.body, fetched.media_type) == (200, b"<p>hello", "text/html")
    assert fetched.address.text == f"{bench.sites.url}/a%20b?q=%C3%BC"
    (request,) = bench.sites.requests
    head = request.lower()
    assert f"host: site.example:{bench.sites.port}" in head
    assert "cookie" not in head
    assert "authorization" not in head
    assert "#" not in head


async def test_redirects_are_followed_relative_and_absolute(bench: Bench) -> None:
    url = bench.sites.url
    bench.sites.pages |= {
        "/1": answer(status=301, Location="sub/2"),
        "/sub/2": answer(status=307, Location=f"{url}/3"),
        "/3": answer("there", kind="text/plain"),
    }

    fetched = await bench.fetch(f"{url}/1")

    assert (fetched.body, fetched.address.target) == (b"there", "/3")


async def test_a_redirect_that_never_ends_is_given_up(bench: Bench) -> None:
    bench.sites.pages["/"] = answer(status=302, Location="/")

    assert "more than 3 times" in await bench.refusal(bench.sites.url)
    assert len(bench.sites.requests) == 4


@pytest.mark.parametrize(
    "inner",
    [
        "127.0.0.2",
        "10.0.0.1",
        "169.254.169.254",
        "[::1]",
        "[::ffff:10.0.0.1]",
        "[fd00:ec2::254]",
        "100.100.100.200",
    ],
)
async def test_a_redirect_to_an_address_that_is_not_public_is_refused(
    bench: Bench, inner: str
) -> None:
    bench.sites.pages["/"] = answer(status=302, Location=f"http://{inner}:{bench.sites.port}/")

    assert "not a public one" in await bench.refusal(bench.sites.url)
    assert len(bench.sites.requests) == 1


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "gopher://site.example/_x", "http://u:p@site.example/", "http://[::1/"],
)
async def test_a_redirect_to_what_is_no_page_is_refused(bench: Bench, location: str) -> None:
    bench.sites.pages["/"] = answer(status=302, Location=location)

    assert "redirects to what cannot be" in await bench.refusal(bench.sites.url)


async def test_a_name_that_changes_its_mind_is_looked_up_once_for_each_connection(
    bench: Bench,
) -> None:
    bench.sites.names["turncoat.example"] = [["127.0.0.1"], ["10.0.0.1"]]
    url = f"http://turncoat.example:{bench.sites.port}/"
    bench.sites.pages["/"] = answer("fine")

    assert (await bench.fetch(url)).body == b"fine"
    assert bench.sites.looked_up == ["turncoat.example"]
    assert "not a public one" in await bench.refusal(url)


async def test_one_address_that_is_not_public_spoils_a_name(bench: Bench) -> None:
    bench.sites.names["mixed.example"] = [["127.0.0.1", "192.168.1.1"]]

    assert "not a public one" in await bench.refusal(f"http://mixed.example:{bench.sites.port}/")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::]",
        "0.0.0.0",  # noqa: S104 - an address to refuse
        "[fe80::1]",
    ],
)
async def test_this_machine_is_never_reached(bench: Bench, host: str) -> None:
    """With the resolver and the judgement of the product, at a port where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        server.setblocking(False)  # noqa: FBT003 - its only parameter
        fetcher = WebFetcher(ports={port})
        for config in ("", PRIVATE):
            bench.tools.configure(config)
            request = WebRequest(address=WebAddress.parse(f"http://{host}:{port}/"))
            with trio.fail_after(30), pytest.raises(FetchFailed, match="not a public one"):
                await fetcher.fetch(bench.tools.tenant, request, LIMITS)
        with pytest.raises(BlockingIOError):
            server.accept()


async def test_where_private_addresses_are_allowed_a_configured_service_may_be_on_this_machine(
    bench: Bench,
) -> None:
    bench.sites.trusted = frozenset()
    bench.sites.pages["/"] = answer("results")
    with pytest.raises(FetchFailed, match="not a public one"):
        await bench.fetch(bench.sites.url, is_configured=True)

    bench.tools.configure(PRIVATE)

    assert (await bench.fetch(bench.sites.url, is_configured=True)).body == b"results"
    assert "not a public one" in await bench.refusal(bench.sites.url)


async def test_metadata_services_stay_out_of_reach_of_whatever_is_configured(bench: Bench) -> None:
    bench.tools.configure(PRIVATE)
    for host in ("169.254.169.254", "[fd00:ec2::254]", "100.100.100.200"):
        with pytest.raises(FetchFailed, match="not a public one"):
            await bench.fetch(f"http://{host}/latest/meta-data", is_configured=True)


async def test_other_ports_than_those_of_web_sites_are_refused(bench: Bench) -> None:
    request = WebRequest(address=WebAddress.parse("http://site.example:25/"))
    fetcher = WebFetcher(resolve=bench.sites.resolve)

    with pytest.raises(FetchFailed, match="from the ports 80, 443, 8080, 8443 only"):
        await fetcher.fetch(bench.tools.tenant, request, LIMITS)
    assert bench.sites.looked_up == []


async def test_the_operators_bound_holds_for_every_hop(bench: Bench) -> None:
    port = bench.sites.port
    bench.sites.names |= {"other.example": [["127.0.0.1"]], "a.fine.example": [["127.0.0.1"]]}
    bench.sites.pages |= {
        "/": answer(status=302, Location=f"http://other.example:{port}/x"),
        "/x": answer("x"),
    }
    bench.tools.configure("egress: {only: [site.example, '*.fine.example']}\n")

    assert (await bench.fetch(f"http://a.fine.example:{port}/x")).body == b"x"
    assert "other.example" in await bench.refusal(bench.sites.url)
    assert "egress.only" in await bench.refusal(f"http://127.0.0.1:{port}/x")
    assert "egress.only" in await bench.refusal(f"http://fine.example:{port}/x")


@pytest.fixture
async def secure_bench(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path) as tools:
        yield Bench(tools, await open_websites(nursery, {}, authority=Authority.generate()))


async def test_a_redirect_from_https_to_http_is_not_followed(secure_bench: Bench) -> None:
    url = secure_bench.sites.url
    assert url.startswith("https://")
    secure_bench.sites.pages |= {
        "/": answer("safe"),
        "/up": answer(status=301, Location="/"),
        "/down": answer(status=301, Location="http://site.example/plain"),
    }

    assert (await secure_bench.fetch(url)).body == b"safe"
    assert (await secure_bench.fetch(f"{url}/up")).body == b"safe"
    refusal = await secure_bench.refusal(f"{url}/down")
    assert "from https to http://site.example/plain" in refusal


async def test_a_server_must_prove_that_it_is_who_was_asked_for(secure_bench: Bench) -> None:
    sites = secure_bench.sites
    sites.names["other.example"] = [["127.0.0.1"]]
    sites.pages["/"] = answer("not for you")

    assert "certificate" in await secure_bench.refusal(f"https://other.example:{sites.port}/")
    assert sites.requests == []


async def test_a_stream_without_end_is_cut_where_the_limit_is(bench: Bench) -> None:
    sent = 0

    async def pour(stream: trio.abc.Stream, _: str) -> None:
        nonlocal sent
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while sent < 1_000_000_000:
            await stream.send_all(bytes(65536))
            sent += 65536

    bench.sites.pages["/"] = pour

    fetched = await bench.fetch(bench.sites.url)

    assert (len(fetched.body), fetched.is_cut) == (LIMITS.max_bytes, True)
    assert sent < 50_000_000


async def test_a_compressed_page_is_read_and_a_bomb_is_cut(bench: Bench) -> None:
    bench.sites.pages |= {
        "/small": answer(gzip.compress(b"hello"), Content_Encoding="gzip"),
        "/zlib": answer(zlib.compress(b"hello"), Content_Encoding="deflate"),
        "/bomb": answer(gzip.compress(bytes(90_000_000)), Content_Encoding="gzip"),
        "/odd": answer(b"hello", Content_Encoding="br"),
        "/lie": answer(b"hello", Content_Encoding="gzip"),
    }
    url = bench.sites.url

    assert (await bench.fetch(f"{url}/small")).body == b"hello"
    assert (await bench.fetch(f"{url}/zlib")).body == b"hello"
    bomb = await bench.fetch(f"{url}/bomb")
    assert (bomb.body, bomb.is_cut) == (bytes(LIMITS.max_bytes), True)
    assert "nobody asked for" in await bench.refusal(f"{url}/odd")
    assert "not compressed as it says" in await bench.refusal(f"{url}/lie")


async def test_a_page_that_comes_in_drops_is_given_up_in_time(bench: Bench) -> None:
    async def drip(stream: trio.abc.Stream, _: str) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            await stream.send_all(b"x")
            await trio.sleep(0.02)

    bench.sites.pages["/"] = drip
    quick = FetchLimits(max_bytes=1000_000, timeout=0.3)

    assert "more than 0.3 s" in await bench.refusal(bench.sites.url, limits=quick)


async def test_a_server_that_says_nothing_is_given_up_in_time(bench: Bench) -> None:
    async def hang(stream: trio.abc.Stream, _: str) -> None:
        await trio.sleep_forever()

    bench.sites.pages["/"] = hang
    quick = FetchLimits(max_bytes=1000, timeout=0.2)

    assert "more than 0.2 s" in await bench.refusal(bench.sites.url, limits=quick)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nshort", "in the middle"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nshorty", "not HTTP"),
        (b"220 mail.example ESMTP\r\n\r\n", "not HTTP"),
        (b"", "before the answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, "not HTTP"),
    ],
)
async def test_nonsense_is_refused(bench: Bench, data: bytes, reason: str) -> None:
    bench.sites.pages["/"] = raw(data)

    assert reason in await bench.refusal(bench.sites.url)


async def test_a_name_nobody_knows_and_a_port_where_nobody_is(bench: Bench) -> None:
    assert "cannot be resolved" in await bench.refusal(f"http://no.example:{bench.sites.port}/")

    with socket.create_server(("127.0.0.1", 0)) as server:
        bench.sites.port = server.getsockname()[1]
    assert "cannot be reached" in await bench.refusal(bench.sites.url)


async def test_pages_of_one_tenant_wait_for_each_other(bench: Bench) -> None:
    running = most = 0
    go = trio.Event()

    async def serve(stream: trio.abc.Stream, request: str) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 8:
            go.set()
        await go.wait()
        await trio.sleep(0.01)
        running -= 1
        await answer("x")(stream, request)

    bench.sites.pages["/"] = serve
    async with trio.open_nursery() as nursery:
        for _ in range(12):
            nursery.start_soon(bench.fetch, bench.sites.url)

    assert most == 8
