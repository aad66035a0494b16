"""What was recorded of a tenant's terminals: a file for each, in ``terminal/`` of the tenant.

No sandbox reaches that directory. A recording's id begins with when it was
begun, so names in order are recordings in order. Everything blocks.
"""

import io
import os
import re
import secrets
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from appliance.model.errors import ApplianceError, NotFound
from appliance.model.periods import to_ms
from appliance.protocols import asciicast
from appliance.protocols.asciicast import Header
from appliance.storage.files import full_disk_reported
from appliance.storage.paths import ConfinedDirectory

FOLDER = "terminal"
_SUFFIX = ".cast"
_ID = re.compile(r"rec_([0-9]{13})_[0-9a-f]{24}", re.ASCII)
_LONGEST_HEADER = 8192  # bytes
_LONGEST_END = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """``seconds`` and ``ended`` (why) are None for one that runs, or was cut off by a crash."""

    id: str
    begun_ms: int
    size: int  # bytes
    header: Header
    seconds: float | None = None
    ended: str | None = None


def new_recording_id(now: datetime) -> str:
    return f"rec_{to_ms(now):013d}_{secrets.token_hex(12)}"


class RecordingStore:
    def __init__(self, root: ConfinedDirectory) -> None:
        self._root = root

    def create(self, recording_id: str) -> io.FileIO:
        """A new file, to be written from its beginning. Raises ``DiskFull``."""
        self._root.mkdir(FOLDER)
        with full_disk_reported():
            fd = self._root.open_file(_path(recording_id), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        return io.FileIO(fd, "w")

    def list(self) -> Sequence[Recording]:
        """What is kept, the newest first. A file that is no recording is passed over."""
        found = (self._find(name) for name in reversed(self._ids()))
        return [recording for recording in found if recording is not None]

    def get(self, recording_id: str) -> Recording:
        """Raises :exc:`NotFound`."""
        found = self._find(recording_id) if _ID.fullmatch(recording_id) else None
        if found is None:
            raise _unknown()
        return found

    def read(self, recording_id: str, *, offset: int = 0, most: int) -> bytes:
        """Up to ``most`` bytes from ``offset``. Raises :exc:`NotFound`."""
        if not _ID.fullmatch(recording_id):
            raise _unknown()
        try:
            fd = self._root.open_file(_path(recording_id))
        except FileNotFoundError:
            raise _unknown() from None
        try:
            return _read(fd, offset, most)
        finally:
            os.close(fd)

    def delete(self, recording_id: str) -> None:
        """Raises :exc:`NotFound`."""
        if not _ID.fullmatch(recording_id):
            raise _unknown()
        try:
            self._root.unlink(_path(recording_id))
        except FileNotFoundError:
            raise _unknown() from None

    def prune(self, keep: int, *, spare: Collection[str] = ()) -> int:
        """Remove all but the newest ``keep``, and what is in ``spare``; return how many."""
        ids = self._ids()
        old = [each for each in ids[: max(len(ids) - keep, 0)] if each not in spare]
        for recording_id in old:
            with suppress(FileNotFoundError):
                self._root.unlink(_path(recording_id))
        return len(old)

    def _ids(self) -> Sequence[str]:
        try:
            names = self._root.listdir(FOLDER)
        except FileNotFoundError:
            return []
        ids = (name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))
        return [each for each in ids if _ID.fullmatch(each)]

    def _find(self, recording_id: str) -> Recording | None:
        try:
            fd = self._root.open_file(_path(recording_id))
        except (FileNotFoundError, ApplianceError):  # gone, or something else in its place
            return None
        try:
            return _describe(recording_id, fd)
        finally:
            os.close(fd)


def _describe(recording_id: str, fd: int) -> Recording | None:
    size = os.fstat(fd).st_size
    header = asciicast.read_header(_read(fd, 0, _LONGEST_HEADER).partition(b"\n")[0])
    matched = _ID.fullmatch(recording_id)
    if header is None or matched is None:
        return None
    last_lines = _read(fd, max(size - _LONGEST_END, 0), _LONGEST_END).splitlines()
    last = asciicast.read_event(last_lines[-1]) if last_lines else None
    ended = asciicast.end_reason(last)
    return Recording(
        id=recording_id,
        begun_ms=int(matched[1]),
        size=size,
        header=header,
        seconds=last.seconds if last is not None and ended is not None else None,
        ended=ended,
    )


def _read(fd: int, offset: int, most: int) -> bytes:
    data = bytearray()
    while len(data) < most and (piece := os.pread(fd, most - len(data), offset + len(data))):
        data += piece
    return bytes(data)


def _path(recording_id: str) -> str:
    return f"{FOLDER}/{recording_id}{_SUFFIX}"


def _unknown() -> NotFound:
    return NotFound("there is no such recording")
