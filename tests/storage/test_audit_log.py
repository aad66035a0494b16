"""The audit log on disk: a chain that shows whatever is done to it."""

import errno
import gzip
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.model.audit import GENESIS, Actor, AuditEntry, Result
from appliance.model.callers import ActorKind
from appliance.model.errors import DiskFull
from appliance.storage import audit_log
from appliance.storage.audit_chain import verify_state
from appliance.storage.audit_log import HEAD_FILE, REPAIRED, AuditLog, parse_line, render_line
from appliance.storage.state import StateDirectory

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def draft(number: int = 0, *, tenant: str | None = "acme", **details: str | int) -> AuditEntry:
    return AuditEntry(
        ts=NOW + timedelta(seconds=number, microseconds=number),
        seq=0,
        actor=Actor(ActorKind.ADMIN, "first"),
        tenant=tenant,
        action="tenant.create",
        target=f"té\u4e2dst {number}",
        result=Result.OK,
        ip="192.0.2.1",
        request_id=f"req_{number}",
        details={"z": 1, "a": {"y": True, "b": None}, **details},
    )


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    with StateDirectory.open(tmp_path / "state") as state:
        yield state


@pytest.fixture
def log(state: StateDirectory) -> Iterator[AuditLog]:
    log = open_log(state)
    yield log
    log.close()


def open_log(state: StateDirectory) -> AuditLog:
    return AuditLog(state, clock=lambda: NOW)


def path(state: StateDirectory) -> Path:
    return state.path / "audit.log"


def lines(state: StateDirectory) -> list[bytes]:
    return path(state).read_bytes().splitlines(keepends=True)


def problems(state: StateDirectory) -> list[str]:
    return [str(finding) for finding in verify_state(state).findings]


def test_a_line_reads_like_this_for_ever(log: AuditLog, state: StateDirectory) -> None:
    log.append([draft()])

    assert lines(state) == [
        b'{"ts":"2026-11-21T12:00:00Z","seq":1,"actor":{"kind":"admin","id":"first"},'
        b'"tenant":"acme","action":"tenant.create","target":"t\xc3\xa9\xe4\xb8\xadst 0",'
        b'"result":"ok","ip":"192.0.2.1","request_id":"req_0",'
        b'"details":{"a":{"b":null,"y":true},"z":1},"prev":"' + b"0" * 64 + b'",'
        b'"hash":"aa1a627d14a023d6214bc3c86cb5b539dda699be149d58fd5842115775c5f0e0"}\n'
    ]
    assert path(state).stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_anybody_can_check_a_line_with_jq_and_sha256sum(
    log: AuditLog, state: StateDirectory
) -> None:
    log.append([draft(1), draft(2, quote='"\\/<>&')])

    for line in lines(state):
        command = "jq -cjS 'del(.hash)' | sha256sum"
        shown = subprocess.run(["sh", "-c", command], input=line, capture_output=True, check=True)
        assert shown.stdout.split()[0].decode() == json.loads(line)["hash"]


def test_the_chain_starts_at_nothing_and_goes_on(log: AuditLog, state: StateDirectory) -> None:
    first, second = log.append([draft(1), draft(2)])
    (third,) = log.append([draft(3)])

    assert [first.seq, second.seq, third.seq] == [1, 2, 3]
    assert [first.prev, second.prev, third.prev] == [GENESIS, first.hash, second.hash]
    found = verify_state(state)
    assert found.is_intact
    assert (found.lines, found.first, found.head.seq) == (3, 1, 3)
    assert found.notes == []


def test_it_goes_on_where_it_ended(state: StateDirectory) -> None:
    for number in range(3):
        log = open_log(state)
        log.append([draft(number)])
        log.close()

    assert verify_state(state).is_intact
    assert verify_state(state).head.seq == 3


def test_an_empty_state_directory_is_intact(state: StateDirectory) -> None:
    found = verify_state(state)

    assert found.is_intact
    assert found.lines == 0


def test_a_change_of_whatever_byte_is_found(log: AuditLog, state: StateDirectory) -> None:
    log.append([draft(number) for number in range(3)])
    good = path(state).read_bytes()

    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1
        path(state).write_bytes(bad)
        assert problems(state), position


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_lines_are_cut_doubled_or_moved_it_is_found(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with StateDirectory.open(tmp_path_factory.mktemp("state") / "s") as state:
        log = open_log(state)
        log.append([draft(number) for number in range(5)])
        log.close()
        good = lines(state)
        order = data.draw(st.lists(st.integers(0, 4), max_size=6))
        if order == [0, 1, 2, 3, 4]:
            return
        path(state).write_bytes(b"".join(good[number] for number in order))

        found = verify_state(state)

    # All that is left of a log may begin later (older files are removed in
    # time), which is a note; anything else is a finding.
    if order and order == list(range(order[0], 5)):
        assert found.is_intact
        assert found.notes == [f"lines before {order[0] + 1} are in no file given"]
    else:
        assert found.findings


@pytest.mark.parametrize(
    ("tamper", "finding"),
    [
        (lambda ls: ls[:1] + ls[2:], "audit.log:2: line 2 is missing"),
        (lambda ls: [*ls[:1], *ls[3:]], "audit.log:2: lines 2 to 3 are missing"),
        (lambda ls: [ls[0], ls[2], ls[1], ls[3]], "audit.log:2: line 2 is missing"),
        (lambda ls: ls[:2], "(end):0: lines 3 to 4 are cut off at the end"),
        (lambda _: [], "(end):0: lines 1 to 4 are cut off at the end"),
        (lambda ls: [*ls, ls[3]], "audit.log:5: line 4 is out of order"),
        (lambda ls: [*ls[:3], b"garbage\n", ls[3]], "audit.log:4: this is not a line"),
        (
            lambda ls: [ls[0].replace(b'"ok"', b'"denied"'), *ls[1:]],
            "audit.log:1: line 1 was changed",
        ),
        (lambda ls: [ls[0].replace(b",", b", ", 1), *ls[1:]], "audit.log:1: this is not a line"),
    ],
)
def test_the_finding_says_what_and_where(
    log: AuditLog,
    state: StateDirectory,
    tamper: Callable[[list[bytes]], list[bytes]],
    finding: str,
) -> None:
    log.append([draft(number) for number in range(4)])

    path(state).write_bytes(b"".join(tamper(lines(state))))

    assert any(found.startswith(finding) for found in problems(state)), problems(state)


def test_an_end_that_was_written_anew_is_found(log: AuditLog, state: StateDirectory) -> None:
    log.append([draft(1), draft(2)])
    with StateDirectory.open(state.path.parent / "forger") as forger:
        forged = open_log(forger)
        forged.append([draft(1), draft(2, forged="yes")])
        forged.close()
        path(state).write_bytes(path(forger).read_bytes())

    assert problems(state) == ["audit.log:2: line 2 is not the one that was written"]


def test_without_the_note_a_check_says_what_it_cannot_know(
    log: AuditLog, state: StateDirectory
) -> None:
    log.append([draft()])
    state.unlink(HEAD_FILE)

    found = verify_state(state)

    assert found.is_intact
    assert found.notes == ["no note of the last line: a cut at the end would not show"]


def test_a_note_that_lags_behind_after_a_power_cut_does_no_harm(state: StateDirectory) -> None:
    log = open_log(state)
    log.append([draft(1)])
    lagging = state.read_bytes(HEAD_FILE, limit=1000)
    log.append([draft(2)])
    log.close()
    state.write_atomic(HEAD_FILE, lagging)

    assert verify_state(state).is_intact
    again = open_log(state)
    again.append([draft(3)])
    again.close()
    assert verify_state(state).is_intact
    assert verify_state(state).lines == 3


def test_an_end_cut_off_while_we_were_down_stays_visible(state: StateDirectory) -> None:
    log = open_log(state)
    log.append([draft(number) for number in range(3)])
    log.close()
    path(state).write_bytes(b"".join(lines(state)[:1]))

    again = open_log(state)
    again.append([draft(4)])
    again.close()

    assert problems(state) == ["audit.log:2: lines 2 to 3 are missing"]


@pytest.mark.parametrize("how", ["moved", "copied and truncated"])
@pytest.mark.parametrize("running", [True, False])
def test_the_chain_goes_on_in_the_next_file(
    state: StateDirectory, how: str, *, running: bool
) -> None:
    log = open_log(state)
    log.append([draft(1), draft(2)])
    if not running:
        log.close()
    if how == "moved":
        path(state).rename(state.path / "audit.log.1")
    else:
        shutil.copy(path(state), state.path / "audit.log.1")
        os.truncate(path(state), 0)
    if not running:
        log = open_log(state)

    log.append([draft(3)])
    log.close()

    found = verify_state(state)
    assert found.is_intact
    assert (found.first, found.head.seq) == (1, 3)
    assert len(lines(state)) == 1


def test_reopening_goes_to_whatever_file_has_the_name(log: AuditLog, state: StateDirectory) -> None:
    log.append([draft(1)])
    path(state).rename(state.path / "audit.log.1")
    path(state).touch(0o600)
    log.reopen()

    log.append([draft(2)])

    assert len(lines(state)) == 1
    assert verify_state(state).is_intact


def test_compressed_files_are_part_of_the_chain(log: AuditLog, state: StateDirectory) -> None:
    for number in range(4):
        log.append([draft(number)])
        data = path(state).read_bytes()
        (state.path / f"audit.log.{9 - number}.gz").write_bytes(gzip.compress(data))
        path(state).unlink()
    log.append([draft(9)])

    found = verify_state(state)
    assert found.is_intact
    assert found.lines == 5

    (state.path / "audit.log.9.gz").write_bytes(b"\x1f\x8bnot")
    assert any("audit.log.9.gz" in problem for problem in problems(state))
    (state.path / "audit.log.9.gz").unlink()
    (state.path / "audit.log.7.gz").unlink()
    assert problems(state) == ["audit.log.6.gz:1: line 3 is missing"]


def test_a_line_torn_by_a_crash_is_kept_marked_and_explained(state: StateDirectory) -> None:
    log = open_log(state)
    log.append([draft(1), draft(2)])
    log.close()
    whole = path(state).read_bytes()
    second = len(lines(state)[0])
    head = audit_log.Head(1, parse_line(lines(state)[0][:-1]).hash)
    for cut in (second + 1, second + 50, len(whole) - 2):
        path(state).write_bytes(whole[:cut])
        state.write_atomic(HEAD_FILE, head.render())
        assert verify_state(state).is_intact, "a line that is being written is no damage"
        assert verify_state(state).notes == ["audit.log: the last line is not finished"]

        again = open_log(state)
        again.append([draft(3)])
        again.close()

        found = verify_state(state)
        assert found.is_intact
        _, torn, repaired, third = lines(state)
        assert torn == whole[second:cut] + b"\n"
        assert parse_line(repaired[:-1]).action == REPAIRED
        assert parse_line(third[:-1]).seq == 3


def test_a_line_that_lacks_its_break_alone_is_completed(state: StateDirectory) -> None:
    log = open_log(state)
    log.append([draft(1), draft(2)])
    log.close()
    os.truncate(path(state), path(state).stat().st_size - 1)

    again = open_log(state)
    again.append([draft(3)])
    again.close()

    found = verify_state(state)
    assert found.is_intact
    assert found.lines == 3


def test_only_the_very_line_that_was_torn_is_explained(state: StateDirectory) -> None:
    log = open_log(state)
    log.append([draft(1)])
    log.close()
    with path(state).open("ab") as file:
        file.write(b'{"torn')
    again = open_log(state)
    again.append([draft(2)])
    again.close()
    assert verify_state(state).is_intact

    path(state).write_bytes(path(state).read_bytes().replace(b'{"torn', b'{"TORN'))

    assert problems(state) == ["audit.log:2: this is not a line as it was written"]


class FullDisk:
    """Writes a part, then fails, as a disk does that fills up."""

    def __init__(self, after: int) -> None:
        self.after = after
        self._write = os.write

    def __call__(self, fd: int, data: bytes) -> int:
        if self.after <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._write(fd, data[: self.after])
        self.after -= written
        return written


@pytest.mark.parametrize("after", [0, 1, 300, 700])
def test_on_a_full_disk_nothing_is_written_and_nothing_is_lost(
    log: AuditLog, state: StateDirectory, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    log.append([draft(1)])
    before = path(state).read_bytes()

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", FullDisk(after))
        with pytest.raises(DiskFull):
            log.append([draft(2), draft(3)])
    assert path(state).read_bytes() == before

    log.append([draft(4)])
    assert verify_state(state).is_intact
    assert verify_state(state).lines == 2


def test_a_failed_sync_counts_as_not_written(
    log: AuditLog, state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append([draft(1)])

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="Input/output"):
            log.append([draft(2)])

    log.append([draft(3)])
    found = verify_state(state)
    assert found.is_intact
    assert found.lines == 2


def test_a_link_in_the_place_of_the_log_is_not_followed(state: StateDirectory) -> None:
    elsewhere = state.path / "elsewhere"
    elsewhere.write_text("")
    path(state).symlink_to(elsewhere)
    log = open_log(state)

    with pytest.raises(Exception, match="link"):
        log.append([draft()])

    assert elsewhere.read_text() == ""


def test_details_that_no_line_can_hold_are_left_out(log: AuditLog, state: StateDirectory) -> None:
    (entry,) = log.append([draft(1, long="x" * 40_000)])

    assert entry.details == {"omitted": "more than a line may hold"}
    assert verify_state(state).is_intact


def test_the_tail_is_newest_first_by_tenant_and_page(log: AuditLog) -> None:
    names = ["acme", None, "other", "acme", "acme"]
    log.append([draft(number, tenant=name) for number, name in enumerate(names, start=1)])

    def seqs(**wanted: object) -> list[int]:
        query = {"limit": 10, "tenant": None, "before": None, **wanted}
        return [entry.seq for entry in log.tail(**query)]  # type: ignore[arg-type] # as named

    assert seqs() == [5, 4, 3, 2, 1]
    assert seqs(limit=2) == [5, 4]
    assert seqs(before=4) == [3, 2, 1]
    assert seqs(tenant="acme") == [5, 4, 1]
    assert seqs(tenant="acme", limit=1, before=5) == [4]
    assert seqs(tenant="nobody") == []


def test_the_tail_of_no_log_is_empty(log: AuditLog) -> None:
    assert log.tail(limit=10, tenant=None, before=None) == []


def test_the_tail_is_the_same_wherever_the_blocks_end(
    log: AuditLog, state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(1)  # noqa: S311 - a test's dice
    log.append([draft(n, pad="x" * chance.randrange(50)) for n in range(40)])
    for size in (1, 7, 100, 499, 500, 501, 4096, 10**6):
        monkeypatch.setattr(audit_log, "_BLOCK", size)
        found = log.tail(limit=100, tenant=None, before=None)
        assert [entry.seq for entry in found] == list(range(40, 0, -1)), size


def test_a_line_is_what_it_was_read_from(log: AuditLog, state: StateDirectory) -> None:
    log.append([draft(number) for number in range(3)])

    for line in lines(state):
        assert render_line(parse_line(line[:-1])) + b"\n" == line


def test_no_more_is_reported_than_somebody_would_read(state: StateDirectory) -> None:
    path(state).write_bytes(b"garbage\n" * 1000)

    assert len(verify_state(state).findings) == 100
