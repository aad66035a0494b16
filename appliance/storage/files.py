"""Files that are replaced whole, and trees that are removed whole.

A reader of a file written here sees the old content or the new, never a part,
also after a power cut: temp file beside it, fsync, rename, fsync of the
directory. Everything works on a directory's descriptor, so that nobody can
turn the path elsewhere meanwhile, and everything blocks: call it in a thread.
"""

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count

from appliance.model.errors import DiskFull

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# A temp file of another run was left by a crash. The lock on the state
# directory makes sure that there is no other run at the same time.
_RUN = secrets.token_hex(4)
_numbers = count()
_LEFTOVER = re.compile(rf"\.openclaw-(?!{_RUN})[0-9a-f]{{8}}-[0-9]+\.tmp", re.ASCII)
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def full_disk_reported() -> Iterator[None]:
    """Turn "no space left" and "over quota" into :exc:`DiskFull`."""
    try:
        yield
    except OSError as exc:
        if exc.errno in FULL:
            raise DiskFull("there is no space left on the gateway's disk") from exc
        raise


def replace_file(
    directory_fd: int, name: str, data: bytes, *, mode: int = 0o600, owner: int | None = None
) -> None:
    """Make ``data`` the content of ``name``, durably, or change nothing.

    The file becomes that of ``owner`` (user and group), None for whoever we are.
    Raises :exc:`DiskFull` or another :exc:`OSError`; the old content is intact
    then and the temp file gone.
    """
    temporary = f".openclaw-{_RUN}-{next(_numbers)}.tmp"
    with full_disk_reported():
        try:
            _write_new(directory_fd, temporary, data, mode, owner)
            os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=directory_fd)
            raise
        os.fsync(directory_fd)


def remove_leftovers(directory_fd: int) -> int:
    """Remove temp files of runs that ended before they could; return how many."""
    left = [name for name in os.listdir(directory_fd) if _LEFTOVER.fullmatch(name)]
    for name in left:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory_fd)
    return len(left)


def remove_tree(parent_fd: int, name: str, *, step: Callable[[], None] = lambda: None) -> None:
    """Remove ``name`` and all below it, following no link, however deep it is.

    ``step`` is called between pieces of the work; what it raises ends it.

    Whoever made the tree may have nested it deeper than our stack, or our
    limit of open files, and closed directories to us. So a directory found
    below is first moved up to the top, and two descriptors always suffice.
    """
    if not _is_directory(parent_fd, name):
        os.unlink(name, dir_fd=parent_fd)
        return
    top = _open_directory(parent_fd, name)
    try:
        while names := _some_names(top):
            for entry in names:
                step()
                _remove_below(top, entry, step)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent_fd)


def _write_new(directory_fd: int, name: str, data: bytes, mode: int, owner: int | None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, mode, dir_fd=directory_fd)
    try:
        if owner is not None:
            os.fchown(fd, owner, owner)  # first, because it takes set-id bits away
        os.fchmod(fd, mode)  # whatever the umask says
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove_below(top: int, name: str, step: Callable[[], None]) -> None:
    if not _is_directory(top, name):
        os.unlink(name, dir_fd=top)
        return
    directory = _open_directory(top, name)
    try:
        while names := _some_names(directory):
            step()
            for entry in names:
                if _is_directory(directory, entry):
                    # Moving a directory writes its "..", which it must allow.
                    os.close(_open_directory(directory, entry))
                    moved = f".removed-{secrets.token_hex(16)}"
                    os.rename(entry, moved, src_dir_fd=directory, dst_dir_fd=top)
                else:
                    os.unlink(entry, dir_fd=directory)
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=top)


def _open_directory(parent_fd: int, name: str) -> int:
    """Open a directory for listing, opening it up first if its mode forbids that."""
    handle = os.open(
        name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd
    )
    try:
        if os.fstat(handle).st_mode & 0o700 != 0o700:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)  # noqa: PTH101 - fchmod refuses O_PATH
        return os.open(".", _OPEN_DIRECTORY, dir_fd=handle)
    finally:
        os.close(handle)


def _is_directory(parent_fd: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode)


def _some_names(directory_fd: int, limit: int = 1000) -> list[str]:
    """Up to ``limit`` names: a directory may hold more than memory should."""
    names: list[str] = []
    with os.scandir(directory_fd) as entries:
        for entry in entries:
            names.append(entry.name)
            if len(names) == limit:
                break
    return names
