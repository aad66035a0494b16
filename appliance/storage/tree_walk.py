"""A walk through a tree that somebody hostile may be changing meanwhile.

No link is followed and nothing is opened but directories, each found again
from an open one above it. Neither a tree deeper than any path may be long nor
one with a million directories in one place takes much memory or many
descriptors: what is beyond measure is :exc:`TreeTooLarge`.
"""

import errno
import os
import stat
from collections.abc import Callable, Container, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from appliance.storage.beneath import choose_opener

MOST_WAITING = 50_000  # directories that were seen and not yet looked into
MOST_BASES = 64  # descriptors held open; each leads some 3,000 bytes of path further down
EVERY = 500  # entries between two moments in which a caller may pause or stop
_LONGEST = 3000  # bytes of path from an open directory
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ESTALE})
_NEEDED = 0o500  # to list a directory and look at what is in it
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HANDLE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class TreeTooLarge(Exception):
    """Too wide or too deep to be walked through."""


# The directory's descriptor, the name in it, the first component of its path, what it is.
Visit = Callable[[int, str, str, os.stat_result], None]


class _Base:
    """An open directory from which others are found; closed with the last that needs it."""

    __slots__ = ("fd", "users")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.users = 0


@dataclass(frozen=True, slots=True)
class _Waiting:
    base: _Base
    path: str  # from there; "" for itself
    top: str


def walk(
    directory: int, visit: Visit, *, skipped: Container[str] = frozenset()
) -> Generator[int, None, None]:
    """Visit everything below ``directory``, which stays the caller's; yield how much was seen.

    What is called as in ``skipped`` at the top is neither visited nor looked into.
    It yields every ``EVERY`` entries, so whoever asks for no more stops it;
    use :func:`contextlib.closing`. Entries that vanish or change their kind
    meanwhile are left out. Blocks; raises :exc:`TreeTooLarge` and :exc:`OSError`.
    """
    walker = _Walker(visit, skipped)
    try:
        yield from walker.run(os.open(".", _HANDLE, dir_fd=directory))
    finally:
        walker.close()


class _Walker:
    def __init__(self, visit: Visit, skipped: Container[str]) -> None:
        self._visit = visit
        self._skipped = skipped
        self._waiting: list[_Waiting] = []
        self._bases: set[_Base] = set()
        self._seen = 0

    def run(self, fd: int) -> Iterator[int]:
        self._wait_for(self._new_base(fd), "", "")
        while self._waiting:
            here = self._waiting.pop()
            with _left_out_if_gone(), _opened(here) as opened:
                yield from self._look_into(here, opened)
            self._release(here.base)
        yield self._seen

    def close(self) -> None:
        for base in self._bases:
            os.close(base.fd)
        self._bases.clear()

    def _look_into(self, here: _Waiting, opened: int) -> Iterator[int]:
        base, prefix = self._base_below(here, opened)
        base.users += 1  # also while nothing below it waits
        try:
            with os.scandir(opened) as entries:
                for entry in entries:
                    self._seen += 1
                    self._see(entry, opened, base, prefix, here.top)
                    if self._seen % EVERY == 0:
                        yield self._seen
        finally:
            self._release(base)

    def _see(
        self, entry: "os.DirEntry[str]", opened: int, base: _Base, prefix: str, top: str
    ) -> None:
        if not top and entry.name in self._skipped:
            return
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        self._visit(opened, entry.name, top or entry.name, status)
        if stat.S_ISDIR(status.st_mode):
            path = f"{prefix}/{entry.name}" if prefix else entry.name
            self._wait_for(base, path, top or entry.name)

    def _base_below(self, here: _Waiting, opened: int) -> tuple[_Base, str]:
        """What its entries are found from: the same as itself, while that is not too far away."""
        if len(os.fsencode(here.path)) <= _LONGEST:
            return here.base, here.path
        return self._new_base(os.open(".", _HANDLE, dir_fd=opened)), ""

    def _wait_for(self, base: _Base, path: str, top: str) -> None:
        if len(self._waiting) >= MOST_WAITING:
            raise TreeTooLarge(f"more than {MOST_WAITING} directories in one place")
        base.users += 1
        self._waiting.append(_Waiting(base, path, top))

    def _new_base(self, fd: int) -> _Base:
        base = _Base(fd)
        self._bases.add(base)
        if len(self._bases) > MOST_BASES:
            raise TreeTooLarge("directories are nested too deeply")
        return base

    def _release(self, base: _Base) -> None:
        base.users -= 1
        if base.users == 0 and base in self._bases:
            self._bases.discard(base)
            os.close(base.fd)


@contextmanager
def _left_out_if_gone() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        # Anything else (no descriptors left, a broken disk) must not pass for "nothing there".
        if exc.errno not in _GONE:
            raise


@contextmanager
def _opened(here: _Waiting) -> Iterator[int]:
    """A descriptor of it; nothing is hidden by a mode that keeps us out of what is ours."""
    try:
        fd = _open(here.base.fd, here.path, _DIRECTORY)
    except PermissionError:
        fd = _open_closed(here)
    try:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        if os.geteuid() == 0 or mode & _NEEDED == _NEEDED:
            yield fd
            return
        os.fchmod(fd, mode | _NEEDED)
        try:
            yield fd
        finally:
            os.fchmod(fd, mode)
    finally:
        os.close(fd)


def _open(base: int, path: str, flags: int) -> int:
    return choose_opener()(base, path, flags, 0) if path else os.open(".", flags, dir_fd=base)


def _open_closed(here: _Waiting) -> int:
    handle = _open(here.base.fd, here.path, _HANDLE)
    place = f"/proc/self/fd/{handle}"
    try:
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        os.chmod(place, mode | _NEEDED)  # noqa: PTH101 - fchmod refuses O_PATH
        try:
            return os.open(".", _DIRECTORY, dir_fd=handle)
        finally:
            os.chmod(place, mode)  # noqa: PTH101 - as above
    finally:
        os.close(handle)
