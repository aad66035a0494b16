"""What failed is left alone for a while (see ``test_routing`` for providers)."""

import pytest

from appliance.services.cooldowns import LONGEST_COOLDOWN, Cooldowns
from tests.books import HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def test_the_wait_doubles_with_each_failure_in_a_row_up_to_five_minutes(clock: HandClock) -> None:
    cooldowns: Cooldowns[str] = Cooldowns(clock)
    waits = []
    for _ in range(12):
        cooldowns.note_failure("a", asked=None)
        wait = cooldowns.left("a")
        assert wait is not None
        waits.append(wait)
        clock.advance(wait)
        assert cooldowns.left("a") is None

    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_a_success_ends_it(clock: HandClock) -> None:
    cooldowns: Cooldowns[str] = Cooldowns(clock)
    cooldowns.note_failure("a", asked=60)
    cooldowns.note_success("a")

    assert cooldowns.left("a") is None
    assert len(cooldowns) == 0


def test_nobody_waits_longer_than_five_minutes(clock: HandClock) -> None:
    cooldowns: Cooldowns[str] = Cooldowns(clock)
    cooldowns.note_failure("a", asked=86_400)

    assert cooldowns.left("a") == LONGEST_COOLDOWN.total_seconds()
