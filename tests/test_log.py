import json
import logging
import os
import pty
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from appliance import log as log_module
from appliance.log import (
    FLUSH_INTERVAL,
    LONGEST_LINE,
    LineWriter,
    configure,
    log_context,
    redact,
    set_level,
)

NOW = 1_795_262_400.125  # 2026-11-21T12:00:00.125Z
SECRET = "A" * 43


class Sink:
    """A file that stands for stderr."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)

    @property
    def text(self) -> str:
        return os.pread(self.fd, 10_000_000, 0).decode()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    sink = Sink(tmp_path / "stderr")
    yield sink
    os.close(sink.fd)


@pytest.fixture
def writer(sink: Sink) -> LineWriter:
    return LineWriter(sink.fd, clock=lambda: NOW)


@pytest.fixture
def stdlib(sink: Sink) -> Iterator[logging.Logger]:
    """The standard logging, sent to the sink as ``serve`` sends it to stderr."""
    root, ours = logging.getLogger(), logging.getLogger("appliance")
    before = (root.level, ours.level, list(root.handlers))
    configure(json=True, level="info", fd=sink.fd)
    yield logging.getLogger("appliance.test")
    root.setLevel(before[0])
    ours.setLevel(before[1])
    root.handlers[:] = before[2]


def test_a_line_is_one_json_object_with_time_level_and_event(
    writer: LineWriter, sink: Sink
) -> None:
    writer.write("request", tenant="acme", status=200, ms=1.25, error=None)
    assert sink.text == (
        '{"ts":"2026-11-21T12:00:00.125Z","level":"info","event":"request",'
        '"tenant":"acme","status":200,"ms":1.25,"error":null}\n'
    )


def test_lines_carry_the_context_of_their_task(writer: LineWriter, sink: Sink) -> None:
    with log_context(tenant="acme", request_id="r1"):
        writer.write("one")
        with log_context(session="s", request_id="r2"):
            writer.write("two")
        writer.write("three", tenant="named")
    writer.write("four")
    kept = [
        {key: line[key] for key in line if key not in {"ts", "level", "event"}}
        for line in sink.lines
    ]
    assert kept == [
        {"tenant": "acme", "request_id": "r1"},
        {"tenant": "acme", "request_id": "r2", "session": "s"},
        {"tenant": "named", "request_id": "r1"},
        {},
    ]


async def test_a_task_has_the_context_of_whoever_started_it_and_changes_only_its_own(
    writer: LineWriter, sink: Sink
) -> None:
    async def task() -> None:
        writer.write("child")
        with log_context(tenant="other"):
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        with log_context(tenant="acme"):
            nursery.start_soon(task)
        await trio.lowlevel.checkpoint()
        writer.write("parent")
    assert {line["event"]: line.get("tenant") for line in sink.lines} == {
        "child": "acme",
        "parent": None,
    }


def test_the_standard_logging_takes_the_same_way(stdlib: logging.Logger, sink: Sink) -> None:
    with log_context(tenant="acme"):
        stdlib.info("ready for %s", "work", extra={"binds": ["127.0.0.1:1"], "count": 2})
    (line,) = sink.lines
    del line["ts"]
    assert line == {
        "level": "info",
        "event": "ready for work",
        "tenant": "acme",
        "binds": ["127.0.0.1:1"],
        "count": 2,
        "logger": "appliance.test",
    }


def test_a_traceback_comes_along_and_is_bounded(stdlib: logging.Logger, sink: Sink) -> None:
    try:
        raise RuntimeError("x" * 100_000 + f" tenant:acme:{SECRET} the end")
    except RuntimeError:
        stdlib.exception("crashed")
    (line,) = sink.lines
    assert line["level"] == "error"
    assert "the end" in line["traceback"]
    assert SECRET not in line["traceback"]
    assert len(line["traceback"]) < 20_000


def test_arguments_that_do_not_fit_are_logged_all_the_same(writer: LineWriter, sink: Sink) -> None:
    # Not through a logger: pytest's own handler would raise first.
    record = logging.LogRecord("x", logging.INFO, "", 0, "%d of %d", ("one",), None)
    log_module._Handler(writer).emit(record)
    assert sink.lines[0]["event"] == "%d of %d"


def test_libraries_are_heard_from_warnings_upwards(stdlib: logging.Logger, sink: Sink) -> None:
    logging.getLogger("httpx").info("GET https://example.org")
    logging.getLogger("httpx").warning("oh")
    stdlib.debug("too much")
    assert [line["event"] for line in sink.lines] == ["oh"]


def test_the_level_can_be_changed_while_running(sink: Sink, stdlib: logging.Logger) -> None:
    writer = configure(json=True, level="info", fd=sink.fd)
    set_level(writer, "warning")
    stdlib.info("silent")
    writer.write("silent")
    set_level(writer, "debug", access=False)
    stdlib.debug("heard")
    writer.write("silent")
    assert [line["event"] for line in sink.lines] == ["heard"]


def test_configuring_twice_does_not_log_twice(sink: Sink, stdlib: logging.Logger) -> None:
    configure(json=True, fd=sink.fd)
    stdlib.info("once")
    assert len(sink.lines) == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"tenant:acme:{SECRET}", "tenant:acme:[redacted]"),
        ("tenant:constructor:x", "tenant:constructor:[redacted]"),
        (f"TENANT:ACME:{SECRET}", "TENANT:ACME:[redacted]"),
        (f"tenant%3Aacme%3A{SECRET}", "tenant%3Aacme%3A[redacted]"),
        (f"openclaw.bearer.tenant:a:{SECRET}, v1", "openclaw.bearer.tenant:a:[redacted], v1"),
        (f"admin:{SECRET}", "admin:[redacted]"),
        ("admin:p@ss:word!*", "admin:[redacted]"),
        ("admin%3Ap4ssword", "admin%3A[redacted]"),
        ("the key sk-proj-abc_DEF-123456 of", "the key sk-[redacted] of"),
        (f"Authorization: Bearer {SECRET}", "Authorization: Bearer [redacted]"),
        ("BEARER abc.def.ghi", "BEARER [redacted]"),
        ("/login?ticket=abc&next=/chat", "/login?ticket=[redacted]&next=/chat"),
        ("/x?a=1&api_key=abc", "/x?a=1&api_key=[redacted]"),
        ("https://user:pass@example.org/x", "https://[redacted]@example.org/x"),
    ],
)
def test_what_looks_like_a_secret_is_redacted(
    writer: LineWriter, sink: Sink, text: str, shown: str
) -> None:
    writer.write("event", detail=f"before {text} after")
    writer.write(f"event {text}")
    assert [sink.lines[0]["detail"], sink.lines[1]["event"]] == [
        f"before {shown} after",
        f"event {shown}",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "tenant:acme:agent:main:notes",
        "the bearer token is missing",
        "task-1234567890 disk-1234567890",
        "admin:first",
        "https://example.org/a@b",
        "/v1/models?limit=5",
    ],
)
def test_what_is_no_secret_stays(writer: LineWriter, sink: Sink, text: str) -> None:
    writer.write("event", session=text)
    assert sink.lines[0]["session"] == text


def test_fields_named_after_secrets_are_redacted(writer: LineWriter, sink: Sink) -> None:
    writer.write("event", authorization="Basic dXNlcjpwYXNz", api_key="x", password="y", token="id")
    assert sink.lines[0] | {"ts": ""} == {
        "ts": "", "level": "info", "event": "event", "authorization": "[redacted]",
        "api_key": "[redacted]", "password": "[redacted]", "token": "id",
    }  # fmt: skip


_id = st.from_regex(r"\A[a-z0-9][a-z0-9_-]{0,31}\Z")
_secret = st.from_regex(r"\A[A-Za-z0-9_-]{43}\Z")


@pytest.mark.parametrize("json", [True, False])
@given(before=st.text(max_size=30), tenant=_id, secret=_secret, after=st.text(max_size=30))
def test_no_token_survives_in_whatever_text(
    *, json: bool, before: str, tenant: str, secret: str, after: str
) -> None:
    for token in (f"tenant:{tenant}:{secret}", f"admin:{secret}", f"Bearer {secret}"):
        lines = LineWriter(json=json, clock=lambda: NOW)
        line = lines._line({"ts": "t", "level": "info", "event": f"{before}{token} {after}"})
        assert secret.encode() not in line


@pytest.mark.parametrize("before", ["", " ", "\n", "\t", "\x1f", "(", '"', "\\", "=", "é", "a\n"])
def test_a_provider_s_key_is_seen_behind_anything_but_a_letter(
    writer: LineWriter, sink: Sink, before: str
) -> None:
    writer.write(f"{before}sk-ant-api03-abcdefgh")
    assert sink.lines[0]["event"] == f"{before}sk-[redacted]"


@pytest.mark.parametrize("json", [True, False])
@given(secret=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8))
def test_no_admin_key_that_an_operator_chose_survives(*, json: bool, secret: str) -> None:
    lines = LineWriter(json=json)
    line = lines._line({"ts": "t", "level": "info", "event": f"key admin:{secret} end"})
    assert b"key admin:[redacted] end" in line


@given(
    st.text(max_size=60)
    | st.from_regex(r'\A((tenant:a:|admin:|bearer |://|\?key=)["\\\\x\n&;,@ ]*)+\Z')
)
def test_redaction_keeps_a_line_valid(text: str) -> None:
    assert "event" in json.loads(redact(log_module._encoded({"event": text})))


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)


@given(st.text(), st.dictionaries(st.text(), _anything, max_size=4))
def test_whatever_is_logged_is_one_line_of_json(event: str, fields: dict[str, Any]) -> None:
    line = log_module._encoded({"ts": "t", "level": "info", **fields, "event": event})
    assert line.count(b"\n") == 1
    assert isinstance(json.loads(line), dict)


def test_lone_surrogates_and_huge_numbers_are_logged_as_text(
    writer: LineWriter, sink: Sink
) -> None:
    writer.write("event", name="a\ud800b", big=10**40, value=object)
    (line,) = sink.lines
    assert line["name"] == "a\\ud800b"
    assert line["big"] == str(10**40)


def test_a_line_has_a_greatest_length(writer: LineWriter, sink: Sink) -> None:
    writer.write("event", body="x" * 1_000_000)
    writer.write("event", **{f"f{n}": "x" * 4000 for n in range(100)})
    assert all(len(line) <= LONGEST_LINE for line in sink.text.splitlines())
    assert [line["event"] for line in sink.lines] == ["event", "event"]
    assert sink.lines[1]["cut"] is True


def test_people_get_text(sink: Sink) -> None:
    writer = LineWriter(sink.fd, json=False, clock=lambda: NOW)
    writer.write("request", tenant="acme", path="/a b", status=200, session=None)
    assert sink.text == '12:00:00 INFO    request  tenant=acme path="/a b" status=200\n'


def test_text_for_people_obeys_nobody_else(sink: Sink, stdlib: logging.Logger) -> None:
    configure(json=False, fd=sink.fd)
    try:
        raise RuntimeError("\x1b[2J\nforged")
    except RuntimeError:
        stdlib.exception("evil \x1b]0;title\x07\r\nforged", extra={"field": "\x9b31m"})
    assert "\x1b" not in sink.text
    assert "\x9b" not in sink.text
    assert "\r" not in sink.text
    first, *rest = sink.text.splitlines()
    assert "evil \\x1b]0;title\\x07\\r\\nforged" in first
    assert all(line.startswith("    ") for line in rest)


def test_a_terminal_gets_text_and_a_file_gets_json(sink: Sink, stdlib: logging.Logger) -> None:
    configure(fd=sink.fd)
    stdlib.info("to a file")
    assert sink.lines[0]["event"] == "to a file"
    ours, theirs = pty.openpty()
    configure(fd=theirs)
    stdlib.info("to a terminal")
    assert b"INFO    to a terminal" in os.read(ours, 1000)
    os.close(ours)
    os.close(theirs)


async def test_lines_are_collected_for_a_tenth_of_a_second(
    writer: LineWriter, sink: Sink, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    await nursery.start(writer.flush_forever)
    await trio.sleep(3600)  # with nothing to write it does not wake up
    began = trio.current_time()
    for n in range(3):
        writer.write("event", n=n)
    assert sink.text == ""
    await _until(lambda: bool(sink.text))
    assert trio.current_time() - began >= FLUSH_INTERVAL
    assert [line["n"] for line in sink.lines] == [0, 1, 2]


async def test_much_is_written_sooner(
    writer: LineWriter, sink: Sink, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    await nursery.start(writer.flush_forever)
    for n in range(2000):
        writer.write("event", n=n)
    while sink.text.count("\n") < 2000:  # the clock stands still
        await trio.lowlevel.checkpoint()


async def test_a_line_from_a_thread_wakes_the_flusher(
    writer: LineWriter, sink: Sink, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    await nursery.start(writer.flush_forever)
    await trio.to_thread.run_sync(lambda: writer.write("from a thread"))
    await _until(lambda: bool(sink.text))
    assert sink.lines[0]["event"] == "from a thread"


async def test_what_is_waiting_is_written_at_the_end(writer: LineWriter, sink: Sink) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(writer.flush_forever)
        writer.write("last words")
        nursery.cancel_scope.cancel()
    assert [line["event"] for line in sink.lines] == ["last words"]
    writer.write("after the end")
    assert len(sink.lines) == 2


async def test_a_reader_that_does_not_read_stops_nobody_and_costs_a_bounded_buffer(
    nursery: trio.Nursery,
) -> None:
    reading, writing = os.pipe()
    writer = LineWriter(writing, limit_bytes=300_000)
    await nursery.start(writer.flush_forever)
    for round_ in range(20):
        for n in range(500):
            writer.write("event", round=round_, n=n, text="x" * 200)
        await trio.sleep(0.01)  # real: a real pipe fills up in a real thread
    assert writer._bytes <= 300_000
    assert writer._dropped > 1000
    data = await trio.to_thread.run_sync(_drain, reading, writer)
    lines = [json.loads(line) for line in data.splitlines()]
    lost = [line for line in lines if line["event"] == "log lines were dropped"]
    kept = [line for line in lines if line["event"] == "event"]
    assert lost[0]["level"] == "warning"
    assert len(kept) + sum(line["count"] for line in lost) == 10_000
    assert kept == sorted(kept, key=lambda line: (line["round"], line["n"]))
    nursery.cancel_scope.cancel()
    os.close(reading)


def _drain(fd: int, writer: LineWriter) -> bytes:
    """All that comes until the writer has nothing more to say."""
    data = b""
    os.set_blocking(fd, False)
    readable = select.poll()
    readable.register(fd, select.POLLIN)
    while True:
        # Asked before the look: what is written after it is found by the next look.
        is_over = not (writer._lines or writer._dropped or writer._writing.locked())
        if readable.poll(50):  # milliseconds
            data += os.read(fd, 1_000_000)
        elif is_over:
            return data


def test_a_process_with_a_stuck_reader_still_ends() -> None:
    script = (
        "import trio; from appliance.log import LineWriter\n"
        "async def main():\n"
        "    writer = LineWriter(2)\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        await nursery.start(writer.flush_forever)\n"
        "        for _ in range(5000): writer.write('event', text='x' * 100)\n"
        "        await trio.sleep(0.3)\n"
        "        nursery.cancel_scope.cancel()\n"
        "    writer.write('after the end')\n"
        "trio.run(main)\n"
    )
    reading, writing = os.pipe()
    result = subprocess.run([sys.executable, "-c", script], stderr=writing, check=False, timeout=20)
    assert result.returncode == 0
    os.close(reading)
    os.close(writing)


def test_a_reader_that_has_gone_is_no_failure_and_is_counted() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    writer = LineWriter(writing)
    writer.write("lost")
    writer.write("lost")
    assert writer._dropped >= 1
    os.close(writing)
    writer.write("lost too")


def test_a_descriptor_that_somebody_made_non_blocking_gets_everything() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    data = b""

    def drain() -> None:
        nonlocal data
        while not data.endswith(b"}\n"):
            data += os.read(reading, 10_000)

    thread = threading.Thread(target=drain)
    writer = LineWriter(writing)
    alarm = writer._alarm = _Silent()  # type: ignore[assignment] # as if the flusher were running
    for _ in range(600):
        writer.write("event", text="x" * 200)
    assert alarm is not None
    thread.start()
    writer.flush()
    os.close(writing)
    thread.join()
    os.close(reading)
    assert data.count(b"\n") == 600


class _Silent:
    def ring(self, *, plenty: bool) -> None:
        pass


async def _until(condition: Callable[[], bool]) -> None:
    """Let (virtual) time pass until a real thread has done its work."""
    while not condition():  # noqa: ASYNC110 - a file tells nobody that it has grown
        await trio.sleep(0.01)


async def test_lines_of_many_threads_stay_whole(writer: LineWriter, sink: Sink) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(writer.flush_forever)

        def work(name: int) -> None:
            for n in range(200):
                writer.put("info", "event", {"thread": name, "n": n})

        async with trio.open_nursery() as threads:
            for name in range(8):
                threads.start_soon(trio.to_thread.run_sync, work, name)
        nursery.cancel_scope.cancel()
    assert len(sink.lines) == 1600
    for name in range(8):
        assert [line["n"] for line in sink.lines if line["thread"] == name] == list(range(200))


@pytest.mark.parametrize("json", [True, False])
def test_a_listener_is_told_each_line_as_json_and_without_secrets(
    sink: Sink, *, json: bool
) -> None:
    heard: list[tuple[str, bytes]] = []
    writer = LineWriter(sink.fd, json=json, clock=lambda: NOW)
    writer.listen(lambda record, line: heard.append((record["event"], line)))
    with log_context(tenant="acme"):
        writer.write("request", token=f"tenant:acme:{SECRET}")

    ((event, line),) = heard
    assert event == "request"
    assert line.startswith(b'{"ts":"2026-11-21T12:00:00.125Z","level":"info",')
    assert b'"tenant":"acme"' in line
    assert SECRET.encode() not in line


def test_a_listener_hears_nothing_of_requests_that_are_not_logged(sink: Sink) -> None:
    heard: list[bytes] = []
    writer = LineWriter(sink.fd, access=False)
    writer.listen(lambda record, line: heard.append(line))
    writer.write("request")

    assert heard == []
