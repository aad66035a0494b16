"""Deltas put in an order in which every tool call is whole before the next thing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.calls import Delta, Finished, FinishReason, TextDelta, ToolCallDelta
from appliance.model.errors import UpstreamFailed
from appliance.protocols.block_order import BlockOrder
from tests.protocols.calls import calls_of, text_of

END = Finished(FinishReason.TOOL_CALLS, None)


def begun(index: int, arguments: str = "") -> ToolCallDelta:
    return ToolCallDelta(index, id=f"id{index}", name=f"f{index}", arguments=arguments)


def piece(index: int, arguments: str) -> ToolCallDelta:
    return ToolCallDelta(index, arguments=arguments)


def ordered(*deltas: Delta) -> list[Delta]:
    order = BlockOrder()
    return [each for delta in deltas for each in order.order([delta])]


def test_what_is_in_order_leaves_at_once() -> None:
    order = BlockOrder()
    deltas: list[Delta] = [
        TextDelta("x"),
        begun(0),
        piece(0, '{"a"'),
        piece(0, ":1}"),
        begun(1, "{}"),
    ]

    for delta in deltas:
        assert list(order.order([delta])) == [delta]
    assert list(order.order([END])) == [END]


def test_calls_that_come_by_turns_come_one_after_the_other() -> None:
    pieces = (piece(0, '{"a":'), piece(1, '{"b":'), piece(0, "1}"), piece(1, "2}"))

    deltas = ordered(begun(0), begun(1), *pieces, END)

    assert [d.index for d in deltas if isinstance(d, ToolCallDelta)] == [0, 0, 0, 1, 1, 1]
    assert calls_of(deltas) == [("id0", "f0", '{"a":1}'), ("id1", "f1", '{"b":2}')]
    assert deltas[-1] == END


def test_a_text_amid_a_call_comes_after_it() -> None:
    deltas = ordered(begun(0, '{"a"'), TextDelta("so"), piece(0, ":1}"), TextDelta("?"), END)

    assert text_of(deltas) == "so?"
    assert calls_of(deltas[:2]) == [("id0", "f0", '{"a":1}')]


def test_what_was_never_finished_is_told_at_the_end() -> None:
    deltas = ordered(begun(0, '{"a'), begun(1, '{"b'), begun(2, "{}"), piece(1, '":'), END)

    assert calls_of(deltas) == [("id0", "f0", '{"a'), ("id1", "f1", '{"b":'), ("id2", "f2", "{}")]
    assert [d.index for d in deltas if isinstance(d, ToolCallDelta)] == [0, 1, 1, 2]


def test_white_space_after_a_call_is_nothing() -> None:
    assert calls_of(ordered(begun(0, "{}"), begun(1, "{}"), piece(0, "\n"), END)) == [
        ("id0", "f0", "{}"),
        ("id1", "f1", "{}"),
    ]


def test_more_of_a_call_that_was_complete_is_a_failure() -> None:
    with pytest.raises(UpstreamFailed):
        ordered(begun(0, "{}"), begun(1, "{}"), piece(0, '{"a":1}'))


def test_what_is_held_back_has_an_end() -> None:
    order = BlockOrder()
    many: list[Delta] = [begun(0, "{"), *(TextDelta("x") for _ in range(10_000))]

    with pytest.raises(UpstreamFailed):
        order.order(many)


@given(st.data())
def test_calls_however_mixed_up_come_whole_and_one_after_the_other(data: st.DataObject) -> None:
    texts = [
        json.dumps({"key": value})
        for value in data.draw(st.lists(st.text(max_size=5), min_size=1, max_size=4))
    ]
    left = {
        number: [begun(number), *(piece(number, letter) for letter in text)]
        for number, text in enumerate(texts)
    }
    # Each begins after the one before it; then any of them goes on.
    mixed: list[Delta] = []
    while left:
        begins = [n for n in left if n == 0 or begun(n - 1) in mixed]
        number = data.draw(st.sampled_from(begins))
        mixed.append(left[number].pop(0))
        if not left[number]:
            del left[number]

    deltas = ordered(*mixed, END)

    numbers = [d.index for d in deltas if isinstance(d, ToolCallDelta)]
    assert numbers == sorted(numbers)
    assert [arguments for _, _, arguments in calls_of(deltas)] == texts
