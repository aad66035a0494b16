"""``apply_patch`` on a real directory."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from appliance.model.errors import ApplianceError, DiskFull, InvalidRequest, PreconditionFailed
from appliance.model.patches import apply_patch
from appliance.services.tools import patching
from appliance.services.tools.base import Source, ToolFailed, ToolResult
from appliance.storage.paths import PathRefused
from appliance.storage.workspace_entries import NewFile
from tests.services.tools.calling import ToolBench, open_bench

(TOOL,) = patching.tools()


class Bench:
    def __init__(self, tools: ToolBench) -> None:
        self.tools = tools
        self.place = tools.workspace
        (self.place / "a.py").write_text("one\ntwo\nthree\n")
        (self.place / "old.txt").write_text("old\n")

    async def apply(self, *lines: str) -> ToolResult:
        text = "\n".join(["*** Begin Patch", *lines, "*** End Patch"])
        with trio.fail_after(30):
            return await self.tools.call(TOOL, {"input": text})

    def files(self) -> dict[str, str]:
        found = [each for each in self.place.rglob("*") if each.is_file()]
        return {str(each.relative_to(self.place)): each.read_text() for each in found}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path) as tools:
        yield Bench(tools)


async def test_files_come_change_move_and_go_at_once(bench: Bench) -> None:
    result = await bench.apply(
        "*** Add File: src/new.py",
        "+x = 1",
        "*** Update File: /workspace/a.py",
        "*** Move to: ./src/a.py",
        " one",
        "-two",
        "+2",
        "*** Delete File: old.txt",
    )

    assert bench.files() == {"src/new.py": "x = 1\n", "src/a.py": "one\n2\nthree\n"}
    assert result.text == "Applied the patch:\nA src/new.py\nM a.py -> src/a.py\nD old.txt"
    assert result.details["moved"] == [["a.py", "src/a.py"]]


async def test_the_patch_goes_by_other_names_too(bench: Bench) -> None:
    text = "*** Begin Patch\n*** Delete File: old.txt\n*** End Patch"

    await bench.tools.call(TOOL, {"patch": text})

    assert "old.txt" not in bench.files()


async def test_a_patch_that_does_not_fit_changes_nothing(bench: Bench) -> None:
    before = bench.files()

    result = await bench.apply(
        "*** Add File: new", "+x", "*** Delete File: old.txt", "*** Update File: a.py", "-four"
    )

    assert result.is_error
    assert result.text.startswith("Nothing was changed: a.py: these lines are not in the file")
    assert result.untrusted is Source.FILE
    assert bench.files() == before


async def test_lines_that_fit_only_nearly_are_said_to(bench: Bench) -> None:
    result = await bench.apply("*** Update File: a.py", "   one", "-two", "+2")

    assert "check the result" in result.text
    assert bench.files()["a.py"] == "one\n2\nthree\n"


@pytest.mark.parametrize(
    ("lines", "failure"),
    [
        (["*** Add File: /etc/cron.d/x", "+x"], InvalidRequest),
        (["*** Delete File: ../ledger"], InvalidRequest),
        (["*** Update File: a.py", "*** Move to: /tmp/a", "-two"], InvalidRequest),
        (["*** Update File: away/passwd", "-root", "+toor"], PathRefused),
        (["*** Delete File: link"], PathRefused),
        (["*** Delete File: pipe"], PathRefused),
        (["*** Delete File: folder"], PathRefused),
        (["*** Add File: pipe", "+x"], PathRefused),
        (["*** Add File: agents/pirate/x", "+x"], PathRefused),
    ],
)
async def test_what_leads_out_or_is_no_file_is_refused(
    bench: Bench, tmp_path: Path, lines: list[str], failure: type[Exception]
) -> None:
    (tmp_path / "passwd").write_text("root\n")
    (bench.place / "away").symlink_to(tmp_path)
    (bench.place / "link").symlink_to(tmp_path / "passwd")
    (bench.place / "folder").mkdir()
    os.mkfifo(bench.place / "pipe")

    with pytest.raises(failure):
        await bench.apply("*** Update File: old.txt", "-old", "+new", *lines)

    assert (tmp_path / "passwd").read_text() == "root\n"
    assert (bench.place / "old.txt").read_text() == "old\n"


async def test_a_binary_file_is_not_patched(bench: Bench) -> None:
    (bench.place / "a.out").write_bytes(b"\0\n")

    result = await bench.apply("*** Update File: a.out", "-x", "+y")

    assert "a.out is a binary file" in result.text


async def test_a_failure_in_the_middle_takes_back_what_was_done(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bench.place / "a.py").chmod(0o755)
    before = bench.files()
    commit = NewFile.commit

    def fails(self: NewFile, *given: Any) -> Any:
        if self._name == "last":
            raise DiskFull("there is no space left")
        return commit(self, *given)

    monkeypatch.setattr(NewFile, "commit", fails)

    with pytest.raises(DiskFull):
        await bench.apply(
            "*** Update File: a.py",
            "-two",
            "+2",
            "*** Add File: first",
            "+x",
            "*** Delete File: old.txt",
            "*** Add File: last",
            "+x",
        )

    assert bench.files() == before
    assert (bench.place / "a.py").stat().st_mode & 0o777 == 0o755


async def test_what_could_not_be_taken_back_is_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = NewFile.commit
    broken = False

    def fails(self: NewFile, *given: Any) -> Any:
        nonlocal broken
        if broken or self._name == "last":
            broken = True
            raise DiskFull("there is no space left")
        return commit(self, *given)

    monkeypatch.setattr(NewFile, "commit", fails)

    with pytest.raises(ToolFailed, match=r"applied in part, since .*; these stay changed: a.py"):
        await bench.apply("*** Update File: a.py", "-two", "+2", "*** Add File: last", "+x")


async def test_what_somebody_else_changes_meanwhile_is_not_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*given: Any) -> Any:
        outcome = apply_patch(*given)
        (bench.place / "a.py").write_text("three\ntwo\none\n")
        (bench.place / "new").write_text("theirs\n")
        return outcome

    monkeypatch.setattr(patching, "apply_patch", meanwhile)

    with pytest.raises(PreconditionFailed, match="changed while"):
        await bench.apply("*** Update File: a.py", "-two", "+2")
    result = await bench.apply("*** Add File: new", "+ours")

    assert "new is there already" in result.text
    assert bench.files()["a.py"] == "three\ntwo\none\n"
    assert bench.files()["new"] == "theirs\n"


async def test_a_workspace_that_is_read_only_is_not_patched(bench: Bench) -> None:
    bench.tools.configure("  sandbox: {workspace: ro}\n")

    with pytest.raises((ToolFailed, ApplianceError), match="read-only"):
        await bench.apply("*** Delete File: old.txt")
