"""Sliding windows: never short, at most one step long, bounded."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.model.periods import SECOND
from appliance.services.rates import SlidingWindow

SPAN, STEP = 60 * SECOND, SECOND // 20

gaps = st.sampled_from([0, 1, STEP - 1, STEP, STEP + 1, SECOND, 59 * SECOND, SPAN, SPAN + 1])
additions = st.lists(st.tuples(gaps, st.integers(0, 9)), min_size=1, max_size=60)


@given(additions)
def test_a_window_counts_all_of_its_span_and_no_more_than_a_step_beyond(
    additions: list[tuple[int, int]],
) -> None:
    window = SlidingWindow(SPAN, step_ns=STEP)
    now, history = 0, list[tuple[int, int]]()
    for gap, amount in additions:
        now += gap
        counted = window.total(now)
        assert counted >= sum(n for t, n in history if t > now - SPAN)
        assert counted <= sum(n for t, n in history if t > now - SPAN - STEP)
        window.add(now, amount)
        history.append((now, amount))


@given(additions, st.integers(1, 20), st.integers(20, 60))
def test_after_the_wait_that_was_told_there_is_room_and_not_before(
    additions: list[tuple[int, int]], amount: int, limit: int
) -> None:
    window = SlidingWindow(SPAN, step_ns=STEP)
    now = 0
    for gap, added in additions:
        now += gap
        window.add(now, added)
    wait = window.wait_for(now, amount, limit=limit)
    assert wait is not None
    free = now + round(wait * SECOND)
    if wait:
        assert window.total(free - 1_000) + amount > limit
    assert window.total(free + 1_000) + amount <= limit


@given(additions, st.data())
def test_what_is_adjusted_after_it_has_left_changes_nothing(
    additions: list[tuple[int, int]], data: st.DataObject
) -> None:
    window = SlidingWindow(SPAN, step_ns=STEP)
    now, bursts = 0, []
    for gap, amount in additions:
        now += gap
        bursts.append((window.add(now, amount), amount))
    for burst, amount in data.draw(st.permutations(bursts)):
        window.adjust(burst, -amount)
    assert window.total(now) == 0
    assert window.total(now + 2 * SPAN) == 0


def test_a_million_calls_in_a_minute_take_little_room() -> None:
    window = SlidingWindow(SPAN, step_ns=STEP)
    for number in range(100_000):
        window.add(number * SECOND // 1_000, 1)
    # Before anybody asks: who has no limit never does.
    assert len(window._bursts) <= 1_202
    assert 60_000 <= window.total(100 * SECOND) <= 60_050
    assert len(window._bursts) <= 1_201
