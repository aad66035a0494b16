"""Opens a path below a directory without following links, in two ways.

Both take (directory descriptor, relative path, flags, mode), return a
descriptor and raise :exc:`OSError`. The path has been split and checked
before: no ``..``, no empty component.
"""

import ctypes
import errno
import os
from collections.abc import Callable
from functools import cache, lru_cache

OpenBeneath = Callable[[int, str, int, int], int]

_OPENAT2 = 437  # on every architecture of Linux but alpha
_NO_MAGICLINKS = 0x02
_NO_SYMLINKS = 0x04
_BENEATH = 0x08
_RESOLVE = _BENEATH | _NO_MAGICLINKS | _NO_SYMLINKS
_ATTEMPTS = 16


class _How(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


_HOW_SIZE = ctypes.sizeof(_How)
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(_How),
    ctypes.c_size_t,
)


@lru_cache(maxsize=64)
def _how(flags: int, mode: int) -> _How:
    """The kernel only reads it, so each kind of opening is written down once."""
    return _How(flags, mode, _RESOLVE)


def open_with_openat2(directory_fd: int, relative: str, flags: int, mode: int) -> int:
    """One system call; the kernel resolves the whole path under our conditions."""
    # A mode without O_CREAT is refused.
    how = _how(flags, mode if flags & os.O_CREAT else 0)
    path = os.fsencode(relative)
    code = 0
    for _ in range(_ATTEMPTS):
        fd = _syscall(_OPENAT2, directory_fd, path, ctypes.byref(how), _HOW_SIZE)
        if fd >= 0:
            return int(fd)
        code = ctypes.get_errno()
        # EAGAIN: something above was renamed meanwhile and the kernel could
        # not tell whether we are still beneath.
        if code not in {errno.EAGAIN, errno.EINTR}:
            break
    raise OSError(code, os.strerror(code), relative)


def open_by_walking(directory_fd: int, relative: str, flags: int, mode: int) -> int:
    """One component after the other; a link anywhere ends it.

    With no ``..`` in the path and no link followed, each step leads from a
    directory into one of its own entries, so there is no way out.
    """
    *above, name = relative.split("/")
    here = directory_fd
    try:
        for part in above:
            below = os.open(
                part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here
            )
            if here != directory_fd:
                os.close(here)
            here = below
        return os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=here)
    finally:
        if here != directory_fd:
            os.close(here)


@cache
def choose_opener() -> OpenBeneath:
    """``openat2`` where the kernel has it and the container allows it, else the walk."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        probe = open_with_openat2(root, "proc", os.O_PATH | os.O_CLOEXEC, 0)
    except OSError as exc:
        # Old kernels say ENOSYS; seccomp filters that do not know it say EPERM.
        if exc.errno in {errno.ENOSYS, errno.EPERM}:
            return open_by_walking
        return open_with_openat2
    else:
        os.close(probe)
        return open_with_openat2
    finally:
        os.close(root)
