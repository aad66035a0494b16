"""What was measured, as a table to read and as JSON to keep."""

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.bench.processes import REPOSITORY, Cores, MeasurementFailed, find_program

_VERSIONS = ("trio", "hypercorn", "h11", "httpx", "msgspec", "apsw", "quart", "quart-trio")
_NARROWEST = 130  # columns: names stay readable in a file or a pipe


@dataclass(frozen=True, slots=True)
class Bar:
    """The number to reach, from the issue that set it."""

    limit: float
    at_least: bool
    of_ratio: bool = False

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"{sign} {self.limit:.0%}" if self.of_ratio else f"{sign} {_figure(self.limit)}"


def at_least(limit: float) -> Bar:
    return Bar(limit, at_least=True)


def at_most(limit: float) -> Bar:
    return Bar(limit, at_least=False)


def at_least_share(share: float) -> Bar:
    return Bar(share, at_least=True, of_ratio=True)


def at_most_share(share: float) -> Bar:
    return Bar(share, at_least=False, of_ratio=True)


@dataclass(frozen=True, slots=True)
class Row:
    """One figure; ``value`` is None where it could not be taken, and ``note`` says why."""

    name: str
    value: float | None
    unit: str = ""
    baseline: float | None = None
    against: str = ""  # what the baseline is
    bar: Bar | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return self.value / self.baseline if self.value is not None and self.baseline else None

    @property
    def met(self) -> bool | None:
        """Whether the bar is reached; None without a bar or without a figure."""
        if self.bar is None:
            return None
        measured = self.ratio if self.bar.of_ratio else self.value
        if measured is None:
            return None
        return measured >= self.bar.limit if self.bar.at_least else measured <= self.bar.limit


def failed(name: str, reason: str) -> Row:
    return Row(name, None, note=reason)


def _figure(value: float | None) -> str:
    if value is None:
        return "n/a"
    if value == int(value) and abs(value) < 1000:
        return str(int(value))
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def _cells(row: Row) -> tuple[str, ...]:
    met = {True: "yes", False: "no", None: ""}[row.met]
    if row.value is None:
        met = "not run"
    baseline = f"{_figure(row.baseline)} {row.against}".strip() if row.baseline is not None else ""
    return (
        row.name,
        _figure(row.value),
        row.unit,
        baseline,
        f"{row.ratio:.0%}" if row.ratio is not None else "",
        str(row.bar) if row.bar else "",
        met,
    )


COLUMNS = ("measure", "value", "unit", "baseline", "ratio", "bar", "met")


def print_table(console: Console, sections: Mapping[str, Sequence[Row]]) -> None:
    table = Table(title="Benchmarks", title_justify="left")
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in ("value", "ratio", "bar") else "left")
    for number, rows in enumerate(sections.values()):
        if number:
            table.add_section()
        for row in rows:
            *plain, met = _cells(row)
            style = {"yes": "green", "no": "yellow", "not run": "red"}.get(met, "")
            table.add_row(*map(Text, plain), Text(met, style=style))
    console.print(table)
    for rows in sections.values():
        for row in rows:
            if row.note:
                console.print(Text(f"{row.name}: {row.note}"))


def console(*, plain: bool) -> Console:
    """A console wide enough for the table wherever the output goes."""
    width = None if Console().width >= _NARROWEST else _NARROWEST
    return Console(width=width, no_color=plain, highlight=False)


def markdown(sections: Mapping[str, Sequence[Row]]) -> str:
    """The same table for a README."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(_cells(row))} |" for rows in sections.values() for row in rows]
    return "\n".join(lines) + "\n"


def as_json(sections: Mapping[str, Sequence[Row]], facts: Mapping[str, Any]) -> str:
    rows = [
        {
            "section": section,
            "name": row.name,
            "value": row.value,
            "unit": row.unit,
            "baseline": row.baseline,
            "against": row.against,
            "ratio": row.ratio,
            "bar": str(row.bar) if row.bar else None,
            "met": row.met,
            "note": row.note,
        }
        for section, rows in sections.items()
        for row in rows
    ]
    return json.dumps({**facts, "rows": rows}, indent=1, ensure_ascii=False) + "\n"


def machine(cores: Cores, scratch: Path) -> dict[str, Any]:
    """What one has to know of a machine to compare two runs."""
    return {
        "cores": os.cpu_count(),
        "pinned": {"server": cores.server, "load": cores.load},
        "processor": _processor(),
        "kernel": platform.release(),
        "file_system": _file_system(scratch),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _VERSIONS},
        "programs": {"nginx": _first_line("nginx", "-v"), "wrk": _first_line("wrk", "-v")},
        "commit": _commit(),
    }


def describe(facts: Mapping[str, Any]) -> str:
    """One paragraph: where these figures come from."""
    about = facts["machine"]
    names = [f"{name} {version}" for name, version in about["versions"].items() if version]
    pinned = about["pinned"]
    pins = "nothing pinned: one core"
    if pinned["server"] is not None:
        pins = f"server on core {pinned['server']}, load and upstream on {pinned['load']}"
    parts = [
        f"{about['cores']} cores of {about['processor']}, {pins}",
        f"Linux {about['kernel']}, {about['file_system']}",
        f"load average before {about['load_average']:.1f}",
        f"Python {about['python']}, {', '.join(names)}",
    ]
    if facts.get("upstream") == "trio":
        parts.append("upstream without nginx: a slower one of Python, so rates are too low")
    if facts["quick"]:
        parts.append("QUICK: too few samples to judge by")
    return "; ".join(parts)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(path: Path) -> str:
    """The type of the file system that holds ``path``: a RAM disk makes every fsync free."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, found, *_ = line.split(" ")
        inside = path == Path(mount) or Path(mount) in path.parents
        if inside and len(mount) >= len(best):
            best, kind = mount, found
    return kind


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _first_line(program: str, argument: str) -> str | None:
    try:
        command = [find_program(program), argument]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (MeasurementFailed, subprocess.SubprocessError):
        return None
    return (done.stdout + done.stderr).strip().partition("\n")[0]


def _commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
