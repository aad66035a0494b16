"""Counting the CPU time of a sandbox without a control group.

bwrap ends as soon as the command has ended, and does not wait for its process
1, which would count. It becomes an orphan then, and whoever adopts it may
count it.
"""

import ctypes
import os
import resource
from contextlib import suppress
from types import TracebackType

_PR_SET_CHILD_SUBREAPER = 36


class OrphanAdoption:
    """While one of these is entered, this process adopts what its children leave behind.

    Only then: what else this process starts may leave orphans as well, that
    nobody here would wait for.
    """

    def __init__(self) -> None:
        self._users = 0

    def __enter__(self) -> None:
        self._users += 1
        if self._users == 1:
            _adopt(1)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._users -= 1
        if not self._users:
            _adopt(0)


def _adopt(whether: int) -> None:
    # A failure means that nothing is counted: no reason to run nothing.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, whether, 0, 0, 0)


def reap_adopted(pid: int, pidfd: int) -> float:
    """Wait for an ended process if it is ours by now; its CPU seconds and its children's, or 0."""
    with suppress(ChildProcessError):
        # By descriptor first, and without reaping: the number may be somebody else's.
        if os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return cpu_seconds(os.wait4(pid, os.WNOHANG)[2])
    return 0.0


def cpu_seconds(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime
