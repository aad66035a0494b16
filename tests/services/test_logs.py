import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.log import LineWriter, configure, log_context
from appliance.services.logs import LogBook, for_tenant

NOW = 1_795_262_400.125  # 2026-11-21T12:00:00.125Z
BEGIN = int(NOW * 1000) * 1000


class Book(LogBook):
    """Written to as the log writes, without a log."""

    def __init__(self, **limits: int) -> None:
        self.now = NOW
        super().__init__(clock=lambda: self.now, **limits)

    def note(
        self,
        event: str,
        tenant: str | None = None,
        ts: str = "2026-11-21T12:00:00.125Z",
        **more: Any,
    ) -> int:
        record = {"ts": ts, "event": event, **more}
        if tenant is not None:
            record["tenant"] = tenant
        line = msgspec.json.encode(record) + b"\n"
        self.take(record, line)
        return len(line)

    def events(self, tenant: str | None, **wanted: Any) -> list[str]:
        return [msgspec.json.decode(line)["event"] for line in self.tail(tenant, **wanted).lines]


def test_a_tenant_sees_its_own_lines_and_the_operator_all() -> None:
    book = Book()
    book.note("one", "acme")
    book.note("two", "globex")
    book.note("three")

    assert book.events("acme") == ["one"]
    assert book.events("globex") == ["two"]
    assert book.events(None) == ["one", "two", "three"]
    assert book.tail("acme").file == "tenant:acme.log"
    assert book.tail(None).file == "gateway.log"


def test_a_cursor_goes_on_where_the_answer_before_ended() -> None:
    book = Book()
    size = book.note("one", "acme")
    first = book.tail("acme")
    book.note("two", "acme")

    assert first.cursor == first.size == BEGIN + size
    assert book.events("acme", cursor=first.cursor) == ["two"]
    assert not book.tail("acme", cursor=first.cursor).reset
    assert book.events("acme", cursor=book.tail("acme").cursor) == []


@pytest.mark.parametrize("cursor", [0, 17, BEGIN - 1, BEGIN + 10_000])
def test_a_cursor_of_another_life_begins_anew(cursor: int) -> None:
    book = Book()
    book.note("one", "acme")
    tail = book.tail("acme", cursor=cursor)

    assert tail.reset
    assert len(tail.lines) == 1


def test_a_cursor_whose_lines_dropped_out_begins_anew() -> None:
    book = Book(tenant_bytes=200)
    book.note("early", "acme")
    cursor = book.tail("acme").cursor
    for _ in range(20):
        book.note("later", "acme")
    tail = book.tail("acme", cursor=cursor)

    assert tail.reset
    assert tail.truncated
    assert sum(len(line) + 1 for line in tail.lines) <= 200


def test_the_newest_lines_win_where_not_all_fit() -> None:
    book = Book()
    size = 0
    for number in range(5):
        size = book.note(f"line {number}", "acme")

    assert book.events("acme", limit=2) == ["line 3", "line 4"]
    assert book.tail("acme", limit=2).truncated
    assert book.events("acme", max_bytes=3 * size) == ["line 2", "line 3", "line 4"]
    assert book.tail("acme", max_bytes=size - 1).lines == []
    assert not book.tail("acme").truncated


def test_who_logs_nothing_has_an_empty_log_that_can_be_followed() -> None:
    book = Book()
    tail = book.tail("acme")
    book.now += 5
    again = book.tail("acme", cursor=tail.cursor)

    assert (tail.lines, tail.reset, again.reset) == ([], False, False)
    book.note("one", "acme")
    assert book.events("acme", cursor=again.cursor) == ["one"]


def test_a_tenant_that_has_an_old_id_does_not_see_the_old_lines() -> None:
    book = Book()
    book.note("of the first", "acme", ts="2026-11-21T11:59:59.999Z")
    created = datetime(2026, 11, 21, 12, 0, 0, 125_900, tzinfo=UTC)
    book.note("of the second", "acme")

    assert book.events("acme", since=created) == ["of the second"]


def test_memory_is_bounded_whoever_logs() -> None:
    book = Book(most_tenants=3)
    for number in range(6):
        book.note("hello", f"t{number}")
        book.note("and again", "t0")

    assert book.events("t1") == []
    assert book.events("t0")[-1] == "and again"
    assert len(book._tenants) == 3
    assert book._tenants_held == sum(ring.held for ring in book._tenants.values())


def test_all_tenants_together_are_bounded_too() -> None:
    book = Book(all_tenants_bytes=1000)
    for number in range(50):
        book.note("x" * 100, f"t{number}")

    assert book._tenants_held <= 1000
    assert book.events("t49") == ["x" * 100]


def test_a_tenant_is_shown_nothing_of_the_host() -> None:
    line = msgspec.json.encode(
        {
            "ts": "2026-11-21T12:00:00.125Z",
            "event": "cannot read '/var/lib/openclawmu/tenants/acme/config.yaml'",
            "logger": "appliance.tenants",
            "tenant": "acme",
            "traceback": 'File "/usr/lib/python3/x.py"',
            "nested": {"where": ["/srv/data", 7]},
            "url": "https://models.example/v1/chat",
            "session": "tenant:acme:agent:main:room",
            "other": "tenant:globex:agent:main:room",
        }
    )
    shown = msgspec.json.decode(for_tenant(line, "acme"))

    assert shown == {
        "ts": "2026-11-21T12:00:00.125Z",
        "event": "cannot read '[path]'",
        "tenant": "acme",
        "nested": {"where": ["[path]", 7]},
        "url": "https://models.example/v1/chat",
        "session": "tenant:acme:agent:main:room",
        "other": "tenant:[other]:agent:main:room",
    }


def test_the_log_feeds_the_book(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "stderr", os.O_RDWR | os.O_CREAT)
    root, ours = logging.getLogger(), logging.getLogger("appliance")
    before = (root.level, ours.level, list(root.handlers))
    book = LogBook()
    try:
        writer = configure(json=False, fd=fd)
        writer.listen(book.take)
        with log_context(tenant="acme"):
            try:
                raise OSError("/etc/secret is not there")
            except OSError:
                logging.getLogger("appliance.test").exception("it broke at /srv/x")
            writer.write("request", path="/v1/models", status=200)
        writer.write("request", path="/healthz", tenant=None)
    finally:
        root.setLevel(before[0])
        ours.setLevel(before[1])
        root.handlers[:] = before[2]
        os.close(fd)

    broke, request = (msgspec.json.decode(line) for line in book.tail("acme").lines)
    assert broke["event"] == "it broke at [path]"
    assert "traceback" not in broke
    assert (request["path"], request["status"]) == ("/v1/models", 200)
    assert "traceback" in book.tail(None).lines[0]
    assert len(book.tail(None).lines) == 3


def test_a_line_is_cheap_to_keep(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "stderr", os.O_RDWR | os.O_CREAT)
    writer = LineWriter(fd, limit_bytes=0)  # the descriptor is not what is looked at
    book = LogBook()
    writer.listen(book.take)
    for _ in range(20_000):
        writer.write("request", tenant="acme", path="/v1/models", status=200)
    os.close(fd)

    held = sum(len(line) + 1 for line in book.tail("acme", limit=5000, max_bytes=10**6).lines)
    assert 200 * 1024 < held <= 256 * 1024
