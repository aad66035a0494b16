"""The pages' routes, through the control plane's real gate."""

import gzip

import httpx
import pytest

from appliance.model.tokens import Scope
from appliance.transports.callers import PLAIN_COOKIE
from appliance.transports.web.pages import site
from tests.transports.control.bench import Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def signed_in(bench: Bench, *scopes: Scope, tenant: str = "acme") -> str:
    """The cookie of a browser that used a ticket."""
    token = bench.tenants.add(tenant, *scopes)
    async with bench.client(token) as client:
        url = (await client.post(f"/v1/tenants/{tenant}/tickets", json={})).json()["url"]
    async with bench.client() as browser:
        answer = await browser.get(url)
    return f"{PLAIN_COOKIE}={answer.cookies[PLAIN_COOKIE]}"


def address(name: str) -> str:
    return f"/assets/{site().assets.digest}/{name}"


@pytest.mark.parametrize("path", ["/terminal", "/terminal/replay/rec_1"])
async def test_a_session_is_shown_the_page_of_its_tenant(bench: Bench, path: str) -> None:
    async with bench.client(cookie=await signed_in(bench)) as browser:
        page = await browser.get(path)

    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cross-origin-opener-policy"] == "same-origin"
    assert page.headers["cross-origin-resource-policy"] == "same-origin"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    if site().has_terminal:
        assert 'data-tenant="acme"' in page.text


@pytest.mark.parametrize("path", ["/terminal", "/terminal/replay/rec_1"])
@pytest.mark.parametrize("cookie", [None, "openclaw_session=v1.acme.tok_acme_0.forged"])
async def test_without_a_session_there_is_a_page_to_sign_in(
    bench: Bench, path: str, cookie: str | None
) -> None:
    bench.tenants.add("acme")
    headers = {} if cookie is None else {"cookie": cookie}
    async with bench.client() as browser:
        page = await browser.get(path, headers=headers)

    assert page.status_code == 401
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert 'id="sign-in"' in page.text
    assert "acme" not in page.text


async def test_a_session_that_may_not_use_terminals_is_told_so(bench: Bench) -> None:
    async with bench.client(cookie=await signed_in(bench, Scope.CHAT)) as browser:
        page = await browser.get("/terminal")

    assert page.status_code == 403
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "terminal" in page.text


async def test_below_the_prefix_of_another_tenant_the_page_is_refused(bench: Bench) -> None:
    cookie = await signed_in(bench)
    bench.tenants.add("other")
    statuses = {}
    for tenant in ("acme", "other", "ghost"):
        async with bench.client(cookie=cookie, route_tenant=tenant) as browser:
            statuses[tenant] = (await browser.get("/terminal")).status_code

    assert statuses == {"acme": 200, "other": 403, "ghost": 421}


async def test_a_page_answers_a_look_only(bench: Bench) -> None:
    async with bench.client(cookie=await signed_in(bench)) as browser:
        looked = await browser.head("/terminal")
        posted = await browser.post("/terminal")

    assert (looked.status_code, looked.content) == (200, b"")
    assert posted.status_code == 405


async def test_the_page_of_support_is_for_anyone_and_says_nothing(bench: Bench) -> None:
    bench.tenants.add("acme")
    async with bench.client() as browser:
        page = await browser.get("/terminal/support")

    assert page.status_code == 200
    assert "acme" not in page.text


async def test_a_file_is_kept_for_ever_under_its_address(bench: Bench) -> None:
    async with bench.client() as browser:
        answer = await browser.get(address("page.css"))

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/css; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.skipif(not site().has_terminal, reason="the browser code was not fetched (make web)")
async def test_a_large_file_leaves_compressed_for_who_takes_that(bench: Bench) -> None:
    async with bench.client() as browser:
        packed = await browser.get(address("xterm.mjs"), headers={"accept-encoding": "gzip"})
        plain = await browser.get(address("xterm.mjs"), headers={"accept-encoding": "identity"})

    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2
    assert packed.headers["vary"] == "accept-encoding"
    assert gzip.compress(plain.content)


@pytest.mark.parametrize(
    "path",
    [
        "/assets/0000000000000000/page.css",
        "/assets/{digest}/unknown.js",
        "/assets/{digest}/..%2ftemplates%2fbase.html",
        "/assets/{digest}/../templates/base.html",
        "/assets/{digest}/.made",
        "/assets/{digest}/xterm.mjs.gz",
        "/assets/{digest}/",
        "/assets/{digest}",
        "/assets/",
    ],
)
async def test_no_other_address_leads_to_a_file(bench: Bench, path: str) -> None:
    async with bench.client() as browser:
        url = browser.base_url.copy_with(raw_path=path.format(digest=site().assets.digest).encode())
        answer = await browser.send(httpx.Request("GET", url))

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_the_files_are_there_below_a_prefix_too(bench: Bench) -> None:
    bench.tenants.add("acme")
    async with bench.client(route_tenant="acme") as browser:
        answer = await browser.get(address("page.css"))

    assert answer.status_code == 200


class TestLoggingOut:
    async def test_ends_the_session_and_takes_the_cookie_away(self, bench: Bench) -> None:
        cookie = await signed_in(bench)
        async with bench.client(cookie=cookie, sec_fetch_site="same-origin") as browser:
            answer = await browser.post("/logout")

        assert answer.status_code == 204
        assert bench.tickets.ended == ["tok_acme_0"]
        assert answer.headers["set-cookie"].startswith(f"{PLAIN_COOKIE}=; Path=/; Max-Age=0;")

    async def test_over_tls_the_cookie_of_tls_is_taken_away(self, bench: Bench) -> None:
        cookie = await signed_in(bench)
        async with bench.client(
            cookie=cookie, sec_fetch_site="same-origin", scheme="https"
        ) as browser:
            answer = await browser.post("/logout")

        assert answer.headers["set-cookie"].startswith("__Host-openclaw_session=; ")
        assert answer.headers["set-cookie"].endswith("; Secure")

    @pytest.mark.parametrize(
        "headers", [{"sec-fetch-site": "cross-site"}, {"origin": "https://evil.test"}, {}]
    )
    async def test_is_not_done_for_another_site(
        self, bench: Bench, headers: dict[str, str]
    ) -> None:
        async with bench.client(cookie=await signed_in(bench)) as browser:
            answer = await browser.post("/logout", headers=headers)

        assert answer.status_code == 403
        assert bench.tickets.ended == []

    async def test_is_not_done_by_a_look(self, bench: Bench) -> None:
        async with bench.client(cookie=await signed_in(bench)) as browser:
            answer = await browser.get("/logout")

        assert answer.status_code == 405
