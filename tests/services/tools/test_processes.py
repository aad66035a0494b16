"""Following commands that were left running."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from appliance.sandboxes.base import TerminalSize
from appliance.services.approvals.pending import Decision
from appliance.services.processes import InputRefused
from appliance.services.tools.base import ToolFailed, ToolResult
from tests.fakes.sandboxes import FakeSandbox, Script
from tests.services.tools.commanding import CommandBench, open_commands


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[CommandBench]:
    async with open_commands(tmp_path) as made:
        yield made


async def test_what_is_written_comes_back_when_it_is_polled(bench: CommandBench) -> None:
    started = await bench.left_running("cat")

    assert "(nothing new)" in (await bench.follow("poll", started)).text
    await bench.follow("write", started, data="héllo ")
    await bench.follow("submit", started, data="there")
    await wait_all_tasks_blocked()

    assert (await bench.follow("poll", started)).text == "héllo there\n\n(still running)"
    assert "(nothing new)" in (await bench.follow("poll", started)).text
    ended = await bench.follow("write", started, data="bye", eof=True)
    assert ended.details["written"] == 3
    with trio.fail_after(5):
        result = await bench.follow("poll", started, timeoutMs=1000)
        while result.details["status"] == "running":
            result = await bench.follow("poll", started, timeoutMs=1000)
    assert result.details["exitCode"] == 0


async def test_a_poll_waits_for_something_new(
    bench: CommandBench, autojump_clock: MockClock
) -> None:
    async def behave(sandbox: FakeSandbox) -> int:
        await trio.sleep(20)
        await sandbox.say(b"ready\n")
        await trio.sleep(100)
        return 7

    bench.sandboxes.will(Script(behave=behave))
    started = await bench.left_running()
    began = trio.current_time()

    async def poll(limit: int) -> ToolResult:
        return await bench.follow("poll", started, timeoutMs=limit)

    assert (await poll(5_000)).text.startswith("(nothing new)")
    assert trio.current_time() - began == pytest.approx(5)
    assert (await poll(60_000)).text.startswith("ready\n")
    assert trio.current_time() - began == pytest.approx(20)
    last = await poll(300_000)
    assert trio.current_time() - began == pytest.approx(120)
    assert (last.text, last.is_error) == ("(exit code 7)", True)
    assert bench.told == [], "whoever waited for the end knows of it"


async def test_the_log_is_read_by_lines(bench: CommandBench) -> None:
    text = "".join(f"line {n}\n" for n in range(300))
    bench.sandboxes.will(Script(output=text.encode(), hangs=True))
    started = await bench.left_running()
    await wait_all_tasks_blocked()

    last = await bench.follow("log", started)
    part = await bench.follow("log", started, offset=3, limit=2)
    beyond = await bench.follow("log", started, offset=1000)

    assert last.text.startswith("line 100\n")
    assert "(lines 101 to 300 of 300; running)" in last.text
    assert part.text == "line 3\nline 4\n\n(lines 4 to 5 of 300; running)"
    assert part.details["totalLines"] == 300
    assert beyond.text.startswith("(lines 1001 to 1000 of 300")


async def test_commands_are_listed(bench: CommandBench) -> None:
    assert (await bench.follow("list")).text == "nothing is running"
    bench.sandboxes.will(Script(exit_code=2), Script(hangs=True))
    first = await bench.run("make\nall", background=True)
    second = await bench.left_running("serve \x1b[31m")

    result = await bench.follow("list")

    sessions = result.details["sessions"]
    assert isinstance(sessions, list)
    assert sessions[-1]["sessionId"] == second
    assert "\x1b" not in result.text
    assert first.details["status"] in {"failed", "running"}


async def test_a_command_is_killed_and_removed(bench: CommandBench) -> None:
    started = await bench.left_running()

    with pytest.raises(ToolFailed, match="still running"):
        await bench.follow("clear", started)
    assert "killed" in (await bench.follow("kill", started)).text
    assert bench.inside.killed
    assert "killed" in (await bench.follow("poll", started)).text
    await bench.follow("clear", started)

    with pytest.raises(ToolFailed, match="there is no command"):
        await bench.follow("poll", started)
    assert bench.told == [], "whoever killed it knows of it"


async def test_remove_kills_what_runs(bench: CommandBench) -> None:
    started = await bench.left_running()
    await bench.follow("remove", started)
    assert bench.inside.killed
    assert (await bench.follow("list")).text == "nothing is running"


async def test_another_agent_does_not_find_it_and_another_session_does(
    bench: CommandBench,
) -> None:
    started = await bench.left_running()

    assert (await bench.follow("list", agent="pirate")).text == "nothing is running"
    with pytest.raises(ToolFailed) as foreign:
        await bench.follow("kill", started, agent="pirate")
    with pytest.raises(ToolFailed) as unknown:
        await bench.follow("kill", started[:-1] + "x", agent="pirate")
    assert str(foreign.value).replace(started, "") == str(unknown.value).replace(
        started[:-1] + "x", ""
    )
    assert "running" in (await bench.follow("poll", started, rest="other")).text


async def test_a_command_in_a_terminal(bench: CommandBench) -> None:
    started = await bench.left_running("python3", pty=True)
    sandbox = bench.inside
    assert sandbox.size == TerminalSize(columns=120, rows=40)

    await bench.follow("submit", started, data="1 + 1")
    await bench.follow("send-keys", started, keys=["Up", "C-c"])
    await bench.follow("paste", started, data="a\nb\x1b[201~c")
    await bench.follow("resize", started, columns=100, rows=30)
    await bench.follow("write", started, data="x", eof=True)
    await wait_all_tasks_blocked()

    assert sandbox.resizes == [TerminalSize(columns=100, rows=30)]
    echoed = bench.found(started).output.text()
    assert echoed == "1 + 1\r\x1b[A\x03\x1b[200~a\nbc\x1b[201~x\x04"


async def test_without_a_terminal_a_key_can_interrupt(bench: CommandBench) -> None:
    bench.sandboxes.will(Script(hangs=True))
    started = await bench.left_running()
    await bench.follow("send-keys", started, keys=["C-c"])
    assert bench.inside.signals == [signal.SIGINT]


@pytest.mark.parametrize(
    ("action", "arguments", "reason"),
    [
        ("write", {}, "data is missing"),
        ("write", {"data": "\ud800"}, "not valid Unicode"),
        ("write", {"data": "x" * 1_000_001}, "longer than"),
        ("send-keys", {}, "1 to 200"),
        ("send-keys", {"keys": ["Hyper"]}, "is no key"),
    ],
)
async def test_input_that_makes_no_sense_is_refused(
    bench: CommandBench, action: str, arguments: dict[str, object], reason: str
) -> None:
    started = await bench.left_running("cat")
    with pytest.raises(ToolFailed, match=reason):
        await bench.follow(action, started, **arguments)


async def test_a_command_has_to_be_named(bench: CommandBench) -> None:
    with pytest.raises(ToolFailed, match="sessionId is missing"):
        await bench.follow("poll")


async def test_what_ended_or_has_no_input_takes_none(
    bench: CommandBench, autojump_clock: MockClock
) -> None:
    bench.sandboxes.will(Script(lasts=100))
    started = str((await bench.run(yieldMs=0)).details["sessionId"])
    with pytest.raises(ToolFailed, match="without input"):
        await bench.follow("write", started, data="x")
    started = await bench.left_running("cat")
    await bench.follow("kill", started)
    for action, more in (
        ("write", {"data": "x"}),
        ("resize", {}),
        ("send-keys", {"keys": ["C-c"]}),
    ):
        with pytest.raises(ToolFailed, match="has ended"):
            await bench.follow(action, started, **more)


async def test_a_command_that_does_not_read_is_not_waited_for(
    bench: CommandBench, autojump_clock: MockClock
) -> None:
    started = await bench.left_running("cat")
    process = bench.found(started)

    async def stuck(_: bytes) -> None:
        await trio.sleep_forever()

    setattr(bench.inside.input, "send_all", stuck)  # noqa: B010 - a pipe that is full
    began = trio.current_time()
    with pytest.raises(InputRefused, match="has not read its input for 5 s"):
        await process.write(b"x")
    assert trio.current_time() - began == pytest.approx(5)


async def test_what_an_approved_shell_is_told_needs_approval(bench: CommandBench) -> None:
    bench.people.configure(security="allowlist", ask="on-miss", allowlist=["cat"])
    bench.people.connect()
    bench.people.always(Decision.ALLOW_ONCE)
    shell, listed = await bench.left_running("bash"), await bench.left_running("cat")

    await bench.follow("submit", listed, data="anything")
    bench.people.always(Decision.DENY)
    with pytest.raises(ToolFailed, match="refused"):
        await bench.follow("submit", shell, data="rm -rf .")

    await wait_all_tasks_blocked()
    assert bench.found(shell).output.total == 0
    assert len(bench.people.heard("requested")) == 2


async def test_ended_commands_are_kept_for_half_an_hour(
    bench: CommandBench, autojump_clock: MockClock
) -> None:
    bench.sandboxes.will(*(Script(lasts=1) for _ in range(60)))
    bench.people.configure(max_processes=100)
    for number in range(60):
        await bench.left_running(f"job {number}")
    await trio.sleep(2)

    sessions = (await bench.follow("list")).details["sessions"]
    assert isinstance(sessions, list)
    assert len(sessions) == 50
    await trio.sleep(30 * 60)
    assert (await bench.follow("list")).text == "nothing is running"
