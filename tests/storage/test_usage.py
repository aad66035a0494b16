"""Sums over the ledger: every call once, whatever it is cut into, and nothing is touched."""

import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import apsw
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.model.errors import InvalidRequest, TenantBroken
from appliance.model.periods import HOUR, SECOND, to_ns
from appliance.model.spending import SpendRequest
from appliance.model.usage import TokenUsage
from appliance.storage.connection import DatabaseRoot
from appliance.storage.ledger import FILE, Entry, LedgerStore
from appliance.storage.paths import ConfinedDirectory
from appliance.storage.usage import Granularity, GroupBy, TagGroup, UsageRow, read_usage
from tests.books import NOON, PRICE, directory, spend

NOW = to_ns(NOON)
EVER = 2**62
USAGE = TokenUsage(input=1, output=2, cache_read=3, cache_write=4, reasoning=5)


def at(year: int, month: int, day: int, hour: int = 0) -> int:
    return to_ns(datetime(year, month, day, hour, tzinfo=UTC))


def settle(
    ledger: LedgerStore,
    ts_ns: int = NOW,
    request: SpendRequest | None = None,
    *,
    usage: TokenUsage = USAGE,
    cost_nano: int | None = 1_000,
    currency: str = "USD",
    provider: str = "stub",
    model: str = "mock",
) -> int:
    request = request or spend()
    number = ledger.reserve(ts_ns, request, input_tokens=1, output_tokens=1, cost_nano=1)
    entry = Entry(
        id=number,
        ts_ns=ts_ns,
        settled_ns=ts_ns + SECOND,
        request=request,
        provider=provider,
        model=model,
        usage=usage,
        cost_nano=cost_nano,
        currency=currency,
        price=PRICE,
        outcome="ok" if provider else "failed",
        tool_calls=2,
        sandbox_ms=30,
    )
    ledger.settle([entry])
    return number


async def read(
    root: DatabaseRoot,
    start_ns: int = 0,
    end_ns: int = EVER,
    *,
    granularity: Granularity = Granularity.DAY,
    group_by: GroupBy | TagGroup | None = None,
) -> list[UsageRow]:
    return await read_usage(root, start_ns, end_ns, granularity=granularity, group_by=group_by)


def requests_of(rows: Sequence[UsageRow]) -> list[tuple[str, int]]:
    """When each period begins, and how many calls it has."""
    return [
        (f"{datetime.fromtimestamp(row.start, UTC):%Y-%m-%dT%H:%M:%S}", row.requests)
        for row in rows
    ]


@pytest.fixture
def root(tmp_path: Path) -> ConfinedDirectory:
    return directory(tmp_path / "acme")


@pytest.fixture
async def ledger(root: ConfinedDirectory) -> AsyncIterator[LedgerStore]:
    ledger = await LedgerStore.open(root)
    yield ledger
    await ledger.close()


class TestSums:
    async def test_a_row_holds_all_that_was_used(
        self, root: ConfinedDirectory, ledger: LedgerStore
    ) -> None:
        settle(ledger)
        settle(ledger)

        assert await read(root) == [
            UsageRow(
                start=NOW // SECOND - 12 * 3_600,
                group=None,
                currency="USD",
                requests=2,
                unpriced_requests=0,
                estimated_requests=0,
                input=2,
                output=4,
                cache_read=6,
                cache_write=8,
                reasoning=10,
                tool_calls=4,
                sandbox_ms=60,
                cost_nano=2_000,
            )
        ]

    async def test_calls_without_a_price_or_a_count_are_told(
        self, root: ConfinedDirectory, ledger: LedgerStore
    ) -> None:
        settle(ledger, cost_nano=None)
        settle(ledger, usage=TokenUsage(input=1, estimated=True))
        settle(ledger)

        (row,) = await read(root)
        assert (row.requests, row.unpriced_requests, row.estimated_requests) == (3, 1, 1)
        assert row.cost_nano == 2_000

    async def test_what_costs_nothing_is_not_what_has_no_price(
        self, root: ConfinedDirectory, ledger: LedgerStore
    ) -> None:
        settle(ledger, cost_nano=0)

        (row,) = await read(root)
        assert (row.unpriced_requests, row.cost_nano) == (0, 0)

    async def test_a_correction_counts_when_it_was_made_and_is_no_call(
        self, root: ConfinedDirectory, ledger: LedgerStore
    ) -> None:
        number = settle(ledger, at(2026, 10, 5))
        ledger.correct(number, now_ns=NOW, cost_nano=-400, note="invoice 7")

        rows = await read(root, granularity=Granularity.MONTH)
        assert [(row.requests, row.unpriced_requests, row.cost_nano) for row in rows] == [
            (1, 0, 1_000),
            (0, 0, -400),
        ]

    async def test_two_currencies_are_two_rows(
        self, root: ConfinedDirectory, ledger: LedgerStore
    ) -> None:
        settle(ledger, currency="USD")
        settle(ledger, currency="EUR", cost_nano=5)

        rows = await read(root)
        assert [(row.currency, row.cost_nano) for row in rows] == [("EUR", 5), ("USD", 1_000)]

    async def test_a_call_under_way_is_not_in_them(
        self, root: ConfinedDirectory, ledger: LedgerStore
    ) -> None:
        ledger.reserve(NOW, spend(), input_tokens=1, output_tokens=1, cost_nano=1)

        assert await read(root) == []


class TestPeriods:
    @pytest.mark.parametrize(
        ("granularity", "expected"),
        [
            (
                Granularity.HOUR,
                [("2028-02-29T00:00:00", 1), ("2028-02-29T23:00:00", 2), ("2028-03-01T00:00:00", 1),
                 ("2028-12-31T23:00:00", 1), ("2029-01-01T00:00:00", 1)],
            ),
            (
                Granularity.DAY,
                [("2028-02-29T00:00:00", 3), ("2028-03-01T00:00:00", 1),
                 ("2028-12-31T00:00:00", 1), ("2029-01-01T00:00:00", 1)],
            ),
            (
                Granularity.MONTH,
                [("2028-02-01T00:00:00", 3), ("2028-03-01T00:00:00", 1),
                 ("2028-12-01T00:00:00", 1), ("2029-01-01T00:00:00", 1)],
            ),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("folded", [False, True])
    async def test_hours_days_and_months_begin_where_the_calendar_says(
        self,
        root: ConfinedDirectory,
        ledger: LedgerStore,
        granularity: Granularity,
        expected: list[tuple[str, int]],
        *,
        folded: bool,
    ) -> None:
        for moment in (
            at(2029, 1, 1),
            at(2028, 2, 29),
            at(2028, 2, 29, 23),
            at(2028, 3, 1) - 1,
            at(2028, 3, 1),
            at(2029, 1, 1) - 1,
        ):
            settle(ledger, moment)
        if folded:
            ledger.fold(None)

        assert requests_of(await read(root, granularity=granularity)) == expected

    @pytest.mark.parametrize(
        ("start", "end", "calls"),
        [
            (NOW, NOW + 1, 1),
            (NOW, NOW, 0),
            (NOW + 1, NOW + HOUR, 0),
            (NOW + 1, NOW + HOUR + 1, 1),
            (NOW - HOUR, NOW, 0),
            (NOW - HOUR, NOW + 1, 1),
            (NOW, NOW + HOUR + 1, 2),
            (NOW + 1, NOW, 0),
        ],
    )
    @pytest.mark.parametrize("folded", [False, True])
    async def test_the_start_is_part_of_it_and_the_end_is_not(
        self,
        root: ConfinedDirectory,
        ledger: LedgerStore,
        start: int,
        end: int,
        calls: int,
        *,
        folded: bool,
    ) -> None:
        settle(ledger, NOW)
        settle(ledger, NOW + HOUR)
        if folded:
            ledger.fold(None)

        assert sum(row.requests for row in await read(root, start, end)) == calls


class TestGroups:
    @pytest.mark.parametrize(
        ("group_by", "expected"),
        [
            (None, [(None, 3)]),
            (GroupBy.MODEL, [("fast", 1), ("stub/big", 1), ("stub/mock", 1)]),
            (GroupBy.AGENT, [("", 2), ("main", 1)]),
            (GroupBy.CHANNEL, [("", 3)]),
            (GroupBy.SESSION, [("", 2), ("agent:main:x", 1)]),
            (GroupBy.KIND, [("chat", 2), ("embedding", 1)]),
        ],
    )
    async def test_calls_are_grouped_by_what_they_were(
        self,
        root: ConfinedDirectory,
        ledger: LedgerStore,
        group_by: GroupBy | None,
        expected: list[tuple[str | None, int]],
    ) -> None:
        settle(ledger, request=spend(agent="main", session="agent:main:x"))
        settle(ledger, request=spend(kind="embedding"), model="big")
        settle(ledger, request=spend(model="fast"), provider="", model="")

        rows = await read(root, group_by=group_by)
        assert [(row.group, row.requests) for row in rows] == expected

    async def test_calls_are_grouped_by_the_value_of_a_tag(
        self, root: ConfinedDirectory, ledger: LedgerStore
    ) -> None:
        settle(ledger, request=replace(spend(), tags=("project=x", "team=red")))
        settle(ledger, request=replace(spend(), tags=("team=red:blue",)))
        number = settle(ledger, request=replace(spend(), tags=("team=red",)))
        settle(ledger, request=replace(spend(), tags=("teams=red",)))
        settle(ledger)
        ledger.correct(number, now_ns=NOW, cost_nano=-400, note="a credit")

        rows = await read(root, group_by=TagGroup("team"))
        assert [(row.group, row.requests, row.cost_nano) for row in rows] == [
            ("", 2, 2_000),
            ("red", 2, 1_600),
            ("red:blue", 1, 1_000),
        ]

    async def test_rows_are_in_order_of_time_and_then_of_group(
        self, root: ConfinedDirectory, ledger: LedgerStore
    ) -> None:
        for day, agent in ((2, "a"), (1, "b"), (2, "b"), (1, "a")):
            settle(ledger, at(2026, 11, day), spend(agent=agent))

        rows = await read(root, group_by=GroupBy.AGENT)
        assert [row.group for row in rows] == ["a", "b", "a", "b"]
        assert [row.start for row in rows] == sorted(row.start for row in rows)

    async def test_more_rows_than_a_report_may_have_are_refused_and_not_cut_off(
        self, root: ConfinedDirectory, ledger: LedgerStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("appliance.storage.usage.MOST_ROWS", 2)
        for session in ("a", "b"):
            settle(ledger, request=spend(session=session))
        assert len(await read(root, group_by=GroupBy.SESSION)) == 2
        settle(ledger, request=spend(session="c"))

        with pytest.raises(InvalidRequest, match="more than 2 rows") as refused:
            await read(root, group_by=GroupBy.SESSION)
        assert refused.value.fields[0].field == "from"


class TestFiles:
    async def test_a_tenant_that_never_spent_has_no_rows_and_gets_no_file(
        self, root: ConfinedDirectory, tmp_path: Path
    ) -> None:
        assert await read(root) == []
        assert list((tmp_path / "acme").iterdir()) == []

    async def test_a_tenant_may_be_asleep(self, root: ConfinedDirectory) -> None:
        ledger = await LedgerStore.open(root)
        settle(ledger)
        await ledger.close()

        assert requests_of(await read(root)) == [("2026-11-21T00:00:00", 1)]

    async def test_one_tenants_report_holds_nothing_of_anothers(
        self, root: ConfinedDirectory, ledger: LedgerStore, tmp_path: Path
    ) -> None:
        settle(ledger)
        other = directory(tmp_path / "globex")
        await (await LedgerStore.open(other)).close()

        assert await read(other) == []
        assert len(await read(root)) == 1

    @pytest.mark.parametrize("damage", [b"", b"SQLite format 3\0" + bytes(80), b"x" * 8_192])
    async def test_a_damaged_ledger_is_reported_and_left_as_it_is(
        self, root: ConfinedDirectory, tmp_path: Path, damage: bytes
    ) -> None:
        ledger = await LedgerStore.open(root)
        settle(ledger)
        await ledger.close()
        file = tmp_path / "acme" / FILE
        file.write_bytes(damage)

        with pytest.raises(TenantBroken, match="ledger"):
            await read(root)
        assert file.read_bytes() == damage

    async def test_a_database_of_another_kind_is_no_ledger(
        self, root: ConfinedDirectory, tmp_path: Path
    ) -> None:
        file = tmp_path / "acme" / FILE
        file.parent.mkdir()
        connection = apsw.Connection(str(file))
        connection.execute("CREATE TABLE entries (id INTEGER)")
        connection.close()

        with pytest.raises(TenantBroken):
            await read(root)


calls = st.lists(
    st.tuples(
        st.integers(at(2027, 12, 30), at(2028, 3, 2)),
        st.sampled_from(["main", "writer", None]),
        st.integers(0, 10**9),
        st.booleans(),  # whether the ledger is folded after it
    ),
    max_size=12,
)


@settings(max_examples=40)
@given(
    calls=calls,
    bounds=st.tuples(*[st.integers(at(2027, 12, 30), at(2028, 3, 2))] * 2),
    granularity=st.sampled_from(Granularity),
    group_by=st.sampled_from([None, *GroupBy]),
)
def test_however_a_period_is_cut_up_every_call_in_it_counts_once(
    calls: list[tuple[int, str | None, int, bool]],
    bounds: tuple[int, int],
    granularity: Granularity,
    group_by: GroupBy | None,
) -> None:
    start, end = sorted(bounds)

    async def report(path: Path) -> list[UsageRow]:
        root = directory(path)
        ledger = await LedgerStore.open(root)
        for ts_ns, agent, cost_nano, fold in calls:
            settle(ledger, ts_ns, spend(agent=agent), cost_nano=cost_nano)
            if fold:
                ledger.fold(None)
        rows = await read(root, start, end, granularity=granularity, group_by=group_by)
        await ledger.close()
        return rows

    with tempfile.TemporaryDirectory() as path:
        rows = trio.run(report, Path(path))

    inside = [cost for ts_ns, _, cost, _ in calls if start <= ts_ns < end]
    assert sum(row.requests for row in rows) == len(inside)
    assert sum(row.cost_nano for row in rows) == sum(inside)
    assert len({(row.start, row.group) for row in rows}) == len(rows)
