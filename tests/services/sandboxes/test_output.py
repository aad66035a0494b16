"""What a command prints, and how long it may take."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from appliance.sandboxes.base import Sandbox, SandboxSpec
from appliance.services.sandboxes import output as sandbox_output
from appliance.services.sandboxes.output import RunResult, collect
from tests.fakes.sandboxes import FakeBackend, FakeSandbox, Script


@asynccontextmanager
async def started(script: Script) -> AsyncIterator[Sandbox]:
    backend = FakeBackend([script])
    async with backend.open(SandboxSpec(group="acme", workspace=-1, command=["x"])) as sandbox:
        yield sandbox


async def run(script: Script, data: bytes = b"", most: int = 1000) -> RunResult:
    with trio.fail_after(1000):
        async with started(script) as sandbox:
            return await collect(sandbox, data, timeout=30, max_output_bytes=most)


async def test_both_pipes_and_the_ending_are_returned() -> None:
    result = await run(Script(output=b"out", errors=b"err", exit_code=3))

    assert (result.output, result.errors, result.ending.exit_code) == (b"out", b"err", 3)
    assert (result.timed_out, result.truncated, result.reason) == (False, False, "")


async def test_the_input_is_given_and_then_ends() -> None:
    async def shout(sandbox: FakeSandbox) -> int:
        heard = b""
        while data := await sandbox.hear():
            heard += data
        await sandbox.say(heard.upper())
        return 0

    assert (await run(Script(behave=shout), b"word" * 10)).output == b"WORD" * 10


async def test_a_command_that_does_not_read_is_not_waited_for() -> None:
    async def deaf(sandbox: FakeSandbox) -> int:
        await sandbox._stdin.aclose()
        await sandbox.say(b"done")
        return 0

    assert (await run(Script(behave=deaf), b"x" * 10_000_000)).output == b"done"


async def test_what_is_too_much_is_thrown_away_and_the_command_goes_on() -> None:
    result = await run(Script(output=b"x" * 5000, errors=b"y" * 5000, piece_bytes=500), most=1200)

    assert len(result.output) + len(result.errors) == 1200
    assert result.truncated
    assert (result.ending.killed, result.reason) == (False, "")


async def test_a_flood_is_ended_though_the_other_pipe_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandbox_output, "MOST_DISCARDED", 100_000)

    async def flood(sandbox: FakeSandbox) -> int:
        while True:
            await sandbox.say(b"y\n" * 5000)
            await trio.sleep(0.001)

    result = await run(Script(behave=flood))
    assert (len(result.output), result.truncated, result.ending.killed) == (1000, True, True)
    assert "too much" in result.reason
    assert not result.timed_out


async def test_what_takes_too_long_is_ended_and_what_it_said_is_kept(
    autojump_clock: MockClock,
) -> None:
    result = await run(Script(output=b"begun", hangs=True))

    assert (result.output, result.timed_out, result.ending.killed) == (b"begun", True, True)
    assert "longer than 30 seconds" in result.reason
    assert 30 <= trio.current_time() < 33


async def test_a_command_without_pipes_is_limited_too(autojump_clock: MockClock) -> None:
    async def closes(sandbox: FakeSandbox) -> int:
        await sandbox._stdout.aclose()
        await sandbox._stderr.aclose()
        await trio.sleep_forever()
        return 0

    assert (await run(Script(behave=closes))).timed_out


async def test_a_terminal_has_one_stream() -> None:
    result = await run(Script(output=b"x"))
    assert result.errors == b""


async def test_what_is_printed_is_told_as_it_comes_up_to_the_limit() -> None:
    told: list[bytes] = []
    async with started(Script(output=b"abcdef", piece_bytes=2)) as sandbox:
        await collect(sandbox, b"", timeout=9, max_output_bytes=5, on_output=told.append)

    assert b"".join(told) == b"abcde"


async def test_whoever_is_cancelled_waits_for_nothing(autojump_clock: MockClock) -> None:
    with trio.move_on_after(5) as scope:
        await run(Script(hangs=True))
    assert scope.cancelled_caught
    assert trio.current_time() == 5
