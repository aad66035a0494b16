"""What the machine and this process use, as the kernel tells it."""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

PROC = Path("/proc")
_KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSample:
    """One look. Percentages of the processor are of all cores, since the look before."""

    at: datetime
    cores: int
    cpu_percent: float
    load: tuple[float, float, float]
    memory_total: int  # bytes
    memory_available: int
    disk_total: int
    disk_free: int  # for us, not for root
    uptime: float  # seconds
    process_cpu_percent: float
    process_memory: int  # resident bytes
    process_threads: int
    process_files: int

    @property
    def memory_used(self) -> int:
        return self.memory_total - self.memory_available

    @property
    def disk_used(self) -> int:
        return self.disk_total - self.disk_free


@dataclass(frozen=True, slots=True)
class _Ticks:
    total: int
    busy: int
    process: int


class Machine:
    """Reads ``/proc`` and the file system of ``disk``; a look takes some 0.1 ms and may block."""

    def __init__(self, disk: Path, *, proc: Path = PROC) -> None:
        self._disk = disk
        self._proc = proc
        self._before = self._ticks()[0]

    def look(self, now: datetime) -> MachineSample:
        """Raises ``OSError`` where the kernel tells nothing."""
        before = self._before
        ticks, threads, resident = self._ticks()
        self._before = ticks
        memory = self._memory()
        disk = os.statvfs(self._disk)
        passed = max(1, ticks.total - before.total)
        return MachineSample(
            at=now,
            cores=os.cpu_count() or 1,
            cpu_percent=_percent(ticks.busy - before.busy, passed),
            load=os.getloadavg(),
            memory_total=memory.get("MemTotal", 0),
            memory_available=memory.get("MemAvailable", memory.get("MemFree", 0)),
            disk_total=disk.f_blocks * disk.f_frsize,
            disk_free=disk.f_bavail * disk.f_frsize,
            uptime=float((self._proc / "uptime").read_text().split()[0]),
            process_cpu_percent=_percent(ticks.process - before.process, passed),
            process_memory=resident * os.sysconf("SC_PAGE_SIZE"),
            process_threads=threads,
            process_files=len(os.listdir(self._proc / "self/fd")),  # noqa: PTH208 - names suffice
        )

    def _ticks(self) -> tuple[_Ticks, int, int]:
        """The clock ticks so far, and this process's threads and resident pages."""
        with (self._proc / "stat").open() as file:
            times = [int(word) for word in file.readline().split()[1:9]]
        idle = sum(times[3:5])  # with what waits for the disk
        # The name of the program may hold blanks and brackets: count from behind it.
        words = (self._proc / "self/stat").read_text().rpartition(")")[2].split()
        ticks = _Ticks(sum(times), sum(times) - idle, int(words[11]) + int(words[12]))
        return ticks, int(words[17]), int(words[21])

    def _memory(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for line in (self._proc / "meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            found[name] = int(rest.split()[0]) * _KIB
        return found


def _percent(part: float, whole: float) -> float:
    return round(min(100.0, max(0.0, 100 * part / whole)), 2)
