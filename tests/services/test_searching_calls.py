"""Calls in which a provider searches the web: reserved, booked and billed beside the tokens."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from appliance.config.loading import parse_config
from appliance.model.calls import Dialect
from appliance.model.errors import QuotaExceeded
from appliance.model.money import FREE, NANO
from appliance.model.quotas import Quotas
from appliance.model.usage import TokenUsage
from appliance.services.estimates import ASSUMED_SEARCHES, input_to_reserve
from appliance.services.model_calls import CallRequest
from appliance.storage.ledger import LedgerStore
from tests.books import PRICE
from tests.fakes.providers import USED, FakeProvider, FakeReply
from tests.fakes.tenants import CALLER, CONFIG, Exchange, FakeTenant, open_tenant
from tests.fakes.writers import chat_writer

MAX_3 = b'[{"type": "web_search_20250305", "max_uses": 3}]'
PROMPT_BYTES = 30
SEARCH_PRICE = replace(PRICE, web_search=10 * NANO)
SEARCHED = replace(USED, web_searches=2)
EXTRAS = CONFIG.replace("{dialect: openai}", "{dialect: openai, extras: true}")


def searching(tools: bytes = MAX_3) -> CallRequest:
    return CallRequest(
        model="stub/mock",
        body={"tools": tools},
        stream=True,
        prompt_bytes=PROMPT_BYTES,
        output_limit=20,
        dialect=Dialect.ANTHROPIC,
    )


@pytest.fixture
async def tenant(tmp_path: Path) -> AsyncIterator[FakeTenant]:
    """One whose searches are allowed."""
    async with open_tenant(tmp_path, limits=Quotas(cost_per_day=10 * NANO)) as tenant:
        tenant.config = parse_config(EXTRAS, name="config")
        yield tenant


@pytest.fixture
def stub() -> FakeProvider:
    return FakeProvider("stub", [FakeReply(final=SEARCHED)])


@pytest.fixture
def exchange(stub: FakeProvider) -> Exchange:
    exchange = Exchange(stub, FakeProvider("spare"))
    exchange.prices["stub/mock"] = SEARCH_PRICE
    return exchange


async def ask(exchange: Exchange, tenant: FakeTenant, request: CallRequest) -> None:
    async with exchange.calls.open(tenant, CALLER, request) as call:
        await call.reply.whole(chat_writer())


async def test_searches_are_booked_at_their_price(exchange: Exchange, tenant: FakeTenant) -> None:
    await ask(exchange, tenant, searching())

    columns = "input_tokens, output_tokens, web_searches, cost_nano"
    assert tenant.entries(columns) == [(10, 5, 2, 20_000 + 2 * NANO // 100)]
    assert tenant.in_use() == {}


async def test_room_is_kept_for_all_searches_that_may_be_made(
    exchange: Exchange, tenant: FakeTenant
) -> None:
    for tools, searches in (
        (MAX_3, 3),
        (b'[{"type": "web_search_20250305"}]', ASSUMED_SEARCHES),
        (b'[{"name": "look"}]', 0),
        (b'[{"type": "web_search_20250305", "max_uses": 3, "a": "%s"}]' % (b"x" * 100_000), 3),
    ):
        async with exchange.calls.open(tenant, CALLER, searching(tools)) as call:
            tokens = input_to_reserve(PROMPT_BYTES, searches)
            money = tokens * 1_250 + 20 * 2_000 + searches * NANO // 100
            held = call.reservation
            assert (held.estimate_input, held.estimate_cost) == (tokens, money)


async def test_a_crash_is_not_billed_for_searches_that_may_not_have_been_made(
    exchange: Exchange, tenant: FakeTenant
) -> None:
    async with exchange.calls.open(tenant, CALLER, searching()):
        (left,) = LedgerStore(tenant.database).left_open()
    assert left.input_tokens == input_to_reserve(PROMPT_BYTES)


async def test_searches_that_money_does_not_buy_are_refused(
    exchange: Exchange, tenant: FakeTenant, stub: FakeProvider
) -> None:
    exchange.prices["stub/mock"] = replace(FREE, web_search=10 * NANO)
    tenant.meter.limits = Quotas(cost_per_day=3 * NANO // 100 - 1)

    with pytest.raises(QuotaExceeded):
        await ask(exchange, tenant, searching())
    assert stub.calls == []
    tenant.meter.limits = Quotas(cost_per_day=3 * NANO // 100)
    await ask(exchange, tenant, searching())
    assert len(stub.calls) == 1


async def test_the_dearest_searches_of_a_chain_are_reserved(
    exchange: Exchange, tenant: FakeTenant
) -> None:
    dear = replace(FREE, input_audio=5, output_audio=6, web_search=10 * NANO)
    exchange.prices |= {"stub/mock": FREE, "spare/other": dear}

    async with exchange.calls.open(tenant, CALLER, replace(searching(), model="both")) as call:
        assert (call.reservation.estimate_cost or 0) >= 3 * NANO // 100
        assert call.reservation.request.searches == 3


async def test_with_a_key_of_its_own_only_tokens_are_billed_and_reserved(
    exchange: Exchange, tenant: FakeTenant
) -> None:
    tenant.keys["stub"] = "sk-own"

    async with exchange.calls.open(tenant, CALLER, searching()) as call:
        assert call.reservation.estimate_input == input_to_reserve(PROMPT_BYTES)
        await call.reply.whole(chat_writer())
    assert tenant.entries("web_searches, cost_nano") == [(2, 20_000)]


async def test_searches_without_a_price_are_booked_and_cost_nothing(
    exchange: Exchange, tenant: FakeTenant
) -> None:
    exchange.prices["stub/mock"] = PRICE

    async with exchange.calls.open(tenant, CALLER, searching()) as call:
        assert call.reservation.request.searches == 0
        await call.reply.whole(chat_writer())
    assert tenant.entries("web_searches, cost_nano") == [(2, 20_000)]


async def test_searches_seen_before_a_caller_left_are_billed(
    exchange: Exchange, tenant: FakeTenant, stub: FakeProvider
) -> None:
    stub.script = [FakeReply(usage=TokenUsage(web_searches=1, estimated=True))]

    with trio.CancelScope() as scope:
        async with exchange.calls.open(tenant, CALLER, searching()):
            scope.cancel()
            await trio.lowlevel.checkpoint()

    columns = "outcome, input_tokens, web_searches, cost_nano, estimated"
    cost = 10_008 * 1_000 + NANO // 100
    assert tenant.entries(columns) == [("cancelled", 10_008, 1, cost, 1)]
