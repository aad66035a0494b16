"""A state directory has one owner at a time."""

import fcntl
import os
from contextlib import suppress
from types import TracebackType
from typing import Self

from appliance.model.errors import ApplianceError, Kind
from appliance.storage.paths import ConfinedDirectory

_NAME = ".lock"


class StateInUse(ApplianceError):
    """Another process works on the state directory."""

    code = "state-in-use"
    title = "The state directory is in use"
    kind = Kind.CONFLICT


class StateLock:
    """Ownership of a state directory, until :meth:`release` or the end of the process.

    The kernel drops it with the process, however that ends; the file stays,
    because removing it could take the lock from under the next owner.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    @classmethod
    def acquire(cls, directory: ConfinedDirectory, *, shown_as: str) -> Self:
        """Take the lock at once or raise :exc:`StateInUse` naming who has it."""
        fd = directory.open_file(_NAME, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            owner = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
            os.close(fd)
            by = f"process {owner}" if owner.isdigit() else "another process"
            raise StateInUse(f"{shown_as} is in use by {by}; stop that one first") from None
        except BaseException:
            os.close(fd)
            raise
        return cls(fd)

    def release(self) -> None:
        if self._fd < 0:
            return
        with suppress(OSError):  # the number is only told to people
            os.ftruncate(self._fd, 0)
        os.close(self._fd)
        self._fd = -1
