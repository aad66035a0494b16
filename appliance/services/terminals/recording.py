"""Writes down what a terminal said, in order, without holding the loop up."""

import io
import logging
from collections.abc import Callable
from functools import partial

import trio

from appliance.model.errors import ApplianceError
from appliance.protocols import asciicast
from appliance.protocols.asciicast import Code, Header
from appliance.storage.files import full_disk_reported
from appliance.storage.recordings import RecordingStore
from appliance.storage.room import Room

log = logging.getLogger(__name__)

MOST_WAITING = 1024 * 1024  # bytes for the disk, before the terminal waits for it
PATIENCE = 5.0  # seconds that a terminal waits for the disk; then it goes on unrecorded
_LAST_WORDS = 2.0  # seconds for what waits when the terminal has ended
_END = 256  # bytes that are kept for the last line


class Recorder:
    """One recording. What is noted after it has ended, or could not be written, is lost."""

    def __init__(
        self,
        store: RecordingStore,
        recording_id: str,
        header: Header,
        *,
        most_bytes: int,
        kept: int,
        room: Room,
        spare: Callable[[], set[str]] = set,
    ) -> None:
        self.id = recording_id
        self._store = store
        self._kept = kept
        self._room = room  # of the tenant on the disk
        self._spare = spare  # recordings that still run
        self._began = trio.current_time()
        self._most = most_bytes
        self._lines = [asciicast.encode_header(header)]
        self._waiting = self._written = len(self._lines[0])
        self._stirred = trio.Event()
        self._drained = trio.Event()
        self._ended = trio.Event()
        self._scope = trio.CancelScope(shield=True)  # it outlives its terminal by a moment
        self.is_on = True

    def output(self, text: str) -> None:
        self._note(asciicast.encode_event(self._seconds, Code.OUTPUT, text))

    def resize(self, columns: int, rows: int) -> None:
        self._note(asciicast.encode_size(self._seconds, columns, rows))

    def mark(self, label: str) -> None:
        self._note(asciicast.encode_event(self._seconds, Code.MARKER, label))

    async def wait_room(self) -> None:
        """Wait while the disk is slow, but not for long."""
        if self._waiting < MOST_WAITING or not self.is_on:
            return
        with trio.move_on_after(PATIENCE):
            while self._waiting >= MOST_WAITING and self.is_on:
                self._drained = trio.Event()
                await self._drained.wait()
            return
        log.warning("a recording was given up: the disk is too slow", extra={"recording": self.id})
        self._finish("the disk was too slow")

    async def close(self, reason: str) -> None:
        """Write the last line and wait until all is on disk, for a moment."""
        self._finish(reason)
        with trio.move_on_after(_LAST_WORDS, shield=True):
            await self._ended.wait()
        self._scope.cancel()

    async def run(self) -> None:
        """Write what is noted until :meth:`close`; not ended by cancellation from outside."""
        try:
            with self._scope:
                await self._write_all()
        except (ApplianceError, OSError) as error:
            log.warning("a recording broke off", extra={"recording": self.id, "reason": str(error)})
        finally:
            self.is_on = False
            self._lines.clear()
            self._waiting = 0
            self._drained.set()
            self._ended.set()

    @property
    def _seconds(self) -> float:
        return trio.current_time() - self._began

    def _note(self, line: bytes) -> None:
        if not self.is_on:
            return
        if self._written + len(line) > self._most - _END:
            self._finish(f"the recording has {self._most} bytes")
            return
        self._put(line)

    def _finish(self, reason: str) -> None:
        if self.is_on:
            self.is_on = False
            self._put(asciicast.encode_end(self._seconds, reason))

    def _put(self, line: bytes) -> None:
        self._lines.append(line)
        self._waiting += len(line)
        self._written += len(line)
        self._stirred.set()

    async def _write_all(self) -> None:
        file = await _in_thread(self._open)
        try:
            while self._lines or self.is_on:
                await self._write_some(file)
        except (ApplianceError, OSError):
            file.close()
            raise
        # Not where it was given up: a thread that hangs with the disk still has
        # the file, and closes it by letting go of it.
        await _in_thread(file.close)

    async def _write_some(self, file: io.FileIO) -> None:
        if not self._lines:
            self._stirred = trio.Event()
            await self._stirred.wait()
        batch, self._lines = b"".join(self._lines), []
        self._room.require(len(batch))
        await _in_thread(_write, file, batch)
        self._room.changed(len(batch))
        self._waiting -= len(batch)
        self._drained.set()

    def _open(self) -> io.FileIO:
        self._store.prune(max(self._kept - 1, 0), spare=self._spare())
        return self._store.create(self.id)


_in_thread = partial(trio.to_thread.run_sync, abandon_on_cancel=True)


def _write(file: io.FileIO, data: bytes) -> None:
    view = memoryview(data)
    with full_disk_reported():
        while view:
            view = view[file.write(view) or 0 :]
