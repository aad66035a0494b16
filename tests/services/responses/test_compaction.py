"""A conversation made short, and how long one is."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from appliance.model.callers import Caller
from appliance.model.errors import InvalidRequest, ModelUnknown, UpstreamFailed
from appliance.protocols.responses import seals
from appliance.protocols.responses.request import ResponsesRequest
from appliance.services.call_requests import AwakeTenant, CallRequest
from appliance.services.responses.compaction import Compaction, Count, spoken
from appliance.services.token_counts import ProviderCount, TokenCounts
from tests.fakes.cancelling import each_cancellation
from tests.fakes.providers import FakeReply
from tests.fakes.tenants import CALLER
from tests.services.responding import House, allow_tools, open_house, request


def asked(**body: Any) -> ResponsesRequest:
    members = {"model": "stub/mock", **body}
    return ResponsesRequest.of_compaction(
        {name: msgspec.json.encode(value) for name, value in members.items()}
    )


def service(house: House) -> Compaction:
    return Compaction(
        house.exchange.calls,
        TokenCounts(
            house.exchange.router, lambda: house.exchange.providers, house.exchange.calls.rules
        ),
        clock=house.clock,
    )


async def compacted(house: House, **body: Any) -> dict[str, Any]:
    made = await service(house).compact(house.tenant, CALLER, asked(**body))
    found: dict[str, Any] = msgspec.json.decode(made.body)
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


async def test_what_the_system_says_is_not_summarised(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        rules = [{"role": role, "content": f"be {role}"} for role in ("system", "developer")]

        made = await compacted(house, input=[*rules, {"role": "user", "content": "hi"}])

        assert [item.get("role") for item in made["output"]] == ["system", "developer", None]
        assert b"be system" not in house.stub.calls[-1].body["input"]
        await house.answer([*made["output"], {"role": "user", "content": "go on"}])
        body = house.stub.calls[-1].body
        assert b"be system" in body["input"]
        assert b"be developer" in body["input"]
        with pytest.raises(InvalidRequest):
            await compacted(house, input=rules)


async def test_the_call_of_a_compaction_stands_for_all_of_them(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        said = [{"role": "user", "content": f"{n} " + "x" * 200_000} for n in range(3)]

        made = await service(house).compact(house.tenant, CALLER, asked(input=said))

        assert made.call.trail.attempts == len(house.stub.calls) == 3
        settlement = made.call.settlement
        assert settlement is not None
        assert settlement.cost_nano
        assert made.call.cost_nano == 3 * settlement.cost_nano


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
        (
            {"type": "custom_tool_call", "name": "run", "input": "ls"},
            "assistant: [calls run with ls]",
        ),
        ({"type": "custom_tool_call_output", "output": "a.txt"}, "tool: a.txt"),
        (
            {"type": "mcp_call", "id": "mcp_1", "name": "ask", "output": "7"},
            'assistant: [did mcp_call: {"name":"ask","output":"7"}]',
        ),
        (
            {"type": "image_generation_call", "status": "completed", "result": "iVBORw0KGgo="},
            "assistant: [did image_generation_call: {}]",
        ),
    ],
)
def test_items_read_out(item: dict[str, Any], text: str) -> None:
    assert spoken(item) == text


class _Counting(TokenCounts):
    async def count(
        self, tenant: AwakeTenant, caller: Caller, request: CallRequest
    ) -> ProviderCount:
        await trio.lowlevel.checkpoint()
        return ProviderCount(7)


@pytest.mark.parametrize(("kind", "is_estimated"), [("custom", False), ("web_search", True)])
async def test_no_provider_is_shown_tools_of_its_own_to_count(
    tmp_path: Path,
    kind: str,
    is_estimated: bool,  # noqa: FBT001 - a parameter
) -> None:
    async with open_house(tmp_path) as house:
        exchange = house.exchange
        counts = _Counting(exchange.router, lambda: exchange.providers, exchange.calls.rules)
        compaction = Compaction(exchange.calls, counts, clock=house.clock)
        tools = [{"type": kind, "name": "run"}]

        found = await compaction.count(house.tenant, CALLER, request("hi", tools=tools))

        assert found.is_estimated is is_estimated


async def test_what_a_providers_tool_did_may_hold_anything(tmp_path: Path) -> None:
    odd = {"type": "mcp_call", "role": ["system"], "content": [7], "name": {}, "arguments": 1}
    async with open_house(tmp_path) as house:
        with pytest.raises(InvalidRequest):  # it would not go out with the gateway's key
            await service(house).count(house.tenant, CALLER, request([odd]))
        allow_tools(house)
        found = await service(house).count(house.tenant, CALLER, request([odd]))
        made = await house.answer(
            [odd, {"role": "user", "content": "x" * 100}],
            context_management=[{"type": "compaction", "compact_threshold": 1}],
        )

        assert found.is_estimated
        assert [item["type"] for item in made["output"]] == ["compaction", "message"]
