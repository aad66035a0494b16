"""The meter: what is admitted, what is booked, what is told."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio

from appliance.model.errors import (
    ApplianceError,
    DiskFull,
    ModelUnpriced,
    QuotaExceeded,
    RateLimited,
)
from appliance.model.money import FREE, Price, PriceStep
from appliance.model.quotas import Quotas
from appliance.model.spending import Outcome, OutcomeStatus, RateStanding, Settlement
from appliance.model.usage import TokenUsage
from appliance.services.meter import Meter
from appliance.storage.database import Database
from appliance.storage.ledger import FILE, LedgerStore
from appliance.storage.ledger_schema import SCHEMA
from tests.books import NOON, PRICE, HandClock, directory, outcome, spend

Open = Callable[[Quotas], Awaitable[Meter]]
USED = outcome(TokenUsage(input=10, output=5))  # 15 tokens, 20,000 nano
NOTHING = outcome(TokenUsage(), status=OutcomeStatus.FAILED)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(directory(tmp_path), FILE, SCHEMA)
    yield database
    await database.close()


@pytest.fixture
def open_meter(database: Database, clock: HandClock) -> Open:
    async def open_meter(limits: Quotas) -> Meter:
        return await Meter.open(
            LedgerStore(database), limits=limits, clock=clock, currency="USD", assumed_output=100
        )

    return open_meter


def call(meter: Meter, result: Outcome = USED, **asked: int) -> Settlement:
    return meter.settle(meter.reserve(spend(**asked)), result)  # type: ignore[arg-type]


def admitted(meter: Meter, attempts: int) -> int:
    """How many of so many calls, none of which ends, are let in."""
    count = 0
    for _ in range(attempts):
        try:
            meter.reserve(spend())
        except ApplianceError:
            continue
        count += 1
    return count


def used(meter: Meter, key: str) -> tuple[int, int]:
    quota = meter.standing().find(key)
    assert quota is not None
    return quota.used, quota.reserved


def entries(database: Database, columns: str) -> list[tuple[object, ...]]:
    query = f"SELECT {columns} FROM entries ORDER BY id"  # noqa: S608 - names of columns
    return list(database.read(lambda tx: tx.execute(query).fetchall()))


class TestRates:
    async def test_of_two_hundred_calls_at_once_exactly_ten_are_admitted(
        self, open_meter: Open
    ) -> None:
        meter = await open_meter(Quotas(requests_per_minute=10))
        results: list[str] = []

        async def one() -> None:
            await trio.lowlevel.checkpoint()
            try:
                reservation = meter.reserve(spend())
            except RateLimited as refused:
                results.append(refused.code)
                return
            await trio.lowlevel.checkpoint()
            meter.settle(reservation, USED)
            await meter.durable()
            results.append("admitted")

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(one)
        assert results.count("admitted") == 10
        assert results.count("rate-limit-exceeded") == 190

    async def test_the_minute_slides(self, open_meter: Open, clock: HandClock) -> None:
        meter = await open_meter(Quotas(requests_per_minute=2))
        call(meter)
        clock.advance(20)
        call(meter)
        with pytest.raises(RateLimited, match="requests_per_minute is limited to 2") as refused:
            call(meter)
        assert refused.value.retry_after == 40
        assert refused.value.facts == {"quota": "requests_per_minute", "limit": 2}
        clock.advance(39.999)
        with pytest.raises(RateLimited):
            call(meter)
        clock.advance(0.001)
        call(meter)
        with pytest.raises(RateLimited) as refused:
            call(meter)
        assert refused.value.retry_after == 20

    async def test_the_hour_slides_too(self, open_meter: Open, clock: HandClock) -> None:
        meter = await open_meter(Quotas(requests_per_hour=1))
        call(meter)
        clock.advance(3_000)
        with pytest.raises(RateLimited, match="requests_per_hour") as refused:
            call(meter)
        assert refused.value.retry_after == 600
        clock.advance(600)
        call(meter)

    async def test_tokens_of_a_minute_count_as_reserved_and_then_as_used(
        self, open_meter: Open, clock: HandClock
    ) -> None:
        meter = await open_meter(Quotas(tokens_per_minute=60))
        first = meter.reserve(spend())  # 10 + 20
        assert first.output_limit == 20
        second = meter.reserve(spend())
        assert second.output_limit == 20
        with pytest.raises(RateLimited, match="tokens_per_minute") as refused:
            meter.reserve(spend())
        assert refused.value.retry_after == 60
        meter.settle(first, USED)
        clock.advance(1)
        assert meter.reserve(spend()).output_limit == 5

    async def test_a_call_that_is_larger_than_the_minute_need_not_wait(
        self, open_meter: Open
    ) -> None:
        meter = await open_meter(Quotas(tokens_per_minute=10))
        with pytest.raises(RateLimited, match="this call alone needs more") as refused:
            meter.reserve(spend())
        assert refused.value.retry_after is None

    async def test_concurrent_calls_are_counted_until_they_are_settled(
        self, open_meter: Open
    ) -> None:
        meter = await open_meter(Quotas(concurrent_requests=2))
        first = meter.reserve(spend())
        meter.reserve(spend())
        with pytest.raises(RateLimited, match="concurrent_requests"):
            meter.reserve(spend())
        meter.settle(first, NOTHING)
        meter.reserve(spend())

    @pytest.mark.parametrize(
        "key",
        ["requests_per_minute", "requests_per_hour", "tokens_per_minute", "concurrent_requests"],
    )
    async def test_zero_admits_nothing_and_waiting_does_not_help(
        self, open_meter: Open, key: str
    ) -> None:
        meter = await open_meter(Quotas().merged({key: 0}))
        with pytest.raises(RateLimited, match=f"{key} is 0") as refused:
            meter.reserve(spend())
        assert refused.value.retry_after is None

    async def test_windows_hold_after_a_restart(self, open_meter: Open, clock: HandClock) -> None:
        limits = Quotas(requests_per_minute=3, tokens_per_minute=100, requests_per_hour=4)
        meter = await open_meter(limits)
        call(meter)
        clock.advance(30)
        call(meter)
        call(meter)
        meter = await open_meter(limits)
        assert used(meter, "requests_per_minute") == (3, 0)
        assert used(meter, "tokens_per_minute") == (45, 0)
        with pytest.raises(RateLimited) as refused:
            call(meter)
        assert refused.value.retry_after == 30
        clock.advance(30)
        call(meter)
        clock.advance(60)
        with pytest.raises(RateLimited, match="requests_per_hour"):
            call(meter)

    async def test_a_clock_that_is_set_back_does_not_close_the_window_for_long(
        self, open_meter: Open, clock: HandClock
    ) -> None:
        meter = await open_meter(Quotas(requests_per_minute=1))
        call(meter)
        clock.advance(-3_600)
        call(meter)
        with pytest.raises(RateLimited):
            call(meter)


class TestBudgets:
    async def test_calls_are_admitted_as_long_as_the_worst_case_fits(
        self, open_meter: Open
    ) -> None:
        meter = await open_meter(Quotas(tokens_per_day=100))
        limits = [meter.reserve(spend(output_limit=20)).output_limit for _ in range(3)]
        assert limits == [20, 20, 20]
        with pytest.raises(QuotaExceeded, match="tokens_per_day is limited to 100"):
            meter.reserve(spend())

    async def test_an_answer_may_be_as_long_as_the_tightest_budget_allows(
        self, open_meter: Open
    ) -> None:
        meter = await open_meter(Quotas(tokens_per_day=50, tokens_per_month=40))
        assert meter.reserve(spend(output_limit=1_000)).output_limit == 30
        meter = await open_meter(Quotas(tokens_per_month=11))
        with pytest.raises(QuotaExceeded):
            call(meter, prompt_tokens=11)

    async def test_a_caller_without_a_limit_gets_the_assumed_one_where_a_budget_holds(
        self, open_meter: Open
    ) -> None:
        meter = await open_meter(Quotas(tokens_per_day=1_000))
        assert meter.reserve(spend(output_limit=None)).output_limit == 100
        meter.limits = Quotas()
        assert meter.reserve(spend(output_limit=None)).output_limit is None

    async def test_money_is_reserved_at_the_dearest_class(self, open_meter: Open) -> None:
        # 10 tokens in at 1.25 (they might be written to a cache), the rest out at 2.00.
        meter = await open_meter(Quotas(cost_per_day=12_500 + 2_000 * 7 + 1_999))
        reservation = meter.reserve(spend(output_limit=1_000))
        assert reservation.output_limit == 7
        assert reservation.estimate_cost == 12_500 + 14_000
        with pytest.raises(QuotaExceeded, match=r"cost_per_day is limited to 0\.000028499"):
            meter.reserve(spend())

    async def test_what_was_not_used_comes_back(self, open_meter: Open) -> None:
        meter = await open_meter(Quotas(tokens_per_day=30, cost_per_month=10**9))
        reservation = meter.reserve(spend())
        assert used(meter, "tokens_per_day") == (0, 30)
        meter.settle(reservation, USED)
        assert used(meter, "tokens_per_day") == (15, 0)
        assert used(meter, "cost_per_month") == (20_000, 0)
        assert meter.reserve(spend()).output_limit == 5

    async def test_a_refused_call_consumes_nothing(
        self, open_meter: Open, database: Database
    ) -> None:
        meter = await open_meter(Quotas(tokens_per_day=5, requests_per_minute=1_000))
        before = meter.standing()
        assert admitted(meter, 20) == 0
        assert meter.standing() == before
        assert database.read(lambda tx: tx.execute("SELECT * FROM reservations").fetchall()) == []

    @pytest.mark.parametrize(
        "key", ["tokens_per_day", "tokens_per_month", "cost_per_day", "cost_per_month"]
    )
    async def test_zero_admits_nothing_be_it_free(self, open_meter: Open, key: str) -> None:
        meter = await open_meter(Quotas().merged({key: 0}))
        with pytest.raises(QuotaExceeded, match=f"{key} is 0"):
            meter.reserve(spend(price=FREE, output_limit=0))

    async def test_free_models_pass_a_budget_of_money_that_is_used_up(
        self, open_meter: Open
    ) -> None:
        meter = await open_meter(Quotas(cost_per_day=26_500))
        meter.settle(
            meter.reserve(spend(output_limit=7)), outcome(TokenUsage(cache_write=10, output=7))
        )
        with pytest.raises(QuotaExceeded):
            meter.reserve(spend())
        assert meter.reserve(spend(price=FREE)).estimate_cost == 0

    async def test_a_model_without_a_price_cannot_be_held_to_a_budget_of_money(
        self, open_meter: Open
    ) -> None:
        meter = await open_meter(Quotas(cost_per_day=10**9))
        with pytest.raises(ModelUnpriced, match=r"'stub/mock' is not known; .* models.rate_card"):
            meter.reserve(spend(price=None))
        meter.limits = Quotas(tokens_per_day=1_000)
        assert meter.reserve(spend(price=None)).estimate_cost is None

    async def test_calls_that_generate_nothing_need_no_room_for_output(
        self, open_meter: Open
    ) -> None:
        meter = await open_meter(Quotas(tokens_per_day=10))
        assert meter.reserve(spend(output_limit=0)).output_limit == 0

    async def test_a_new_day_begins_at_midnight_utc(
        self, open_meter: Open, clock: HandClock
    ) -> None:
        meter = await open_meter(Quotas(tokens_per_day=30))
        clock.now = datetime(2026, 11, 21, 23, 59, 50, tzinfo=UTC)
        meter.settle(meter.reserve(spend()), outcome(TokenUsage(input=10, output=20)))
        with pytest.raises(QuotaExceeded) as refused:
            meter.reserve(spend())
        assert refused.value.retry_after == 10
        assert refused.value.facts["resets_at"] == "2026-11-22T00:00:00Z"
        clock.advance(10)
        meter.reserve(spend())

    async def test_a_call_counts_on_the_day_it_was_admitted(
        self, open_meter: Open, clock: HandClock
    ) -> None:
        meter = await open_meter(Quotas(tokens_per_day=30))
        clock.now = datetime(2026, 11, 30, 23, 59, 50, tzinfo=UTC)
        late = meter.reserve(spend())
        clock.advance(20)
        assert used(meter, "tokens_per_day") == (0, 0)
        meter.settle(late, USED)
        assert used(meter, "tokens_per_day") == (0, 0)
        assert used(meter, "tokens_per_month") == (0, 0)
        clock.advance(-20)
        assert used(meter, "tokens_per_day") == (15, 0)
        assert used(meter, "tokens_per_month") == (15, 0)

    async def test_a_clock_that_is_set_back_meets_its_open_reservations_again(
        self, open_meter: Open, clock: HandClock
    ) -> None:
        meter = await open_meter(Quotas(tokens_per_day=30))
        meter.reserve(spend())
        clock.advance(86_400)
        meter.reserve(spend())
        clock.advance(-86_400)
        with pytest.raises(QuotaExceeded):
            meter.reserve(spend())

    async def test_a_month_that_is_used_up_says_when_the_next_begins(
        self, open_meter: Open
    ) -> None:
        meter = await open_meter(Quotas(cost_per_month=1))
        with pytest.raises(QuotaExceeded, match="resets at 2026-12-01T00:00:00Z") as refused:
            meter.reserve(spend())
        left = datetime(2026, 12, 1, tzinfo=UTC) - NOON
        assert refused.value.retry_after == left / timedelta(seconds=1)
        assert refused.value.code == "insufficient-quota"
        assert refused.value.facts["limit"] == "0.000000001"

    async def test_budgets_hold_after_a_restart(self, open_meter: Open) -> None:
        limits = Quotas(tokens_per_day=45, cost_per_month=10**9)
        meter = await open_meter(limits)
        call(meter)
        meter = await open_meter(limits)
        assert used(meter, "tokens_per_day") == (15, 0)
        assert used(meter, "cost_per_month") == (20_000, 0)
        meter.reserve(spend())
        with pytest.raises(QuotaExceeded):
            meter.reserve(spend())

    async def test_new_limits_hold_from_the_next_call_on(self, open_meter: Open) -> None:
        meter = await open_meter(Quotas())
        call(meter)
        meter.limits = Quotas(tokens_per_day=15)
        with pytest.raises(QuotaExceeded):
            call(meter)
        meter.limits = Quotas()
        call(meter)


class TestSoftLimits:
    async def test_each_is_told_once_in_its_period(
        self, open_meter: Open, clock: HandClock
    ) -> None:
        meter = await open_meter(Quotas(soft_tokens_per_day=30, soft_cost_per_month=40_000))
        assert [call(meter).soft_limits for _ in range(3)] == [
            (),
            ("soft_tokens_per_day", "soft_cost_per_month"),
            (),
        ]
        assert meter.soft_limits_reached() == ("soft_tokens_per_day", "soft_cost_per_month")
        clock.advance(86_400)
        assert meter.soft_limits_reached() == ("soft_cost_per_month",)
        assert [call(meter).soft_limits for _ in range(2)] == [(), ("soft_tokens_per_day",)]

    async def test_it_is_not_told_again_after_a_restart(self, open_meter: Open) -> None:
        limits = Quotas(soft_tokens_per_day=15)
        meter = await open_meter(limits)
        assert call(meter).soft_limits == ("soft_tokens_per_day",)
        meter = await open_meter(limits)
        assert meter.soft_limits_reached() == ("soft_tokens_per_day",)
        assert call(meter).soft_limits == ()


class TestSettling:
    async def test_a_second_settle_does_nothing_and_says_the_same(
        self, open_meter: Open, database: Database
    ) -> None:
        meter = await open_meter(Quotas())
        reservation = meter.reserve(spend())
        first = meter.settle(reservation, USED)
        again = meter.settle(reservation, outcome(TokenUsage(input=10_000)))
        assert again is first
        assert first == Settlement(TokenUsage(input=10, output=5), 20_000)
        assert entries(database, "input_tokens, output_tokens") == [(10, 5)]

    async def test_the_entry_tells_all_of_the_call(
        self, open_meter: Open, database: Database, clock: HandClock
    ) -> None:
        meter = await open_meter(Quotas())
        reservation = meter.reserve(
            spend(request_id="req_9", model="smart", session="agent:main:x", agent="main")
        )
        clock.advance(2)
        meter.settle(
            reservation,
            Outcome(
                status=OutcomeStatus.CANCELLED,
                usage=TokenUsage(1, 2, 3, 4, 5),
                provider="claude",
                model="claude-x",
                price=PRICE,
                provider_request_id="up_9",
                tool_calls=6,
                sandbox_ms=7,
            ),
        )
        names = (
            "request_id, kind, route, provider, model, agent, session, channel, token_id, tags,"
            "input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens,"
            "tool_calls, sandbox_ms, cost_nano, currency, estimated, outcome, provider_request_id,"
            "settled_ns - ts_ns"
        )
        assert entries(database, names) == [
            ("req_9", "chat", "smart", "claude", "claude-x", "main", "agent:main:x", None, "tok_1",
             None, 1, 2, 3, 4, 5, 6, 7, 20_300, "USD", 0, "cancelled", "up_9", 2 * 10**9)
        ]  # fmt: skip
        ((price,),) = entries(database, "price")
        assert json.loads(str(price))["cache_write"] == 1_250_000_000

    async def test_an_unknown_price_is_null_and_not_nothing(
        self, open_meter: Open, database: Database
    ) -> None:
        meter = await open_meter(Quotas())
        assert call(meter, outcome(TokenUsage(input=1), price=None)).cost_nano is None
        assert call(meter, outcome(TokenUsage(), price=None)).cost_nano == 0
        assert entries(database, "cost_nano, price") == [(None, None), (0, None)]

    async def test_a_long_prompt_costs_what_its_step_says(self, open_meter: Open) -> None:
        meter = await open_meter(Quotas())
        double = Price(2 * 10**9, 4 * 10**9, 0, 0, 0)
        price = Price(10**9, 2 * 10**9, 0, 0, 0, steps=(PriceStep(100, double),))
        for prompt, cost in ((100, 100_000 + 2_000), (101, 202_000 + 4_000)):
            usage = TokenUsage(input=prompt, output=1)
            assert call(meter, outcome(usage, price=price)).cost_nano == cost

    @pytest.mark.parametrize(
        ("status", "text_bytes", "expected"),
        [
            (OutcomeStatus.OK, 41, TokenUsage(input=75, output=11, estimated=True)),
            (OutcomeStatus.CANCELLED, 0, TokenUsage(input=75, output=0, estimated=True)),
            (OutcomeStatus.FAILED, 4, TokenUsage(input=75, output=1, estimated=True)),
            (OutcomeStatus.FAILED, 0, TokenUsage()),
        ],
    )
    async def test_usage_that_nobody_told_is_estimated_and_marked(
        self,
        open_meter: Open,
        database: Database,
        status: OutcomeStatus,
        text_bytes: int,
        expected: TokenUsage,
    ) -> None:
        meter = await open_meter(Quotas())
        reservation = meter.reserve(spend(prompt_tokens=108))  # 300 bytes
        settlement = meter.settle(reservation, outcome(None, status=status, text_bytes=text_bytes))
        assert settlement.usage == expected
        assert entries(database, "estimated") == [(int(expected.estimated),)]

    @pytest.mark.parametrize("nonsense", [-1, 10**12])
    async def test_a_provider_that_counts_nonsense_has_told_nothing(
        self, open_meter: Open, nonsense: int
    ) -> None:
        meter = await open_meter(Quotas())
        settlement = call(meter, outcome(TokenUsage(input=10, output=nonsense), text_bytes=8))
        assert settlement.usage.output == 2
        assert settlement.usage.estimated

    async def test_a_request_id_of_the_provider_may_be_any_text(self, open_meter: Open) -> None:
        meter = await open_meter(Quotas())
        odd = Outcome(
            status=OutcomeStatus.OK,
            usage=TokenUsage(input=1),
            provider="stub",
            model="mock",
            price=None,
            provider_request_id="\udcff€",
        )
        assert call(meter, odd).usage.input == 1

    async def test_a_settle_that_finds_the_disk_full_is_made_good_later(
        self, open_meter: Open, database: Database
    ) -> None:
        meter = await open_meter(Quotas(concurrent_requests=1, tokens_per_day=1_000))
        reservation = meter.reserve(spend())
        pages = database.read(lambda tx: tx.pragma("max_page_count", 1))
        filler = "x" * 100_000
        with pytest.raises(DiskFull):
            meter.settle(
                reservation,
                Outcome(
                    status=OutcomeStatus.OK,
                    usage=TokenUsage(input=10, output=5),
                    provider="stub",
                    model=filler,
                    price=PRICE,
                ),
            )
        assert reservation.settlement is None
        assert used(meter, "tokens_per_day") == (0, 30)
        with pytest.raises(DiskFull):
            meter.reserve(spend())
        with pytest.raises(DiskFull):
            await meter.durable()
        assert isinstance(pages, int)
        database.read(lambda tx: tx.pragma("max_page_count", 1_000_000))
        meter.reserve(spend())
        assert reservation.settlement == Settlement(TokenUsage(input=10, output=5), 20_000)
        assert used(meter, "tokens_per_day") == (15, 30)


class TestCorrecting:
    async def test_a_credit_makes_room_today(self, open_meter: Open, clock: HandClock) -> None:
        meter = await open_meter(Quotas(cost_per_month=60_000, cost_per_day=60_000))
        call(meter)
        clock.advance(86_400)
        assert meter.correct(1, cost_nano=-20_000, note="the provider's invoice")
        assert used(meter, "cost_per_day") == (-20_000, 0)
        assert used(meter, "cost_per_month") == (0, 0)
        assert not meter.correct(99, cost_nano=-1, note="")
        again = await open_meter(Quotas())
        assert used(again, "cost_per_day") == (-20_000, 0)


class TestStanding:
    async def test_it_shows_every_quota_with_its_reset(self, open_meter: Open) -> None:
        meter = await open_meter(Quotas(tokens_per_day=100, soft_tokens_per_day=10))
        call(meter)
        meter.reserve(spend())
        standing = meter.standing()
        day = standing.find("tokens_per_day")
        assert day is not None
        assert (day.limit, day.soft_limit, day.used, day.reserved, day.remaining) == (
            100, 10, 15, 30, 55,
        )  # fmt: skip
        assert day.resets_at == datetime(2026, 11, 22, tzinfo=UTC)
        assert standing.soft_limits == ("soft_tokens_per_day",)
        assert {quota.key: quota.used for quota in standing.quotas} == {
            "tokens_per_day": 15,
            "tokens_per_month": 15,
            "cost_per_day": 20_000,
            "cost_per_month": 20_000,
            "requests_per_minute": 2,
            "requests_per_hour": 2,
            "tokens_per_minute": 45,
            "concurrent_requests": 1,
        }

    async def test_without_rate_limits_there_are_no_rate_headers(self, open_meter: Open) -> None:
        meter = await open_meter(Quotas(tokens_per_day=100))
        assert meter.rate_headers() == {}

    async def test_the_headers_tell_the_budget_that_leaves_least(
        self, open_meter: Open, clock: HandClock
    ) -> None:
        meter = await open_meter(
            Quotas(tokens_per_day=500, tokens_per_month=100, cost_per_day=10**9)
        )
        call(meter)
        headers = meter.budget_headers()
        assert headers == {
            "x-openclaw-budget-limit-tokens": "100",
            "x-openclaw-budget-remaining-tokens": "85",
            "x-openclaw-budget-reset-tokens": headers["x-openclaw-budget-reset-tokens"],
            "x-openclaw-budget-limit-cost": "1.00",
            "x-openclaw-budget-remaining-cost": "0.99998",
            "x-openclaw-budget-reset-cost": headers["x-openclaw-budget-reset-cost"],
        }
        ends = [meter.standing().find(key) for key in ("tokens_per_month", "cost_per_day")]
        seconds = [
            f"{(end.resets_at - clock()).total_seconds():.0f}s"
            for end in ends
            if end is not None and end.resets_at is not None
        ]
        assert seconds == [
            headers["x-openclaw-budget-reset-tokens"],
            headers["x-openclaw-budget-reset-cost"],
        ]

    async def test_without_budgets_there_are_no_budget_headers(self, open_meter: Open) -> None:
        assert (await open_meter(Quotas(requests_per_minute=1))).budget_headers() == {}

    async def test_the_headers_tell_the_tightest_rate(
        self, open_meter: Open, clock: HandClock
    ) -> None:
        meter = await open_meter(
            Quotas(requests_per_minute=10, requests_per_hour=5, tokens_per_minute=100)
        )
        call(meter)
        clock.advance(1.5)
        assert meter.rate_headers() == {
            "x-ratelimit-limit-requests": "5",
            "x-ratelimit-remaining-requests": "4",
            "x-ratelimit-reset-requests": "3598.5s",
            "x-ratelimit-limit-tokens": "100",
            "x-ratelimit-remaining-tokens": "85",
            "x-ratelimit-reset-tokens": "58.5s",
        }
        assert meter.standing().headers() == meter.rate_headers()
        assert meter.standing().tokens == RateStanding(100, 85, 58.5)


async def test_a_request_that_uses_nothing_counts_as_one(
    open_meter: Open, database: Database
) -> None:
    meter = await open_meter(Quotas(requests_per_minute=2))

    meter.count_request()
    assert meter.rate_headers()["x-ratelimit-remaining-requests"] == "1"
    call(meter)

    with pytest.raises(RateLimited):
        meter.count_request()
    with pytest.raises(RateLimited):
        meter.reserve(spend())
    assert len(entries(database, "id")) == 1
