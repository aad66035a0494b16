"""The audit log on disk: one JSON object a line, each holding the hash of the one before.

What an attacker may do: edit the file, cut lines out of it, cut its end off,
put lines in another order. What we promise: :func:`verify` finds each of these.
A cut-off end would leave a perfect chain, so the number and the hash of the
last line are kept a second time, in ``secrets/``. What we cannot promise: who
may write both files can write another history. Against that, ship the lines
elsewhere as they are written, or note the head that ``audit verify`` prints.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec

from appliance.model.audit import GENESIS, Actor, AuditEntry, Result, chain_hash
from appliance.model.callers import ActorKind
from appliance.storage.files import full_disk_reported
from appliance.storage.state import SECRETS, StateDirectory

FILE = "audit.log"
HEAD_FILE = f"{SECRETS}/audit-head"
REPAIRED = "audit.repaired"
LONGEST_LINE = 32 * 1024  # bytes
_BLOCK = 64 * 1024
_FARTHEST = 16 * 1024 * 1024  # bytes from the end that a look at the tail reads


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain: the number and the hash of the last line."""

    seq: int = 0
    hash: str = GENESIS

    def render(self) -> bytes:
        return f"{self.seq:020d} {self.hash}\n".encode()

    @classmethod
    def parse(cls, data: bytes) -> "Head | None":
        seq, _, digest = data.decode("ascii", "replace").rstrip("\n").partition(" ")
        return cls(int(seq), digest) if seq.isdecimal() and len(digest) == 64 else None


class _Actor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: ActorKind
    id: str


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ts: datetime
    seq: int
    actor: _Actor
    tenant: str | None
    action: str
    target: str
    result: Result
    ip: str
    request_id: str
    details: dict[str, Any]
    prev: str
    hash: str


_decode = msgspec.json.Decoder(_Line).decode
_encoder = msgspec.json.Encoder(order="deterministic")  # sorts the keys of details
_sorting_encoder = msgspec.json.Encoder(order="sorted")  # and those of the line


def parse_line(raw: bytes) -> AuditEntry:
    """Read a line; raise ``ValueError`` unless it is written exactly as we write it."""
    line = _decode(raw)
    entry = AuditEntry(
        ts=line.ts,
        seq=line.seq,
        actor=Actor(line.actor.kind, line.actor.id),
        tenant=line.tenant,
        action=line.action,
        target=line.target,
        result=line.result,
        ip=line.ip,
        request_id=line.request_id,
        details=line.details,
        prev=line.prev,
        hash=line.hash,
    )
    if render_line(entry) != raw:
        raise ValueError("it is not written as this gateway writes")
    return entry


def render_line(entry: AuditEntry) -> bytes:
    """The line of ``entry``, without its line break."""
    return _encoder.encode(_stored(entry))


def hash_of(entry: AuditEntry) -> str:
    """What the ``hash`` of ``entry`` has to be."""
    fields = msgspec.structs.asdict(_stored(entry))
    del fields["hash"]
    return chain_hash(_sorting_encoder.encode(fields))


def _stored(entry: AuditEntry) -> _Line:
    return _Line(
        ts=entry.ts,
        seq=entry.seq,
        actor=_Actor(entry.actor.kind, entry.actor.id),
        tenant=entry.tenant,
        action=entry.action,
        target=entry.target,
        result=entry.result,
        ip=entry.ip,
        request_id=entry.request_id,
        details=dict(entry.details),
        prev=entry.prev,
        hash=entry.hash,
    )


def _chained(draft: AuditEntry, head: Head) -> AuditEntry:
    entry = replace(draft, seq=head.seq + 1, prev=head.hash, hash="")
    if len(render_line(entry)) > LONGEST_LINE:
        entry = replace(entry, details={"omitted": "more than a line may hold"})
    return replace(entry, hash=hash_of(entry))


class AuditLog:
    """The one writer of the file. Every method blocks; one thread at a time."""

    def __init__(self, state: StateDirectory, *, clock: Callable[[], datetime]) -> None:
        self._state = state
        self._clock = clock
        self._fd = -1
        self._head_fd = -1
        self._head: Head | None = None  # None: look at the disk first

    def append(self, drafts: Sequence[AuditEntry]) -> list[AuditEntry]:
        """Write a line for each draft, all or none, and return them as they are on disk.

        Raises ``DiskFull`` or ``OSError``; the file is then as it was before.
        """
        with full_disk_reported():
            head = self._open()
            entries = []
            for draft in drafts:
                entries.append(_chained(draft, head))
                head = Head(entries[-1].seq, entries[-1].hash)
            self._write(b"".join(render_line(entry) + b"\n" for entry in entries), head)
        return entries

    def reopen(self) -> None:
        """Let the next line go to whatever file has our name then."""
        self._close_file()

    def close(self) -> None:
        self._close_file()
        if self._head_fd >= 0:
            os.close(self._head_fd)
        self._head_fd = -1

    def tail(self, *, limit: int, tenant: str | None, before: int | None) -> list[AuditEntry]:
        """The newest lines of the current file that fit, newest first.

        Looks no further back than 16 MB, so that a rare tenant's question
        costs no more than anybody's. What is not readable is left out.
        """
        found: list[AuditEntry] = []
        try:
            fd = self._state.open_file(FILE)
        except FileNotFoundError:
            return found
        try:
            for raw in _lines_backwards(fd):
                entry = _readable(raw)
                if entry is None or (before is not None and entry.seq >= before):
                    continue
                if tenant is None or entry.tenant == tenant:
                    found.append(entry)
                if len(found) >= limit:
                    break
        finally:
            os.close(fd)
        return found

    def _open(self) -> Head:
        """Have the right file open, and return the end of the chain."""
        if self._fd >= 0 and not self._is_current():
            self._close_file()  # it was rotated away
        if self._fd < 0:
            self._fd = self._open_file()
        if self._head is None:
            self._head = self._repair(self._find_head())
        return self._head

    def _open_file(self) -> int:
        flags = os.O_RDWR | os.O_APPEND
        try:
            return self._state.open_file(FILE, flags)
        except FileNotFoundError:
            # By way of a replaced file, because that makes its name durable.
            self._state.write_atomic(FILE, b"")
            return self._state.open_file(FILE, flags)

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(self._state.stat(FILE), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def _find_head(self) -> Head:
        """Where the chain ends: at the last line, unless more was noted than is there.

        Then the file was rotated away while we were not running, or its end
        was cut off. The chain goes on from what was noted; in the latter case
        that leaves a gap, which is what ``verify`` reports.
        """
        noted = read_head(self._state) or Head()
        for raw in _lines_backwards(self._fd):
            entry = _readable(raw)
            if entry is not None and entry.seq >= noted.seq:
                return Head(entry.seq, entry.hash)
            break
        return noted

    def _repair(self, head: Head) -> Head:
        """Close a line that a crash left unfinished, and say so in the log."""
        torn = _torn_end(self._fd)
        if not torn:
            return head
        whole = _readable(torn)
        if whole is not None:
            end = Head(whole.seq, whole.hash)
            if end == head or _chained(whole, head) == whole:
                self._write(b"\n", end)  # only its line break is missing
                return end
        draft = AuditEntry(
            ts=self._clock(),
            seq=0,
            actor=Actor(ActorKind.SYSTEM, "gateway"),
            tenant=None,
            action=REPAIRED,
            target=FILE,
            result=Result.OK,
            ip="",
            request_id="",
            details={"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()},
        )
        entry = _chained(draft, head)
        self._write(b"\n" + render_line(entry) + b"\n", Head(entry.seq, entry.hash))
        return Head(entry.seq, entry.hash)

    def _write(self, data: bytes, head: Head) -> None:
        size = os.fstat(self._fd).st_size
        try:
            _write_all(self._fd, data)
            os.fdatasync(self._fd)
        except OSError:
            # Nobody was told that these lines are there.
            with suppress(OSError):
                os.ftruncate(self._fd, size)
            self._close_file()
            self._head = None
            raise
        self._head = head
        self._note_head(head)

    def _note_head(self, head: Head) -> None:
        """Note the end in ``secrets/``, without waiting for the disk.

        Written after the log, it never says more than the log holds. After a
        power cut it may say less, which :meth:`_find_head` and ``verify`` take
        for what it is.
        """
        if self._head_fd < 0:
            self._head_fd = self._state.open_file(HEAD_FILE, os.O_RDWR | os.O_CREAT)
        os.pwrite(self._head_fd, head.render(), 0)

    def _close_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def read_head(state: StateDirectory) -> Head | None:
    """The end of the chain as it was noted; None if nothing usable was."""
    try:
        return Head.parse(state.read_bytes(HEAD_FILE, limit=_BLOCK))
    except FileNotFoundError:
        return None


def _readable(raw: bytes) -> AuditEntry | None:
    try:
        return parse_line(raw)
    except (ValueError, msgspec.DecodeError):
        return None


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.write(fd, view)
        if written == 0:
            raise OSError(errno.EIO, "nothing was written")
        view = view[written:]


def _torn_end(fd: int) -> bytes:
    """What stands behind the last line break."""
    size = os.fstat(fd).st_size
    end = os.pread(fd, LONGEST_LINE, max(0, size - LONGEST_LINE))
    return end.rpartition(b"\n")[2]


def _lines_backwards(fd: int) -> Iterator[bytes]:
    """Whole lines, the last first, from at most :data:`_FARTHEST` bytes; no unfinished one."""
    position = os.fstat(fd).st_size
    stop = max(0, position - _FARTHEST)
    rest = b""
    first = True
    while position > stop:
        start = max(stop, position - _BLOCK)
        lines = (os.pread(fd, position - start, start) + rest).split(b"\n")
        position = start
        rest = lines.pop(0)
        if first and lines:
            lines.pop()  # what follows the last line break is not a line
            first = False
        yield from reversed(lines)
    if position == 0 and rest and not first:
        yield rest
