"""Reports: every call once, in its period and group, as rows and as CSV."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import Forbidden, InvalidRequest, TenantBroken, TenantUnknown
from appliance.model.quotas import Quotas
from appliance.model.spending import OutcomeStatus
from appliance.model.tokens import Scope
from appliance.model.usage import TokenUsage
from appliance.services.meter import Meter
from appliance.services.usage_reports import CSV_COLUMNS, UsageReports, UsageTable
from appliance.storage.ledger import FILE, LedgerStore
from appliance.storage.paths import TenantRoot
from appliance.storage.state import StateDirectory
from tests.books import HandClock, outcome, spend

ADMIN = Caller(ActorKind.ADMIN, "first", None)
ACME = Caller(ActorKind.TENANT, "tok_1", "acme", frozenset({Scope.READ}))
CHAT = Caller(ActorKind.TENANT, "tok_2", "acme", frozenset({Scope.CHAT}))
START, END = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
USED = outcome(TokenUsage(input=10, output=5))


class Books:
    """Tenants with ledgers, some open, some not."""

    def __init__(self, path: Path) -> None:
        self.state = StateDirectory.open(path)
        self.clock = HandClock(datetime(2026, 11, 21, 10, 30, tzinfo=UTC))
        self.currency = "USD"
        self.reports = UsageReports(roots=self.state, currency=lambda: self.currency)
        self._open: list[tuple[TenantRoot, LedgerStore]] = []

    async def meter(self, tenant: str) -> Meter:
        root = self.state.create_tenant(tenant)
        store = await LedgerStore.open(root)
        self._open.append((root, store))
        return await Meter.open(store, limits=Quotas(), clock=self.clock, currency=self.currency)

    async def sleep(self) -> None:
        """Close every ledger, as hibernation does."""
        for root, store in self._open:
            await store.close()
            root.close()
        self._open.clear()

    async def report(
        self,
        *,
        caller: Caller = ACME,
        tenant: str | None = "acme",
        start: datetime = START,
        end: datetime = END,
        granularity: str = "day",
        group_by: str | None = None,
    ) -> UsageTable:
        return await self.reports.report(
            caller,
            tenant=tenant,
            start=start,
            end=end,
            granularity=granularity,
            group_by=group_by,
        )


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    books = Books(tmp_path / "state")
    yield books
    await books.sleep()
    books.state.close()


def seen(table: UsageTable) -> list[tuple[str, str | None, int, int]]:
    """Period, group, requests and tokens of each line."""
    return [
        (f"{line.period:%Y-%m-%dT%H}", line.group, line.requests, line.usage.total)
        for line in table.lines
    ]


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cells(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


class TestPeriods:
    @pytest.mark.parametrize(
        ("granularity", "expected"),
        [
            ("hour", ["2026-11-21T10", "2026-11-21T11", "2026-11-22T00"]),
            ("day", ["2026-11-21T00", "2026-11-22T00"]),
            ("month", ["2026-11-01T00"]),
        ],
    )
    async def test_calls_are_summed_by_hour_day_or_month(
        self, books: Books, granularity: str, expected: Sequence[str]
    ) -> None:
        meter = await books.meter("acme")
        for seconds in (0, 1_800, 48_000, 0):
            books.clock.advance(seconds)
            meter.settle(meter.reserve(spend()), USED)
        table = await books.report(granularity=granularity)
        assert [period for period, *_ in seen(table)] == expected
        assert table.total.requests == 4
        assert table.total.usage == TokenUsage(input=40, output=20)
        assert table.total.cost_nano == 80_000

    async def test_the_end_is_not_part_of_it_and_the_start_is(self, books: Books) -> None:
        meter = await books.meter("acme")
        meter.settle(meter.reserve(spend()), USED)
        now = books.clock()
        assert (await books.report(start=START, end=now)).lines == ()
        assert len((await books.report(start=now, end=END)).lines) == 1

    async def test_it_is_the_same_before_and_after_folding(self, books: Books) -> None:
        meter = await books.meter("acme")
        for number in range(600):
            books.clock.advance(60)
            meter.settle(meter.reserve(spend(model=f"m{number % 3}")), USED)
        table = await books.report(granularity="hour", group_by="model")
        assert sum(line.requests for line in table.lines) == 600
        text = books.reports.csv(table)
        await books.sleep()
        again = await books.report(granularity="hour", group_by="model")
        assert books.reports.csv(again) == text

    async def test_a_call_under_way_is_not_in_it(self, books: Books) -> None:
        meter = await books.meter("acme")
        meter.reserve(spend())
        assert (await books.report()).lines == ()

    async def test_a_tenant_that_never_spent_has_no_lines_and_gets_no_file(
        self, books: Books
    ) -> None:
        root = books.state.create_tenant("acme")
        table = await books.report()
        assert (table.lines, table.total.requests) == ((), 0)
        assert not root.exists(FILE)
        root.close()


class TestGroups:
    @pytest.mark.parametrize(
        ("group_by", "expected"),
        [
            (None, {None: 3}),
            ("model", {"stub/mock": 1, "stub/big": 1, "fast": 1}),
            ("agent", {"main": 1, "": 2}),
            ("session", {"agent:main:x": 1, "": 2}),
            ("channel", {"": 3}),
            ("kind", {"chat": 2, "embedding": 1}),
        ],
    )
    async def test_calls_are_grouped_by_what_was_asked_for(
        self, books: Books, group_by: str | None, expected: dict[str | None, int]
    ) -> None:
        meter = await books.meter("acme")
        first = meter.reserve(spend(session="agent:main:x", agent="main"))
        meter.settle(first, USED)
        meter.settle(
            meter.reserve(spend(kind="embedding")), outcome(TokenUsage(input=1), model="big")
        )
        unreached = outcome(
            TokenUsage(), status=OutcomeStatus.FAILED, provider="", model="", price=None
        )
        meter.settle(meter.reserve(spend(model="fast")), unreached)
        table = await books.report(group_by=group_by)
        assert {line.group: line.requests for line in table.lines} == expected

    async def test_unpriced_and_estimated_calls_are_counted_apart(self, books: Books) -> None:
        meter = await books.meter("acme")
        meter.settle(meter.reserve(spend()), USED)
        meter.settle(meter.reserve(spend()), outcome(TokenUsage(input=1), price=None))
        meter.settle(meter.reserve(spend()), outcome(None, text_bytes=40))
        (line,) = (await books.report()).lines
        assert (line.requests, line.unpriced_requests, line.estimated_requests) == (3, 1, 1)
        assert line.usage.estimated

    async def test_a_correction_changes_the_money_and_is_no_call(self, books: Books) -> None:
        meter = await books.meter("acme")
        meter.settle(meter.reserve(spend()), USED)
        meter.correct(1, cost_nano=-5_000, note="invoice")
        (line,) = (await books.report()).lines
        assert (line.requests, line.unpriced_requests, line.cost_nano) == (1, 0, 15_000)

    async def test_money_of_two_currencies_is_never_added(self, books: Books) -> None:
        books.currency = "EUR"
        meter = await books.meter("acme")
        meter.settle(meter.reserve(spend()), USED)
        await books.sleep()
        books.currency = "USD"
        with books.state.tenant_root("acme") as root:
            store = await LedgerStore.open(root)
            meter = await Meter.open(store, limits=Quotas(), clock=books.clock, currency="USD")
            meter.settle(meter.reserve(spend()), USED)
            await store.close()
        table = await books.report()
        assert [(line.currency, line.cost_nano) for line in table.lines] == [
            ("EUR", 20_000),
            ("USD", 20_000),
        ]
        assert (table.currency, table.total.cost_nano) == ("USD", 20_000)
        assert table.total.requests == 2


class TestAllTenants:
    async def test_an_admin_gets_every_tenant_in_order(self, books: Books) -> None:
        for name in ("globex", "acme"):
            meter = await books.meter(name)
            meter.settle(meter.reserve(spend()), USED)
            books.clock.advance(-86_400)
        await books.sleep()
        table = await books.report(caller=ADMIN, tenant=None)
        assert [(f"{line.period:%d}", line.tenant) for line in table.lines] == [
            ("20", "acme"),
            ("21", "globex"),
        ]
        assert table.total.requests == 2

    async def test_one_damaged_ledger_does_not_hide_the_others_and_is_named(
        self, books: Books, tmp_path: Path
    ) -> None:
        for name in ("acme", "broken"):
            meter = await books.meter(name)
            meter.settle(meter.reserve(spend()), USED)
        await books.sleep()
        ledger = tmp_path / "state" / "tenants" / "broken" / FILE
        empty(ledger)
        table = await books.report(caller=ADMIN, tenant=None)
        assert [line.tenant for line in table.lines] == ["acme"]
        assert table.unreadable == ("broken",)
        with pytest.raises(TenantBroken):
            await books.report(caller=ADMIN, tenant="broken")
        assert ledger.stat().st_size == 0

    async def test_nor_does_something_else_in_its_place(self, books: Books, tmp_path: Path) -> None:
        for name in ("acme", "broken"):
            meter = await books.meter(name)
            meter.settle(meter.reserve(spend()), USED)
        await books.sleep()
        ledger = tmp_path / "state" / "tenants" / "broken" / FILE
        ledger.unlink()
        ledger.mkdir()
        table = await books.report(caller=ADMIN, tenant=None)
        assert [line.tenant for line in table.lines] == ["acme"]
        assert table.unreadable == ("broken",)


class TestAccess:
    @pytest.mark.parametrize(("caller", "tenant"), [(ACME, "globex"), (ACME, None), (CHAT, "acme")])
    async def test_a_tenant_sees_its_own_and_needs_the_scope(
        self, books: Books, caller: Caller, tenant: str | None
    ) -> None:
        with pytest.raises(Forbidden):
            await books.report(caller=caller, tenant=tenant)

    async def test_a_tenant_that_is_not_there_is_unknown(self, books: Books) -> None:
        with pytest.raises(TenantUnknown):
            await books.report(caller=ADMIN, tenant="acme")

    @pytest.mark.parametrize(
        ("field", "asked"),
        [
            ("granularity", {"granularity": "week"}),
            ("group_by", {"group_by": "token_id"}),
            ("group_by", {"group_by": "tag:"}),
            ("group_by", {"group_by": "tag:No Tag"}),
            ("from", {"start": datetime(2026, 11, 1)}),  # noqa: DTZ001 - the mistake
            ("to", {"end": datetime(2026, 12, 1)}),  # noqa: DTZ001 - the mistake
            ("to", {"end": START}),
        ],
    )
    async def test_what_makes_no_sense_is_refused_by_name(
        self, books: Books, field: str, asked: dict[str, str]
    ) -> None:
        with pytest.raises(InvalidRequest) as refused:
            await books.report(**asked)  # type: ignore[arg-type]
        assert [error.field for error in refused.value.fields] == [field]

    async def test_too_many_rows_are_refused(
        self, books: Books, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("appliance.storage.usage.MOST_ROWS", 2)
        meter = await books.meter("acme")
        for number in range(3):
            meter.settle(meter.reserve(spend(session=f"s{number}")), USED)
        assert len((await books.report()).lines) == 1
        with pytest.raises(InvalidRequest, match="more than 2 rows"):
            await books.report(group_by="session")


class TestCsv:
    async def test_its_columns_are_these_for_ever(self, books: Books) -> None:
        meter = await books.meter("acme")
        usage = TokenUsage(1, 2, 3, 4, 5, input_audio=1, output_audio=2, web_searches=6)
        meter.settle(meter.reserve(spend()), outcome(usage))
        report = await books.report(group_by="kind")
        text = books.reports.csv(report)
        assert text == (
            "period_start,tenant,group_by,group,requests,input_tokens,output_tokens,"
            "cache_read_tokens,cache_write_tokens,reasoning_tokens,total_tokens,tool_calls,"
            "sandbox_ms,cost,currency,unpriced_requests,estimated_requests,sandbox_cpu_ms,"
            "input_audio_tokens,output_audio_tokens,web_searches\r\n"
            "2026-11-21T00:00:00Z,acme,kind,chat,1,1,2,3,4,5,15,0,0,0.0000203,USD,0,0,0,1,2,6\r\n"
        )
        assert report.total.usage == usage

    @pytest.mark.parametrize(
        "name",
        ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1", '=HYPERLINK("http://x","y")'],
    )
    async def test_no_cell_is_a_formula(self, books: Books, name: str) -> None:
        meter = await books.meter("acme")
        meter.settle(meter.reserve(spend(session=name)), USED)
        table = await books.report(group_by="session")
        assert table.lines[0].group == name
        (row,) = cells(books.reports.csv(table))
        assert row["group"] == f"'{name}"

    async def test_commas_quotes_and_line_breaks_stay_in_their_cell(self, books: Books) -> None:
        meter = await books.meter("acme")
        meter.settle(meter.reserve(spend(session='a,"b"\nc')), USED)
        (row,) = cells(books.reports.csv(await books.report(group_by="session")))
        assert row["group"] == 'a,"b"\nc'
        assert tuple(row) == CSV_COLUMNS

    async def test_an_empty_report_has_its_header(self, books: Books) -> None:
        books.state.create_tenant("acme").close()
        text = books.reports.csv(await books.report())
        assert text == ",".join(CSV_COLUMNS) + "\r\n"
