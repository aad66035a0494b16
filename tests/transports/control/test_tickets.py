import pytest

from tests.transports.control.bench import Bench


async def issue(bench: Bench, **body: str) -> str:
    token = bench.tenants.add("acme")
    async with bench.client(token) as client:
        response = await client.post("/v1/tenants/acme/tickets", json=body)
    assert response.status_code == 201
    url: str = response.json()["url"]
    return url


async def test_a_ticket_becomes_a_session_once(bench: Bench) -> None:
    url = await issue(bench)
    async with bench.client() as browser:
        first = await browser.get(url)
        second = await browser.get(url)
        own = await browser.get("/v1/tenants/acme")

    assert first.status_code == 200
    assert first.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in first.headers["content-security-policy"]
    assert second.status_code == 401
    assert second.json()["code"] == "ticket-rejected"
    assert own.status_code == 200


async def test_the_cookie_is_kept_from_scripts_and_other_sites(bench: Bench) -> None:
    url = await issue(bench)
    async with bench.client() as browser:
        response = await browser.get(url)

    cookie = response.headers["set-cookie"]
    assert cookie.startswith("openclaw_session=")
    assert "; HttpOnly" in cookie
    assert "; SameSite=Lax" in cookie
    assert "; Max-Age=43200" in cookie
    assert "Secure" not in cookie


async def test_over_tls_the_cookie_never_travels_in_clear(bench: Bench) -> None:
    url = await issue(bench)
    async with bench.client(scheme="https") as browser:
        response = await browser.get(url)

    cookie = response.headers["set-cookie"]
    assert cookie.startswith("__Host-openclaw_session=")
    assert cookie.endswith("; Secure")


async def test_a_trusted_proxy_may_say_that_it_spoke_tls() -> None:
    bench = Bench(behind_proxy=True, trusted_proxies=["192.0.2.0/24"])
    url = await issue(bench)
    async with bench.client(x_forwarded_proto="https") as browser:
        believed = await browser.get(url)
    url = await issue(bench)
    async with bench.client(peer=("198.51.100.1", 1), x_forwarded_proto="https") as browser:
        doubted = await browser.get(url)

    assert "Secure" in believed.headers["set-cookie"]
    assert "Secure" not in doubted.headers["set-cookie"]


async def test_looking_at_the_link_does_not_use_it_up(bench: Bench) -> None:
    url = await issue(bench)
    async with bench.client() as browser:
        looked = await browser.head(url)
        used = await browser.get(url)

    assert looked.status_code == 405
    assert used.status_code == 200


async def test_login_goes_on_to_a_page_of_ours(bench: Bench) -> None:
    url = await issue(bench, next="/chat?agent=main")
    async with bench.client() as browser:
        response = await browser.get(url)

    assert response.status_code == 303
    assert response.headers["location"] == "/chat?agent=main"


ELSEWHERE = [
    "//evil.test",
    "/\\evil.test",
    "https://evil.test",
    "chat",
    "/a\nb",
    "/\t/evil.test",
    "",
]


@pytest.mark.parametrize("place", ELSEWHERE)
async def test_login_goes_nowhere_else(bench: Bench, place: str) -> None:
    url = await issue(bench)
    async with bench.client() as browser:
        response = await browser.get(url, params={"ticket": url.partition("=")[2], "next": place})
        unused = await browser.get(url)

    assert response.status_code == 422
    assert "set-cookie" not in response.headers
    assert unused.status_code == 200


class TestASessionInTheBrowser:
    @pytest.mark.parametrize(
        "headers",
        [
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
            {"origin": "https://evil.test"},
            {"origin": "null"},
            {},
        ],
    )
    async def test_changes_nothing_for_another_site(
        self, bench: Bench, headers: dict[str, str]
    ) -> None:
        url = await issue(bench)
        async with bench.client() as browser:
            await browser.get(url)
            response = await browser.post("/v1/tenants/acme/tokens", headers=headers)

        assert response.status_code == 403
        assert all(verb != "create_token" for verb, _, _ in bench.tenants.calls)

    @pytest.mark.parametrize(
        "headers", [{"sec-fetch-site": "same-origin"}, {"origin": "http://gateway.test"}]
    )
    async def test_changes_things_for_our_own_pages(
        self, bench: Bench, headers: dict[str, str]
    ) -> None:
        url = await issue(bench)
        async with bench.client() as browser:
            await browser.get(url)
            response = await browser.post("/v1/tenants/acme/tokens", headers=headers)

        assert response.status_code == 201

    async def test_does_not_stand_in_for_a_bad_token(self, bench: Bench) -> None:
        url = await issue(bench)
        async with bench.client() as browser:
            await browser.get(url)
            headers = {"authorization": "Basic YWJj"}
            response = await browser.get("/v1/tenants/acme", headers=headers)

        assert response.status_code == 401
