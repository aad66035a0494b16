"""However a start is interrupted, nothing of it stays behind."""

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from appliance.sandboxes.base import TerminalSize
from tests.sandboxes.workshop import HAS_BWRAP, NO_BWRAP, opened, running, wait_until

pytestmark = pytest.mark.skipif(not HAS_BWRAP, reason=NO_BWRAP)

INTERRUPTIONS = 150
LATEST = 0.03  # seconds after the start: twice of what a start takes


@pytest.mark.parametrize("terminal", [None, TerminalSize(columns=80, rows=24)])
async def test_a_start_cancelled_at_any_moment_leaves_no_process(
    tmp_path: Path, terminal: TerminalSize | None
) -> None:
    started = 0
    async with opened(tmp_path) as shop:
        for step in range(INTERRUPTIONS):
            token = f"3{step:04}"
            with trio.move_on_after(step * LATEST / INTERRUPTIONS):
                async with shop.backend.open(shop.spec("sleep", token, terminal=terminal)):
                    started += 1
                    await trio.sleep_forever()
            # At once, not after a while.
            assert running("sleep", token) == []
    assert started < INTERRUPTIONS  # or nothing was interrupted


async def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    async with opened(tmp_path) as shop:
        await shop.sh("true")
        before = set(descriptors())
        for step in range(20):
            with trio.move_on_after(step / 1000):
                await shop.sh("true", terminal=TerminalSize(columns=80, rows=24))
            with trio.move_on_after(step / 1000):
                await shop.sh("true")
        assert set(descriptors()) == before


def descriptors() -> list[str]:
    return [path.name for path in Path("/proc/self/fd").iterdir() if path.exists()]


# Forks a gateway for each moment and kills it then.
GATEWAYS = """
import os, signal, sys, time
import trio
from pathlib import Path
from tests.sandboxes.workshop import opened

async def gateway(folder, token):
    async with opened(folder) as shop:
        async with shop.backend.open(shop.spec("sleep", token)):
            await trio.sleep_forever()

folder, count, latest = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
for step in range(count):
    pid = os.fork()
    if pid == 0:
        trio.run(gateway, folder / str(step), f"4{step:04}")
    time.sleep(step * latest / count)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


async def test_a_gateway_killed_at_any_moment_leaves_no_process(tmp_path: Path) -> None:
    count = 40
    with trio.fail_after(60):
        await trio.run_process(
            [sys.executable, "-c", GATEWAYS, str(tmp_path), str(count), "0.06"],
            stderr=subprocess.STDOUT,
        )

    tokens = [f"4{step:04}" for step in range(count)]
    await wait_until(lambda: not any(running("sleep", token) for token in tokens))
