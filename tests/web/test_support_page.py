"""The page on which the operator asks to see a tenant's terminal."""

import pytest

from tests.gateway.conftest import ADMIN_KEY, Tenant
from tests.web.fake_terminals import FakeTerminals
from tests.web.signed_in import Browser

pytestmark = pytest.mark.system


async def ask(browser: Browser, *, key: str = ADMIN_KEY, tenant: str = "acme", mode: str) -> None:
    await browser.open("/terminal/support")
    await browser.wait_for("document.querySelector('#ask:not(:disabled)') !== null", "the form")
    for field, text in {"key": key, "tenant": tenant, "reason": "ticket 42 <b>"}.items():
        await browser.page.evaluate(f"document.querySelector('#{field}').focus()")
        await browser.type(text)
    await browser.page.evaluate(f"document.querySelector('#mode').value = '{mode}'")
    await browser.click("#ask")


@pytest.mark.parametrize("mode", ["read", "write"])
async def test_the_operator_sees_what_the_tenant_sees_once_that_agreed(
    browser: Browser, acme: Tenant, terminals: FakeTerminals, mode: str
) -> None:
    # The same browser is signed in as the tenant: what the page names itself comes first.
    await browser.sign_in(acme)
    await browser.wait_for_screen("$")
    await browser.type("echo of the tenant\n")
    await browser.wait_for_screen("\nof the tenant\n")

    await ask(browser, mode=mode)
    await browser.wait_for_text("#connection", "Waiting for the tenant")
    (asked,) = terminals.support
    assert (asked["admin"], asked["mode"], asked["reason"]) == (
        "environment",
        mode,
        "ticket 42 <b>",
    )
    assert await browser.screen() == ""
    terminals.tell_all("terminal.support", {**asked, "state": "granted"})

    await browser.wait_for_screen("\nof the tenant\n")
    await browser.page.evaluate("document.querySelector('.xterm-helper-textarea').focus()")
    await browser.type("echo from support\n")
    if mode == "write":
        await browser.wait_for_screen("\nfrom support\n")
    await browser.wait_for_text("#connection", "may type" if mode == "write" else "You see what")
    terminals.tell_all("terminal.support", {**asked, "state": "ended"})

    await browser.wait_for_text("#notices", "The access has ended")
    assert await browser.screen() == ""
    assert ("from support" in "".join(terminals.written)) is (mode == "write")
    assert await browser.violations() == []


async def test_a_tenant_that_says_no_is_not_seen(
    browser: Browser, acme: Tenant, terminals: FakeTerminals
) -> None:
    await ask(browser, mode="read")
    await browser.wait_for_text("#connection", "Waiting for the tenant")

    terminals.tell_all("terminal.support", {**terminals.support[0], "state": "denied"})

    await browser.wait_for_text("#notices", "The tenant said no.")


@pytest.mark.parametrize(
    ("key", "tenant", "what"),
    [
        ("admin:guessed", "acme", "The gateway refused the key."),
        ("tenant:acme:x", "acme", "That is no admin key"),
        (ADMIN_KEY, "../acme", "That is no id of a tenant"),
    ],
)
async def test_what_opens_nothing_is_said_to(
    browser: Browser, acme: Tenant, key: str, tenant: str, what: str
) -> None:
    await ask(browser, key=key, tenant=tenant, mode="read")

    await browser.wait_for_text("#notices", what)
