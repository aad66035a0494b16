"""Checks the audit log: is every line as it was written, and is none missing?"""

import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, islice
from operator import attrgetter
from typing import BinaryIO, cast

import msgspec

from appliance.model.audit import GENESIS, AuditEntry
from appliance.storage.audit_log import (
    FILE,
    LONGEST_LINE,
    REPAIRED,
    Head,
    hash_of,
    parse_line,
    read_head,
)
from appliance.storage.state import StateDirectory

_ROTATED = re.compile(re.escape(FILE) + r"([.-][0-9T.-]+)?(\.gz)?")
_MOST_FINDINGS = 100


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was done to the log, and where it shows."""

    file: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.problem}"


@dataclass(slots=True)
class Verification:
    """What a check found. Notes are worth knowing, findings are damage."""

    lines: int = 0
    first: int = 0  # seq
    head: Head = field(default_factory=Head)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_intact(self) -> bool:
        return not self.findings


@dataclass(frozen=True, slots=True)
class LogFile:
    name: str
    stream: BinaryIO


def verify_state(state: StateDirectory) -> Verification:
    """Check the log of ``state`` with all its rotated files, also while it is being written."""
    # First the head, then the lines: what is written meanwhile is only more.
    head = read_head(state)
    names = [name for name in state.listdir() if _ROTATED.fullmatch(name)]
    with ExitStack() as stack:
        files = [LogFile(name, _open(state, name, stack)) for name in names]
        return verify(files, head=head)


def verify(files: Iterable[LogFile], *, head: Head | None) -> Verification:
    """Check ``files``, in whatever order they are given, as one chain up to ``head``."""
    check = _Check(head)
    for file in sorted(map(_begin, files), key=attrgetter("first")):
        check.file(file.name, file.lines)
    return check.finish()


class _Check:
    def __init__(self, head: Head | None) -> None:
        self.result = Verification()
        self._noted = head
        self._unreadable: tuple[str, int, bytes] | None = None

    def file(self, name: str, lines: Iterable[bytes]) -> None:
        for number, raw in enumerate(lines, start=1):
            self._line(name, number, raw)
        if self._unreadable is not None and self._unreadable[2][-1:] != b"\n":
            # Being written right now, or torn by a crash: the next start marks it.
            self.result.notes.append(f"{name}: the last line is not finished")
            self._unreadable = None

    def finish(self) -> Verification:
        self._report_unreadable()
        result, noted = self.result, self._noted
        if noted is None:
            result.notes.append("no note of the last line: a cut at the end would not show")
        elif noted.seq > result.head.seq:
            missing = _span(result.head.seq + 1, noted.seq)
            self._find("(end)", 0, f"{missing} cut off at the end")
        return result

    def _line(self, name: str, number: int, raw: bytes) -> None:
        result = self.result
        try:
            if raw[-1:] != b"\n":
                raise ValueError("it is not finished")
            entry = parse_line(raw[:-1])
        except (ValueError, msgspec.DecodeError):
            self._report_unreadable()
            self._unreadable = (name, number, raw)
            return
        if self._unreadable is not None and not _explains(entry, self._unreadable[2]):
            self._report_unreadable()
        self._unreadable = None
        result.lines += 1
        problem = self._problem(entry)
        if problem:
            self._find(name, number, problem)
        result.head = Head(entry.seq, entry.hash)

    def _problem(self, entry: AuditEntry) -> str:
        before = self.result.head
        if hash_of(entry) != entry.hash:
            return f"line {entry.seq} was changed"
        noted = self._noted
        if noted is not None and noted.seq == entry.seq and noted.hash != entry.hash:
            return f"line {entry.seq} is not the one that was written"
        if self.result.lines == 1:
            self.result.first = entry.seq
            if entry.seq > 1:
                self.result.notes.append(f"lines before {entry.seq} are in no file given")
                return ""
        if entry.seq <= before.seq:
            return f"line {entry.seq} is out of order"
        if entry.seq > before.seq + 1:
            return f"{_span(before.seq + 1, entry.seq - 1)} missing"
        if entry.prev != (before.hash if entry.seq > 1 else GENESIS):
            return f"line {entry.seq} does not follow the line before it"
        return ""

    def _report_unreadable(self) -> None:
        if self._unreadable is not None:
            name, number, _ = self._unreadable
            self._find(name, number, "this is not a line as it was written")
            self._unreadable = None

    def _find(self, name: str, number: int, problem: str) -> None:
        if len(self.result.findings) < _MOST_FINDINGS:
            self.result.findings.append(Finding(name, number, problem))


def _explains(entry: AuditEntry, raw: bytes) -> bool:
    """Whether ``entry`` says that the line before it was torn by a crash."""
    digest = hashlib.sha256(raw.removesuffix(b"\n")).hexdigest()
    return entry.action == REPAIRED and entry.details.get("sha256") == digest


def _span(first: int, last: int) -> str:
    return f"line {first} is" if first == last else f"lines {first} to {last} are"


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    try:
        while raw := stream.readline(2 * LONGEST_LINE):
            yield raw
    except (EOFError, gzip.BadGzipFile, zlib.error):
        yield b"(cannot be decompressed)\n"


@dataclass(frozen=True, slots=True)
class _Begun:
    """A file of which the first readable line is known, and all lines still to come."""

    name: str
    first: int  # seq
    lines: Iterator[bytes]


def _begin(file: LogFile) -> _Begun:
    # Nothing is read twice: a damaged gzip file is silent the second time.
    lines = _lines(file.stream)
    seen: list[bytes] = []
    first = 0
    for raw in islice(lines, _MOST_FINDINGS):
        seen.append(raw)
        try:
            first = parse_line(raw.rstrip(b"\n")).seq
        except (ValueError, msgspec.DecodeError):
            continue
        break
    return _Begun(file.name, first, chain(seen, lines))


def _open(state: StateDirectory, name: str, stack: ExitStack) -> BinaryIO:
    stream = stack.enter_context(os.fdopen(state.open_file(name), "rb"))
    if name.endswith(".gz"):
        return cast("BinaryIO", stack.enter_context(gzip.GzipFile(fileobj=stream)))
    return stream
