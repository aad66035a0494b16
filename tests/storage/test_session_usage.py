"""Sums over one tenant's ledger and sessions, read beside whoever has them open."""

from pathlib import Path

import pytest

from appliance.model.errors import InvalidRequest, TenantBroken
from appliance.model.periods import DAY, to_ns
from appliance.storage import session_usage
from appliance.storage.session_usage import read_calls, read_said, read_session_calls
from tests.books import NOON, directory
from tests.fakes.sessions import key, open_sessions

START = to_ns(NOON) - DAY
END = to_ns(NOON) + DAY


async def test_where_there_are_no_files_nothing_was_used(tmp_path: Path) -> None:
    with directory(tmp_path / "tenant") as root:
        assert await read_session_calls(root, START, END, currency="USD") == []
        assert await read_calls(root, "x", START, currency="USD") == []
        assert await read_said(root, START, END) == []


async def test_what_was_said_is_counted_by_session_day_and_role(tmp_path: Path) -> None:
    async with open_sessions(tmp_path) as bench:
        bench.say(key("a"))
        bench.say(key("a"))
        bench.store.reset(key("a"), reason="reset", now=bench.clock())
        bench.say(key("a"))
        said = await read_said(bench.tenant.root, START, END)
        assert {(row.session, row.role): row.messages for row in said} == {
            (key("a").short, "user"): 3,
            (key("a").short, "assistant"): 3,
        }


async def test_too_many_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_sessions(tmp_path) as bench:
        for number in range(3):
            bench.say(key(f"n{number}"))
        monkeypatch.setattr(session_usage, "MOST_ROWS", 5)
        with pytest.raises(InvalidRequest, match="more than 5 rows"):
            await read_said(bench.tenant.root, START, END)


async def test_a_damaged_file_is_reported(tmp_path: Path) -> None:
    with directory(tmp_path / "tenant") as root:
        (tmp_path / "tenant" / "sessions").mkdir()
        (tmp_path / "tenant" / "sessions" / "sessions.sqlite").write_bytes(b"no database" * 100)
        with pytest.raises(TenantBroken):
            await read_said(root, START, END)
