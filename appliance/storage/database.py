"""One SQLite file of a tenant: written in the event loop, synced for many at once.

A commit in WAL mode with ``synchronous=NORMAL`` appends to the ``-wal`` file
and does not wait for the disk: it survives the death of the process, not that
of the machine. ``synchronous=FULL`` would add exactly one fsync of that file to
each commit. We leave it out and sync the file ourselves, in a worker thread and
once for everybody who waits, so commits stay in the loop (about 20 µs, less than
the way to a thread) and a sync serves all of them (:meth:`Database.durable`).

Opening the ``-wal`` file beside SQLite is safe, unlike the database or its
``-shm``: POSIX drops a process's locks on a file when it closes any descriptor
of it, and SQLite locks those two, never the ``-wal``.

Nothing here retries or guesses: a failed sync or a damaged page ends all
writing through this object, because what reached the disk is then unknown.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, TypeVar

import apsw
import trio

from appliance.model.errors import ApplianceError, DiskFull, TenantBroken, Unavailable
from appliance.storage.connection import Connection, DatabaseRoot, connected, open_file, translated
from appliance.storage.migrations import Schema

T = TypeVar("T")

# Pages of WAL that it is worth moving into the database: 8 MB, about a second
# of full load. When twice as many have come together nobody runs ``tend``, and
# the loop does it itself rather than fill the disk.
_CHECKPOINT_AT = 2_000

_RETRY_FULL_DISK = 30.0  # seconds


class Database:
    """A connection that belongs to the event loop.

    :meth:`read` and :meth:`write` run their callback at once and never await,
    so no cancellation can fall into a transaction and no two can overlap.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        kind: str,
        path: str,
        wal: int,
        sync: Callable[[int], None] = os.fdatasync,
        limiter: trio.CapacityLimiter | None = None,
    ) -> None:
        self._connection = connection
        self._kind = kind
        self._path = path
        self._wal = wal  # a descriptor of the -wal file, for syncing only
        self._sync_file = sync
        self._limiter = limiter
        self._broken = ""  # why nothing may be written any more
        self._closed = False
        # Write transactions so far; the first stands for what was found in the file.
        self._committed = 1
        self._durable = 0  # those of them known to be on disk
        self._syncing: trio.Event | None = None
        self._entry_synced = False
        self._wal_pages = 0
        self._wal_pages_seen = 0  # when the last checkpoint began
        self._wal_grown = trio.Event()
        self._checkpointing = trio.Lock()
        self._guests = 0  # threads that use the file now
        self._guests_left = trio.Event()
        connection.set_wal_hook(self._note_wal)

    @classmethod
    async def open(
        cls,
        root: DatabaseRoot,
        name: str,
        schema: Schema,
        *,
        sync: Callable[[int], None] = os.fdatasync,
        limiter: trio.CapacityLimiter | None = None,
    ) -> "Database":
        """Open ``name`` below ``root``, creating or migrating it as needed.

        Raises :exc:`TenantBroken` for a damaged file, which is left as it is;
        :exc:`SchemaTooNew`; :exc:`DiskFull`.
        """

        connection, path, wal = await trio.to_thread.run_sync(
            open_file, root, name, schema, limiter=limiter
        )
        return cls(connection, kind=schema.kind, path=path, wal=wal, sync=sync, limiter=limiter)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in the loop: for what takes microseconds. See :meth:`scan`."""
        self._require_open()
        try:
            return work(self._connection)
        except apsw.Error as exc:
            self._raise(exc)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction, in the loop; all of it happens or nothing.

        Afterwards the change survives the end of this process; await
        :meth:`durable` where it must survive the machine's.

        Raises :exc:`DiskFull`; :exc:`TenantBroken` once the file is damaged or
        a sync has failed; whatever ``work`` raises, after rolling back.
        """
        self._require_writable()
        execute = self._connection.execute
        try:
            execute("BEGIN IMMEDIATE")
            try:
                result = work(self._connection)
                execute("COMMIT")
            except BaseException:
                # SQLite itself has rolled back after some failures.
                if self._connection.in_transaction:
                    execute("ROLLBACK")
                raise
        except apsw.Error as exc:
            self._raise(exc)
        self._committed += 1
        if self._wal_pages - self._wal_pages_seen >= 2 * _CHECKPOINT_AT:
            self._checkpoint_in_loop()
        return result

    async def scan(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a thread, on a snapshot and a read-only connection of its own."""
        self._require_open()

        def scan_in_thread() -> T:
            with connected(self._path, self._kind) as connection:
                connection.execute("PRAGMA query_only = ON; BEGIN").fetchall()
                return work(connection)

        return await self._in_thread(scan_in_thread)

    async def durable(self) -> None:
        """Return when everything committed before this call is on disk.

        One sync runs at a time. Whoever committed after it had started waits
        for the next one, which serves all who wait by then. After a sync has
        failed, every caller gets :exc:`TenantBroken`, now and later: the kernel
        may have dropped the very pages that could not be written, and a second
        sync would succeed without them.
        """
        wanted = self._committed
        while self._durable < wanted:
            self._require_writable()
            if self._syncing is None:
                await self._sync_once()
            else:
                await self._syncing.wait()

    async def checkpoint(self) -> None:
        """Move the WAL's content into the database file, beside running traffic.

        SQLite syncs the WAL before and the database after, so nothing that was
        durable ceases to be. What a reader still needs stays in the WAL.

        Raises :exc:`DiskFull` and leaves the WAL as it is.
        """
        async with self._checkpointing:
            self._require_writable()
            self._wal_pages_seen = self._wal_pages
            await self._in_thread(self._checkpoint_in_thread)

    async def tend(self) -> None:
        """Keep the WAL short for as long as this runs: a background task of the owner."""
        while True:
            await self._wal_grown.wait()
            self._wal_grown = trio.Event()
            try:
                await self.checkpoint()
                # Under load something was written meanwhile, and a WAL starts over
                # only when all of it has been moved. What is left is a few pages,
                # synced a moment ago: a millisecond here, where letting the file
                # grow would end in a tenth of a second.
                self._checkpoint_in_loop()
            except DiskFull:
                # Serving goes on from the WAL until somebody makes room.
                await trio.sleep(_RETRY_FULL_DISK)

    async def close(self) -> None:
        """Close the file, once threads that still use it have left. Not cancellable."""
        if self._closed:
            return
        self._closed = True
        with trio.CancelScope(shield=True):
            # A descriptor closed under a running sync could be another file's
            # by the time the kernel looks at it.
            while self._guests:
                await self._guests_left.wait()
            await trio.to_thread.run_sync(self._close_in_thread, limiter=self._limiter)

    async def _sync_once(self) -> None:
        self._syncing = finished = trio.Event()
        covered = self._committed  # read before the sync starts: it promises no more than these
        try:
            await self._in_thread(self._sync_in_thread)
            self._durable = covered
        except OSError as exc:
            self._broken = f"the {self._kind} could not be written to the disk ({exc.strerror})"
            raise TenantBroken(self._broken) from exc
        finally:
            self._syncing = None
            finished.set()

    def _sync_in_thread(self) -> None:
        self._sync_file(self._wal)
        if not self._entry_synced:
            # SQLite has just created the -wal file; its name must be on disk too.
            directory = os.open(Path(self._path).parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
            self._entry_synced = True

    def _checkpoint_in_thread(self) -> None:
        # A connection of its own: the loop goes on using the other one, and a
        # passive checkpoint holds no lock that a reader or writer needs.
        # Busy: another program is at it, which serves as well.
        with connected(self._path, self._kind) as connection, suppress(apsw.BusyError):
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _checkpoint_in_loop(self) -> None:
        self._wal_pages_seen = self._wal_pages
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as exc:
            # The transaction is committed, so its caller must not hear of this;
            # damage is remembered, and the next one hears of that.
            self._failure(exc)

    def _close_in_thread(self) -> None:
        os.close(self._wal)
        self._connection.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        self._guests += 1
        try:
            return await trio.to_thread.run_sync(work, limiter=self._limiter)
        except TenantBroken as exc:
            self._broken = exc.detail
            raise
        finally:
            self._guests -= 1
            if not self._guests:
                self._guests_left.set()
                self._guests_left = trio.Event()

    def _note_wal(self, _connection: Connection, _name: str, pages: int) -> int:
        if pages < self._wal_pages:
            self._wal_pages_seen = 0  # all of it was moved, the file is used anew
        self._wal_pages = pages
        # Counted from the last checkpoint: a long reader keeps it from moving
        # anything, and trying again with each commit would not help.
        if pages - self._wal_pages_seen >= _CHECKPOINT_AT:
            self._wal_grown.set()
        return apsw.SQLITE_OK

    def _require_open(self) -> None:
        if self._closed:
            raise Unavailable(f"the {self._kind} is closed")

    def _require_writable(self) -> None:
        self._require_open()
        if self._broken:
            raise TenantBroken(self._broken)

    def _raise(self, exc: apsw.Error) -> NoReturn:
        failure = self._failure(exc)
        if failure is None:
            raise exc
        raise failure from exc

    def _failure(self, exc: apsw.Error) -> ApplianceError | None:
        """What to tell the caller, None for a bug of ours; damage is remembered."""
        failure = translated(exc, self._kind, self._connection.system_errno)
        if isinstance(failure, TenantBroken):
            self._broken = failure.detail
        return failure
