"""Paths below a directory into which somebody else may write.

Every lookup starts at a descriptor of the directory, is resolved by the
kernel, follows no link and cannot leave: ``openat2`` with RESOLVE_BENEATH, or,
on a kernel or in a container without it, a walk that opens one component after
the other with O_NOFOLLOW. Renaming the directory, or putting another in its
place, does not turn an open root anywhere else.

Nothing in here joins strings into paths, save :meth:`ConfinedDirectory.sqlite_path`,
which says why.
"""

import errno
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from appliance.model.errors import ApplianceError, DiskFull, Kind, TenantUnknown, TooLarge
from appliance.model.ids import is_tenant_id
from appliance.storage.beneath import OpenBeneath, choose_opener
from appliance.storage.files import (
    FULL,
    full_disk_reported,
    remove_leftovers,
    remove_tree,
    replace_file,
)
from appliance.storage.room import Room

LONGEST_PATH = 4095  # bytes, the kernel's own limit without the NUL
LONGEST_NAME = 255  # bytes
MOST_ENTRIES = 100_000  # names that one listing returns
_LONGEST_SQLITE = 500  # bytes; SQLite's limit is 512 with "-journal" behind
_SQLITE_FILES = ("", "-wal", "-shm", "-journal")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class PathRefused(ApplianceError):
    """The path leads out, over a link, or to something that is no plain file."""

    code = "path-refused"
    title = "The path cannot be used"
    kind = Kind.INVALID


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """``files`` is how many more there may be, None where nobody counts."""

    bytes: int
    files: int | None = None


def split_path(relative: str) -> tuple[str, ...]:
    """The components of ``relative``; raise :exc:`PathRefused` unless it plainly points down."""
    try:
        encoded = os.fsencode(relative)
    except UnicodeEncodeError:
        raise refused(relative, "is not text a file can be named with") from None
    parts = relative.split("/")
    if not relative or "\0" in relative or len(encoded) > LONGEST_PATH:
        raise refused(relative, "is empty, too long, or holds a NUL")
    for part in parts:
        if part in {"", ".", ".."}:
            raise refused(relative, "must be relative, without '.', '..' and empty components")
        if len(os.fsencode(part)) > LONGEST_NAME:
            raise refused(relative, f"has a name longer than {LONGEST_NAME} bytes")
    return tuple(parts)


class ConfinedDirectory:
    """A directory, by descriptor, and what may be done below it.

    Methods raise :exc:`PathRefused` for what is not safe to touch,
    :exc:`FileNotFoundError` and :exc:`FileExistsError` as usual,
    :exc:`DiskFull` when there is no space, and :exc:`ValueError` once closed.
    They block and may be called from any thread.
    """

    def __init__(self, fd: int, *, opener: OpenBeneath | None = None) -> None:
        """Take over ``fd``, a descriptor of the directory."""
        self._directory = _Descriptor(fd)
        self._opener = opener or choose_opener()
        self._swept: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it, once whoever is using it in another thread is done."""
        self._directory.close()

    def open_file(self, relative: str, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
        """Open a regular file and return its descriptor, which the caller closes.

        Anything else in its place (a FIFO, a device, a directory, a link) is
        refused without waiting for it. O_TRUNC takes effect once it is known
        to be a file.
        """
        split_path(relative)
        safe = (flags & ~os.O_TRUNC) | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = self._open(relative, safe, mode)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise refused(relative, "is not a regular file")
            if flags & os.O_TRUNC:
                os.ftruncate(fd, 0)
        except BaseException:
            os.close(fd)
            raise
        return fd

    @contextmanager
    def handle(self) -> Iterator[int]:
        """An O_PATH descriptor of it, which stays open meanwhile and is not yours to close."""
        with self._directory as fd:
            yield fd

    def open_handle(self, relative: str, flags: int) -> int:
        """Open with O_PATH and ``flags``; the caller closes it."""
        split_path(relative)
        return self._open(relative, flags | os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)

    def read_bytes(self, relative: str, *, limit: int) -> bytes:
        """The content of a file; :exc:`TooLarge` if it is more than ``limit`` bytes."""
        data = bytearray()
        fd = self.open_file(relative)
        try:
            expected = os.fstat(fd).st_size + 1
            # One byte more than allowed, because it may grow while it is read.
            while wanted := limit + 1 - len(data):
                piece = os.read(fd, min(wanted, max(expected - len(data), 4096)))
                if not piece:
                    break
                data += piece
        finally:
            os.close(fd)
        if len(data) > limit:
            raise TooLarge(f"{_shown(relative)} is larger than {limit} bytes", limit=limit)
        return bytes(data)

    def write_atomic(self, relative: str, data: bytes, *, mode: int = 0o600) -> None:
        """Make ``data`` the content of the file, durably, or change nothing.

        Its directory must exist. What is there must be a file, or nothing.
        """
        with self._parent_of(relative) as (parent, name):
            found = _kind(parent, name)
            if found is not None and not stat.S_ISREG(found):
                raise refused(relative, "is not a regular file")
            folder = relative[: -len(name)]
            if folder not in self._swept:
                remove_leftovers(parent)
                self._swept.add(folder)
            replace_file(parent, name, data, mode=mode)

    def mkdir(self, relative: str) -> None:
        """Make the directory, and those above it; what exists already stays."""
        made = ""
        for part in split_path(relative):
            made = f"{made}/{part}" if made else part
            with self._parent_of(made) as (parent, name), full_disk_reported():
                try:
                    os.mkdir(name, 0o700, dir_fd=parent)
                except FileExistsError:
                    if not stat.S_ISDIR(_kind(parent, name) or 0):
                        raise refused(made, "is not a directory") from None
                else:
                    os.fsync(parent)

    def exists(self, relative: str) -> bool:
        """Whether there is a file or directory; a link is refused."""
        try:
            self.stat(relative)
        except FileNotFoundError:
            return False
        return True

    def stat(self, relative: str) -> os.stat_result:
        """What is there, of whatever kind; a link is refused."""
        with self._parent_of(relative) as (parent, name):
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            raise refused(relative, "is a link")
        return found

    def stats(self, relative: str, names: Iterable[str]) -> dict[str, os.stat_result]:
        """What of ``names`` a directory holds as plain files, looked up at once.

        Empty where there is no such directory, or none that may be entered.
        """
        found: dict[str, os.stat_result] = {}
        try:
            with self._opened(relative) as fd:
                for name in names:
                    try:
                        entry = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    except OSError:
                        continue
                    if stat.S_ISREG(entry.st_mode):
                        found[name] = entry
        except (OSError, PathRefused):
            return {}
        return found

    def listdir(self, relative: str = "") -> list[str]:
        """Names in a directory (here, if none is named), sorted.

        Names that are not UTF-8 come with surrogate escapes. :exc:`TooLarge`
        beyond 100,000 entries.
        """
        with self._opened(relative) as fd, os.scandir(fd) as entries:
            names: list[str] = []
            for entry in entries:
                names.append(entry.name)
                if len(names) > MOST_ENTRIES:
                    raise TooLarge(f"more than {MOST_ENTRIES} entries", limit=MOST_ENTRIES)
        return sorted(names)

    def unlink(self, relative: str) -> None:
        """Remove a file, durably; also a link or FIFO, since that touches nothing behind it."""
        with self._parent_of(relative) as (parent, name):
            try:
                os.unlink(name, dir_fd=parent)
            except (IsADirectoryError, PermissionError) as exc:
                if stat.S_ISDIR(_kind(parent, name) or 0):
                    raise refused(relative, "is a directory") from exc
                raise
            os.fsync(parent)

    def rename(self, old: str, new: str) -> None:
        """Move what ``old`` names to ``new``, durably.

        A file there is replaced, and an empty directory by a directory; a
        directory with something in it is :exc:`FileExistsError`.
        """
        with self._parent_of(old) as (source, name), self._parent_of(new) as (target, new_name):
            try:
                with full_disk_reported():
                    os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
            except OSError as exc:
                if exc.errno == errno.ENOTEMPTY:
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from exc
                if exc.errno in _IN_THE_WAY:
                    raise refused(new, "cannot take its place: a directory is involved") from exc
                raise
            os.fsync(target)
            os.fsync(source)

    def remove_tree(self, relative: str) -> None:
        """Remove a directory and all below it, following no link."""
        with self._parent_of(relative) as (parent, name):
            remove_tree(parent, name)
            os.fsync(parent)

    def free_bytes(self) -> int:
        """Space that is left for us on the disk."""
        return self.free_space().bytes

    def free_space(self) -> "FreeSpace":
        with self._directory as fd:
            found = os.fstatvfs(fd)
        # Some file systems have no fixed number of files, and say 0 of 0.
        files = found.f_favail if found.f_files else None
        return FreeSpace(found.f_bavail * found.f_frsize, files)

    def sqlite_path(self, relative: str) -> str:
        """A path with which SQLite may open, or create, the database ``relative``.

        SQLite takes a name, resolves it itself and opens its companions by
        name too, so a descriptor is of no use to it. What it gets is where the
        kernel says the verified directory is now, resolved and absolute, with
        the database and its companions checked to be plain files or absent.
        Open it with SQLITE_OPEN_NOFOLLOW: then SQLite refuses a link that came
        in between. Databases lie where no sandbox can write.
        """
        with self._parent_of(relative) as (parent, name):
            for suffix in _SQLITE_FILES:
                found = _kind(parent, name + suffix)
                if found is not None and not stat.S_ISREG(found):
                    raise refused(relative + suffix, "is not a regular file")
            folder = os.readlink(f"/proc/self/fd/{parent}")  # noqa: PTH115 - a magic link
            path = f"{folder}/{name}"
            if len(os.fsencode(path)) > _LONGEST_SQLITE:
                raise refused(relative, "lies deeper than SQLite can open")
            # A directory that was removed, or that is not visible from here,
            # has a text that leads nowhere or elsewhere.
            try:
                same = os.path.samestat(os.stat(folder), os.fstat(parent))  # noqa: PTH116 - as above
            except OSError:
                same = False
            if not same:
                raise refused(relative, "lies in a directory that was removed")
        return path

    def _open(self, relative: str, flags: int, mode: int = 0) -> int:
        with self._directory as fd:
            try:
                return self._opener(fd, relative, flags, mode)
            except OSError as exc:
                if exc.errno in FULL:
                    raise DiskFull("there is no space left on the gateway's disk") from exc
                if exc.errno in _REFUSALS:
                    raise refused(relative, _REFUSALS[exc.errno]) from exc
                raise

    @contextmanager
    def _opened(self, relative: str) -> Iterator[int]:
        """A descriptor of a directory below, or of this one for ""."""
        if relative:
            split_path(relative)
            fd = self._open(relative, _DIRECTORY | os.O_NOFOLLOW)
        else:
            with self._directory as own:
                fd = os.open(".", _DIRECTORY, dir_fd=own)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _parent_of(self, relative: str) -> Iterator[tuple[int, str]]:
        """A descriptor of the directory that holds ``relative``, and its name in there."""
        *above, name = split_path(relative)
        with self._opened("/".join(above)) as parent:
            yield parent, name


class TenantRoot(ConfinedDirectory):
    """A tenant's directory. Stores are built on one, so none can reach another tenant's data."""

    def __init__(self, tenant: str, fd: int, *, opener: OpenBeneath | None = None) -> None:
        super().__init__(fd, opener=opener)
        self.tenant = tenant
        self.room = Room()

    def __repr__(self) -> str:
        return f"<TenantRoot {self.tenant}>"

    @classmethod
    def open(cls, state: ConfinedDirectory, tenant: str) -> Self:
        """Open the directory of ``tenant``; raise :exc:`TenantUnknown` if there is none."""
        if not is_tenant_id(tenant):
            raise TenantUnknown("there is no such tenant")
        try:
            fd = state.open_handle(f"tenants/{tenant}", os.O_DIRECTORY)
        except FileNotFoundError:
            raise TenantUnknown(f"there is no tenant {tenant!r}") from None
        return cls(tenant, fd, opener=state._opener)  # noqa: SLF001 - its own kind


class _Descriptor:
    """A descriptor that is closed when its last user is done.

    Closed under a thread that still uses it, its number could already stand
    for another tenant's directory.
    """

    __slots__ = ("_closing", "_fd", "_lock", "_users")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._users = 0
        self._closing = False
        self._lock = threading.Lock()

    def __enter__(self) -> int:
        with self._lock:
            if self._closing:
                raise ValueError("the directory is closed")
            self._users += 1
            return self._fd

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            self._close_if_unused()

    def close(self) -> None:
        with self._lock:
            self._closing = True
            self._close_if_unused()

    def __del__(self) -> None:
        self.close()

    def _close_if_unused(self) -> None:
        if self._closing and self._users == 0 and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


_REFUSALS = {
    errno.ELOOP: "leads over a link",
    errno.EXDEV: "leads out of its directory",
    errno.ENOTDIR: "leads over something that is not a directory",
    errno.EISDIR: "is a directory",
    errno.ENXIO: "is not a regular file",
    errno.ENODEV: "is not a regular file",
    errno.ENAMETOOLONG: "is too long",
}


# A directory is replaced only by a directory, and never by a part of itself.
_IN_THE_WAY = frozenset({errno.EISDIR, errno.ENOTDIR, errno.EINVAL})


def refused(relative: str, reason: str) -> PathRefused:
    """``relative`` with why it is not touched; ``reason`` follows it in the sentence."""
    return PathRefused(f"{_shown(relative)} {reason}")


def _shown(relative: str) -> str:
    """``relative`` fit for a message: short, and printable whatever is in it."""
    return ascii(relative if len(relative) <= 120 else f"{relative[:120]}...")


def _kind(parent: int, name: str) -> int | None:
    """The mode of an entry, links not followed; None if there is none."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
