"""A sandbox while it runs: who ended it, and why."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio.testing import MockClock

from appliance.sandboxes.base import SandboxSpec
from appliance.services.sandboxes.running import RunningSandbox
from tests.books import NOON
from tests.fakes.sandboxes import FakeBackend, Script


@asynccontextmanager
async def running(script: Script) -> AsyncIterator[RunningSandbox]:
    spec = SandboxSpec(group="acme", workspace=-1, command=["sleep"])
    async with FakeBackend([script]).open(spec) as sandbox:
        yield RunningSandbox(
            sandbox,
            id="sbx_1",
            tenant="acme",
            agent="main",
            purpose="exec",
            command="sleep",
            started_at=NOON,
        )


async def test_what_ends_by_itself_was_not_killed() -> None:
    async with running(Script(exit_code=3)) as sandbox:
        ending = await sandbox.wait()
        await sandbox.kill()
        sandbox.left()
        assert (ending.exit_code, ending.reason, sandbox.was_killed) == (3, "", False)


async def test_the_first_reason_counts() -> None:
    async with running(Script(hangs=True)) as sandbox:
        await sandbox.end("no room left", over_disk=True)
        await sandbox.end("another reason")
        ending = await sandbox.wait()
        assert (ending.reason, sandbox.over_disk, sandbox.was_killed) == (
            "no room left",
            True,
            True,
        )


async def test_whoever_leaves_before_the_end_has_killed_it(autojump_clock: MockClock) -> None:
    async with running(Script(hangs=True)) as sandbox:
        await trio.sleep(2)
        assert sandbox.usage().wall_seconds == 2
        sandbox.left()
        assert sandbox.was_killed
