"""How a response with very many items is cut into steps."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.storage.response_rows import Item
from appliance.storage.response_writing import in_steps


@given(st.lists(st.text("abc", max_size=3), max_size=40), st.integers(1, 10))
def test_each_item_is_in_one_step_with_its_place(ids: list[str], most: int) -> None:
    items = [Item(name, b"{}") for name in ids]

    steps = list(in_steps(items, most=most))

    placed = [each for step in steps for each in step]
    assert sorted(placed, key=lambda each: each[0]) == list(enumerate(items))
    assert all(1 <= len(step) <= most for step in steps)
    # Of two with one id the later is found, and so it is written later.
    assert [(item.id, place) for place, item in placed] == sorted(
        (name, place) for place, name in enumerate(ids)
    )
