"""How a database file of ours is opened, and how SQLite's failures read.

A file appears whole (see :func:`~appliance.storage.migrations.new_database`),
so SQLite never gets to create one. What is damaged is reported and left as it
is; nothing here writes before the file has been found sound.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, Protocol

import apsw

from appliance.model.errors import ApplianceError, DiskFull, TenantBroken, Unavailable
from appliance.storage.migrations import Schema, migrate, new_database
from appliance.storage.paths import PathRefused

Connection = apsw.Connection

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_PATIENCE_MS = 5_000  # of a thread, with another program's lock; the loop has none
_TOO_BUSY = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})

# recursive_triggers: without it, INSERT OR REPLACE deletes past the triggers.
# busy_timeout: waiting for another program's lock would stop the whole gateway.
_PRAGMAS = """
PRAGMA busy_timeout = 0;
PRAGMA trusted_schema = OFF;
PRAGMA cell_size_check = ON;
PRAGMA foreign_keys = ON;
PRAGMA recursive_triggers = ON;
PRAGMA mmap_size = 0;
PRAGMA cache_size = -256;
PRAGMA temp_store = MEMORY;
PRAGMA synchronous = NORMAL;
PRAGMA wal_autocheckpoint = 0;
"""


class DatabaseRoot(Protocol):
    """What a database needs of a ``TenantRoot``; paths are relative to it."""

    def sqlite_path(self, relative: str) -> str: ...
    def exists(self, relative: str) -> bool: ...
    def mkdir(self, relative: str) -> None: ...
    def open_file(self, relative: str, flags: int) -> int: ...
    def write_atomic(self, relative: str, data: bytes) -> None: ...
    def unlink(self, relative: str) -> None: ...


@contextmanager
def damage_reported(kind: str) -> Iterator[None]:
    """Raise ``TenantBroken`` where something else lies in a database's place.

    No caller named that path, so no caller is told that theirs is refused.
    """
    try:
        yield
    except PathRefused as error:
        raise TenantBroken(f"the {kind} database cannot be used: {error.detail}") from error


def open_file(root: DatabaseRoot, name: str, schema: Schema) -> tuple[Connection, str, int]:
    """Open, create or migrate ``name``; return the connection, the path and the -wal's descriptor.

    For a worker thread: it syncs.
    """
    try:
        with damage_reported(schema.kind):
            path = _existing_file(root, name, schema)
        connection = _connect(path, schema.kind)
    except (apsw.Error, OSError) as exc:
        raise_translated(exc, schema.kind)
    try:
        _recover(connection)
        migrate(
            connection,
            schema,
            before_first=lambda version: _snapshot(connection, root, f"{name}.v{version}"),
        )
        wal = root.open_file(f"{name}-wal", os.O_RDONLY | os.O_CLOEXEC)
    except (apsw.Error, OSError) as exc:
        number = connection.system_errno
        connection.close()
        raise_translated(exc, schema.kind, number)
    except BaseException:
        connection.close()
        raise
    return connection, path, wal


def _existing_file(root: DatabaseRoot, name: str, schema: Schema) -> str:
    root.mkdir(str(Path(name).parent))
    if not root.exists(name):
        if root.exists(f"{name}-wal"):
            # Its changes would be played into the new, foreign file.
            raise TenantBroken(f"the {schema.kind} database is missing, its -wal file is there")
        root.write_atomic(name, new_database(schema))
    return root.sqlite_path(name)


def _connect(path: str, kind: str) -> Connection:
    # SQLite takes an empty file for a new database and deletes its WAL.
    if Path(path).stat().st_size == 0:
        raise TenantBroken(f"the {kind} database is empty")
    connection = Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        # apsw stops at the first statement that returns a row unless all are fetched.
        connection.execute(_PRAGMAS).fetchall()
        # The first look at the file: it finds damage, and creates the -wal.
        ((mode,),) = connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except BaseException:
        connection.close()
        raise
    if mode != "wal":
        connection.close()
        raise TenantBroken("the file system cannot hold a database (no write-ahead log)")
    return connection


def _recover(connection: Connection) -> None:
    """Put what an unclean end left in the WAL into the database, synced.

    Frames that a failed sync left in memory only would otherwise be read now
    and be missing under later, synced ones after a power cut.
    """
    try:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except (apsw.FullError, apsw.BusyError):
        # Reading works from the WAL; writing will say the same again.
        return


def _snapshot(connection: Connection, root: DatabaseRoot, name: str) -> None:
    """Keep a copy of the database as it is before a migration."""
    if root.exists(name):
        root.unlink(name)  # of an attempt that did not get past this point
    connection.execute("VACUUM INTO ?", (root.sqlite_path(name),)).fetchall()
    copy = root.open_file(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(copy)
    finally:
        os.close(copy)


@contextmanager
def connected(path: str, kind: str) -> Iterator[Connection]:
    """A second connection to a file that is open, for one piece of work in a thread."""
    try:
        connection = _connect(path, kind)
        connection.set_busy_timeout(_PATIENCE_MS)
    except (apsw.Error, OSError) as exc:
        raise_translated(exc, kind)
    try:
        yield connection
    except apsw.Error as exc:
        raise_translated(exc, kind, connection.system_errno)
    finally:
        connection.close()


def raise_translated(exc: apsw.Error | OSError, kind: str, system_errno: int = 0) -> NoReturn:
    """Raise the failure as callers know it; ``exc`` itself if it is a bug of ours."""
    failure = translated(exc, kind, system_errno)
    if failure is None:
        raise exc
    raise failure from exc


def translated(
    exc: apsw.Error | OSError, kind: str, system_errno: int = 0
) -> ApplianceError | None:
    """The failure as callers know it, None for a bug of ours.

    ``system_errno`` is the connection's: SQLite keeps it until the next one,
    so it only means something beside an IOError.
    """
    match exc:
        case apsw.FullError():
            return DiskFull(f"there is no room for the {kind}; make some and try again")
        case apsw.BusyError() | apsw.LockedError():
            return Unavailable(f"another program holds the {kind} locked", retry_after=1)
        case apsw.CantOpenError():
            return Unavailable(f"the {kind} cannot be opened right now", retry_after=1)
        case apsw.CorruptError() | apsw.NotADBError():
            return TenantBroken(f"the {kind} database is damaged")
        case apsw.ReadOnlyError():
            return TenantBroken(f"the {kind} is on a read-only file system")
        case apsw.IOError():
            return _io_failure(system_errno, kind)
        case OSError():
            return _io_failure(exc.errno or 0, kind)
    return None


def _io_failure(number: int, kind: str) -> ApplianceError:
    if number in _NO_ROOM:
        return DiskFull(f"there is no room for the {kind}; make some and try again")
    if number in _TOO_BUSY:
        return Unavailable(f"the {kind} cannot be opened right now ({os.strerror(number)})")
    return TenantBroken(f"the {kind} cannot be used ({os.strerror(number)})")
