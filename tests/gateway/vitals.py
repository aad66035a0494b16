"""How a gateway in this process is after what was done to it."""

import resource
from pathlib import Path
from typing import Any

import trio


def is_failure(record: Any) -> bool:
    """Whether a line of the log tells of something that nobody foresaw."""
    text = record.getMessage().lower()
    return (
        record.levelname in {"ERROR", "CRITICAL"}
        or bool(record.exc_info)
        or any(word in text for word in ("failed", "broke", "traceback"))
    )


async def wait_quiet() -> None:
    """Wait until no request and no WebSocket is being served."""
    while True:
        if not conversations():
            return
        await trio.sleep(0.01)


def conversations() -> int:
    """Requests and WebSockets that the gateway is busy with."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    count, unseen = 0, [root]
    while unseen:
        task = unseen.pop()
        count += task.name == "hypercorn.trio.task_group._handle"
        unseen += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return count


def resident() -> int:
    """Bytes of memory that this process, and so the gateway, uses."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()
