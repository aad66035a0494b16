"""What lies in a workspace: a page of a directory, one entry, a file on its way in.

The same holds as for :mod:`~appliance.storage.workspace`: somebody hostile may
change all of it meanwhile. Everything blocks.
"""

import errno
import heapq
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

from appliance.model.errors import PreconditionFailed, TooLarge, Unavailable
from appliance.model.workspace_paths import is_text
from appliance.storage.files import full_disk_reported, remove_tree
from appliance.storage.paths import PathRefused, refused
from appliance.storage.workspace import Workspace

NOT_EMPTY = "is not empty"  # what a FileExistsError says of a directory
MOST_NAMES = 5_000_000  # of one directory; some five seconds in a thread
_LATEST_NS = 253_402_300_799 * 10**9  # the last second of the year 9999
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL})


class EntryKind(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    OTHER = "other"  # a FIFO, a socket, a device


@dataclass(frozen=True, slots=True)
class Entry:
    """``etag`` changes whenever the file does, in content or otherwise; "" for what is none."""

    name: str  # may hold surrogate escapes and control characters
    kind: EntryKind
    size: int
    modified_ns: int
    etag: str

    @classmethod
    def of(cls, name: str, found: os.stat_result) -> Self:
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), EntryKind.OTHER)
        is_file = kind is EntryKind.FILE
        return cls(
            name=name,
            kind=kind,
            size=found.st_size if is_file else 0,
            # Whoever runs in there sets it to anything; a calendar ends somewhere.
            modified_ns=min(max(found.st_mtime_ns, 0), _LATEST_NS),
            etag=etag_of(found) if is_file else "",
        )


_KINDS = {
    stat.S_IFREG: EntryKind.FILE,
    stat.S_IFDIR: EntryKind.DIRECTORY,
    stat.S_IFLNK: EntryKind.LINK,
}


@dataclass(frozen=True, slots=True)
class Page:
    """Entries in the order of their names; ``more`` of them come after the last.

    ``total`` counts those before and after, too.
    """

    entries: tuple[Entry, ...]
    more: bool
    total: int


def etag_of(found: os.stat_result) -> str:
    """Nobody but the kernel sets the time of change, so no content returns under an old tag."""
    return f"{found.st_ino:x}-{found.st_size:x}-{found.st_ctime_ns:x}"


def list_page(
    workspace: Workspace,
    relative: str,
    *,
    limit: int,
    after: str = "",
    skip: int = 0,
    plain: bool = False,
) -> Page:
    """The ``limit`` first entries whose names come after ``after``, less the first ``skip``.

    ``plain``: only files and directories, and only those that JSON can name.
    A page takes as much memory as it holds, whatever the directory holds; what
    comes and goes meanwhile moves no other entry. Raises :exc:`TooLarge` for a
    directory that cannot be looked through in a reasonable time, and what
    ``Workspace.listdir`` raises.
    """
    with opened_directory(workspace, relative) as fd:
        hidden = workspace.hidden if not relative else frozenset()
        total = 0

        def names() -> Iterator[str]:
            nonlocal total
            for name in _names(fd, relative, plain=plain):
                if name not in hidden:
                    total += 1
                    if name > after:
                        yield name

        found = heapq.nsmallest(skip + limit + 1, names())[skip:]
        entries = tuple(_entries(fd, found[:limit]))
    return Page(entries, more=len(found) > limit, total=total)


def describe(workspace: Workspace, relative: str) -> Entry:
    """One entry; raises ``FileNotFoundError``, and :exc:`PathRefused` also for a link."""
    return Entry.of(relative.rpartition("/")[2], workspace.stat(relative))


def remove(
    workspace: Workspace, relative: str, *, recursive: bool, etag: str | None, seconds: float
) -> None:
    """Remove an entry. ``recursive``: a directory with all that is in it.

    Whoever keeps filling what is being removed could keep us here for ever:
    after ``seconds`` this gives up with :exc:`Unavailable`, half done. Raises
    ``FileNotFoundError``, ``FileExistsError`` for a directory that is not
    empty, :exc:`PreconditionFailed` and :exc:`PathRefused`.
    """
    with _parent_of(workspace, relative) as (parent, name):
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if etag is not None and etag_of(found) != etag:
            raise PreconditionFailed("it changed since it was read")
        with _refusals(relative):
            if not stat.S_ISDIR(found.st_mode):
                os.unlink(name, dir_fd=parent)
            elif recursive:
                _remove_tree(parent, name, seconds)
            else:
                os.rmdir(name, dir_fd=parent)
        workspace.room.changed()
        os.fsync(parent)


class NewFile:
    """A file on its way in: nobody sees it until :meth:`commit`, when it is whole.

    It takes the room that the tenant has left from the first byte on, so that
    many at once cannot take more than there is.
    """

    def __init__(self, workspace: Workspace, relative: str) -> None:
        """The directory must exist.

        Raises ``FileNotFoundError``, ``PathRefused``, ``QuotaExceeded`` and ``DiskFull``.
        """
        self._room = workspace.room
        self._room.require()
        self._relative = relative
        self._name = relative.rpartition("/")[2]
        self._temporary: str | None = None
        with _parent_of(workspace, relative) as (parent, _):
            self._parent = os.dup(parent)
        try:
            with full_disk_reported(), _refusals(relative):
                self._fd = self._create()
        except BaseException:
            os.close(self._parent)
            raise
        self.size = 0
        if workspace.owner is not None:
            os.fchown(self._fd, workspace.owner, workspace.owner)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, data: bytes) -> None:
        """Raises ``QuotaExceeded`` and ``DiskFull``."""
        self._room.require(len(data))
        self._room.changed(len(data))
        view = memoryview(data)
        self.size += len(view)
        with full_disk_reported():
            while view:
                view = view[os.write(self._fd, view) :]

    def free_bytes(self) -> int:
        """What is left on the disk for us."""
        found = os.fstatvfs(self._fd)
        return found.f_bavail * found.f_frsize

    def commit(self, require: Callable[[Entry | None], None] = lambda _: None) -> Entry:
        """Put it in its place, durably; ``require`` is shown what is there and may refuse it.

        Raises what ``require`` raises, and :exc:`PathRefused` if something
        other than a file is there.
        """
        with full_disk_reported():
            os.fsync(self._fd)
            there = self._there()
            require(None if there is None else Entry.of(self._name, there))
            mode = 0o600 if there is None else stat.S_IMODE(there.st_mode) & 0o777
            os.fchmod(self._fd, mode)
            if self._temporary is None:
                self._temporary = _temporary_name()
                place = f"/proc/self/fd/{self._fd}"
                os.link(place, self._temporary, dst_dir_fd=self._parent, follow_symlinks=True)
            with _refusals(self._relative):
                os.rename(
                    self._temporary, self._name, src_dir_fd=self._parent, dst_dir_fd=self._parent
                )
            self._temporary = None
            os.fsync(self._parent)
        return Entry.of(self._name, os.fstat(self._fd))

    def close(self) -> None:
        """Without a commit before, nothing is left of it."""
        self._room.changed()
        if self._temporary is not None:
            with suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._parent)
        for fd in (self._fd, self._parent):
            if fd >= 0:
                os.close(fd)
        self._fd = self._parent = -1
        self._temporary = None

    def _create(self) -> int:
        """Without a name, where the file system can do that: nobody inside can touch it."""
        try:
            return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=self._parent)
        except OSError as exc:
            if exc.errno not in _NO_TMPFILE:
                raise
        name = _temporary_name()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=self._parent)
        self._temporary = name
        return fd

    def _there(self) -> os.stat_result | None:
        try:
            found = os.stat(self._name, dir_fd=self._parent, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(found.st_mode):
            raise refused(self._relative, "is not a regular file")
        return found


@contextmanager
def opened_directory(workspace: Workspace, relative: str) -> Iterator[int]:
    """A descriptor of the directory ``relative``, "" for the workspace, to list it with."""
    with _refusals(relative or "."):
        if relative:
            handle = workspace.open_handle(relative, os.O_DIRECTORY)
            try:
                fd = os.open(".", _DIRECTORY, dir_fd=handle)
            finally:
                os.close(handle)
        else:
            with workspace.handle() as own:
                fd = os.open(".", _DIRECTORY, dir_fd=own)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _parent_of(workspace: Workspace, relative: str) -> Iterator[tuple[int, str]]:
    folder, _, name = relative.rpartition("/")
    if not folder and name in workspace.hidden:
        raise refused(relative, "is kept for other agents")
    with opened_directory(workspace, folder) as parent:
        yield parent, name


def _names(fd: int, relative: str, *, plain: bool) -> Iterator[str]:
    with os.scandir(fd) as entries:
        for count, entry in enumerate(entries):
            if count >= MOST_NAMES:
                raise TooLarge(
                    f"{relative or 'the workspace'} holds more than {MOST_NAMES} names; "
                    "look at it with find",
                    limit=MOST_NAMES,
                )
            if not plain or _is_plain(entry):
                yield entry.name


def _is_plain(entry: "os.DirEntry[str]") -> bool:
    # Both are known from the listing itself; nothing is looked up.
    is_known = entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)
    return is_known and is_text(entry.name)


def _entries(fd: int, names: list[str]) -> Iterator[Entry]:
    for name in names:
        try:
            yield Entry.of(name, os.stat(name, dir_fd=fd, follow_symlinks=False))
        except OSError:
            continue  # gone since it was listed


def _remove_tree(parent: int, name: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds

    def step() -> None:
        if time.monotonic() > deadline:
            raise Unavailable("not all of it could be removed in time; try again")

    try:
        remove_tree(parent, name, step=step)
    except OSError as exc:
        raise Unavailable("something keeps changing it; end that, then try again") from exc


@contextmanager
def _refusals(relative: str) -> Iterator[None]:
    """Modes and names are theirs to choose; what cannot be used is refused, it is no failure."""
    try:
        yield
    except PermissionError as exc:
        raise PathRefused(f"{relative[:120]!a} is closed by its mode") from exc
    except OSError as exc:
        if exc.errno == errno.ENOTEMPTY:
            raise FileExistsError(errno.EEXIST, NOT_EMPTY, relative) from exc
        if exc.errno in {errno.EISDIR, errno.ENOTDIR}:
            raise refused(relative, "is a directory, or leads over something that is none") from exc
        raise


def _temporary_name() -> str:
    return f".openclaw-{secrets.token_hex(8)}.tmp"
