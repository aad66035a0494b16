"""Nothing is a fake here: Chromium, the page, the gateway, and a shell in its sandbox."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.conftest import ADMIN_KEY, Gateway, Tenant
from tests.gateway.websocket import Refused, connected
from tests.web.signed_in import Browser, browsing

pytestmark = pytest.mark.system

OVERLAY = {"defaults": {"sandbox": {"terminal": {"record": True}}}}
PROMPT = "PS1='> '; clear\n"


@pytest.fixture
def websocket_limits() -> str:
    return "{}"


@pytest.fixture
async def acme(gateway: Gateway) -> Tenant:
    """A tenant whose terminals are recorded. Skips where there are no sandboxes."""
    tenant = await gateway.create("acme", config=OVERLAY)
    async with connected(gateway.port, tenant.token) as client:
        try:
            opened = await client.call("terminal.spawn")
        except Refused as refused:
            pytest.skip(f"no terminals here: {refused.error['message']}")
        await client.call("terminal.close", terminalId=opened["terminalId"])
    return tenant


@pytest.fixture
async def shell(browser: Browser, acme: Tenant) -> Browser:
    await browser.sign_in(acme)
    await browser.wait_for_screen("$")
    await browser.type(PROMPT)
    await browser.wait_for(
        "document.querySelector('.xterm-rows').textContent.trim().startsWith('>')", "the prompt"
    )
    return browser


async def test_a_shell_is_used_resized_left_and_found_again(shell: Browser) -> None:
    await shell.type("echo $((6*7)) in $PWD\n")
    await shell.wait_for_screen("\n42 in /workspace")

    await shell.type("sh -c 'echo run; exec sleep 1000' && echo never\n")
    await shell.wait_for_screen("\nrun\n")
    await shell.press("c", code=67, ctrl=True)
    await shell.wait_for_screen("^C")
    await shell.type("echo $?; kept=treasure\n")
    await shell.wait_for_screen("\n130\n")

    before = await shell.screen()
    await shell.resize(700, 500)
    await shell.wait_for(
        f"document.querySelectorAll('.xterm-rows > div').length < {len(before.splitlines())}",
        "fewer rows",
    )
    rows = await shell.page.evaluate("document.querySelectorAll('.xterm-rows > div').length")
    await shell.type("clear; stty size\n")
    size = await shell.wait_for_screen(f"{rows} ")
    assert re.search(rf"^{rows} \d+$", size, re.MULTILINE)

    await shell.reload()
    await shell.wait_for_screen(f"{rows} ")
    await shell.type("echo still $kept\n")
    await shell.wait_for_screen("\nstill treasure\n")
    assert await shell.violations() == []


async def test_what_was_done_in_a_terminal_is_played_again(
    shell: Browser, acme: Tenant, gateway: Gateway
) -> None:
    await shell.type("echo to be seen again\n")
    await shell.wait_for_screen("\nto be seen again\n")
    await shell.type("exit 3\n")
    await shell.wait_for_text(".panel", "This terminal is recorded")
    await shell.wait_for_text(".panel", "exit code 3")
    async with connected(gateway.port, acme.token) as client:
        recordings = (await client.call("terminal.recordings.list"))["recordings"]

    await shell.open(f"/terminal/replay/{recordings[0]['recordingId']}")

    await shell.wait_for_screen("to be seen again")
    await shell.wait_for_text("#state", "Finished")
    assert await shell.violations() == []


@pytest.fixture
async def operator(chromium: str, gateway: Gateway, tmp_path: Path) -> AsyncIterator[Browser]:
    async with browsing(chromium, gateway, tmp_path) as opened:
        yield opened


async def test_support_comes_in_when_the_tenant_agrees_and_leaves_when_it_wants(
    shell: Browser, operator: Browser
) -> None:
    await operator.open("/terminal/support")
    await operator.wait_for("document.querySelector('#ask:not(:disabled)') !== null", "the form")
    for field, text in {"key": ADMIN_KEY, "tenant": "acme", "reason": "ticket 42"}.items():
        await operator.page.evaluate(f"document.querySelector('#{field}').focus()")
        await operator.type(text)
    await operator.page.evaluate("document.querySelector('#mode').value = 'write'")
    await operator.click("#ask")

    await shell.wait_for_text("#support", "asks to see, and type in, one of your terminals")
    await shell.wait_for_text("#support", "ticket 42")
    await shell.click("#support button")
    await operator.wait_for_text("#connection", "may type")
    await operator.wait_for_screen(">")
    await operator.page.evaluate("document.querySelector('.xterm-helper-textarea').focus()")
    await operator.type("echo both see this\n")

    await shell.wait_for_screen("\nboth see this\n")
    await operator.wait_for_screen("\nboth see this\n")
    await shell.wait_for_text("#support", "Support is here")
    await shell.click("#support button")
    await operator.wait_for_text("#notices", "The access has ended")
    await shell.wait_for("document.querySelector('#support .notice') === null", "no support")
