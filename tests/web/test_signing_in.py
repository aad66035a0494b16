"""How a browser comes by its session, keeps it, and loses it."""

import pytest
import trio

from tests.gateway.conftest import ADMIN_KEY, Gateway, Tenant
from tests.web.fake_terminals import FakeTerminals
from tests.web.signed_in import Browser

pytestmark = pytest.mark.system

FORM = "document.querySelector('#sign-in') !== null"
ENTER = "document.querySelector('#enter:not(:disabled)') !== null"


async def offer(browser: Browser, text: str) -> None:
    """Type ``text`` where the page asks for a token."""
    await browser.wait_for(ENTER, "the form")
    await browser.page.evaluate("document.querySelector('#token').focus()")
    await browser.type(f"{text}\n")


async def test_a_token_is_exchanged_for_a_session_and_never_in_an_address(
    browser: Browser, acme: Tenant
) -> None:
    await browser.open("/terminal")

    await offer(browser, acme.token)

    await browser.wait_for_screen("$")
    assert await browser.page.evaluate("location.href") == f"{browser.gateway.url}/terminal"
    addresses = await browser.page.evaluate(
        "JSON.stringify(performance.getEntries().map((each) => each.name)) + document.cookie"
        " + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)"
    )
    assert acme.token.split(":")[2] not in addresses
    history = await browser.page.call("Page.getNavigationHistory")
    assert acme.token.split(":")[2] not in str(history)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("tenant:acme:" + "A" * 43, "the token is missing, malformed, unknown, expired or revoked"),
        ("no token", "That is no token of a tenant"),
        ("tenant:../../x:y", "That is no token of a tenant"),
        (ADMIN_KEY, "That is an admin key"),
    ],
)
async def test_what_is_no_token_signs_nobody_in(
    browser: Browser, acme: Tenant, text: str, what: str
) -> None:
    await browser.open("/terminal")

    await offer(browser, text)

    await browser.wait_for_text("#notices", what)
    assert await browser.page.evaluate("document.querySelector('#token').value") == ""
    assert await browser.violations() == []


async def test_signing_out_ends_the_session_and_its_connection(
    browser: Browser, acme: Tenant, gateway: Gateway, terminals: FakeTerminals
) -> None:
    await browser.sign_in(acme)
    await browser.wait_for_screen("$")
    cookies = (await browser.page.call("Network.getCookies"))["cookies"]

    await browser.click("#sign-out")

    await browser.wait_for(FORM, "the form")
    assert (await browser.page.call("Network.getCookies"))["cookies"] == []
    stolen = "; ".join(f"{each['name']}={each['value']}" for each in cookies)
    answer = await gateway.http.get("/terminal", headers={"cookie": stolen})
    assert answer.status_code == 401


async def test_a_session_that_is_revoked_leads_to_signing_in(
    browser: Browser, acme: Tenant, gateway: Gateway
) -> None:
    await browser.sign_in(acme)
    await browser.wait_for_screen("$")
    headers = gateway.headers(ADMIN_KEY)
    tokens = (await gateway.http.get("/v1/tenants/acme/tokens", headers=headers)).json()["tokens"]
    session = next(each["id"] for each in tokens if each["label"] == "browser session")

    await gateway.http.delete(f"/v1/tenants/acme/tokens/{session}", headers=headers)

    await browser.wait_for(FORM, "the form")


async def test_below_a_tenants_prefix_everything_works_the_same(
    browser: Browser, acme: Tenant, gateway: Gateway
) -> None:
    await browser.open("/t/acme/terminal")
    await offer(browser, acme.token)

    await browser.wait_for_screen("$")
    await browser.type("echo below\n")
    await browser.wait_for_screen("\nbelow\n")
    assert await browser.page.evaluate("location.pathname") == "/t/acme/terminal"
    paths = await browser.page.evaluate(
        "performance.getEntriesByType('resource').map((each) => new URL(each.name).pathname)"
    )
    assert paths
    assert all(path.startswith("/t/acme/") for path in paths)
    await browser.click("#sign-out")
    await browser.wait_for(FORM, "the form")


async def test_a_session_without_the_scope_is_told_so(
    browser: Browser, acme: Tenant, gateway: Gateway
) -> None:
    answer = await gateway.http.post(
        "/v1/tenants/acme/tokens", json={"scopes": ["chat"]}, headers=gateway.headers(acme.token)
    )

    await browser.sign_in(Tenant("acme", answer.json()["token"]))

    await browser.wait_for_text("body", "terminal")
    assert await browser.page.evaluate("document.querySelector('h1').innerText") == (
        "The token does not cover this"
    )


async def test_a_foreign_page_cannot_sign_anybody_out(
    browser: Browser, acme: Tenant, gateway: Gateway
) -> None:
    await browser.sign_in(acme)
    await browser.wait_for_screen("$")
    # The same site to a browser's cookies, another origin to us.
    await browser.page.open(f"http://localhost:{gateway.port}/healthz")
    with trio.move_on_after(5):
        await browser.page.evaluate(
            f"fetch('{gateway.url}/logout', "
            "{method: 'POST', mode: 'no-cors', credentials: 'include'}).then(() => 0, () => 0)"
        )

    await browser.open("/terminal")

    await browser.wait_for_screen("$")
