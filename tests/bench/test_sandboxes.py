"""The measurements of sandboxes: what they do without one."""

import json
import os
import pty
import subprocess
from itertools import islice
from typing import Any

import pytest

from appliance.sandboxes.bubblewrap_arguments import Invocation
from appliance.sandboxes.launcher import Descriptor
from tests.bench import __main__ as command
from tests.bench.bombs import BOMBS, CONTROL
from tests.bench.neighbours import (
    Trial,
    Waits,
    children,
    due_times,
    rows_of,
    told,
    written_config,
)
from tests.bench.processes import Cores, MeasurementFailed, all_cores
from tests.bench.report import at_most_share
from tests.bench.starts import rejoined
from tests.bench.terminal import Memory, expected, flood_bare, flooding

MB = 1_000_000


def test_they_can_be_chosen() -> None:
    for name in ("exec", "terminal", "neighbours"):
        assert command.parse_options(["--only", name]).only == (name,)


def test_a_bar_may_be_a_share_that_is_not_to_be_exceeded() -> None:
    assert str(at_most_share(1.3)) == "≤ 130%"
    row = rows_of(BOMBS[0], trial())[0]
    assert row.met is None


def test_what_is_started_meanwhile_may_use_both_cores() -> None:
    before = os.sched_getaffinity(0)
    cores = Cores.choose()
    try:
        cores.keep_to_load()
        with all_cores(cores) as free:
            assert len(os.sched_getaffinity(0)) == min(2, len(before))
            assert free == Cores(None, None)
        assert os.sched_getaffinity(0) == ({cores.load} if cores.load is not None else before)
    finally:
        os.sched_setaffinity(0, before)


# exec


def test_the_bare_launcher_is_the_services_own_but_for_its_group() -> None:
    files: dict[int, bytes] = {Descriptor.SECCOMP: b"filter"}
    asked = Invocation(
        argv=["/bin/sh", "-c", "text", "sandbox", "/groups/a/tasks", "--", b"true"],
        arguments=b"--unshare-all",
        files=files,
        descriptors={Descriptor.WORKSPACE: 5, Descriptor.EGRESS: 6},
    )

    alike = rejoined(asked, {"/groups/a/tasks": "/groups/b/tasks"}, workspace=9)

    assert alike.argv == ["/bin/sh", "-c", "text", "sandbox", "/groups/b/tasks", "--", b"true"]
    assert (alike.arguments, alike.files) == (b"--unshare-all", files)
    assert alike.descriptors == {Descriptor.WORKSPACE: 9, Descriptor.EGRESS: 6}


# terminal


@pytest.mark.parametrize("size", [1, 80, 81, 82, 83, 1000, 100_000])
def test_what_a_flood_should_bring_is_what_a_terminal_brings(size: int) -> None:
    master, slave = pty.openpty()
    try:
        with subprocess.Popen(["/bin/sh", "-c", flooding(size)], stdin=slave, stdout=slave):
            os.close(slave)
            got = b""
            while len(got) < expected(size):
                got += os.read(master, 65_536)
    finally:
        os.close(master)
    assert len(got) == expected(size)
    assert got.startswith(b"The quick"[:size])


def test_a_bare_terminal_is_measured_to_its_end() -> None:
    assert flood_bare(200_000) > 0


def test_memory_grows_by_what_came_after_the_beginning() -> None:
    looks = [(10, 100), (20, 130), (30, 120), (60, 150), (90, 140)]

    assert Memory(looks).growth(100) == 150 - 130
    assert Memory([(10, 100), (90, 40)]).growth(100) == 0
    with pytest.raises(MeasurementFailed, match="too little"):
        Memory(looks[:2]).growth(100)


# neighbours


def trial(**changes: Any) -> Trial:
    facts: dict[str, Any] = {
        "alone": Waits([1.0] * 99 + [5.0], [0.5]),
        "beside": Waits([2.0] * 98 + [9.0] * 2, [0.6]),
        "cpu_alone": 0.1,
        "cpu_beside": 0.3,
        "ended": "it was ended",
        "seconds": 3.0,
        "left": [],
        "stored": 7 * MB,
    }
    return Trial(**{**facts, **changes})


def test_a_bomb_is_judged_by_what_it_adds_and_leaves() -> None:
    rows = {row.name.partition(", ")[2]: row for row in rows_of(BOMBS[0], trial())}

    assert rows["p99 of a completion"].value == 9.0
    assert rows["p99 of a completion"].baseline == 1.0
    assert (rows["p50 of /healthz"].value, rows["p50 of /healthz"].baseline) == (0.6, 0.5)
    assert rows["left behind"].met is True
    assert rows["left behind"].note == "it ended after 3.0 s: it was ended"
    added = [row for row in rows_of(BOMBS[0], trial()) if row.name.endswith("added to that")]
    assert [(row.value, row.met) for row in added] == [(8.0, True), (pytest.approx(0.1), True)]


def test_a_bomb_that_is_felt_or_leaves_something_is_not_passed() -> None:
    left = ["process 7", "group x"]
    waits = Waits([1.0] * 9 + [99.0], [0.5])
    rows = rows_of(BOMBS[0], trial(left=left, beside=waits))

    assert [row.met for row in rows if row.bar] == [False, True, False]
    assert (rows[-1].value, rows[-1].note) == (
        2,
        "it ended after 3.0 s: it was ended; process 7; group x",
    )


def test_only_what_fills_the_disk_tells_what_it_stored() -> None:
    stored = [
        bomb.name for bomb in BOMBS if any(row.unit == "MB" for row in rows_of(bomb, trial()))
    ]

    assert stored == ["disk bomb"]


def test_every_bomb_has_a_name_of_its_own_and_is_shell() -> None:
    for bomb in (*BOMBS, CONTROL):
        subprocess.run(["bash", "-n", "-c", bomb.command], check=True, timeout=10)
    assert len({bomb.name for bomb in (*BOMBS, CONTROL)}) == len(BOMBS) + 1


def test_completions_are_due_at_a_fixed_rate() -> None:
    assert list(islice(due_times(100.0, 4), 4)) == [100.0, 100.25, 100.5, 100.75]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"ok": True, "result": {"content": [{"type": "text", "text": "all\nfine"}]}}, "by itself"),
        (
            {"ok": True, "result": {"content": [{"text": "(not this)\nx\n(it was killed)\n<<<"}]}},
            "it was killed",
        ),
        (
            {"ok": False, "error": {"type": "tool_error", "message": "<<<\n(exit code 1)\n>>>"}},
            "exit code 1",
        ),
    ],
)
def test_how_a_command_ended_is_taken_from_its_tools_answer(
    answer: dict[str, Any], expected: str
) -> None:
    assert told(answer) == expected


def test_an_answer_of_the_gateway_is_not_taken_for_the_tools() -> None:
    with pytest.raises(LookupError):
        told({"ok": False, "error": {"type": "not_found", "message": "(no)"}})


def test_descendants_are_found_however_deep() -> None:
    assert children({2: 1, 3: 2, 4: 3, 5: 1, 6: 99}, 1) == [2, 3, 4, 5]
    assert children({2: 1}, 7) == []


def test_tenants_may_run_commands_and_write_so_much() -> None:
    known = {"quotas": {"tokens_per_day": 5}, "providers": {}}

    changed = json.loads(written_config(json.dumps(known)))

    assert changed["quotas"] == {"tokens_per_day": 5, "sandbox_disk_mb": 200}
    assert changed["defaults"] == {"tools": {"http_deny": []}}
    assert changed["providers"] == {}
