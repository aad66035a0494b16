"""When a terminal's time is up, to the second."""

from math import inf

import trio
from trio.testing import MockClock

from appliance.config.sandbox_schema import TerminalDefaults
from appliance.model.terminals import EndReason
from appliance.services.terminals.limits import TerminalLimits

SETTINGS = TerminalDefaults(idle_timeout=300, max_lifetime=1000, detached_timeout=50)


def warned(limits: TerminalLimits) -> list[tuple[EndReason, float]]:
    return [(each.reason, each.seconds) for each in limits.warnings()]


async def test_each_limit_is_reached_at_its_second(mock_clock: MockClock) -> None:
    limits = TerminalLimits(SETTINGS)
    assert limits.next_look() == trio.current_time() + 240
    mock_clock.jump(299.9)
    assert limits.passed() is None
    mock_clock.jump(0.1)
    assert limits.passed() is EndReason.IDLE
    limits.touch()
    assert limits.passed() is None

    limits.note_watched(False)  # noqa: FBT003 - the only thing it is told
    mock_clock.jump(49.9)
    limits.note_watched(False)  # noqa: FBT003 - as above
    assert limits.passed() is None
    mock_clock.jump(0.1)
    assert limits.passed() is EndReason.DETACHED
    limits.note_watched(True)  # noqa: FBT003 - as above
    assert limits.passed() is None

    limits.touch()
    mock_clock.jump(250)
    limits.touch()
    mock_clock.jump(250)
    limits.touch()
    mock_clock.jump(150)
    assert limits.passed() is EndReason.LIFETIME
    assert limits.age == 1000


async def test_each_warning_is_given_once_and_anew_when_it_is_due_anew(
    mock_clock: MockClock,
) -> None:
    limits = TerminalLimits(SETTINGS)
    mock_clock.jump(239)
    assert warned(limits) == []
    mock_clock.jump(1)
    assert warned(limits) == [(EndReason.IDLE, 60)]
    assert warned(limits) == []
    limits.touch()
    mock_clock.jump(250)
    assert warned(limits) == [(EndReason.IDLE, 50)]


async def test_without_limits_there_is_nothing_to_look_for() -> None:
    limits = TerminalLimits(TerminalDefaults(idle_timeout=0, max_lifetime=0))

    assert limits.next_look() == inf
    assert limits.passed() is None
