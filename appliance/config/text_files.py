"""Reads small text files that the operator names: configs and secrets."""

import os
import stat
from pathlib import Path


class Unreadable(Exception):
    """Why a file could not be read; the text never quotes what is in it."""


def read_text(path: Path, *, limit: int) -> str:
    """The text of a regular file of at most ``limit`` bytes, else :exc:`Unreadable`.

    A link is followed: the path is the operator's own, and mounted config
    maps are links. A FIFO or device in its place is not waited for.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise Unreadable(exc.strerror) from exc
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Unreadable("not a regular file")
        data = bytearray()
        while len(data) <= limit and (piece := os.read(fd, limit + 1 - len(data))):
            data += piece
    except OSError as exc:
        raise Unreadable(exc.strerror) from exc
    finally:
        os.close(fd)
    if len(data) > limit:
        raise Unreadable(f"larger than {limit} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise Unreadable(f"line {line}: not UTF-8 text") from None
