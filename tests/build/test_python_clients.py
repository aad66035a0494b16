"""What `make test-clients` installs other people's Python programs with."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = ROOT / "build" / "python_clients.py"
LOCKS = ROOT / "tests" / "clients" / "requirements"


def test_a_name_without_a_lock_file_is_refused_with_those_there_are(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "nothing", "--cache", str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "there are clients, litellm" in done.stderr
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("lock", sorted(LOCKS.glob("*.txt")), ids=lambda path: path.stem)
def test_what_is_locked_has_hashes_and_no_address(lock: Path) -> None:
    text = lock.read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]

    assert lines
    assert all("==" in line and line.endswith("\\") for line in lines)
    assert "://" not in text


def test_litellm_is_a_release_that_is_trusted() -> None:
    text = (LOCKS / "litellm.txt").read_text()

    version = text.partition("\nlitellm==")[2].partition(" ")[0]
    assert tuple(map(int, version.split("."))) <= (1, 106, 2)
