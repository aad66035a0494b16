"""Install other people's programs in Python: ``python build/python_clients.py NAME…``.

Each NAME is a lock file of ``tests/clients/requirements/``: exact versions,
every file checked by hash. They come from the package index this machine is set
up with. Each gets an environment of its own, because their requirements are
theirs and not ours; it lives in the user's cache, where the next checkout finds
it too, in a folder named after what it was made from. Printed are the programs
``python`` of the environments, one a line, in the order of the names.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

LOCKS = Path(__file__).resolve().parent.parent / "tests" / "clients" / "requirements"
_STAMP = ".complete"
_OLD = 4  # environments of one name that stay, for other checkouts


class InstallFailed(Exception):
    """A program could not be had; the text says why and what to do."""


def install(name: str, cache: Path) -> Path:
    """Have the environment of ``name``; return its Python. Raise :exc:`InstallFailed` otherwise."""
    lock = LOCKS / f"{name}.txt"
    if not lock.is_file():
        known = ", ".join(sorted(path.stem for path in LOCKS.glob("*.txt")))
        raise InstallFailed(f"there is no lock file {name}.txt; there are {known}")
    made_from = f"{lock.read_text()}{sys.version_info[:2]}{platform.machine()}"
    target = cache / f"{name}-{hashlib.sha256(made_from.encode()).hexdigest()[:12]}"
    if not (target / _STAMP).exists():
        report(f"Installing {name} from the package index; this takes a few minutes")
        shutil.rmtree(target, ignore_errors=True)
        cache.mkdir(parents=True, exist_ok=True)
        _fill(target, lock)
        (target / _STAMP).touch()
    _forget_old(cache, name)
    return target / "bin" / "python"


def _fill(target: Path, lock: Path) -> None:
    # An environment cannot be moved: it is made in place, and the stamp says when it is whole.
    venv.create(target, with_pip=False)
    command = [
        *(sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", "--no-input"),
        *("--timeout", "60", "--retries", "8"),  # an index may answer slowly, or not each time
        *("--python", str(target / "bin" / "python")),
        *("install", "--require-hashes", "--no-deps", "--only-binary=:all:", "-r", str(lock)),
    ]
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.run(command, stdout=said, stderr=said, check=False)
        said.seek(0)
        if done.returncode:
            text = said.read().strip()[-1500:]
            raise InstallFailed(f"pip could not install {lock.name}. What it said:\n{text}")


def _forget_old(cache: Path, name: str) -> None:
    made = [path for path in cache.glob(f"{name}-????????????") if (path / _STAMP).exists()]
    made.sort(key=lambda path: (path / _STAMP).stat().st_mtime, reverse=True)
    for path in made[_OLD:]:
        shutil.rmtree(path, ignore_errors=True)


def default_cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "openclawmu" / "python"


def report(text: str) -> None:
    # The caller reads what is printed.
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Install the Python programs we test with.")
    parser.add_argument("names", nargs="+", metavar="NAME", help="a lock file, without .txt")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where to keep them")
    options = parser.parse_args(argv)
    try:
        found = [install(name, options.cache.absolute()) for name in options.names]
    except (InstallFailed, OSError) as exc:
        report(f"python_clients: {exc}")
        return 1
    print(*found, sep="\n")
    return 0


def _run() -> NoReturn:
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    _run()
