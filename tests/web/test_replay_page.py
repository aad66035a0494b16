"""The page that plays a recording."""

import pytest

from tests.gateway.conftest import Tenant
from tests.web.fake_recordings import FakeRecordings
from tests.web.signed_in import Browser

pytestmark = pytest.mark.system

HEADER = {"width": 60, "height": 10, "timestamp": 1_795_000_000, "title": "<b>a shell</b>"}
SHORT = [
    (0.0, "o", "$ "),
    (0.2, "i", "typed and not shown"),
    (0.3, "o", "first\r\n"),
    (0.4, "r", "40x8"),
    (0.5, "m", "a marker <i>"),
    (0.6, "o", "second\r\n"),
    (600.0, "o", "third, after a long pause\r\n"),
]
PATH = "/terminal/replay/{}"


async def test_a_recording_plays_to_its_end_with_pauses_shortened(
    browser: Browser, acme: Tenant, recordings: FakeRecordings
) -> None:
    recordings.add("rec-1", HEADER, SHORT)

    await browser.sign_in(acme, PATH.format("rec-1"))

    await browser.wait_for_screen("third, after a long pause")
    await browser.wait_for_text("#state", "Finished")
    await browser.wait_for_text("#time", "0:02 / 0:02")
    await browser.wait_for_text("#about", "<b>a shell</b>")
    screen = await browser.screen()
    assert screen.startswith("$ first\nsecond\nthird")
    assert "not shown" not in screen
    assert len(screen.split("\n")) == 8
    assert await browser.violations() == []


async def test_one_can_go_to_any_place_and_play_from_there(
    browser: Browser, acme: Tenant, recordings: FakeRecordings
) -> None:
    recordings.add("rec-1", HEADER, SHORT)
    await browser.sign_in(acme, PATH.format("rec-1"))
    await browser.wait_for_text("#state", "Finished")

    await browser.page.evaluate(
        """(() => {
          const at = document.querySelector('#position');
          at.value = '0.35';
          at.dispatchEvent(new Event('input'));
        })()"""
    )
    await browser.wait_for(
        "document.querySelectorAll('.xterm-rows > div').length === 10", "the size of that time"
    )
    screen = await browser.wait_for_screen("first")
    assert "second" not in screen

    await browser.click("#markers button")
    await browser.wait_for(
        "document.querySelectorAll('.xterm-rows > div').length === 8", "the size of the marker"
    )
    await browser.wait_for_text("#markers", "0:00 a marker <i>")
    await browser.page.evaluate(
        """(() => {
          const speed = document.querySelector('#speed');
          speed.value = '8';
          speed.dispatchEvent(new Event('change'));
        })()"""
    )
    await browser.click("#play")
    await browser.wait_for_screen("third")


async def test_pauses_can_be_kept(
    browser: Browser, acme: Tenant, recordings: FakeRecordings
) -> None:
    recordings.add("rec-1", HEADER, SHORT)
    await browser.sign_in(acme, PATH.format("rec-1"))
    await browser.wait_for_text("#state", "Finished")

    await browser.click("#skip-idle")

    await browser.wait_for_text("#time", "10:00 / 10:00")


async def test_a_long_recording_is_sought_through_quickly(
    browser: Browser, acme: Tenant, recordings: FakeRecordings
) -> None:
    lines = [(number / 10, "o", f"line {number} {'x' * 300}\r\n") for number in range(20_000)]
    recordings.add("rec-1", HEADER, [*lines, (2_001.0, "o", "the end\r\n")])
    await browser.sign_in(acme, PATH.format("rec-1"))
    await browser.wait_for_text("#state", "Playing")

    await browser.page.evaluate(
        """(() => {
          const at = document.querySelector('#position');
          at.value = at.max;
          at.dispatchEvent(new Event('input'));
        })()"""
    )

    await browser.wait_for_screen("the end")
    await browser.wait_for_text("#state", "Finished")


async def test_a_recording_answers_no_questions_and_makes_no_markup(
    browser: Browser, acme: Tenant, recordings: FakeRecordings
) -> None:
    bad = "\x1b]0;<img src=x>\x07\x1b]52;c;eA==\x07\x1b]8;;javascript:1\x1b\\x\x1b]8;;\x1b\\"
    recordings.add("rec-1", {**HEADER, "title": bad}, [(0.0, "o", bad), (0.1, "o", "shown\r\n")])

    await browser.sign_in(acme, PATH.format("rec-1"))

    await browser.wait_for_screen("shown")
    assert await browser.page.evaluate("document.title") == "Replay · OpenClawMU"
    assert await browser.page.evaluate("document.querySelectorAll('img, a').length") == 0
    assert await browser.violations() == []


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "there is no such recording"),
        (b"", "That is no recording."),
        (b'{"version": 1}\n', "That is no recording of version 2."),
        (b"<html>\n", "That is no recording."),
    ],
)
async def test_what_is_no_recording_is_said_to_be_none(
    browser: Browser, acme: Tenant, recordings: FakeRecordings, content: bytes | None, what: str
) -> None:
    if content is not None:
        recordings.kept["rec-1"] = content

    await browser.sign_in(acme, PATH.format("rec-1"))

    await browser.wait_for_text("#notices", what)


async def test_a_recording_that_was_cut_off_plays_as_far_as_it_goes(
    browser: Browser, acme: Tenant, recordings: FakeRecordings
) -> None:
    recordings.add("rec-1", HEADER, [(0.1, "o", "as far as this\r\n")])
    recordings.kept["rec-1"] += b'[0.2, "o", "torn'

    await browser.sign_in(acme, PATH.format("rec-1"))

    await browser.wait_for_screen("as far as this")
    await browser.wait_for_text("#notices", "its end is missing")
