"""A browser that has a session, and what tests ask of its pages."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.browser import Page, PageFailed, browser_page
from tests.gateway.conftest import Gateway, Tenant

# Whatever the page's policy forbade is remembered, from the first script on.
_WATCH = """
globalThis.violations = [];
addEventListener('securitypolicyviolation', (event) => globalThis.violations.push(
  `${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""
PATIENCE = 60.0  # seconds

# What the shown terminal's rows say. Spaces at their ends are no news to anybody.
SCREEN = """[...document.querySelectorAll('.panel:not([hidden]) .xterm-rows > div')]
  .map((row) => row.textContent.replaceAll('\\u00a0', ' ').trimEnd()).join('\\n')"""


async def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for what the page does to the gateway's side."""
    with trio.move_on_after(PATIENCE):
        while True:
            if condition():
                return
            await trio.sleep(0.02)
    raise PageFailed(f"waited {PATIENCE:.0f} s in vain for {what}")


class Browser:
    """One tab; the tenant's session is in its cookie once it has signed in."""

    def __init__(self, page: Page, gateway: Gateway) -> None:
        self.page = page
        self.gateway = gateway

    async def sign_in(self, tenant: Tenant, onward: str = "/terminal", prefix: str = "") -> None:
        answer = await self.gateway.http.post(
            f"{prefix}/v1/tenants/{tenant.id}/tickets",
            json={"next": f"{prefix}{onward}"},
            headers=self.gateway.headers(tenant.token),
        )
        assert answer.status_code == 201, answer.text
        await self.open(prefix + answer.json()["url"])

    async def open(self, path: str) -> None:
        await self.page.open(f"{self.gateway.url}{path}")

    async def reload(self) -> None:
        await self.page.evaluate("globalThis.isOld = true")
        await self.page.call("Page.reload")
        await self.wait_for("!globalThis.isOld && document.readyState === 'complete'", "a reload")

    async def wait_for(self, expression: str, what: str) -> Any:
        return await self.page.wait_for(expression, what, patience=PATIENCE)

    async def wait_for_screen(self, text: str) -> str:
        shown: str = await self.wait_for(
            f"(s => s.includes({text!r}) && s)({SCREEN})", f"the screen to say {text!r}"
        )
        return shown

    async def screen(self) -> str:
        return str(await self.page.evaluate(SCREEN))

    async def wait_for_text(self, selector: str, text: str) -> None:
        await self.wait_for(
            f"document.querySelector({selector!r}).innerText.includes({text!r})",
            f"{selector} to say {text!r}",
        )

    async def type(self, text: str) -> None:
        """Keys, one after the other; a new line is Enter."""
        for part in text.splitlines(keepends=True):
            if line := part.rstrip("\n"):
                await self.page.type(line)
            if part.endswith("\n"):
                await self.page.press_enter()

    async def press(self, key: str, *, code: int, ctrl: bool = False, shift: bool = False) -> None:
        modifiers = (2 if ctrl else 0) | (8 if shift else 0)
        keys = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        await self.page.call("Input.dispatchKeyEvent", type="rawKeyDown", **keys)
        await self.page.call("Input.dispatchKeyEvent", type="keyUp", **keys)

    async def resize(self, width: int, height: int) -> None:
        await self.page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    async def click(self, selector: str) -> None:
        await self.page.click(f"document.querySelector({selector!r})", selector)

    async def violations(self) -> list[str]:
        found: list[str] = await self.page.evaluate("globalThis.violations")
        return found


@asynccontextmanager
async def browsing(program: str, gateway: Gateway, pictures: Path) -> AsyncIterator[Browser]:
    async with browser_page(program, pictures) as page:
        await page.call("Page.enable")
        await page.call("Page.addScriptToEvaluateOnNewDocument", source=_WATCH)
        yield Browser(page, gateway)
