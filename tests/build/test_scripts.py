"""What `make` calls before there is an environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FIND_PYTHON = ROOT / "build" / "find_python.sh"
DEBIAN_PACKAGES = ROOT / "build" / "debian_packages.sh"


def run(*command: str | Path, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def program(folder: Path, name: str, text: str) -> Path:
    """A program of ``folder``, for a PATH that has nothing else."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A PATH with the few programs every system has, and nothing to install with."""
    for name in ("sh", "cat", "env"):
        (tmp_path / name).symlink_to(f"/bin/{name}")
    return tmp_path


def test_the_python_that_is_named_is_taken() -> None:
    found = run(FIND_PYTHON, sys.executable)

    assert found.returncode == 0
    assert found.stdout.strip() == sys.executable


def test_a_named_python_that_is_too_old_is_refused(tmp_path: Path) -> None:
    old = program(tmp_path, "python3.9", "exit 1")

    found = run(FIND_PYTHON, old)

    assert found.returncode == 1
    assert "python3.9 is not a Python 3.11 or newer" in found.stderr


def test_the_first_suitable_python_on_the_path_is_taken(bare: Path) -> None:
    program(bare, "python3.12", "exit 1")
    good = program(bare, "python3.11", "exit 0")

    found = run(FIND_PYTHON, path=str(bare))

    assert found.stdout.strip() == str(good)


def test_a_machine_without_python_is_told_what_to_install(bare: Path) -> None:
    found = run(FIND_PYTHON, path=str(bare))

    assert found.returncode == 1
    assert found.stdout == ""
    assert "apt-get install python3 python3-venv" in found.stderr


def test_nothing_is_installed_when_nothing_is_missing(bare: Path) -> None:
    program(bare, "apt-get", "echo called >&2; exit 1")

    done = run(DEBIAN_PACKAGES, "cat=coreutils", path=str(bare))

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_root_installs_what_is_missing_and_only_that(bare: Path) -> None:
    program(bare, "id", "echo 0")
    program(bare, "apt-get", f'echo "$@" >> {bare}/asked')

    done = run(DEBIAN_PACKAGES, "cat=coreutils", "wrk=wrk", "nginx=nginx-light", path=str(bare))

    assert done.returncode == 0
    asked = (bare / "asked").read_text()
    assert asked.split()[-2:] == ["wrk", "nginx-light"]
    assert "coreutils" not in asked


def test_the_package_lists_are_fetched_when_the_first_try_fails(bare: Path) -> None:
    program(bare, "id", "echo 0")
    program(
        bare,
        "apt-get",
        f'echo "$1" >> {bare}/asked\n'
        f'[ "$1" != update ] || echo > {bare}/updated\n'
        f"[ -e {bare}/updated ]",
    )

    done = run(DEBIAN_PACKAGES, "wrk=wrk", path=str(bare))

    assert done.returncode == 0
    assert (bare / "asked").read_text().split() == ["install", "update", "install"]


def test_whoever_may_not_install_is_told_the_one_command(bare: Path) -> None:
    program(bare, "id", "echo 1000")
    program(bare, "sudo", "exit 1")
    program(bare, "apt-get", "exit 1")

    done = run(DEBIAN_PACKAGES, "wrk=wrk", "nginx=nginx-light", path=str(bare))

    assert done.returncode == 1
    assert "sudo apt-get install --no-install-recommends wrk nginx-light" in done.stderr


def test_a_system_without_apt_is_told_what_is_missing(bare: Path) -> None:
    done = run(DEBIAN_PACKAGES, "wrk=wrk", path=str(bare))

    assert done.returncode == 1
    assert "what Debian calls: wrk" in done.stderr
