"""Taking turns by weight."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from appliance.model.balancing import SmoothChoice

WEIGHTS = st.lists(st.integers(1, 20), min_size=1, max_size=6)


def test_turns_are_spread_and_not_bunched() -> None:
    turns = SmoothChoice([5, 1, 1])

    assert [turns.order()[0] for _ in range(7)] == [0, 0, 1, 0, 2, 0, 0]


@given(WEIGHTS, st.integers(0, 50))
def test_in_any_full_round_everyone_has_as_many_turns_as_weight(
    weights: list[int], before: int
) -> None:
    turns = SmoothChoice(weights)
    for _ in range(before * sum(weights)):
        turns.order()

    chosen = Counter(turns.order()[0] for _ in range(sum(weights)))

    assert [chosen[number] for number in range(len(weights))] == weights


@given(WEIGHTS, st.lists(st.frozensets(st.integers(0, 5)), max_size=60))
def test_everyone_is_listed_once_and_the_usable_come_first(
    weights: list[int], rounds: list[frozenset[int]]
) -> None:
    turns = SmoothChoice(weights)
    for usable in rounds:
        order = turns.order(usable.__contains__)

        assert sorted(order) == list(range(len(weights)))
        ready = [number in usable for number in order]
        assert ready == sorted(ready, reverse=True)


def test_who_is_not_usable_does_not_save_up_turns() -> None:
    turns = SmoothChoice([1, 1])
    for _ in range(100):
        assert turns.order(lambda number: number == 0) == [0, 1]

    assert Counter(turns.order()[0] for _ in range(10)) == {0: 5, 1: 5}


def test_where_nobody_is_usable_turns_are_taken_all_the_same() -> None:
    turns = SmoothChoice([1, 1])

    assert [turns.order(lambda _: False) for _ in range(2)] == [[0, 1], [1, 0]]
