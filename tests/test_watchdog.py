"""A test that hangs ends the session and is named in the last line of its output."""

import os
import subprocess
import sys
from pathlib import Path

from tests.watchdog import PATIENCE

ROOT = Path(__file__).parents[1]
WAITING = """
import trio

async def waits_for_nothing():
    await trio.sleep_forever()

async def test_that_hangs():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits_for_nothing)
"""
SPINNING = """
import subprocess

def test_before():
    subprocess.Popen(["sleep", "1000"])  # holds the pipe its output goes to

def test_that_hangs():
    while True:
        pass
"""
QUICK = """
import time

import pytest

@pytest.mark.parametrize("number", range(6))
def test_one(number):
    time.sleep(0.6)
"""


def run(folder: Path, source: str, *, patience: float) -> "subprocess.CompletedProcess[str]":
    (folder / "test_it.py").write_text(source)
    (folder / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.watchdog", "-p", "no:cacheprovider", "-v"],
        cwd=folder,
        env={**os.environ, PATIENCE: str(patience), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_last_line_names_the_test_and_those_before_say_where_each_task_waits(
    tmp_path: Path,
) -> None:
    ended = run(tmp_path, WAITING, patience=2)

    lines = ended.stdout.splitlines()
    assert ended.returncode == 1
    assert lines[-1] == "no end after 2 seconds: test_it.py::test_that_hangs"
    task = next(line for line in lines if line.strip().startswith("test_it.waits_for_nothing"))
    assert task.endswith("test_it.py:5 in waits_for_nothing")
    assert any("most recent call first" in line for line in lines)


def test_a_loop_that_never_waits_is_ended_too_and_so_is_what_it_had_started(
    tmp_path: Path,
) -> None:
    ended = run(tmp_path, SPINNING, patience=2)

    assert ended.stdout.splitlines()[-1].endswith("test_it.py::test_that_hangs")
    assert any(line.endswith(" in test_that_hangs") for line in ended.stdout.splitlines())


def test_each_test_has_all_the_time(tmp_path: Path) -> None:
    assert run(tmp_path, QUICK, patience=3).returncode == 0
