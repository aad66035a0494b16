"""The usage ledger: append-only entries, folding, corrections, isolation."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import apsw
import msgspec
import pytest

from appliance.model.money import NANO, Price, PriceStep
from appliance.model.periods import DAY, HOUR, SECOND, day_of, month_of, to_ns
from appliance.model.spending import SpendRequest
from appliance.model.usage import TokenUsage
from appliance.storage.connection import Connection
from appliance.storage.database import Database
from appliance.storage.ledger import FILE, Burst, Entry, LedgerStore, Sums
from appliance.storage.ledger_schema import SCHEMA
from appliance.storage.migrations import Schema
from tests.books import NOON, PRICE, directory, spend

NOW = to_ns(NOON)
USAGE = TokenUsage(input=1, output=2, cache_read=3, cache_write=4, reasoning=5)
_COUNTED = (
    "input",
    "output",
    "cache_read",
    "cache_write",
    "reasoning",
    "input_audio",
    "output_audio",
    "web_searches",
)
_AS_BILLED = """
SELECT input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens,
       input_audio_tokens, output_audio_tokens, web_searches, price, cost_nano
FROM entries
"""
# What a release that knows two steps writes.
_OF_SCHEMA_2 = f"""
INSERT INTO entries (
    id, ts_ns, settled_ns, request_id, kind, route, provider, model, agent, session, channel,
    token_id, tags, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
    reasoning_tokens, tool_calls, sandbox_ms, cost_nano, currency, price, estimated, outcome,
    provider_request_id
) VALUES (1, {NOW}, {NOW}, 'r', 'chat', 'm', 'stub', 'mock', NULL, NULL, NULL, NULL, NULL,
          1, 2, 3, 4, 5, 0, 0, 1000, 'USD', NULL, 0, 'ok', NULL)
"""  # noqa: S608 - a constant


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(directory(tmp_path), FILE, SCHEMA)
    yield database
    await database.close()


@pytest.fixture
def ledger(database: Database) -> LedgerStore:
    return LedgerStore(database)


def reserve(ledger: LedgerStore, ts_ns: int = NOW, request: SpendRequest | None = None) -> int:
    return ledger.reserve(
        ts_ns, request or spend(), input_tokens=10, output_tokens=20, cost_nano=50_000
    )


def entry(number: int, ts_ns: int = NOW, *, cost_nano: int | None = 1_000) -> Entry:
    return Entry(
        id=number,
        ts_ns=ts_ns,
        settled_ns=ts_ns + SECOND,
        request=spend(),
        provider="stub",
        model="mock",
        usage=USAGE,
        cost_nano=cost_nano,
        currency="USD",
        price=PRICE,
        outcome="ok",
    )


def settled(ledger: LedgerStore, ts_ns: int = NOW, *, cost_nano: int | None = 1_000) -> int:
    number = reserve(ledger, ts_ns)
    ledger.settle([entry(number, ts_ns, cost_nano=cost_nano)])
    return number


def count(database: Database, table: str) -> int:
    ((number,),) = database.read(lambda tx: tx.execute(f"SELECT count(*) FROM {table}").fetchall())  # noqa: S608 - a table's name
    assert isinstance(number, int)
    return number


class TestEntries:
    async def test_an_entry_keeps_the_price_that_held(
        self, database: Database, ledger: LedgerStore
    ) -> None:
        settled(ledger)
        rows = database.read(
            lambda tx: tx.execute("SELECT price, cost_nano, tokens, hour FROM entries").fetchall()
        )
        assert rows == [
            (
                '{"input":1000000000,"output":2000000000,"cache_read":100000000,'
                '"cache_write":1250000000,"reasoning":2000000000,"steps":[]}',
                1_000,
                15,
                NOW // HOUR,
            )
        ]

    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE entries SET cost_nano = 0",
            "DELETE FROM entries",
            """
            INSERT OR REPLACE INTO entries
            SELECT id, ts_ns, settled_ns, request_id, kind, route, provider, model, agent, session,
                   channel, token_id, tags, 0, 0, 0, 0, 0, 0, 0, 0, currency, price, 0, outcome,
                   NULL, NULL, NULL, 0, NULL, 0, 0, 0, 0
            FROM entries
            """,
        ],
    )
    async def test_no_entry_can_be_changed_or_removed(
        self, database: Database, ledger: LedgerStore, change: str
    ) -> None:
        settled(ledger)
        with pytest.raises(apsw.ConstraintError, match="append-only"):
            database.write(lambda tx: tx.execute(change))
        assert ledger.sums(*_day()) == Sums(1, 15, 1_000)

    async def test_a_call_cannot_be_settled_twice(self, ledger: LedgerStore) -> None:
        number = settled(ledger)
        with pytest.raises(apsw.ConstraintError):
            ledger.settle([entry(number)])
        assert ledger.sums(*_day()).calls == 1

    async def test_several_entries_are_written_all_or_none(self, ledger: LedgerStore) -> None:
        done, open_ = settled(ledger), reserve(ledger)
        with pytest.raises(apsw.ConstraintError):
            ledger.settle([entry(open_), entry(done)])
        assert [left.id for left in ledger.left_open()] == [open_]

    async def test_what_it_cost_can_be_told_from_what_it_keeps(
        self, database: Database, ledger: LedgerStore
    ) -> None:
        price = replace(PRICE, input_audio=7 * NANO, output_audio=9 * NANO, web_search=10 * NANO)
        usage = TokenUsage(100, 50, 3, 4, 5, input_audio=60, output_audio=20, web_searches=3)
        number = reserve(ledger, request=replace(spend(), price=price))
        cost = usage.cost(price)
        ledger.settle([replace(entry(number, cost_nano=cost), usage=usage, price=price)])

        (row,) = database.read(lambda tx: tx.execute(_AS_BILLED).fetchall())
        *counted, kept, cost_nano = row
        again = msgspec.convert(dict(zip(_COUNTED, counted, strict=True)), TokenUsage)
        assert again == usage
        assert again.cost(msgspec.json.decode(str(kept), type=Price)) == cost_nano == cost

    async def test_a_ledger_of_an_older_release_goes_on(self, tmp_path: Path) -> None:
        older = Schema(SCHEMA.kind, SCHEMA.steps[:2])
        database = await Database.open(directory(tmp_path / "older"), FILE, older)
        database.write(partial(Connection.execute, statements=_OF_SCHEMA_2))
        await database.close()

        ledger = await LedgerStore.open(directory(tmp_path / "older"))
        assert settled(ledger) == 2
        assert ledger.sums(*_day()) == Sums(2, 30, 2_000)
        await ledger.close()
        # The older one may open it again: what it does not name has a default.
        database = await Database.open(directory(tmp_path / "older"), FILE, older)
        database.write(partial(Connection.execute, statements=_OF_SCHEMA_2.replace("(1,", "(3,")))
        rows = database.read(
            lambda tx: tx.execute("SELECT id, web_searches FROM entries ORDER BY id").fetchall()
        )
        assert rows == [(1, 0), (2, 0), (3, 0)]
        await database.close()

    async def test_an_older_release_can_write_after_columns_were_added(
        self, database: Database, ledger: LedgerStore
    ) -> None:
        for table in ("entries", "reservations"):
            change = f"ALTER TABLE {table} ADD COLUMN later TEXT"
            database.write(partial(Connection.execute, statements=change))
        settled(ledger)


class TestReservations:
    async def test_what_no_entry_settled_is_left_open_with_all_it_was_asked_for(
        self, ledger: LedgerStore
    ) -> None:
        price = Price(1, 2, 3, 4, 5, steps=(PriceStep(200_000, Price(2, 4, 6, 8, 10)),))
        request = SpendRequest(
            request_id="req_7",
            kind="chat",
            model="smart",
            prompt_bytes=0,
            output_limit=None,
            price=price,
            session="agent:main:x",
            agent="main",
            token_id="tok_7",
            channel="irc",
            tags=("a", "b"),
        )
        settled(ledger)
        number = reserve(ledger, NOW + 5, request)
        (left,) = ledger.left_open()
        assert (left.id, left.ts_ns, left.request) == (number, NOW + 5, request)
        assert (left.input_tokens, left.output_tokens, left.cost_nano) == (10, 20, 50_000)

    async def test_ids_go_on_where_they_ended(self, database: Database) -> None:
        numbers = [settled(LedgerStore(database)) for _ in range(3)]
        assert numbers == [1, 2, 3]


class TestFolding:
    async def test_sums_are_the_same_before_and_after(
        self, database: Database, ledger: LedgerStore
    ) -> None:
        for hours in (0, 1, 1, 30, 24 * 12):
            settled(ledger, NOW + hours * HOUR, cost_nano=1_000 + hours)
        settled(ledger, NOW, cost_nano=None)
        periods = [day_of(NOW), day_of(NOW + DAY), month_of(NOW), month_of(NOW + 12 * DAY)]
        before = [ledger.sums(p.start_ns, p.end_ns) for p in periods]
        ledger.fold(None)
        assert [ledger.sums(p.start_ns, p.end_ns) for p in periods] == before
        assert before == [
            Sums(4, 60, 3_002),
            Sums(1, 15, 1_030),
            Sums(5, 75, 4_032),
            Sums(1, 15, 1_288),
        ]
        assert count(database, "reservations") == 0

    async def test_a_call_under_way_is_neither_folded_nor_forgotten(
        self, database: Database, ledger: LedgerStore
    ) -> None:
        settled(ledger)
        long_call = reserve(ledger)
        settled(ledger)
        ledger.fold(long_call)
        assert [left.id for left in ledger.left_open()] == [long_call]
        assert ledger.sums(*_day()).calls == 2
        ledger.settle([entry(long_call)])
        ledger.fold(None)
        assert ledger.sums(*_day()).calls == 3
        assert count(database, "reservations") == 0

    async def test_it_is_due_every_so_many_calls(
        self, database: Database, ledger: LedgerStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("appliance.storage.ledger.FOLD_EVERY", 3)
        left = []
        for _ in range(7):
            settled(ledger)
            ledger.fold_when_due(None)
            left.append(count(database, "reservations"))
        assert left == [1, 2, 0, 1, 2, 0, 1]

    async def test_calls_of_a_clock_that_was_set_back_count_in_their_hour(
        self, ledger: LedgerStore
    ) -> None:
        settled(ledger, NOW + 40 * DAY)
        ledger.fold(None)
        settled(ledger, NOW)
        ledger.fold(None)
        settled(ledger, NOW)
        assert ledger.sums(*_day()).calls == 2

    async def test_the_recent_past_is_told_second_by_second(self, ledger: LedgerStore) -> None:
        for offset in (0, 1, 2 * SECOND, 3_601 * SECOND):
            settled(ledger, NOW + offset)
        ledger.fold(None)
        settled(ledger, NOW + 3_601 * SECOND + 7)
        assert await ledger.recent(NOW + 1, NOW + 3_602 * SECOND) == [
            Burst(NOW + 1, NOW + 1, 1, 15),
            Burst(NOW + 2 * SECOND, NOW + 2 * SECOND, 1, 15),
            Burst(NOW + 3_601 * SECOND, NOW + 3_601 * SECOND + 7, 2, 30),
        ]


class TestCorrections:
    async def test_a_correction_is_a_further_entry_dated_now(
        self, database: Database, ledger: LedgerStore
    ) -> None:
        number = settled(ledger, NOW - 40 * DAY)
        assert ledger.correct(number, now_ns=NOW, cost_nano=-400, note="invoice 7")
        assert ledger.sums(*_day()) == Sums(0, 0, -400)
        assert ledger.sums(*_day(NOW - 40 * DAY)) == Sums(1, 15, 1_000)
        rows = database.read(
            lambda tx: tx.execute(
                "SELECT corrects, outcome, note, currency, model FROM entries WHERE id = 2"
            ).fetchall()
        )
        assert rows == [(number, "corrected", "invoice 7", "USD", "mock")]

    async def test_what_is_not_there_or_is_a_correction_cannot_be_corrected(
        self, ledger: LedgerStore
    ) -> None:
        number = settled(ledger)
        assert ledger.correct(number, now_ns=NOW, cost_nano=-1, note="")
        for other in (number + 1, 99):
            assert not ledger.correct(other, now_ns=NOW, cost_nano=-1, note="")
        assert ledger.sums(*_day()).cost_nano == 999
        assert settled(ledger) > number


async def test_one_tenants_ledger_holds_nothing_of_anothers(tmp_path: Path) -> None:
    stores = [await LedgerStore.open(directory(tmp_path / name)) for name in ("a", "b")]
    settled(stores[0])
    assert stores[1].sums(*_day()) == Sums(0, 0, 0)
    assert await stores[1].recent(0, 2**62) == []
    for store in stores:
        await store.close()


async def test_a_copy_made_in_the_middle_of_it_all_opens(tmp_path: Path) -> None:
    ledger = await LedgerStore.open(directory(tmp_path / "live"))
    settled(ledger)
    number = reserve(ledger)
    shutil.copytree(tmp_path / "live", tmp_path / "copy")
    await ledger.close()
    copy = await LedgerStore.open(directory(tmp_path / "copy"))
    assert [left.id for left in copy.left_open()] == [number]
    assert copy.sums(*_day()).calls == 1
    await copy.close()


def _day(moment_ns: int = NOW) -> tuple[int, int]:
    day = day_of(moment_ns)
    return day.start_ns, day.end_ns
