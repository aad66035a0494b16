"""A conversation made short, and how long one is."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.model.errors import InvalidRequest, ModelUnknown, UpstreamFailed
from appliance.protocols.responses import seals
from appliance.protocols.responses.request import ResponsesRequest
from appliance.services.responses.compaction import Compaction, Count, spoken
from appliance.services.token_counts import TokenCounts
from tests.fakes.cancelling import each_cancellation
from tests.fakes.providers import FakeReply
from tests.fakes.tenants import CALLER
from tests.services.responding import House, open_house, request


def asked(**body: Any) -> ResponsesRequest:
    members = {"model": "stub/mock", **body}
    return ResponsesRequest.of_compaction(
        {name: msgspec.json.encode(value) for name, value in members.items()}
    )


def service(house: House) -> Compaction:
    return Compaction(
        house.exchange.calls,
        TokenCounts(house.exchange.router, lambda: house.exchange.providers),
        clock=house.clock,
    )


async def compacted(house: House, **body: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(
        await service(house).compact(house.tenant, CALLER, asked(**body))
    )
    return found


async def test_a_summary_stands_for_what_was_said(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        first = await house.answer("swordfish")

        made = await compacted(house, previous_response_id=first["id"], instructions="the word")

        (item,) = made["output"]
        assert seals.summary_of(item["encrypted_content"]) == "Hello there"
        assert made["usage"]["input_tokens"] == 10
        body = house.stub.calls[-1].body
        assert b"swordfish" in body["input"]
        assert b"the word" in body["instructions"]
        house.tenant.assert_settled()


async def test_a_long_one_is_summarised_piece_by_piece(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        said = [{"role": "user", "content": f"{n} " + "x" * 200_000} for n in range(3)]

        made = await compacted(house, input=said)

        assert len(house.stub.calls) == 3
        assert b"Hello there" in house.stub.calls[1].body["input"]
        assert made["usage"]["input_tokens"] == 30


async def test_nothing_cannot_be_made_shorter(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        with pytest.raises(InvalidRequest):
            await compacted(house, input=[{"type": "reasoning", "summary": []}])


async def test_a_model_without_words_has_failed(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeReply(pieces=[" "])) as house:
        with pytest.raises(UpstreamFailed):
            await compacted(house, input="hi")


async def test_cancelled_anywhere_it_holds_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:

        async def work() -> None:
            await compacted(house, input="hi")

        async for _ in each_cancellation(work):
            house.tenant.assert_settled()


@pytest.mark.parametrize("model", ["stub/mock", "openclaw", None])
async def test_tokens_are_estimated_where_nobody_counts(tmp_path: Path, model: str | None) -> None:
    async with open_house(tmp_path) as house:
        first = await house.answer("x" * 394)
        body: dict[str, Any] = {"input": "y" * 194, "previous_response_id": first["id"]}
        if model is not None:
            body["model"] = model
        members = {name: msgspec.json.encode(value) for name, value in body.items()}
        asked_for = ResponsesRequest.of_count(members)

        agent = "main" if model == "openclaw" else None
        counted = await service(house).count(house.tenant, CALLER, asked_for, agent=agent)

        # "user: " is four bytes and more; "assistant: Hello there"
        assert counted == Count(100 + 50 + 6, is_estimated=True)
        with pytest.raises(ModelUnknown):
            await service(house).count(house.tenant, CALLER, request(model="nosuch/model"))
        with pytest.raises(ModelUnknown):
            await service(house).count(house.tenant, CALLER, request(), agent="nosuch")


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
            "user: a",
        ),
        (
            {"type": "message", "role": "user", "content": [{"type": "input_image"}]},
            "user: [input_image]",
        ),
        (
            {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"},
            "assistant: [calls f with {}]",
        ),
        ({"type": "function_call_output", "output": "sunny"}, "tool: sunny"),
        (
            {"type": "compaction", "encrypted_content": seals.seal_summary("s")},
            "what was before: s",
        ),
        ({"type": "compaction", "encrypted_content": "theirs"}, ""),
        ({"type": "reasoning", "summary": []}, ""),
        (
            {"type": "openclaw:tool_call", "name": "w", "arguments": "{}", "output": "ok"},
            "assistant: [did w with {}: ok]",
        ),
    ],
)
def test_items_read_out(item: dict[str, Any], text: str) -> None:
    assert spoken(item) == text
