"""Sandboxes in the ledger: time and bytes in the reports, and no requests anywhere."""

from pathlib import Path

import apsw
import pytest

from appliance.model.periods import HOUR, to_ns
from appliance.storage.ledger import FILE, LedgerStore
from appliance.storage.ledger_schema import SCHEMA
from appliance.storage.migrations import Schema, new_database
from appliance.storage.sandbox_entries import SandboxEntry
from appliance.storage.usage import Granularity, GroupBy, UsageRow, read_usage
from tests.books import NOON, directory, spend

NOW = to_ns(NOON)


def used(ts_ns: int = NOW, *, purpose: str = "exec", wall: int = 2000) -> SandboxEntry:
    return SandboxEntry(
        ts_ns=ts_ns,
        settled_ns=ts_ns + 5,
        run_id="r1",
        purpose=purpose,
        agent="main",
        session=None,
        token_id="tok_1",
        sandbox_ms=wall,
        cpu_ms=wall // 4,
        peak_memory_bytes=None,
        egress_bytes=7,
        outcome="ok",
    )


async def read(path: Path, group_by: GroupBy | None = None) -> list[UsageRow]:
    return await read_usage(
        directory(path), 0, 2**62, granularity=Granularity.MONTH, group_by=group_by
    )


async def test_their_time_is_reported_beside_requests_and_is_none(tmp_path: Path) -> None:
    ledger = await LedgerStore.open(directory(tmp_path))
    ledger.reserve(NOW, spend(), input_tokens=1, output_tokens=1, cost_nano=1)
    for entry in (used(), used(purpose="terminal", wall=8000)):
        ledger.record_sandbox(entry, currency="USD")

    by_kind = {row.group: row for row in await read(tmp_path, GroupBy.KIND)}
    by_model = {row.group: row for row in await read(tmp_path, GroupBy.MODEL)}
    sandbox = by_kind["sandbox"]
    assert (sandbox.requests, sandbox.unpriced_requests, sandbox.cost_nano) == (0, 0, 0)
    assert (sandbox.sandbox_ms, sandbox.sandbox_cpu_ms) == (10_000, 2_500)
    assert by_model["sandbox/terminal"].sandbox_ms == 8000
    await ledger.close()


@pytest.mark.parametrize("folds", [False, True])
async def test_they_count_as_no_calls_folded_or_not(tmp_path: Path, folds: bool) -> None:  # noqa: FBT001 - a case
    ledger = await LedgerStore.open(directory(tmp_path))
    ledger.record_sandbox(used(), currency="USD")
    if folds:
        ledger.fold(None)

    day = NOW - NOW % (24 * HOUR)
    assert ledger.sums(day, day + 24 * HOUR).calls == 0
    assert await ledger.recent(NOW - HOUR, NOW + HOUR) == []
    assert ledger.left_open() == []
    await ledger.close()


async def test_ids_go_on_among_calls(tmp_path: Path) -> None:
    ledger = await LedgerStore.open(directory(tmp_path))
    ledger.record_sandbox(used(), currency="USD")
    number = ledger.reserve(NOW, spend(), input_tokens=1, output_tokens=1, cost_nano=1)
    ledger.record_sandbox(used(), currency="USD")
    await ledger.close()

    again = await LedgerStore.open(directory(tmp_path))
    following = again.reserve(NOW, spend(), input_tokens=1, output_tokens=1, cost_nano=1)
    assert (number, following) == (2, 4)
    await again.close()


async def test_a_ledger_that_was_not_opened_since_the_upgrade_is_read(tmp_path: Path) -> None:
    older = Schema(SCHEMA.kind, SCHEMA.steps[:1])
    (tmp_path / "ledger").mkdir()
    (tmp_path / FILE).write_bytes(new_database(older))
    connection = apsw.Connection(str(tmp_path / FILE))
    connection.execute(
        "INSERT INTO entries VALUES (1, ?, ?, 'r', 'chat', 'm', 'stub', 'm', NULL, NULL, NULL,"
        " NULL, NULL, 1, 2, 0, 0, 0, 0, 30, 5, 'USD', NULL, 0, 'ok', NULL, NULL, NULL)",
        (NOW, NOW),
    )
    connection.close()

    (row,) = await read(tmp_path)
    assert (row.requests, row.sandbox_ms, row.sandbox_cpu_ms) == (1, 30, 0)
