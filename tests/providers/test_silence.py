"""Silence in an answer is noticed; slow pieces and slow readers are not silence."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
import trio
from trio.testing import MockClock

from appliance.providers.silence import SilenceWatch

PATIENCE = 8.0


async def test_silence_ends_the_block(autojump_clock: MockClock) -> None:
    with SilenceWatch(PATIENCE) as watch:
        watch.expect()
        await trio.sleep_forever()

    assert watch.was_silent
    assert PATIENCE <= trio.current_time() <= PATIENCE * 1.125


async def test_whatever_comes_in_time_keeps_it_alive(autojump_clock: MockClock) -> None:
    with SilenceWatch(PATIENCE) as watch:
        for _ in range(20):
            watch.expect()
            await trio.sleep(PATIENCE * 0.99)

    assert not watch.was_silent


@pytest.mark.parametrize("came_after", [0.0, 0.5, 0.99])
async def test_who_handles_a_piece_has_as_long_as_the_next_one(
    came_after: float, autojump_clock: MockClock
) -> None:
    with SilenceWatch(PATIENCE) as watch:
        watch.expect()
        await trio.sleep(PATIENCE * came_after)
        watch.expect()
        await trio.sleep(PATIENCE * 0.99)

    assert not watch.was_silent


async def test_nothing_is_watched_before_the_first_piece_and_after_the_last(
    autojump_clock: MockClock,
) -> None:
    with SilenceWatch(PATIENCE) as watch:
        await trio.sleep(PATIENCE * 10)
        watch.expect()
        watch.rest()
        await trio.sleep(PATIENCE * 10)

    assert not watch.was_silent


async def test_a_cancellation_from_outside_is_none_of_its_business(
    autojump_clock: MockClock,
) -> None:
    with trio.move_on_after(1) as outer, SilenceWatch(PATIENCE) as watch:
        watch.expect()
        await trio.sleep_forever()

    assert outer.cancelled_caught
    assert not watch.was_silent


async def test_a_reader_that_breaks_off_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    async def pieces() -> AsyncGenerator[None, None]:
        while True:
            watch.expect()
            await trio.sleep(1)
            yield

    with SilenceWatch(PATIENCE) as watch:
        async with aclosing(pieces()) as answer:
            async for _ in answer:
                break

    await trio.sleep(PATIENCE * 10)
    assert not watch.was_silent
