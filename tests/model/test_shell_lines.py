"""Which programs a line runs. The real shell is asked, too: it must not run more than we found."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.model.shell_lines import NotUnderstood, fixed_words, read_line
from appliance.model.shell_wrappers import read_commands


def programs(line: str) -> list[str]:
    return [command.program for command in read_commands(line)]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("", []),
        ("# aa", []),
        ("aa", ["aa"]),
        ("aa -x 'b; c' \"d | e\" f\\;g", ["aa"]),
        ("aa; bb | cc && dd || ee & ff\ngg", ["aa", "bb", "cc", "dd", "ee", "ff", "gg"]),
        ("aa |& bb", ["aa", "bb"]),
        ("aa $(bb $(cc))", ["cc", "bb", "aa"]),
        ("aa `bb`", ["bb", "aa"]),
        ('aa "x $(bb "y $(cc)") z"', ["cc", "bb", "aa"]),
        ("aa <(bb) >(cc)", ["bb", "cc", "aa"]),
        ("(aa; (bb)) 2>&1 | cc", ["aa", "bb", "cc"]),
        ("X=1 Y=$(bb) aa", ["bb", "aa"]),
        ("X=$(aa)", ["aa", ""]),
        ("aa > f 2>&1 < g >> h 2>/dev/null", ["aa"]),
        ("> f aa", ["aa"]),
        ("aa <<< \"$(bb)\"", ["bb", "aa"]),
        ("aa > $(bb)", ["bb", "aa"]),
        ("aa &> f; bb", ["aa", "bb"]),
        ("aa \\\nbb; c\\\nc", ["aa", "cc"]),
        ("aa # ; bb\ncc", ["aa", "cc"]),
        ("aa x#y; bb", ["aa", "bb"]),
        ("'aa' b", ["aa"]),
        ("a'a' b", ["aa"]),
        ("a\\a b", ["aa"]),
        ("aa &&\n\n bb", ["aa", "bb"]),
        ("aa ${HOME} $1 $? \"$@\" $", ["aa"]),
        ("[ -f x ] && aa", ["[", "aa"]),
        # Wrappers.
        ("env aa", ["aa"]),
        ("env X=1 Y=2 aa b", ["aa"]),
        ("nice -n 5 timeout -k 1 10s aa", ["aa"]),
        ("nohup setsid aa &", ["aa"]),
        ("time aa | bb", ["aa", "bb"]),
        ("aa | xargs -0 -n 1 bb -x", ["aa", "bb"]),
        ("aa | xargs -I {} bb {}", ["aa", "bb"]),
        ("sh -c 'aa; bb'", ["aa", "bb"]),
        ("bash -euo pipefail -c aa", ["aa"]),
        ("bash -eu -o pipefail -c 'aa $(bb)' x y", ["bb", "aa"]),
        ("/usr/bin/env sh -c 'nice aa'", ["aa"]),
        ("./env aa", ["./env"]),
        ("command -v aa", ["command"]),
        ("sh script", ["sh"]),
        ("env", ["env"]),
    ],
)  # fmt: skip
def test_the_programs_of_a_line_are_found(line: str, found: list[str]) -> None:
    assert programs(line) == found


@pytest.mark.parametrize(
    "line",
    [
        "$aa", "'$(bb)' x", "a*", "~/aa", "{aa,bb}", "$(aa)", "`aa`", "a$X", "\"$X\" aa",
        "if aa; then bb; fi", "for x in a; do aa; done", "while aa; do bb; done", "case x in esac",
        "aa() { bb; }", "aa () (bb)", "function aa { bb; }", "{ aa; }", "! aa", "[[ -f x ]]",
        "((1))", "aa $((1))", "aa $[1]", "aa ${X:-$(bb)}", "aa ${X@P}", "aa $'x'", "aa $\"x\"",
        "aa <<E\nbb\nE", "aa <<-E\nE", "X+=1 aa", "X[0]=1", "X=(a b)", "coproc aa",
        "aa &&", "aa |", "| aa", "; aa", "aa ;; bb", "& aa", "aa & & bb", "(aa", "aa)", "aa 'x",
        'aa "x', "aa `bb", "aa $(bb", "aa \\", "aa > ; bb", "aa >", "aa \\$(bb", "(aa) bb",
        "aa &> f bb",
        "aa \"`bb \"x\"`\"", "aa `bb \\`cc\\``", "aa\x00", "aa\x07", "aa\r\nbb", "ää", "aa\u00a0b",
        "env -i aa", "env -S 'aa bb'", "env X=$Y aa", "env $X aa", "timeout $X aa", "nice -5 aa",
        "timeout -v 5 aa", "xargs $X", "xargs -I{} aa {}", "xargs -I aa aa", "xargs -a f aa",
        "xargs -I {} {} x", "sh -c $X", "sh -c", "aa | xargs -I {} sh -c 'echo {}'",
        "sh -c \"$(aa)\"", "exec -a x aa", "command $X", "nohup $X", "sh -c 'if x'",
        "(" * 40 + "aa" + ")" * 40, "x" * 100_001,
    ],
)  # fmt: skip
def test_what_is_not_plain_is_not_understood(line: str) -> None:
    with pytest.raises(NotUnderstood):
        read_commands(line)


def test_variables_and_files_are_told_with_the_command_they_are_for() -> None:
    first, second = read_line("A=1 B=2 aa > f 2>> g < h; bb 2>&1 >/dev/null >&f")

    assert (first.variables, first.writes) == (("A", "B"), ("f", "g"))
    assert (second.variables, second.writes) == ((), ("f",))


def test_what_a_wrapper_sets_and_writes_is_that_of_the_program() -> None:
    (command,) = read_commands("A=1 env B=2 sh -c 'C=3 aa > f' > g")

    assert command.program == "aa"
    assert set(command.variables) == {"A", "B", "C"}
    assert set(command.writes) == {"f", "g"}


def test_a_word_that_the_shell_changes_is_not_fixed() -> None:
    (command,) = read_line("aa x 'y*' \"z\" *.py '' b")

    assert list(fixed_words(command.words)) == ["aa", "x", "y*", "z"]


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(line: str) -> None:
    with suppress(NotUnderstood):
        read_commands(line)


PIECES = st.sampled_from(
    [
        "aa", "bb", "cc", "dd", " ", " ", " ", ";", "|", "&&", "||", "&", "\n", "$(", ")", "`", "'",
        '"', "\\", "<(", ">(", "(", "#", "X=1 ", "env ", "sh -c ", "xargs ", "timeout 5 ", "nice ",
        "$X", "${X}", "eval ", "exec ", ">f", "2>&1", "&>f", "<<<", "-x", "*", "~", "!", "[ ",
        "-I {} ",
        "{}", "=", "command ", "nohup ", "time ", "if ", "then ", "fi", "X=", "-n 1 ", "|&", ">&2",
    ]
)  # fmt: skip


@pytest.fixture(scope="module")
def recorders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of programs that only note that they ran."""
    directory = tmp_path_factory.mktemp("bin")
    for name in ("aa", "bb", "cc", "dd"):
        program = directory / name
        program.write_text(f'#!/bin/sh\necho {name} >>"$NOTES"\nexec cat >/dev/null\n')
        program.chmod(0o755)
    for name in ("sh", "env", "xargs", "timeout", "nice", "nohup", "cat"):
        (directory / name).symlink_to(f"/usr/bin/{name}")
    return directory


@pytest.mark.parametrize("shell", ["bash", "sh"])
@given(pieces=st.lists(PIECES, min_size=1, max_size=14))
@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
def test_a_real_shell_runs_no_program_that_was_not_found(
    recorders: Path, tmp_path: Path, shell: str, pieces: list[str]
) -> None:
    line = "".join(pieces)
    try:
        found = set(programs(line))
    except NotUnderstood:
        return  # asked about, or refused
    if "eval" in found or {"sh", "exec"} & found:
        return  # covered by a pattern with its arguments only
    notes = tmp_path / "notes"
    notes.write_text("")
    environment = {"PATH": str(recorders), "NOTES": str(notes), "X": "dd", "HOME": str(tmp_path)}
    subprocess.run(
        [f"/bin/{shell}", "-c", f"{line}\n"],
        env=environment,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=20,
        check=False,
    )
    ran = set(notes.read_text().split())
    assert ran <= found, os.fsdecode(line)
