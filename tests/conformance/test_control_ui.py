"""The Control UIs of both releases: they load, connect with a token, and chat."""

from pathlib import Path
from urllib.parse import quote

import pytest
import trio

from tests.browser import Page, browser_page
from tests.conformance.clients import PROTOCOL_3, RELEASES, Clients
from tests.conformance.control_ui import serving
from tests.system.processes import Gateway

pytestmark = pytest.mark.system

CONFIRM = "everyElement('button').find(b => /^(confirm|switch to)/i.test(b.innerText.trim()))"
COMPOSER = "everyElement('textarea').find(t => t.offsetParent && !t.disabled)"


def address(release: str, origin: str, gateway: Gateway, token: str) -> str:
    """The link a tenant's user is given: which gateway, and the token."""
    link = f"{origin}/chat?gatewayUrl={quote(f'ws://127.0.0.1:{gateway.port}', safe='')}"
    # The new one takes a token only from the fragment, which no server sees.
    return f"{link}{'&' if release == PROTOCOL_3 else '#'}token={quote(token)}"


async def say(page: Page, text: str) -> None:
    # What is said while the transcript is on its way, the old page forgets again. It asks for
    # it in the turn in which it lets the composer be used, so that both are looked at in one.
    await page.wait_for(
        f"!/Loading/.test(document.body.innerText) && ({COMPOSER}.focus(), true)",
        "the transcript and the composer",
    )
    await page.type(text)
    await page.wait_for(f"{COMPOSER}.value === {text!r}", "the composer to hold the text")
    # The new page lets one type before one may send, and leaves an early Enter unanswered.
    while await page.evaluate(f"{COMPOSER}?.value ?? ''"):
        await page.press_enter()
        await trio.sleep(0.1)


async def wait_for_answer(page: Page, question: str) -> None:
    after = f"document.body.innerText.split({question!r}).at(-1)"
    await page.wait_for(
        f"document.body.innerText.includes({question!r}) && {after}.includes('w018 w019')",
        f"the answer to {question}",
    )


@pytest.mark.parametrize("release", RELEASES)
async def test_the_control_ui_loads_and_chats(
    release: str,
    clients: Clients,
    browser: str,
    gateway: Gateway,
    control_ui_port: int,
    tmp_path: Path,
) -> None:
    token = gateway.create_tenant(f"ui-{release.replace('.', '-')}")
    with serving(clients.control_ui(release), control_ui_port) as origin, trio.fail_after(240):
        async with browser_page(browser, tmp_path) as page:
            await page.open(address(release, origin, gateway, token))
            # Both ask before they follow a link to another host.
            await page.click(CONFIRM, "the question whether to follow")
            await say(page, "first question")
            await wait_for_answer(page, "first question")
            await say(page, "second question")
            await wait_for_answer(page, "second question")

            await page.open(f"{origin}/chat")
            await wait_for_answer(page, "second question")


async def test_a_page_of_another_origin_is_not_let_in(
    clients: Clients, browser: str, gateway: Gateway, tmp_path: Path
) -> None:
    token = gateway.create_tenant("ui-stranger")
    with serving(clients.control_ui(PROTOCOL_3)) as origin, trio.fail_after(240):
        async with browser_page(browser, tmp_path) as page:
            await page.open(address(PROTOCOL_3, origin, gateway, token))
            await page.click(CONFIRM, "the question whether to follow")

            await page.wait_for("/origin not allowed/.test(document.body.innerText)", "the refusal")
