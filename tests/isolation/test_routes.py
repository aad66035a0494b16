"""Every route of the table, and everybody who has no business there.

The table is the application's own, so a new route is in here the moment it
exists; :mod:`tests.isolation.examples` then has to show how its rightful
caller uses it.
"""

import json

import httpx
import pytest

from appliance.model.tokens import Scope
from appliance.transports.control.route import Route, Who
from appliance.transports.control.table import ROUTES
from tests.isolation.examples import EXAMPLES
from tests.isolation.gateway import ADMIN, CANARY, CONTROL_PLANE_TOKEN, House

GUARDED = [route for route in ROUTES if route.who is not Who.ANYONE]
OF_A_TENANT = [route for route in ROUTES if route.names_tenant]
OF_THE_CALLER = [r for r in ROUTES if r.who is Who.TENANT and not r.names_tenant]
FOR_ADMINS = [route for route in GUARDED if route.who is not Who.TENANT]
FRONT = {route.name for route in ROUTES if route.handler is None}

# What somebody might write instead of a tenant's id to reach another.
GUESSES = [
    "..",
    ".",
    "%2e%2e",
    "mallory%2f..%2facme",
    "mallory/../acme",
    "ACME",
    "acme%00",
    "acme%0a",
    "acme ",
    "acme;mallory",
    "%61cme%2e",
    "acme%E2%80%8B",
    "constructor",
    "__proto__",
    "*",
    "a" * 33,
]


def url_of(route: Route, house: House, *, tenant: str = "acme", prefix: str = "") -> str:
    example = EXAMPLES[route.name]
    parameters = {"id": tenant, **example.parameters}
    if parameters.get("tid") == "token_id":
        parameters["tid"] = house.acme_token_id
    path = prefix + route.path.format(**parameters)
    return f"{path}?{example.query}" if example.query else path


async def send(client: httpx.AsyncClient, route: Route, url: str) -> httpx.Response:
    body = EXAMPLES[route.name].body
    content = None if body is None else json.dumps(body).encode()
    return await client.request(route.method, url, content=content)


def test_every_route_is_in_this_suite() -> None:
    assert set(EXAMPLES) == {route.name for route in ROUTES}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
async def test_its_rightful_caller_gets_an_answer(house: House, route: Route) -> None:
    token = house.acme if route.who is Who.TENANT else ADMIN.text
    async with house.client(token) as client:
        response = await send(client, route, url_of(route, house))

    assert response.status_code == (EXAMPLES[route.name].status or route.status), response.text
    assert house.asleep.reached == (["acme"] if route.name in FRONT else [])


@pytest.mark.parametrize(
    "token", [None, "", "tenant:acme:" + "A" * 43, "tenant:constructor:x", "admin:guessing"]
)
async def test_nobody_gets_in_without_a_token(house: House, token: str | None) -> None:
    async with house.client(token) as client:
        for route in GUARDED:
            response = await send(client, route, url_of(route, house))

            assert response.status_code == 401, route.name
            assert CANARY not in response.text, route.name
    assert house.asleep.reached == []


@pytest.mark.parametrize("scope", Scope)
async def test_no_token_of_another_tenant_opens_a_tenants_routes(
    house: House, scope: Scope
) -> None:
    before = house.snapshot("acme")
    async with house.client(house.mallorys[scope]) as client:
        for route in OF_A_TENANT:
            foreign = await send(client, route, url_of(route, house))
            unknown = await send(client, route, url_of(route, house, tenant="ghost"))

            assert foreign.status_code == 403, route.name
            # Whether there is such a tenant is not told either.
            assert unknown.status_code == 403, route.name
            assert foreign.json()["detail"] == unknown.json()["detail"], route.name
    assert house.snapshot("acme") == before


async def test_no_tenants_token_administers(house: House) -> None:
    before = house.snapshot("acme")
    async with house.client(house.mallory) as client:
        for route in FOR_ADMINS:
            for tenant in ("acme", "mallory", "ghost"):
                response = await send(client, route, url_of(route, house, tenant=tenant))

                assert response.status_code == 403, route.name
                assert CANARY not in response.text, route.name
    assert house.snapshot("acme") == before


@pytest.mark.parametrize("guess", GUESSES)
async def test_no_spelling_of_an_id_reaches_another_tenant(house: House, guess: str) -> None:
    before = house.snapshot("acme")
    async with house.client(house.mallory) as client:
        for route in OF_A_TENANT:
            # As typed: a client that tidied the path up would spoil the attack.
            path, _, query = url_of(route, house, tenant=guess).partition("?")
            url = client.base_url.copy_with(raw_path=f"{path}?{query}".encode())
            response = await client.send(
                httpx.Request(
                    route.method,
                    url,
                    headers=client.headers,
                    content=json.dumps(EXAMPLES[route.name].body or {}).encode(),
                )
            )

            assert response.status_code in {403, 404, 405}, (route.name, response.text)
            assert CANARY not in response.text
    assert house.snapshot("acme") == before


async def test_the_tenant_prefix_admits_its_own_tenant_only(house: House) -> None:
    async with house.client(house.mallory) as client:
        for route in (route for route in GUARDED if route.is_of_one_tenant):
            there = await send(client, route, url_of(route, house, prefix="/t/acme"))
            through = await send(client, route, url_of(route, house, prefix="/t/mallory"))
            nowhere = await send(client, route, url_of(route, house, prefix="/t/ghost"))

            assert there.status_code == 403, route.name
            assert nowhere.status_code == 421, route.name
            assert through.status_code == 403 or not route.names_tenant, route.name
    assert set(house.asleep.reached) == {"mallory"}


async def test_below_its_prefix_not_even_the_admin_reaches_another_tenant(house: House) -> None:
    async with house.client(ADMIN.text) as client:
        for route in OF_A_TENANT:
            response = await send(client, route, url_of(route, house, prefix="/t/mallory"))

            assert response.status_code == 403, route.name


async def test_what_is_the_whole_gateways_is_not_below_a_prefix(house: House) -> None:
    async with house.client(ADMIN.text) as client:
        for route in (route for route in ROUTES if not route.is_of_one_tenant):
            response = await send(client, route, url_of(route, house, prefix="/t/acme"))

            assert response.status_code == 404, route.name


async def test_a_tenant_cannot_speak_for_another(house: House) -> None:
    async with house.client(house.mallory, x_openclaw_tenant="acme") as client:
        for route in (route for route in GUARDED if route.who is Who.TENANT):
            response = await send(client, route, url_of(route, house))

            assert response.status_code == 403, route.name
    assert house.asleep.reached == []


async def test_what_is_about_the_caller_tells_nothing_of_others(house: House) -> None:
    async with house.client(house.mallory) as client:
        for route in OF_THE_CALLER:
            response = await send(client, route, url_of(route, house))

            assert response.status_code == (EXAMPLES[route.name].status or route.status)
            assert CANARY not in response.text, route.name
            assert "acme" not in response.text, route.name
    assert set(house.asleep.reached) == {"mallory"}


async def test_what_is_open_to_all_names_no_tenant(house: House) -> None:
    async with house.client() as client:
        for route in (route for route in ROUTES if route.who is Who.ANYONE):
            response = await send(client, route, url_of(route, house))

            assert CANARY not in response.text, route.name
            assert "mallory" not in response.text, route.name


async def test_the_control_plane_token_opens_its_own_routes_only(house: House) -> None:
    async with house.client(x_control_plane_token=CONTROL_PLANE_TOKEN) as client:
        for route in (route for route in GUARDED if route.who is not Who.CONTROL_PLANE):
            response = await send(client, route, url_of(route, house))

            assert response.status_code == 401, route.name


async def test_a_ticket_of_one_tenant_is_no_session_of_another(house: House) -> None:
    async with house.client(house.mallory) as client:
        issued = await client.post("/v1/tenants/mallory/tickets")
    async with house.client(sec_fetch_site="same-origin") as browser:
        await browser.get(issued.json()["url"])
        own = await browser.get("/v1/tenants/mallory")
        codes = set()
        for route in OF_A_TENANT:
            response = await send(browser, route, url_of(route, house))
            codes.add(response.status_code)

    assert own.status_code == 200
    assert codes == {403}


async def test_a_cookie_that_was_tampered_with_is_nobodys(house: House) -> None:
    async with house.client(house.mallory) as client:
        issued = await client.post("/v1/tenants/mallory/tickets")
    async with house.client() as browser:
        response = await browser.get(issued.json()["url"])
        value = response.cookies["openclaw_session"]
    forged = value.replace(".mallory.", ".acme.")
    async with house.client(cookie=f"openclaw_session={forged}") as thief:
        response = await thief.get("/v1/tenants/acme")

    assert forged != value
    assert response.status_code == 401


async def test_an_id_that_was_given_again_opens_nothing_of_before(house: House) -> None:
    async with house.client(ADMIN.text) as admin:
        assert (await admin.delete("/v1/tenants/acme")).status_code == 204
        made = (await admin.post("/v1/tenants", json={"id": "acme"})).json()
    async with house.client(house.acme) as former:
        refused = await former.get("/v1/tenants/acme")
    async with house.client(made["token"]) as heir:
        config = await heir.get("/v1/tenants/acme/config")
        keys = await heir.get("/v1/tenants/acme/credentials")
        audit = await heir.get("/v1/audit")

    assert refused.status_code == 401
    assert config.json()["overlay"] == {}
    assert keys.json()["credentials"] == []
    assert CANARY not in config.text + keys.text + audit.text
