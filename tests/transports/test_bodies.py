from collections.abc import Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from appliance.model.errors import TooLarge
from appliance.transports.bodies import ClientGone, read_body
from appliance.transports.problems import SlowBody


class Sender:
    """A client that sends these messages, then nothing more."""

    def __init__(self, messages: Sequence[dict[str, Any]], *, pause: float = 0) -> None:
        self._messages = list(messages)
        self._pause = pause

    async def __call__(self) -> dict[str, Any]:
        await trio.sleep(self._pause)
        if not self._messages:
            await trio.sleep_forever()
        return self._messages.pop(0)


def part(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


LEFT = {"type": "http.disconnect"}


async def test_the_parts_of_a_body_are_joined() -> None:
    sender = Sender([part(b"ab"), part(b"cd"), part(b"", more=False)])

    assert await read_body(sender, [], limit=4, patience=1) == b"abcd"


async def test_a_request_may_have_no_body() -> None:
    assert await read_body(Sender([part(b"", more=False)]), [], limit=4, patience=1) == b""


async def test_a_body_over_the_limit_is_refused_naming_the_limit() -> None:
    sender = Sender([part(b"abc"), part(b"def"), part(b"", more=False)])

    with pytest.raises(TooLarge, match="4 bytes"):
        await read_body(sender, [], limit=4, patience=1)


async def test_an_announced_length_over_the_limit_is_refused() -> None:
    sender = Sender([part(b"", more=False)])

    with pytest.raises(TooLarge):
        await read_body(sender, [(b"content-length", b"5")], limit=4, patience=1)


async def test_a_sender_of_too_much_is_not_listened_to_for_ever(autojump_clock: MockClock) -> None:
    sender = Sender([part(b"abcde")])

    with pytest.raises(TooLarge):
        await read_body(sender, [], limit=4, patience=60)

    assert trio.current_time() == 5


async def test_a_body_that_drips_is_given_up(autojump_clock: MockClock) -> None:
    sender = Sender([part(b"x")] * 100, pause=1)

    with pytest.raises(SlowBody):
        await read_body(sender, [], limit=1000, patience=30)

    assert trio.current_time() == 30


async def test_a_client_that_leaves_in_mid_body_gets_no_answer() -> None:
    with pytest.raises(ClientGone):
        await read_body(Sender([part(b"x"), LEFT]), [], limit=10, patience=1)
