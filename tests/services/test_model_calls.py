"""One metered call: whatever becomes of it, it is settled once and the provider is let go."""

from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from appliance.model.errors import (
    ApplianceError,
    DiskFull,
    InvalidRequest,
    ModelForbidden,
    ModelUnknown,
    ModelUnpriced,
    QuotaExceeded,
    RateLimited,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from appliance.model.money import FREE, Price
from appliance.model.quotas import Quotas
from appliance.model.spending import OutcomeStatus
from appliance.providers.errors import ContextExceeded, UpstreamRateLimited, UpstreamRefused
from appliance.services.model_calls import CallRequest
from appliance.services.routing import GATEWAY, Target
from tests.fakes.cancelling import each_cancellation
from tests.fakes.providers import USED, FakeProvider, FakeReply
from tests.fakes.tenants import CALLER, Exchange, FakeTenant, open_tenant
from tests.fakes.writers import chat_writer

STRAIGHT = CallRequest(model="stub/mock", body={}, stream=True, prompt_bytes=30, output_limit=20)
EITHER = replace(STRAIGHT, model="both")
STUB, SPARE = Target("stub", "mock"), Target("spare", "other")
DOWN = UpstreamUnavailable("it is down")
MINUTE = Quotas(tokens_per_day=10_000, cost_per_day=10**12, concurrent_requests=1)


class ConsumerFailed(Exception):
    pass


@pytest.fixture
async def tenant(tmp_path: Path) -> AsyncIterator[FakeTenant]:
    async with open_tenant(tmp_path, limits=MINUTE) as tenant:
        yield tenant


@pytest.fixture
def stub() -> FakeProvider:
    return FakeProvider("stub")


@pytest.fixture
def spare() -> FakeProvider:
    return FakeProvider("spare")


@pytest.fixture
def exchange(stub: FakeProvider, spare: FakeProvider) -> Exchange:
    return Exchange(stub, spare)


async def ask(
    exchange: Exchange,
    tenant: FakeTenant,
    request: CallRequest = STRAIGHT,
    *,
    fails_at: int | None = None,
) -> list[bytes]:
    """Make a call and read its answer; the reader fails at event ``fails_at``."""
    events: list[bytes] = []
    async with (
        exchange.calls.open(tenant, CALLER, request) as call,
        aclosing(call.reply.events(chat_writer())) as chunks,
    ):
        async for event in chunks:
            if len(events) == fails_at:
                raise ConsumerFailed
            await trio.lowlevel.checkpoint()
            events.append(event)
    return events


def refused(status: int) -> UpstreamRefused:
    return UpstreamRefused("it refused", status=status, upstream_code="", param="")


def of_reply(**script: object) -> FakeProvider:
    return FakeProvider("stub", [FakeReply(**script)])  # type: ignore[arg-type]


async def test_an_answer_is_booked_with_what_the_provider_says_it_used(
    exchange: Exchange, tenant: FakeTenant
) -> None:
    await ask(exchange, tenant)

    tenant.assert_settled()
    columns = "outcome, provider, model, route, input_tokens, output_tokens, cost_nano, estimated"
    assert tenant.entries(columns) == [("ok", "stub", "mock", "stub/mock", 10, 5, 20_000, 0)]
    assert exchange.counted == [("stub", OutcomeStatus.OK, 20_000)]


async def test_a_call_is_booked_under_the_callers_tags(
    exchange: Exchange, tenant: FakeTenant
) -> None:
    async with exchange.calls.open(tenant, replace(CALLER, tags=("team=red",)), STRAIGHT) as call:
        await call.reply.whole(chat_writer())

    assert tenant.entries("tags") == [('["team=red"]',)]


async def test_the_settlement_is_there_after_the_block(
    exchange: Exchange, tenant: FakeTenant
) -> None:
    async with exchange.calls.open(tenant, CALLER, STRAIGHT) as call:
        assert call.settlement is None
        assert tenant.in_use()["concurrent_requests"] == 1
        await call.reply.whole(chat_writer())

    assert call.settlement is not None
    assert call.settlement.usage == USED


@pytest.mark.parametrize(
    "script",
    [
        [FakeReply()],
        [FakeReply(final=None)],
        [FakeReply(failure=UpstreamFailed("it broke off"))],
        [FakeReply(failure=ValueError("nobody foresaw this"))],
        [FakeReply(pieces=())],
        [UpstreamTimeout("slow")],
        [DOWN],
        [refused(400)],
        [ContextExceeded("too long")],
        [InvalidRequest("this dialect cannot say it")],
        [ValueError("nobody foresaw this")],
    ],
    ids=repr,
)
@pytest.mark.parametrize("request_for", ["stub/mock", "both"])
async def test_a_call_cancelled_anywhere_is_settled_once_and_leaves_the_provider(
    exchange: Exchange,
    tenant: FakeTenant,
    stub: FakeProvider,
    spare: FakeProvider,
    script: list[FakeReply | Exception],
    request_for: str,
) -> None:
    async def call() -> None:
        # A new answer each time; what becomes of it does not matter here.
        stub.script = [replace(a) if isinstance(a, FakeReply) else a for a in script]
        spare.script = [FakeReply()]
        with suppress(ApplianceError, ValueError):
            await ask(exchange, tenant, replace(STRAIGHT, model=request_for))

    runs = 0
    async for _ in each_cancellation(call):
        runs += 1
        assert len(tenant.entries()) == runs == len(exchange.counted)
        tenant.assert_settled()
        assert (stub.entered, spare.entered) == (stub.exited, spare.exited)

    outcomes = [outcome for _, outcome, _ in exchange.counted]
    assert outcomes[:2] == [OutcomeStatus.CANCELLED] * 2
    assert outcomes[-1] is not OutcomeStatus.CANCELLED


@pytest.mark.parametrize(
    ("models", "is_allowed"),
    [
        (("stub/*",), False),  # the chain may end at another provider
        (("both",), True),
        (("stub/mock", "spare/*"), True),
        (("fast",), False),
    ],
)
async def test_a_token_for_some_models_asks_no_others(
    exchange: Exchange, tenant: FakeTenant, models: tuple[str, ...], *, is_allowed: bool
) -> None:
    caller = replace(CALLER, models=models)
    if is_allowed:
        async with exchange.calls.open(tenant, caller, EITHER) as call:
            await call.reply.whole(chat_writer())
    else:
        with pytest.raises(ModelForbidden, match="both"):
            async with exchange.calls.open(tenant, caller, EITHER):
                pass
        assert tenant.entries() == []


@pytest.mark.parametrize(
    ("models", "agent", "model", "refused_as"),
    [
        (("openclaw",), "main", "stub/mock", ""),
        (("openclaw/pirate",), "pirate", "stub/mock", ""),
        (("stub/mock",), "pirate", "stub/mock", ""),  # all that is behind it
        (("openclaw",), "pirate", "stub/mock", "openclaw:pirate"),
        (("openclaw",), "main", "spare/other", "spare/other"),  # not the agent's own
        (("openclaw",), None, "stub/mock", "stub/mock"),
    ],
)
async def test_a_token_for_an_agent_is_for_whatever_answers_for_it(
    exchange: Exchange,
    tenant: FakeTenant,
    models: tuple[str, ...],
    agent: str | None,
    model: str,
    refused_as: str,
) -> None:
    caller = replace(CALLER, models=models)
    request = replace(STRAIGHT, model=model, agent=agent)
    if not refused_as:
        async with exchange.calls.open(tenant, caller, request) as call:
            await call.reply.whole(chat_writer())
        return
    with pytest.raises(ModelForbidden, match=f"'{refused_as}'"):
        async with exchange.calls.open(tenant, caller, request):
            pass


@pytest.mark.parametrize("event", [0, 1, 2])
async def test_a_reader_that_fails_in_mid_stream_is_settled(
    exchange: Exchange, tenant: FakeTenant, stub: FakeProvider, event: int
) -> None:
    with pytest.raises(ConsumerFailed):
        await ask(exchange, tenant, fails_at=event)

    tenant.assert_settled()
    assert tenant.entries("outcome") == [("failed",)]
    assert stub.exited == 1


async def test_a_reader_that_fails_is_settled_wherever_it_is_cancelled(
    exchange: Exchange, tenant: FakeTenant, stub: FakeProvider
) -> None:
    async def call() -> None:
        stub.script = [FakeReply()]
        with suppress(ConsumerFailed):
            await ask(exchange, tenant, fails_at=1)

    async for step in each_cancellation(call):
        tenant.assert_settled()
        assert len(tenant.entries()) == step + 1
        assert stub.entered == stub.exited


async def test_what_came_before_a_cancellation_is_estimated_and_billed(
    tenant: FakeTenant, spare: FakeProvider
) -> None:
    exchange = Exchange(of_reply(pieces=["x" * 40, "y"]), spare)

    with trio.CancelScope() as scope:
        async with (
            exchange.calls.open(tenant, CALLER, STRAIGHT) as call,
            aclosing(call.reply.events(chat_writer())) as chunks,
        ):
            await anext(chunks)
            scope.cancel()
            await trio.lowlevel.checkpoint()

    columns = "outcome, input_tokens, output_tokens, estimated"
    assert tenant.entries(columns) == [("cancelled", 8, 10, 1)]


@pytest.mark.parametrize(("is_streamed", "waited"), [(False, 7.0), (True, 0.0)])
async def test_who_reads_an_answer_in_one_piece_waits_for_all_of_it(
    exchange: Exchange,
    tenant: FakeTenant,
    autojump_clock: MockClock,
    *,
    is_streamed: bool,
    waited: float,
) -> None:
    request = replace(STRAIGHT, stream=is_streamed)
    async with exchange.calls.open(tenant, CALLER, request) as call:
        await trio.sleep(7)

    assert call.waited == pytest.approx(waited)


async def test_an_answer_that_breaks_off_says_whose_it_was_and_what_it_took(
    exchange: Exchange, tenant: FakeTenant, autojump_clock: MockClock
) -> None:
    async def read() -> None:
        async with exchange.calls.open(tenant, CALLER, replace(STRAIGHT, stream=False)):
            await trio.sleep(7)
            raise UpstreamFailed("it broke off")

    with pytest.raises(UpstreamFailed) as failed:
        await read()

    assert failed.value.waited == pytest.approx(7)
    assert failed.value.trail is not None
    assert failed.value.trail.attempts == 1
    assert failed.value.trail.header() == "stub/mock;reason=upstream-failed"


async def test_a_provider_that_was_asked_and_not_awaited_is_paid_for_the_prompt(
    exchange: Exchange, tenant: FakeTenant
) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await ask(exchange, tenant)

    assert tenant.entries("outcome, input_tokens, output_tokens") == [("cancelled", 8, 0)]


async def test_a_settlement_the_disk_has_no_room_for_is_made_good_before_the_next_call(
    exchange: Exchange, tenant: FakeTenant, stub: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(entries: object) -> None:
        raise DiskFull("the disk is full")

    with monkeypatch.context() as full:
        full.setattr(tenant.meter._store, "settle", refuse)
        with pytest.raises(DiskFull):
            await ask(exchange, tenant)
    assert tenant.entries() == []
    assert tenant.in_use()["concurrent_requests"] == 1, "its room is kept"
    assert stub.exited == 1

    stub.script = [FakeReply()]
    await ask(exchange, tenant)

    tenant.assert_settled()
    assert tenant.entries("outcome, cost_nano") == [("ok", 20_000)] * 2


async def test_a_refused_call_is_not_counted_at_all(
    exchange: Exchange, tenant: FakeTenant, stub: FakeProvider
) -> None:
    with pytest.raises(ModelUnknown):
        await ask(exchange, tenant, replace(STRAIGHT, model="nobody/x"))
    async with exchange.calls.open(tenant, CALLER, STRAIGHT):
        with pytest.raises(RateLimited, match="concurrent_requests"):
            await ask(exchange, tenant)

    assert len(tenant.entries()) == 1
    tenant.assert_settled()
    assert len(stub.calls) == 1


# Failover


@pytest.mark.parametrize(
    "failure", [DOWN, UpstreamFailed("x"), UpstreamTimeout("x"), UpstreamRateLimited("x")], ids=repr
)
async def test_the_next_provider_is_asked_and_only_it_is_paid(
    exchange: Exchange,
    tenant: FakeTenant,
    stub: FakeProvider,
    spare: FakeProvider,
    failure: ApplianceError,
) -> None:
    stub.script = [failure]

    await ask(exchange, tenant, EITHER)

    assert tenant.entries("provider, model, route, outcome") == [("spare", "other", "both", "ok")]
    assert [call.model for call in spare.calls] == ["other"]
    assert exchange.router.cooling(STUB) == 1
    assert exchange.router.cooling(SPARE) is None


@pytest.mark.parametrize(
    "failure",
    [refused(400), ContextExceeded("x"), ValueError("a bug")],
    ids=repr,
)
async def test_what_is_wrong_with_the_request_is_not_asked_of_another(
    exchange: Exchange,
    tenant: FakeTenant,
    stub: FakeProvider,
    spare: FakeProvider,
    failure: Exception,
) -> None:
    stub.script = [failure]

    with pytest.raises(type(failure)):
        await ask(exchange, tenant, EITHER)

    assert spare.calls == []
    assert exchange.router.cooling(STUB) is None
    assert tenant.entries("outcome, cost_nano") == [("failed", 0)]


async def test_a_model_that_one_provider_retired_is_asked_of_the_next(
    exchange: Exchange, tenant: FakeTenant, stub: FakeProvider, spare: FakeProvider
) -> None:
    stub.script = [refused(404)]

    await ask(exchange, tenant, EITHER)

    assert len(spare.calls) == 1


async def test_the_last_failure_is_the_callers(
    exchange: Exchange, tenant: FakeTenant, stub: FakeProvider, spare: FakeProvider
) -> None:
    stub.script, spare.script = [DOWN], [UpstreamTimeout("slow too")]

    with pytest.raises(UpstreamTimeout, match="slow too"):
        await ask(exchange, tenant, EITHER)

    assert tenant.entries("provider, outcome, cost_nano") == [("spare", "failed", 0)]


async def test_a_provider_taken_away_meanwhile_does_not_hide_why_the_other_failed(
    exchange: Exchange, tenant: FakeTenant, stub: FakeProvider
) -> None:
    stub.script = [DOWN]
    del exchange.providers["spare"]

    with pytest.raises(UpstreamUnavailable, match="it is down"):
        await ask(exchange, tenant, EITHER)

    tenant.assert_settled()


async def test_without_any_provider_left_the_call_is_settled_at_nothing(
    exchange: Exchange, tenant: FakeTenant
) -> None:
    exchange.providers.clear()

    with pytest.raises(UpstreamUnavailable, match="configured any more"):
        await ask(exchange, tenant, EITHER)

    assert tenant.entries("provider, outcome, cost_nano") == [("", "failed", 0)]


async def test_a_provider_that_cools_down_is_tried_last(
    exchange: Exchange, tenant: FakeTenant, stub: FakeProvider, spare: FakeProvider
) -> None:
    stub.script = [DOWN, FakeReply()]
    await ask(exchange, tenant, EITHER)
    spare.script = [DOWN]

    await ask(exchange, tenant, EITHER)

    assert (len(stub.calls), len(spare.calls)) == (2, 2)
    assert exchange.router.cooling(STUB) is None, "it answered"


# Whose key, whose cool-down, whose provider


async def test_the_tenants_own_key_replaces_the_gateways(
    exchange: Exchange, tenant: FakeTenant, stub: FakeProvider
) -> None:
    await ask(exchange, tenant)
    tenant.keys["stub"] = "sk-of-the-tenant"
    stub.script = [FakeReply()]
    await ask(exchange, tenant)

    assert stub.keys == [None, "sk-of-the-tenant"]


async def test_an_empty_key_stays_empty_instead_of_the_gateways(
    exchange: Exchange, tenant: FakeTenant, stub: FakeProvider
) -> None:
    tenant.keys["stub"] = ""
    stub.script = [DOWN]

    with pytest.raises(UpstreamUnavailable):
        await ask(exchange, tenant)

    assert stub.keys == [""]
    assert exchange.router.cooling(STUB, owner="acme") is not None
    assert exchange.router.cooling(STUB, owner=GATEWAY) is None


@pytest.mark.parametrize(("keys", "owner"), [({}, GATEWAY), ({"stub": "sk-x"}, "acme")])
async def test_a_failure_cools_down_for_whoever_owns_the_key(
    exchange: Exchange,
    tenant: FakeTenant,
    stub: FakeProvider,
    keys: dict[str, str],
    owner: str,
) -> None:
    tenant.keys = keys
    stub.script = [DOWN]

    await ask(exchange, tenant, EITHER)

    cooling = {o for o in (GATEWAY, "acme") if exchange.router.cooling(STUB, owner=o) is not None}
    assert cooling == {owner}


async def test_a_tenants_own_provider_is_asked_for_nothing_and_not_named_in_the_metrics(
    exchange: Exchange, tenant: FakeTenant, stub: FakeProvider
) -> None:
    own = FakeProvider("mine")
    tenant.own["mine"] = own
    tenant.config = type(tenant.config)(
        providers={**tenant.config.providers, "mine": tenant.config.providers["stub"]}
    )

    await ask(exchange, tenant, replace(STRAIGHT, model="mine/anything"))

    assert (own.keys, stub.calls) == ([None], [])
    assert tenant.entries("provider, cost_nano") == [("mine", 0)]
    assert exchange.counted == [("own", OutcomeStatus.OK, 0)]


async def test_an_own_provider_taken_away_in_mid_call_is_still_free(
    exchange: Exchange, tenant: FakeTenant
) -> None:
    tenant.own["stub"] = FakeProvider("stub")

    async with exchange.calls.open(tenant, CALLER, STRAIGHT) as call:
        tenant.own.clear()
        await call.reply.whole(chat_writer())

    assert tenant.entries("cost_nano") == [(0,)]


# Prices and limits


async def test_a_price_changed_in_mid_call_is_that_of_the_next_call(
    exchange: Exchange, tenant: FakeTenant
) -> None:
    async with exchange.calls.open(tenant, CALLER, STRAIGHT) as call:
        exchange.prices["stub/mock"] = FREE
        await call.reply.whole(chat_writer())

    assert tenant.entries("cost_nano") == [(20_000,)]


CHEAP_TO_WRITE = Price(9_000_000_000, 1_000_000_000, 0, 9_000_000_000, 1_000_000_000)
CHEAP_TO_READ = Price(1_000_000_000, 8_000_000_000, 0, 1_000_000_000, 8_000_000_000)


@pytest.mark.parametrize("prompt_bytes", [3, 30_000])
async def test_what_is_reserved_covers_every_target(
    exchange: Exchange, tenant: FakeTenant, prompt_bytes: int
) -> None:
    exchange.prices |= {"stub/mock": CHEAP_TO_WRITE, "spare/other": CHEAP_TO_READ}
    request = replace(STRAIGHT, prompt_bytes=prompt_bytes, output_limit=1_000)
    alone = []
    tenant.meter.limits = Quotas()
    for model in ("stub/mock", "spare/other"):
        async with exchange.calls.open(tenant, CALLER, replace(request, model=model)) as call:
            alone.append(call.reservation.estimate_cost or 0)

    async with exchange.calls.open(tenant, CALLER, replace(request, model="both")) as call:
        assert (call.reservation.estimate_cost or 0) >= max(alone)


async def test_a_chain_is_settled_at_the_price_of_who_answered(
    exchange: Exchange, tenant: FakeTenant, stub: FakeProvider
) -> None:
    exchange.prices["spare/other"] = CHEAP_TO_WRITE
    stub.script = [DOWN]

    await ask(exchange, tenant, EITHER)

    assert tenant.entries("cost_nano") == [(10 * 9_000 + 5 * 1_000,)]


@pytest.mark.parametrize("missing", ["stub/mock", "spare/other"])
async def test_under_a_budget_in_money_every_target_needs_a_price(
    exchange: Exchange, tenant: FakeTenant, stub: FakeProvider, missing: str
) -> None:
    del exchange.prices[missing]

    with pytest.raises(ModelUnpriced):
        await ask(exchange, tenant, EITHER)

    assert (stub.calls, tenant.entries()) == ([], [])


async def test_without_a_budget_in_money_an_unpriced_call_has_no_cost(
    exchange: Exchange, tenant: FakeTenant
) -> None:
    tenant.meter.limits = Quotas(tokens_per_day=1_000)
    exchange.prices.clear()

    await ask(exchange, tenant)

    assert tenant.entries("cost_nano") == [(None,)]


async def test_several_answers_share_the_output_that_is_left(
    exchange: Exchange, tenant: FakeTenant, stub: FakeProvider
) -> None:
    # 30 bytes are reserved as 18 tokens, which leaves 31 for three answers.
    tenant.meter.limits = Quotas(tokens_per_day=49)

    await ask(exchange, tenant, replace(STRAIGHT, choices=3))

    assert [call.output_limit for call in stub.calls] == [10]


@pytest.mark.parametrize("output_limit", [None, 1, 20])
async def test_more_answers_than_tokens_left_are_refused(
    exchange: Exchange, tenant: FakeTenant, output_limit: int | None
) -> None:
    request = replace(STRAIGHT, choices=4, output_limit=output_limit)
    tenant.meter.limits = Quotas(tokens_per_day=18 + 3)

    with pytest.raises(QuotaExceeded):
        await ask(exchange, tenant, request)

    tenant.meter.limits = Quotas(tokens_per_day=18 + 4)
    await ask(exchange, tenant, request)


async def test_more_answers_than_the_assumed_output_keep_a_token_each(
    exchange: Exchange, tenant: FakeTenant, stub: FakeProvider
) -> None:
    async with exchange.calls.open(
        tenant, CALLER, replace(STRAIGHT, choices=128, output_limit=None)
    ) as call:
        assert call.reservation.estimate_output == 128

    assert [call.output_limit for call in stub.calls] == [1]


async def test_the_callers_own_limit_is_passed_on_where_no_budget_is_set(
    exchange: Exchange, tenant: FakeTenant, stub: FakeProvider
) -> None:
    tenant.meter.limits = Quotas()

    await ask(exchange, tenant, replace(STRAIGHT, choices=3))
    stub.script = [FakeReply()]
    await ask(exchange, tenant, replace(STRAIGHT, output_limit=None))

    assert [call.output_limit for call in stub.calls] == [20, None]
