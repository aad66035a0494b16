"""The page /terminal, used as a person uses it."""

import json
from typing import Any

import pytest

from tests.gateway.conftest import Tenant
from tests.web.fake_terminals import QUOTA, FakeTerminals
from tests.web.signed_in import Browser, wait_until

pytestmark = pytest.mark.system

TABS = "document.querySelectorAll('.tab').length"


@pytest.fixture
async def shell(browser: Browser, acme: Tenant) -> Browser:
    """A browser whose first terminal waits for a command."""
    await browser.sign_in(acme)
    await browser.wait_for_screen("$")
    return browser


async def test_what_is_typed_is_run_and_its_output_shown(shell: Browser) -> None:
    await shell.type(
        "echo $((6*7)) grün 漢字 🎉; printf '\\033[38;2;255;100;0mcolour\\033[0m\\n'\n"
    )

    await shell.wait_for_screen("\n42 grün 漢字 🎉\ncolour\n")
    assert await shell.violations() == []
    assert await shell.page.evaluate("document.title") == "Terminal · OpenClawMU"


async def test_ctrl_c_interrupts_and_ctrl_z_stops(shell: Browser) -> None:
    await shell.type("sh -c 'echo run; exec sleep 1000' && echo never\n")
    await shell.wait_for_screen("\nrun\n")
    await shell.press("c", code=67, ctrl=True)
    await shell.wait_for_screen("^C")
    await shell.type("echo $?\n")
    await shell.wait_for_screen("\n130\n")

    await shell.type("clear; sh -c 'echo again; exec sleep 1000'\n")
    await shell.wait_for_screen("again\n")
    await shell.press("z", code=90, ctrl=True)

    await shell.wait_for_screen("Stopped")


async def test_the_terminal_is_as_large_as_its_place(
    shell: Browser, terminals: FakeTerminals
) -> None:
    await shell.resize(700, 500)
    await wait_until(lambda: terminals.only.cols <= 90, "the gateway to be told")

    await shell.type("clear; stty size\n")

    await shell.wait_for_screen(f"{terminals.only.rows} {terminals.only.cols}\n$")
    await shell.resize(320, 480)  # a telephone
    await shell.wait_for("document.body.scrollWidth <= 320", "the page to be no wider")


async def test_a_refresh_comes_back_to_the_same_terminal_with_all_it_said(
    shell: Browser, terminals: FakeTerminals
) -> None:
    await shell.type("kept=treasure; seq 1 200; echo said before\n")
    await shell.wait_for_screen("said before\n")

    await shell.reload()

    await shell.wait_for_screen("said before\n")
    await shell.type("echo still $kept\n")
    await shell.wait_for_screen("still treasure")
    assert len(terminals.shells) == 1
    assert terminals.asked.count("terminal.spawn") == 1


async def test_a_lost_network_is_said_and_made_good(
    shell: Browser, terminals: FakeTerminals
) -> None:
    await shell.type("echo before\n")
    await shell.wait_for_screen("\nbefore\n")
    attaches = terminals.asked.count("terminal.attach")

    terminals.cut_connections()
    await shell.wait_for_text("#connection", "Connection lost")
    terminals.say(terminals.only, "said while nobody listened\r\n")

    await shell.wait_for_screen("said while nobody listened")
    await shell.wait_for_text("#connection", "Connected")
    await shell.type("echo after\n")
    screen = await shell.wait_for_screen("\nafter\n")
    assert screen.count("said while nobody listened") == 1
    assert screen.count("\nbefore\n") == 1
    assert terminals.asked.count("terminal.attach") == attaches + 1


async def test_what_comes_twice_is_shown_once_and_what_is_missing_is_asked_for(
    shell: Browser, terminals: FakeTerminals
) -> None:
    # A shell that waits for input draws its line anew when the window gets its size.
    await shell.type("echo ready; cat\n")
    await shell.wait_for_screen("\nready\n")
    terminal = terminals.only
    terminals.say(terminal, "\r\n🎉 once")
    await shell.wait_for_screen("🎉 once")
    end = len(terminal.kept)

    terminal.tell("terminal.output", data="🎉 once", offset=end)
    terminal.kept += ", then"
    terminal.tell("terminal.output", data="once, then", offset=end + len(", then"))
    await shell.wait_for_screen("🎉 once, then")
    terminal.kept += " lost on the way"
    terminals.say(terminal, " and the rest")

    screen = await shell.wait_for_screen("🎉 once, then lost on the way and the rest")
    assert screen.count("once") == 1


async def test_output_without_end_is_acknowledged_as_it_is_drawn(
    shell: Browser, terminals: FakeTerminals
) -> None:
    await shell.type(
        "head -c 3000000 /dev/zero | tr '\\0' 'x' | fold -w 100; echo; echo all there\n"
    )

    await shell.wait_for_screen("all there\n")

    await wait_until(
        lambda: terminals.only.acked >= 3_000_000 - 128 * 1024, "the gateway to be told"
    )
    assert terminals.asked.count("terminal.ack") < 40


async def test_several_terminals_stand_beside_each_other_up_to_the_quota(
    shell: Browser, terminals: FakeTerminals
) -> None:
    await shell.type("echo first\n")
    await shell.wait_for_screen("\nfirst\n")

    await shell.click("#new-terminal")
    await shell.wait_for(f"{TABS} === 2", "a second tab")
    await shell.wait_for_screen("$")
    await shell.type("echo second\n")
    screen = await shell.wait_for_screen("\nsecond\n")

    assert "first" not in screen
    await shell.wait_for_text("#quota", f"2 of {QUOTA}")
    await shell.click("[role=tab]")
    await shell.wait_for_screen("\nfirst\n")
    await shell.press("L", code=76, ctrl=True, shift=True)
    await shell.wait_for("document.activeElement.role === 'tab'", "the focus to be on the tabs")


async def test_the_end_of_a_shell_is_shown_and_its_tab_can_be_closed(
    shell: Browser, terminals: FakeTerminals
) -> None:
    await shell.type("exit 3\n")

    await shell.wait_for_text(".panel", "This terminal has ended with exit code 3")
    await shell.type("nobody hears this\n")
    await shell.click(".tab button[aria-label^=Close]")
    await shell.wait_for(f"{TABS} === 0", "no tab")
    assert "nobody" not in "".join(terminals.written)


async def test_closing_a_tab_ends_what_runs_in_it(shell: Browser, terminals: FakeTerminals) -> None:
    await shell.click(".tab button[aria-label^=Close]")

    await shell.wait_for(f"{TABS} === 0", "no tab")
    await wait_until(lambda: terminals.only.exited is not None, "the gateway to be told")


async def paste(browser: Browser, text: str) -> None:
    await browser.page.evaluate(
        f"""(() => {{
          const data = new DataTransfer();
          data.setData('text/plain', {json.dumps(text)});
          document.activeElement.dispatchEvent(new ClipboardEvent(
            'paste', {{ clipboardData: data, bubbles: true, cancelable: true }}));
        }})()"""
    )


async def wait_written(terminals: FakeTerminals, text: str) -> str:
    await wait_until(lambda: text in "".join(terminals.written), "the gateway to be told")
    return "".join(terminals.written)


async def test_pasted_text_cannot_end_its_brackets(
    shell: Browser, terminals: FakeTerminals
) -> None:
    terminals.say(terminals.only, "\x1b[?2004hbrackets")
    await shell.wait_for_screen("brackets")
    await paste(shell, "one\x1b[201~two\x03\x9bthree" + "\n" + "four")

    written = await wait_written(terminals, "four\x1b[201~")

    assert written == "\x1b[200~one[201~twothree\rfour\x1b[201~"


async def test_a_large_paste_arrives_in_order_and_whole(
    shell: Browser, terminals: FakeTerminals
) -> None:
    # While the shell still reads, the terminal does not yet make a line's end of a return.
    await shell.type("stty -echo; clear; echo ready; wc -c\n")
    lines = "".join(f"{number:07d} 🎉 überall\n" for number in range(20_000))
    await shell.wait_for_screen("ready\n")
    await paste(shell, lines)
    await wait_written(terminals, "0019999 🎉 überall\r")
    await shell.press("d", code=68, ctrl=True)

    await shell.wait_for_screen(f"{len(lines.encode())}\n")


async def test_half_a_character_breaks_nothing(shell: Browser, terminals: FakeTerminals) -> None:
    await paste(shell, "b\ud83cc")

    await wait_written(terminals, "b\ufffdc")

    assert (
        await shell.page.evaluate("document.querySelector('#connection').innerText") == "Connected"
    )


REQUEST: dict[str, Any] = {
    "requestId": "sup-1",
    "state": "requested",
    "mode": "write",
    "admin": "ops <b>",
    "reason": "<img src=x onerror=alert(1)> ticket 42",
    "minutes": 15,
    "expiresAtMs": 1_795_000_000_000,
    "terminalId": "term-1",
}
BANNER = "#support .notice"


async def test_support_is_let_in_by_the_tenant_and_seen_while_it_is_there(
    shell: Browser, terminals: FakeTerminals
) -> None:
    terminals.tell_all("terminal.support", REQUEST)
    await shell.wait_for_text(
        BANNER, "ops <b> asks to see, and type in, one of your terminals for 15 minutes"
    )
    await shell.wait_for_text(BANNER, "Reason given: <img src=x onerror=alert(1)> ticket 42")

    await shell.click(f"{BANNER} button")
    await wait_until(lambda: terminals.resolved == [("sup-1", "allow")], "the gateway to be told")
    terminals.tell_all("terminal.support", {**REQUEST, "state": "granted"})

    await shell.wait_for_text(BANNER, "Support is here: ops <b> sees and may type")
    await shell.click(f"{BANNER} button")
    await wait_until(lambda: ("sup-1", "end") in terminals.resolved, "the gateway to be told")
    terminals.tell_all("terminal.support", {**REQUEST, "state": "ended"})
    await shell.wait_for(f"document.querySelector('{BANNER}') === null", "no banner")
    assert await shell.page.evaluate("document.querySelector('#support img')") is None


async def test_who_comes_later_still_sees_that_support_asked(
    browser: Browser, acme: Tenant, terminals: FakeTerminals
) -> None:
    terminals.support.append({**REQUEST, "mode": "read"})

    await browser.sign_in(acme)

    await browser.wait_for_text(BANNER, "asks to see one of your terminals")


async def test_what_the_gateway_has_to_say_of_a_terminal_is_shown(
    shell: Browser, terminals: FakeTerminals
) -> None:
    terminals.only.tell("terminal.notice", kind="idle", message="closes soon <i>", atMs=1)

    await shell.wait_for_text(".panel .notice", "closes soon <i>")


async def test_who_looks_on_cannot_type(shell: Browser, terminals: FakeTerminals) -> None:
    terminals.only.mode = "read"
    await shell.reload()
    await shell.wait_for_text(".panel .notice", "You look on")

    await shell.type("echo nothing\n")
    await shell.page.evaluate("new Promise((passed) => setTimeout(passed, 200))")

    assert terminals.written == []


async def test_the_screen_reader_mode_is_kept(shell: Browser) -> None:
    await shell.click("#screen-reader")
    await shell.wait_for(
        "document.querySelector('.xterm-accessibility') !== null", "the text for readers"
    )

    await shell.reload()

    await shell.wait_for(
        "document.querySelector('.xterm-accessibility') !== null", "the text for readers"
    )
    assert await shell.violations() == []
