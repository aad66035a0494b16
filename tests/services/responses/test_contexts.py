"""What a request continues, and how it is made shorter."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.errors import InvalidRequest, NotFound
from appliance.protocols.responses.items import check_calls, compaction_item
from appliance.services.responses.contexts import (
    continued,
    last_step,
    shorter,
    since_compaction,
    upstream_body,
)
from appliance.services.responses.conversations import ConversationService
from appliance.services.responses.runs import PreviousResponseNotFound
from tests.services.responding import Endless, open_house, request


def said(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": text}


def call(name: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": name, "name": "f", "arguments": "{}"}


def result(name: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": name, "output": "x" * 50}


def custom_call(name: str) -> dict[str, Any]:
    return {"type": "custom_tool_call", "call_id": name, "name": "f", "input": "x"}


def custom_result(name: str) -> dict[str, Any]:
    return {"type": "custom_tool_call_output", "call_id": name, "output": "x" * 50}


APPROVAL = {"type": "mcp_approval_request", "id": "mcpr_1", "name": "f", "arguments": "{}"}
APPROVED = {
    "type": "mcp_approval_response",
    "approval_request_id": "mcpr_1",
    "approve": True,
}


def msg(text: str, role: str = "user") -> dict[str, Any]:
    return {"type": "message", **said(text, role)}


async def test_a_reference_may_name_any_stored_item(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        first = await house.answer("one")
        item_id = first["output"][0]["id"]

        found = await continued(
            house.tenant.found,
            request([{"type": "item_reference", "id": item_id}, said("two")]),
            now=house.clock(),
        )

        assert found.request.input[0] == first["output"][0]
        with pytest.raises(InvalidRequest, match="msg_x"):
            await continued(
                house.tenant.found,
                request([{"type": "item_reference", "id": "msg_x"}]),
                now=house.clock(),
            )


async def test_what_is_not_there_cannot_be_continued(tmp_path: Path) -> None:
    async with open_house(tmp_path, Endless()) as house:
        store, now = house.tenant.found, house.clock()
        running = await house.start()

        with pytest.raises(PreviousResponseNotFound):
            await continued(store, request(previous_response_id="resp_x"), now=now)
        with pytest.raises(PreviousResponseNotFound):
            await continued(store, request(previous_response_id=running), now=now)
        with pytest.raises(NotFound, match="conv_x"):
            await continued(store, request(conversation="conv_x"), now=now)


async def test_a_long_conversation_is_read_whole(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        first = await house.answer("x" * 300_000)

        found = await continued(
            house.tenant.found,
            request("two", previous_response_id=first["id"]),
            now=house.clock(),
        )

        assert [len(item["content"][0]["text"]) for item in found.context] == [300_000, 11]


def test_half_goes_each_time_until_nothing_can() -> None:
    lines = [said(f"line {n:03}") for n in range(64)]

    left = [len(shorter_.input) for shorter_, _ in shorter(request(lines), ())]

    assert left == [32, 16, 8, 4, 2, 1]


async def test_a_conversation_that_lost_a_call_goes_on_without_its_result(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        items = request([result("gone"), call("a"), result("a"), said("hi")]).input
        service = ConversationService(clock=house.clock)
        made = await service.create(house.tenant, items, {})

        found = await continued(
            house.tenant.found, request("and", conversation=made.id), now=house.clock()
        )

    assert found.context == [*items[1:]]
    check_calls(found.context)


def test_the_last_results_stay_with_their_calls() -> None:
    items = [said("a" * 50), call("c"), call("d"), said("b" * 50), result("c"), result("d")]

    *_, (last, _) = shorter(request(items), ())

    assert [item["type"] for item in last.input] == ["function_call"] * 2 + [
        "function_call_output"
    ] * 2


_ITEMS = st.lists(
    st.sampled_from(
        [
            said("a"),
            said("b" * 90),
            said("rules", "system"),
            call("c"),
            result("c"),
            call("d"),
            custom_call("e"),
            custom_result("e"),
            APPROVAL,
            APPROVED,
        ]
    ),
    min_size=1,
    max_size=30,
)


@given(_ITEMS)
def test_no_result_is_left_without_its_call(items: list[dict[str, Any]]) -> None:
    asked = request(items)

    for shortened, context in shorter(asked, ()):
        assert context == ()
        assert len(shortened.input) < len(items)
        try:
            check_calls(asked.input)
        except InvalidRequest:
            continue  # it was not right before either
        check_calls(shortened.input)
        systems = [item for item in asked.input if item.get("role") == "system"]
        assert [item for item in shortened.input if item.get("role") == "system"] == systems


SUMMARY = compaction_item("they met")
THEIRS = {"type": "compaction", "id": "cmp_x", "encrypted_content": "opaque"}


@pytest.mark.parametrize(
    ("items", "left"),
    [
        ([], []),
        ([msg("a"), msg("b")], [msg("a"), msg("b")]),
        ([msg("a"), SUMMARY, msg("b")], [SUMMARY, msg("b")]),
        ([msg("a"), THEIRS, msg("b")], [msg("a"), THEIRS, msg("b")]),
        (
            [msg("s", "system"), msg("a"), SUMMARY, msg("b"), SUMMARY],
            [msg("s", "system"), SUMMARY],
        ),
        (
            [call("one"), call("two"), msg("a"), SUMMARY, result("two")],
            [call("two"), SUMMARY, result("two")],
        ),
        (
            [custom_call("one"), custom_call("two"), SUMMARY, custom_result("two")],
            [custom_call("two"), SUMMARY, custom_result("two")],
        ),
        ([msg("a"), APPROVAL, SUMMARY, APPROVED], [APPROVAL, SUMMARY, APPROVED]),
    ],
)
def test_what_a_compaction_stands_for_is_left_out(
    items: list[dict[str, Any]], left: list[dict[str, Any]]
) -> None:
    assert list(since_compaction(items)) == left


async def test_a_model_is_not_told_what_was_compacted() -> None:
    body = await upstream_body(request("b"), [msg("a"), SUMMARY])

    assert [item["type"] for item in msgspec.json.decode(body["input"])] == [
        "compaction",
        "message",
    ]


@pytest.mark.parametrize(
    ("items", "start"),
    [
        ([], 0),
        ([msg("a")], 0),
        ([msg("s", "system"), msg("a")], 0),
        ([msg("a"), msg("b", "assistant"), msg("c"), msg("d")], 2),
        ([msg("a"), call("one"), result("one")], 1),
        ([msg("a"), call("one"), result("one"), call("two"), result("two")], 3),
        ([msg("a"), custom_call("one"), custom_result("one")], 1),
        ([msg("a"), APPROVAL, APPROVED], 1),
        ([msg("a"), msg("b", "assistant")], 2),
        ([call("one"), result("one")], 0),
    ],
)
def test_the_last_step_is_what_is_to_be_answered(items: list[dict[str, Any]], start: int) -> None:
    assert last_step(items) == start
