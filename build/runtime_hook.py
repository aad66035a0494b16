"""Runs first inside the frozen executable, before any of our own modules.

A one-file executable is two processes: the outer one unpacks, starts the inner
one (Python), passes signals on and removes what it unpacked. Were the outer one
killed, the inner one would go on alone and keep the state directory locked, and
whoever started the gateway could no longer stop it. So the inner one asks to be
sent SIGTERM when its parent ends, which makes it drain and leave, and then
removes what was unpacked itself.
"""

import atexit
import ctypes
import os
import shutil
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def _command_line(process: int | str) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def _tidy_up_alone(outer: int) -> None:
    if os.getppid() != outer:
        shutil.rmtree(str(vars(sys)["_MEIPASS"]), ignore_errors=True)


# The outer and the inner process have the same command line. What the inner one
# starts (the model's worker) has another, and is ended by the gateway: the
# signal would reach it too early, because it is sent when the *thread* ends
# that started the process.
_outer = os.getppid()
if _command_line(_outer) == _command_line("self"):
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    atexit.register(_tidy_up_alone, _outer)
