"""A headless Chromium, driven over its DevTools protocol."""

import base64
import itertools
import json
import os
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

# Debian's headless build first: it brings no desktop along.
PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")

_MESSAGE_BYTES_MAX = 64 * 1024 * 1024  # a screenshot is one message
_PATIENCE = 60.0  # seconds

# Custom elements keep their content in shadow roots, which innerText leaves out.
_HELPERS = """
globalThis.everyElement ??= (selector, root = document) => {
  const found = [...root.querySelectorAll(selector)];
  for (const each of root.querySelectorAll('*'))
    if (each.shadowRoot) found.push(...everyElement(selector, each.shadowRoot));
  return found;
};
"""


class PageFailed(AssertionError):
    """What was waited for never showed; the text says what the page said meanwhile."""


class PageLeft(PageFailed):
    """The browser did not answer: often because the page has just given way to another."""


class Page:
    """One tab. Everything raises :exc:`PageFailed` when the page does not follow."""

    def __init__(self, connection: WebSocketConnection, pictures: Path) -> None:
        self.said: deque[str] = deque(maxlen=40)
        self._connection = connection
        self._pictures = pictures
        self._ids = itertools.count(1)
        self._answers: dict[int, trio.MemorySendChannel[dict[str, Any]]] = {}

    async def listen(self) -> None:
        """Hand out what the browser sends until it hangs up."""
        try:
            while True:
                message = json.loads(await self._connection.get_message())
                waiting = self._answers.pop(message.get("id"), None)
                if waiting is not None:
                    waiting.send_nowait(message)
                else:
                    self._note(message)
        except ConnectionClosed:
            return

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if message.get("method") == "Runtime.consoleAPICalled":
            words = (str(each.get("value", each.get("description"))) for each in params["args"])
            self.said.append(f"console.{params['type']}: {' '.join(words)[:500]}")
        elif message.get("method") == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            text = details.get("exception", {}).get("description") or details["text"]
            self.said.append(f"exception: {text[:500]}")

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        send, receive = trio.open_memory_channel[dict[str, Any]](1)
        self._answers[number] = send
        await self._connection.send_message(
            json.dumps({"id": number, "method": method, "params": params})
        )
        with trio.fail_after(_PATIENCE):
            answer = await receive.receive()
        if "error" in answer:
            raise PageLeft(f"{method}: {answer['error']['message']}")
        result = answer["result"]
        assert isinstance(result, dict)
        return result

    async def open(self, url: str) -> None:
        await self.call("Page.enable")
        await self.call("Runtime.enable")
        await self.call("Page.addScriptToEvaluateOnNewDocument", source=_HELPERS)
        await self.call("Page.navigate", url=url)

    async def evaluate(self, expression: str) -> Any:
        answer = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise PageFailed(f"{expression}: {json.dumps(answer['exceptionDetails'])[:800]}")
        return answer["result"].get("value")

    async def wait_for(self, expression: str, what: str, *, patience: float = _PATIENCE) -> Any:
        """Return the expression's value once it is true."""
        with trio.move_on_after(patience):
            while True:
                attempt = f"(() => {{ try {{ return {expression} }} catch {{}} }})()"
                with suppress(PageLeft):
                    if value := await self.evaluate(attempt):
                        return value
                await trio.sleep(0.1)
        picture = await self.screenshot(what)
        text = await self.evaluate("document.body.innerText.slice(0, 2000)")
        raise PageFailed(
            f"waited {patience:.0f} s in vain for {what}; picture: {picture}\n"
            f"The page shows:\n{text}\nIt said:\n" + "\n".join(self.said)
        )

    async def click(self, expression: str, what: str) -> None:
        await self.wait_for(f"(({expression}).click(), true)", what)

    async def type(self, text: str) -> None:
        """Type into whatever has the focus, as a keyboard would."""
        await self.call("Input.insertText", text=text)

    async def press_enter(self) -> None:
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text="\r", **key)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **key)

    async def screenshot(self, name: str) -> Path:
        shot = await self.call("Page.captureScreenshot", format="png")
        path = self._pictures / f"{'-'.join(name.split())}.png"
        path.write_bytes(base64.b64decode(shot["data"]))
        return path


@asynccontextmanager
async def browser_page(program: str, pictures: Path) -> AsyncIterator[Page]:
    """A tab of a browser of its own, with a profile of its own."""
    with running_browser(program) as profile:
        url = await _first_tab(await _debugging_port(profile))
        async with (
            open_websocket_url(url, max_message_size=_MESSAGE_BYTES_MAX) as connection,
            trio.open_nursery() as nursery,
        ):
            page = Page(connection, pictures)
            nursery.start_soon(page.listen)
            yield page
            nursery.cancel_scope.cancel()


@contextmanager
def running_browser(program: str) -> Iterator[Path]:
    """A browser that nobody sees; yields its profile's folder."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                program,
                *("--headless", "--remote-debugging-port=0", f"--user-data-dir={profile}"),
                *("--no-first-run", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio"),
                # The pages under test are known, and a container rarely allows a sandbox inside.
                *(("--no-sandbox",) if os.geteuid() == 0 else ()),
                # Nothing but the servers under test is to be asked for anything.
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                *("--disable-background-networking", "--disable-component-update"),
                "--window-size=1280,900",
                "about:blank",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield Path(profile)
        finally:
            # The program is a script in some packages, and the browser is many processes anyway.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


async def _debugging_port(profile: Path) -> int:
    written = trio.Path(profile / "DevToolsActivePort")
    with trio.fail_after(_PATIENCE):
        while True:
            with suppress(FileNotFoundError):
                port, complete, _ = (await written.read_text()).partition("\n")
                if complete:
                    return int(port)
            await trio.sleep(0.05)


async def _first_tab(port: int) -> str:
    # The browser listens before it has opened its first tab.
    with trio.fail_after(_PATIENCE):
        async with httpx.AsyncClient(timeout=_PATIENCE, trust_env=False) as client:
            while True:
                targets = (await client.get(f"http://127.0.0.1:{port}/json/list")).json()
                for each in targets:
                    if each["type"] == "page":
                        return str(each["webSocketDebuggerUrl"])
                await trio.sleep(0.05)
