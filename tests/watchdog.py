"""Ends a session in which a test hangs, and says last of all which test it was.

Of a long output often only the end is kept. What a hung test leaves there is all
that is known of it: the stack of each thread, the line each Trio task waits at,
and, in the last line, the test's name.
"""

import faulthandler
import gc
import os
import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType

import pytest
import trio

PATIENCE = "OPENCLAWMU_TEST_PATIENCE"  # a variable: seconds
# Ten times what the slowest test takes on two quiet cores.
_PATIENCE = 300.0
_TASKS_AT_MOST = 500  # of a test with thousands, those after these look alike


def pytest_configure(config: pytest.Config) -> None:
    # What is captured is never printed when the process ends as it does here. Nothing
    # is captured yet, so that this is the real one.
    watchdog = Watchdog(float(os.environ.get(PATIENCE, _PATIENCE)), os.dup(2))
    config.pluginmanager.register(watchdog, "watchdog")


class Watchdog:
    """``out`` is a descriptor of its own."""

    def __init__(self, patience: float, out: int) -> None:
        self._patience = patience
        self._out = out

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        # Daemonic: the end of the session is not to wait for it.
        timer = threading.Timer(self._patience, self._end, (item.nodeid,))
        timer.daemon = True
        timer.start()
        try:
            return (yield)
        finally:
            timer.cancel()

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        os.close(self._out)

    def _end(self, test: str) -> None:
        try:
            faulthandler.dump_traceback(self._out, all_threads=True)
            self._say("\n" + "\n".join(trees_of_tasks()))
        finally:
            # A child that holds the other end of a pipe would let whoever reads it wait on.
            for child in _children():
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            self._say(f"\nno end after {self._patience:.0f} seconds: {test}")
            # There is no other way: a loop that hangs reads no signal and no exception.
            os._exit(1)

    def _say(self, text: str) -> None:
        os.write(self._out, f"{text}\n".encode(errors="replace"))


def trees_of_tasks() -> Iterator[str]:
    """Each running loop's tasks, a line each, and where it waits. For any thread."""
    # Only a task knows its loop; from outside nobody does.
    tasks = [each for each in gc.get_objects() if isinstance(each, trio.lowlevel.Task)]
    roots = [each for each in tasks if each.parent_nursery is None and each.child_nurseries]
    for root in roots:
        for number, line in enumerate(_tree(root, 0)):
            if number == _TASKS_AT_MOST:
                yield "and more"
                break
            yield line


def _tree(task: trio.lowlevel.Task, depth: int) -> Iterator[str]:
    yield f"{'  ' * depth}{task.name}: {_where(task)}"
    for nursery in task.child_nurseries:
        for child in sorted(nursery.child_tasks, key=lambda each: each.name):
            yield from _tree(child, depth + 1)


def _where(task: trio.lowlevel.Task) -> str:
    """The innermost line that is not Trio's own, if there is one."""
    frames = list(task.iter_await_frames())
    ours = [each for each in frames if not _is_trios(each[0])]
    if not frames:
        return "not begun, or ended"
    frame, line = (ours or frames)[-1]
    return f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"


def _is_trios(frame: FrameType) -> bool:
    name = str(frame.f_globals.get("__name__", ""))
    return name.partition(".")[0] in ("trio", "contextlib")


def _children() -> list[int]:
    """Nobody waits for them any more, so that each number is still a child's."""
    found = list[int]()
    for file in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            found += map(int, file.read_text().split())
    return found
