"""``find`` and ``grep``: the real programs on a real directory, with nothing around them.

What they may reach is the sandbox's business and is tested there.
"""

import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from appliance.model.errors import ApplianceError, NotFound
from appliance.sandboxes.base import WORKSPACE, Access, Ending, SandboxUnavailable, SandboxUsage
from appliance.services.sandboxes.output import RunResult
from appliance.services.sandboxes.sandboxes import SandboxRequest
from appliance.services.tools import searching
from appliance.services.tools.base import Source, ToolFailed, ToolResult
from tests.fakes.sandboxes import FakeSandboxes, Script
from tests.services.tools.calling import ToolBench, open_bench

USAGE = SandboxUsage(wall_seconds=0, cpu_seconds=0, peak_memory_bytes=None)


@dataclass
class Here:
    """Runs commands in the workspace itself."""

    bench: ToolBench
    requests: list[SandboxRequest] = field(default_factory=list)
    path: str = "/usr/bin:/bin"

    async def run(
        self,
        _tenant: object,
        request: SandboxRequest,
        *,
        timeout: float,  # noqa: ASYNC109 - as the service has it
        max_output_bytes: int,
    ) -> RunResult:
        self.requests.append(request)
        below = request.directory.removeprefix(WORKSPACE).lstrip("/")
        with trio.fail_after(timeout):
            process = await trio.run_process(
                list(request.command),
                cwd=self.bench.place_of(request.agent) / below,
                env={"PATH": self.path, **request.environment},
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        return RunResult(
            output=process.stdout[:max_output_bytes],
            errors=process.stderr,
            ending=Ending(exit_code=process.returncode, usage=USAGE),
        )


@dataclass
class Bench:
    tools: ToolBench
    here: Here

    @property
    def place(self) -> Path:
        return self.tools.workspace

    async def __call__(self, name: str, /, sandboxes: Any = None, **arguments: Any) -> ToolResult:
        found = {tool.name: tool for tool in searching.tools(sandboxes or self.here)}
        with trio.fail_after(300):
            return await self.tools.call(found[name], arguments)

    async def lines(self, name: str, /, **arguments: Any) -> list[str]:
        return (await self(name, **arguments)).text.split("\n")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path) as tools:
        place = tools.workspace
        for name, text in {
            "README.md": "Hello\nworld\n",
            "src/main.py": "import os\nprint('hello')\n# end\n",
            "src/deep/util.py": "HELLO = 1\n",
            "src/a b'c.txt": "hello there\n",
            "node_modules/x/index.js": "hello\n",
            ".git/config": "hello\n",
        }.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(text)
        yield Bench(tools, Here(tools))


# -- find --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"pattern": "*.py"}, ["src/deep/util.py", "src/main.py"]),
        ({"pattern": "*.py", "path": "src/deep"}, ["src/deep/util.py"]),
        ({"pattern": "src/*.py"}, ["src/main.py"]),
        ({"pattern": "deep"}, ["src/deep/"]),
        ({"pattern": "a b'*"}, ["src/a b'c.txt"]),
        ({"pattern": "config"}, ["(nothing matches)"]),
        ({"pattern": ".git/*"}, [".git/config"]),
        ({"pattern": "*.js", "path": "/workspace/node_modules"}, ["node_modules/x/index.js"]),
        ({"query": "*.{md,txt}", "dir": "."}, ["README.md", "src/a b'c.txt"]),
        ({"pattern": "-delete"}, ["(nothing matches)"]),
        ({"pattern": "$(touch pwned)*`touch pwned`"}, ["(nothing matches)"]),
    ],
)
async def test_files_are_found_by_name(
    bench: Bench, arguments: dict[str, Any], found: list[str]
) -> None:
    assert await bench.lines("find", **arguments) == found
    assert not (bench.place / "pwned").exists()


async def test_more_than_are_wanted_are_cut_and_said_so(bench: Bench) -> None:
    for number in range(10):
        (bench.place / f"{number}.log").touch()

    result = await bench("find", pattern="*.log", limit=4)

    assert result.text.count(".log\n") == 4
    assert result.text.endswith("[The first 4 of more; choose a narrower pattern or path.]")
    assert result.details == {"found": 4, "more": True}
    assert result.untrusted is Source.FILE


async def test_names_of_any_bytes_are_found_and_can_be_shown(bench: Bench) -> None:
    for name in (b"\xff\xfe.odd", b"two\nlines.odd", b"x" * 251 + b".odd", "ü.odd".encode()):
        os.close(os.open(os.fsencode(bench.place) + b"/" + name, os.O_CREAT | os.O_WRONLY))

    assert await bench.lines("find", pattern="*.odd") == [
        "two\\x0alines.odd",
        "x" * 251 + ".odd",
        "ü.odd",
        "\\xff\\xfe.odd",
    ]
    assert await bench.lines("find", pattern="?.odd") == ["ü.odd"]


async def test_the_place_of_other_agents_is_not_found(bench: Bench) -> None:
    (bench.place / "src" / "agents").mkdir()

    # In the sandbox the one at the top is empty.
    assert await bench.lines("find", pattern="agents") == ["src/agents/"]


async def test_links_are_found_and_not_followed(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "outside.py").touch()
    (bench.place / "away").symlink_to(tmp_path)

    assert await bench.lines("find", pattern="outside.py") == ["(nothing matches)"]
    assert await bench.lines("find", pattern="away") == ["away"]


# -- grep --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"pattern": "hello"}, ["src/a b'c.txt:1: hello there", "src/main.py:2: print('hello')"]),
        ({"pattern": "HELLO", "path": "src/deep/util.py"}, ["src/deep/util.py:1: HELLO = 1"]),
        ({"pattern": r"^w\w+d$"}, ["README.md:2: world"]),
        ({"pattern": "world", "glob": "*.py"}, ["(no line matches)"]),
        ({"pattern": "hello", "glob": "src/*.txt"}, ["src/a b'c.txt:1: hello there"]),
        ({"pattern": "('hello')", "literal": True}, ["src/main.py:2: print('hello')"]),
        ({"pattern": "-e"}, ["(no line matches)"]),
        ({"pattern": "$(touch pwned)", "literal": True}, ["(no line matches)"]),
        ({"pattern": "hello", "path": ".git"}, [".git/config:1: hello"]),
    ],
)
async def test_lines_are_found_in_files(
    bench: Bench, arguments: dict[str, Any], found: list[str]
) -> None:
    assert sorted(await bench.lines("grep", **arguments)) == found
    assert not (bench.place / "pwned").exists()


async def test_case_may_be_ignored_and_lines_around_shown(bench: Bench) -> None:
    result = await bench("grep", pattern="HELLO", ignoreCase=True, path="src/main.py", context=1)

    assert result.text.split("\n") == [
        "src/main.py-1- import os",
        "src/main.py:2: print('hello')",
        "src/main.py-3- # end",
    ]
    assert result.details == {"matches": 1, "more": False}


async def test_groups_of_lines_are_kept_apart(bench: Bench) -> None:
    (bench.place / "long").write_text("".join(f"{n % 10}\n" for n in range(30)))

    lines = await bench.lines("grep", pattern="5", path="long", context=1, limit=2)

    assert lines[:7] == [
        "long-5- 4", "long:6: 5", "long-7- 6", "--", "long-15- 4", "long:16: 5", "long-17- 6",
    ]  # fmt: skip
    assert lines[-1].startswith("[The first 2 matches of more")


async def test_binary_files_pipes_and_links_are_left_out(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("needle")
    (bench.place / "away").symlink_to(tmp_path / "outside")
    (bench.place / "binary").write_bytes(b"needle\0")
    (bench.place / "latin").write_bytes(b"needle \xe9\n")
    (bench.place / "two\nlines").write_text("needle\n")
    os.mkfifo(bench.place / "pipe")

    assert sorted(await bench.lines("grep", pattern="needle")) == [
        "latin:1: needle \ufffd",
        "two\\x0alines:1: needle",
    ]


async def test_a_character_is_one_also_outside_of_ascii(bench: Bench) -> None:
    (bench.place / "u").write_text("grün\n")

    assert await bench.lines("grep", pattern="gr.n", path="u") == ["u:1: grün"]
    assert await bench.lines("grep", pattern="GRÜN", path="u", ignoreCase=True) == ["u:1: grün"]


async def test_output_without_end_is_cut(bench: Bench) -> None:
    (bench.place / "big").write_text("needle\n" * 300_000)

    result = await bench("grep", pattern="needle", path="big", limit=1000)

    assert result.details == {"matches": 1000, "more": True}


async def test_a_pattern_that_is_none_is_refused_with_the_reason(bench: Bench) -> None:
    with pytest.raises(ToolFailed, match=r"cannot be used: .*or set literal"):
        await bench("grep", pattern="(")
    with pytest.raises(ToolFailed, match="one line"):
        await bench("grep", pattern="a\nb")
    assert await bench.lines("grep", pattern="(", literal=True) == ["src/main.py:2: print('hello')"]


async def test_rg_is_used_where_there_is_one(bench: Bench, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("find", "xargs", "head"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    (programs / "rg").write_text("#!/bin/sh\nprintf './said by rg\\0001:%s\\n' \"$*\"\n")
    (programs / "rg").chmod(0o755)
    bench.here.path = str(programs)

    lines = await bench.lines("grep", pattern="-x", literal=True, ignoreCase=True, glob="*.md")

    assert "-n -H -0 -F -i -C 0 -e -x -- ./README.md" in lines[-1]


# -- in the sandbox ----------------------------------------------------------


async def test_a_search_reads_only_and_reaches_no_network(bench: Bench) -> None:
    await bench("find", pattern="*", path="src")
    await bench("grep", pattern="x")

    for request in bench.here.requests:
        assert request.purpose == "search"
        assert request.access is Access.READ
        assert not request.has_egress
        assert (request.session, request.run_id) == ("agent:main:main", "run_1")
    assert bench.here.requests[0].directory == "/workspace/src"


@pytest.mark.parametrize("name", ["find", "grep"])
@pytest.mark.parametrize(
    ("path", "failure"),
    [
        ("ghost", NotFound),
        ("agents", ApplianceError),
        ("/etc", ApplianceError),
        ("away", ApplianceError),
        ("pipe", ToolFailed),
    ],
)
async def test_nothing_is_started_for_a_place_that_cannot_be_searched(
    bench: Bench, name: str, path: str, failure: type[Exception]
) -> None:
    (bench.place / "away").symlink_to("/etc")
    os.mkfifo(bench.place / "pipe")

    with pytest.raises(failure):
        await bench(name, pattern="x", path=path)
    assert bench.here.requests == []


async def test_a_search_that_takes_too_long_shows_what_it_found(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    hangs = FakeSandboxes(Script(output=b"ffound.txt\0fcu", hangs=True))

    result = await bench("find", hangs, pattern="*")

    assert result.text.startswith("found.txt\n\n[The search was ended after 60 s")
    assert hangs.backend.running == 0


async def test_a_search_that_was_ended_is_said_to(bench: Bench) -> None:
    killed = Script(
        output=b"./a\0001:hit\n", exit_code=137, signal=signal.SIGKILL, out_of_memory=True
    )

    result = await bench("grep", FakeSandboxes(killed), pattern="x")

    assert "a:1: hit\n\n[The search was ended before it was done.]" in result.text


async def test_without_a_sandbox_nothing_is_searched(bench: Bench) -> None:
    with pytest.raises(SandboxUnavailable, match="no bubblewrap"):
        await bench("find", FakeSandboxes(problem="no bubblewrap"), pattern="*")


async def test_a_closed_workspace_is_not_searched(bench: Bench) -> None:
    bench.tools.configure("  sandbox: {workspace: none}\n")

    with pytest.raises(ToolFailed, match="no workspace"):
        await bench("grep", pattern="x")
