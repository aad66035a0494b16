"""What sessions used: from the ledger of this tenant, and of no other."""

from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path

import pytest

from appliance.model.errors import InvalidRequest
from appliance.model.quotas import Quotas
from appliance.model.session_keys import SessionKey
from appliance.model.spending import OutcomeStatus
from appliance.model.usage import TokenUsage
from appliance.services.meter import Meter
from appliance.services.session_usage import MOST_POINTS, Days, SessionUsage, today
from appliance.storage.database import Database
from appliance.storage.ledger import FILE, LedgerStore
from appliance.storage.ledger_schema import SCHEMA
from tests.books import NOON, outcome, spend
from tests.fakes.sessions import SessionsBench, key, open_sessions

NOTES, OTHER = key("notes"), key("other", "pirate")
USED = TokenUsage(input=10, output=5, cache_read=100)
TODAY = Days.of(date(2026, 11, 21), date(2026, 11, 21))


class Books:
    def __init__(self, sessions: SessionsBench, meter: Meter) -> None:
        self.sessions = sessions
        self.tenant = sessions.tenant
        self.meter = meter
        self.usage = SessionUsage(currency=lambda: "USD")

    def call(self, of: SessionKey, *, model: str = "mock", seconds: float = 2) -> None:
        held = self.meter.reserve(spend(session=of.text, agent=of.agent))
        self.sessions.clock.advance(seconds)
        self.meter.settle(held, outcome(USED, model=model))


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    async with open_sessions(tmp_path) as sessions:
        database = await Database.open(sessions.tenant.root, FILE, SCHEMA)
        meter = await Meter.open(
            LedgerStore(database), limits=Quotas(), clock=sessions.clock, currency="USD"
        )
        yield Books(sessions, meter)
        await database.close()


async def test_it_is_summed_by_session_model_and_day(books: Books) -> None:
    for _ in range(2):
        books.call(NOTES)
    books.call(OTHER, model="big")
    books.sessions.say(NOTES)
    report = await books.usage.usage(books.tenant, TODAY)
    uses = {one.key.rest: one.use for one in report.sessions}
    assert uses["notes"].sums.requests == 2
    assert uses["notes"].sums.tokens == 230
    assert list(uses["other"].models) == [("stub", "big")]
    assert dict(uses["notes"].said) == {"user": 1, "assistant": 1}
    assert report.all.sums.requests == 3
    assert list(report.all.days) == [date(2026, 11, 21)]
    assert {name: sums.requests for name, sums in report.by_agent.items()} == {
        "main": 2,
        "pirate": 1,
    }


async def test_the_parts_of_the_cost_add_up(books: Books) -> None:
    for _ in range(3):
        books.call(NOTES)
    sums = (await books.usage.usage(books.tenant, TODAY)).all.sums
    assert sum(sums.costs) == sums.cost == 3 * (10 * 1000 + 5 * 2000 + 100 * 100)
    assert sums.costs == [30_000, 30_000, 30_000, 0]


async def test_latency_is_that_of_calls_that_were_answered(books: Books) -> None:
    books.call(NOTES, seconds=1)
    books.call(NOTES, seconds=3)
    held = books.meter.reserve(spend(session=NOTES.text))
    books.sessions.clock.advance(60)
    books.meter.settle(held, outcome(None, status=OutcomeStatus.FAILED))
    report = await books.usage.usage(books.tenant, TODAY)
    latency = report.all.latency
    assert (latency.count, latency.total_ns) == (2, 4 * 10**9)
    assert (latency.fastest_ns, latency.slowest_ns) == (10**9, 3 * 10**9)
    assert report.all.sums.errors == 1


async def test_a_key_and_an_agent_narrow_it(books: Books) -> None:
    books.call(NOTES)
    books.call(OTHER)
    by_key = await books.usage.usage(books.tenant, TODAY, key=OTHER)
    by_agent = await books.usage.usage(books.tenant, TODAY, agent="pirate")
    for report in (by_key, by_agent):
        assert [one.key for one in report.sessions] == [OTHER]
        assert report.all.sums.requests == 1


async def test_days_are_those_of_the_offset(books: Books) -> None:
    books.call(NOTES)
    east = Days.of(date(2026, 11, 22), date(2026, 11, 22), shift=13 * 3600)
    report = await books.usage.usage(books.tenant, east)
    assert list(report.all.days) == [date(2026, 11, 22)]
    assert today(NOON, 13 * 3600) == date(2026, 11, 22)
    with pytest.raises(InvalidRequest, match="endDate"):
        Days.of(date(2026, 11, 22), date(2026, 11, 21))


async def test_another_tenants_key_in_the_books_is_not_shown(books: Books) -> None:
    books.call(SessionKey("other", "main", "notes"))
    report = await books.usage.usage(books.tenant, TODAY)
    assert report.sessions == ()
    assert report.all.sums.requests == 0


async def test_what_a_deleted_session_used_stays_in_the_books(books: Books) -> None:
    books.call(NOTES)
    (one,) = (await books.usage.usage(books.tenant, TODAY)).sessions
    assert one.session is None
    assert one.use.sums.requests == 1


async def test_a_tenant_without_books_used_nothing(tmp_path: Path) -> None:
    async with open_sessions(tmp_path) as sessions:
        report = await SessionUsage(currency=lambda: "USD").usage(sessions.tenant, TODAY)
        assert (report.sessions, report.all.sums.cost) == ((), 0)


async def test_a_session_grows_call_by_call(books: Books) -> None:
    session = books.sessions.store.open_session(NOTES, now=books.sessions.clock())
    for _ in range(MOST_POINTS * 2 + 1):
        books.call(NOTES)
    books.call(OTHER)
    points = await books.usage.timeseries(books.tenant, NOTES, session)
    assert len(points) <= MOST_POINTS
    assert points[-1].all_tokens == 115 * (MOST_POINTS * 2 + 1)
    assert points[-1].all_cost == sum(point.cost for point in points)
    assert [point.at for point in points] == sorted(point.at for point in points)


async def test_the_log_is_what_was_said_last(books: Books) -> None:
    books.sessions.say(NOTES, "one", "two")
    session = books.sessions.store.find(NOTES)
    assert session is not None
    lines = await books.usage.logs(books.tenant, NOTES, session, limit=1)
    assert [(line.role, line.text) for line in lines] == [("assistant", "two")]
