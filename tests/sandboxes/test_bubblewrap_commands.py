"""The tools ``exec`` and ``process`` over real sandboxes."""

import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from appliance.services.approvals.pending import Decision
from appliance.services.sandboxes.books import SandboxBooks
from appliance.services.sandboxes.sandboxes import Sandboxes
from appliance.services.tools.base import ToolFailed, ToolResult
from tests.books import HandClock
from tests.fakes.sandboxes import PROOF
from tests.sandboxes.workshop import HAS_BWRAP, NO_BWRAP, bubblewrap
from tests.services.sandbox_bench import Counted
from tests.services.tools.commanding import CommandBench, open_commands

pytestmark = pytest.mark.skipif(not HAS_BWRAP, reason=NO_BWRAP)


class Listening(list[str]):
    """Notes updates, and tells when there is one."""

    def __init__(self, heard: trio.Event) -> None:
        super().__init__()
        self._heard = heard

    def append(self, text: str) -> None:
        super().append(text)
        self._heard.set()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[CommandBench]:
    clock, backend = HandClock(), bubblewrap()
    sandboxes = Sandboxes(books=SandboxBooks(clock=clock, counters=Counted()), clock=clock)
    sandboxes.use(backend, PROOF)
    async with open_commands(tmp_path, sandboxes) as made:
        with trio.fail_after(60):
            yield made
    await backend.aclose()


async def _until(bench: CommandBench, process: str, pattern: str) -> str:
    """What it prints up to where ``pattern`` is found."""
    said = ""
    with trio.fail_after(60):
        while re.search(pattern, said) is None:
            result = await bench.follow("poll", process, timeoutMs=5_000)
            said += result.text
            assert result.details["status"] == "running", said
    return said


async def _end_of(bench: CommandBench, process: str) -> ToolResult:
    with trio.fail_after(60):
        await bench.found(process).ended.wait()
    return await bench.follow("poll", process)


async def test_a_command_runs_in_the_workspace_of_its_agent(bench: CommandBench) -> None:
    result = await bench.run("pwd; echo hello > made; echo $0; echo oops >&2; exit 3")

    assert result.details["exitCode"] == 3
    assert {"/workspace", "/bin/bash", "oops"} <= set(result.text.split())
    assert (bench.people.bench.workspace / "made").read_text() == "hello\n"
    assert "made" not in (await bench.run("ls", agent="pirate")).text
    assert (await bench.run("cat made")).text == "hello"


async def test_a_directory_and_variables_are_as_asked_for(bench: CommandBench) -> None:
    await bench.run("mkdir -p a/b")
    result = await bench.run("pwd; echo $GREETING", workdir="a/b", env={"GREETING": "hi 'there'"})
    assert result.text == "/workspace/a/b\nhi 'there'"


async def test_a_shell_understands_what_bash_does(bench: CommandBench) -> None:
    assert (await bench.run("diff <(echo a) <(echo a) && [[ ab == a* ]] && echo yes")).text == "yes"


async def test_a_foreground_command_finds_no_input(bench: CommandBench) -> None:
    assert (await bench.run("cat; echo end")).text == "end"


async def test_a_long_command_line_arrives_whole(bench: CommandBench) -> None:
    text = "x" * 90_000
    assert (await bench.run(f"printf %s {text} | wc -c")).text == "90000"


async def test_a_background_command_is_told_things_and_polled(bench: CommandBench) -> None:
    started = await bench.left_running("while read line; do echo got $line; done; echo over")

    await bench.follow("submit", started, data="one")
    assert "got one" in await _until(bench, started, "got")
    await bench.follow("write", started, data="two\n", eof=True)

    assert (await _end_of(bench, started)).text == "got two\nover"
    assert bench.told[0][1].endswith("has ended: exit code 0. Read its output with process log.")


async def test_a_command_that_takes_long_is_left_running(bench: CommandBench) -> None:
    result = await bench.run("echo begun; sleep 1; echo done", yieldMs=300)
    assert result.details["status"] == "running"
    assert result.text.startswith("begun")
    assert (await _end_of(bench, str(result.details["sessionId"]))).text == "done"


async def test_killing_takes_everything_it_started(bench: CommandBench) -> None:
    script = "(while :; do date +%s%N > beat; echo up; sleep 0.05; done) & setsid sleep 1000 & wait"
    started = await bench.left_running(script)
    beat = bench.people.bench.workspace / "beat"
    await _until(bench, started, "up")

    await bench.follow("kill", started)

    last = beat.read_text()
    await trio.sleep(0.3)
    assert beat.read_text() == last
    assert "killed" in (await bench.follow("poll", started)).text


async def test_whoever_stops_waiting_ends_all_of_it(bench: CommandBench) -> None:
    beat = bench.people.bench.workspace / "beat"
    begun = trio.Event()
    bench.people.bench.updates = Listening(begun)
    script = "(while :; do date +%s%N > beat; echo up; sleep 0.05; done) & wait"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.run, script)
        await begun.wait()
        nursery.cancel_scope.cancel()

    last = beat.read_text()
    await trio.sleep(0.3)
    assert beat.read_text() == last


async def test_a_time_limit_ends_all_of_it(bench: CommandBench) -> None:
    result = await bench.run("echo begun; sleep 1000 & sleep 1000", timeout=0.5)
    assert result.text == "begun\n\n(it was ended after 0.5 s, its time limit)"
    assert result.details["timedOut"]


async def test_a_flood_is_read_slowly_and_ends_with_its_reader(bench: CommandBench) -> None:
    result = await bench.run("yes 'all work and no play'", timeout=1.5)

    assert result.details["timedOut"]
    total = result.details["totalChars"]
    assert isinstance(total, int)
    assert 1_000_000 < total < 60_000_000
    assert len(result.text) < 300_000
    assert "characters left out" in result.text


async def test_a_terminal_echoes_and_knows_its_size(bench: CommandBench) -> None:
    started = await bench.left_running("stty size; read x; stty size; cat", pty=True)
    await _until(bench, started, "40 120")

    await bench.follow("resize", started, columns=100, rows=30)
    await bench.follow("submit", started, data="")
    await _until(bench, started, "30 100")
    await bench.follow("submit", started, data="once")
    # What was typed, and what ``cat`` makes of it.
    await _until(bench, started, "(?s)once.*once")
    await bench.follow("send-keys", started, keys=["C-c"])

    assert "SIGINT" in (await _end_of(bench, started)).text


async def test_keys_interrupt_what_runs_in_a_terminal_and_not_its_shell(
    bench: CommandBench,
) -> None:
    started = await bench.left_running("bash --norc -i", pty=True)
    await bench.follow("submit", started, data="sh -c 'echo beg''un; exec sleep 1000'")
    await _until(bench, started, "begun")
    await bench.follow("send-keys", started, keys=["C-c"])
    await bench.follow("submit", started, data="echo $((40 + 2)) alive")

    await _until(bench, started, "42 alive")
    await bench.follow("write", started, data="exit 5\n")
    assert (await _end_of(bench, started)).details["exitCode"] == 5


async def test_without_a_terminal_a_key_interrupts_the_command(bench: CommandBench) -> None:
    started = await bench.left_running(
        "trap 'echo caught; exit 9' INT; echo up; while :; do sleep 0.05; done"
    )
    await _until(bench, started, "up")
    await bench.follow("send-keys", started, keys=["C-c"])
    result = await _end_of(bench, started)
    assert (result.details["exitCode"], result.text.splitlines()[0]) == (9, "caught")


async def test_an_approval_is_for_the_command_that_ran(bench: CommandBench) -> None:
    bench.people.configure(security="allowlist", ask="on-miss", allowlist=["echo", "cat"])
    bench.people.connect()
    wanted = "touch 'allowed file'"
    bench.people.answers = lambda told: (
        Decision.ALLOW_ONCE if told["request"]["command"] == wanted else Decision.DENY
    )

    await bench.run(wanted)
    with pytest.raises(ToolFailed, match="refused"):
        await bench.run("touch 'another file'")
    with pytest.raises(ToolFailed, match="refused"):
        await bench.run("echo $(touch third)")
    assert (await bench.run("echo fine | cat")).text == "fine"

    assert sorted(path.name for path in bench.people.bench.workspace.glob("*d*")) == [
        "allowed file"
    ]


async def test_starting_a_command_takes_little_more_than_the_sandbox(bench: CommandBench) -> None:
    await bench.run("true")
    took = []
    for _ in range(10):
        began = time.perf_counter()
        await bench.run("true")
        took.append(time.perf_counter() - began)
    assert min(took) < 0.5  # neighbours on the machine only ever make it slower
