from pathlib import Path

import pytest

from appliance.services.machine import Machine
from tests.books import NOON


def proc(path: Path, *, cpu: str, process: tuple[int, int]) -> Path:
    """As much of ``/proc`` as is read, with a program whose name holds all that could mislead."""
    (path / "self/fd").mkdir(parents=True, exist_ok=True)
    for number in range(3):
        (path / f"self/fd/{number}").touch()
    (path / "stat").write_text(f"cpu  {cpu}\ncpu0 1 1 1 1\n")
    (path / "uptime").write_text("3600.50 100.0\n")
    (path / "meminfo").write_text("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  250 kB\n")
    words = [
        "S",
        *["0"] * 10,
        str(process[0]),
        str(process[1]),
        *["0"] * 4,
        "7",
        "0",
        "0",
        "0",
        "5",
    ]
    (path / "self/stat").write_text("1 (a ) b) " + " ".join(words) + "\n")
    return path


def test_percentages_are_of_the_time_since_the_look_before(tmp_path: Path) -> None:
    machine = Machine(tmp_path, proc=proc(tmp_path, cpu="100 0 0 100 0 0 0 0 0 0", process=(5, 5)))
    proc(tmp_path, cpu="150 0 0 130 20 0 0 0 0 0", process=(20, 15))
    seen = machine.look(NOON)

    assert seen.at == NOON
    assert seen.cpu_percent == 50.0
    assert seen.process_cpu_percent == 25.0
    assert (seen.memory_total, seen.memory_used) == (1000 * 1024, 750 * 1024)
    assert (seen.uptime, seen.process_threads, seen.process_files) == (3600.5, 7, 3)
    assert seen.disk_total > seen.disk_free > 0
    assert machine.look(NOON).cpu_percent == 0.0


def test_the_real_kernel_is_read(tmp_path: Path) -> None:
    seen = Machine(tmp_path).look(NOON)

    assert 0 <= seen.cpu_percent <= 100
    assert 1024 * 1024 < seen.process_memory < seen.memory_total
    assert seen.process_threads >= 1
    assert seen.cores >= 1


def test_where_the_kernel_tells_nothing_that_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="stat"):
        Machine(tmp_path, proc=tmp_path)
