"""Install other people's clients for our tests: ``python build/node_clients.py [FOLDER…]``.

They come from the npm registry this machine is set up with, by the lock files
in each FOLDER (all of OpenClaw's own, ``tests/conformance/npm/*``, if none is
named): exact versions, each tarball checked by hash, no install script of any
package run. So does the Node they need; of the machine itself only ``npm`` is
used. They are large, so they live in the user's cache, where the next checkout
finds them too, each folder named after the lock file it was made from. The last
line printed is the folder that holds them all.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

LOCKS = Path(__file__).resolve().parent.parent / "tests" / "conformance" / "npm"
MANIFESTS = ("package.json", "package-lock.json")

# Scripts of packages are other people's programs; those we need work without. Peers are what an
# application may add, such as 700 MB of CUDA kernels.
NPM = (
    "npm",
    "ci",
    "--ignore-scripts",
    "--omit=peer",
    "--no-audit",
    "--no-fund",
    "--fetch-retries=5",
    "--loglevel=error",
)


class InstallFailed(Exception):
    """A client could not be had; the text says why and what to do."""


def install_all(folders: Sequence[Path], cache: Path) -> None:
    """Have what each of ``folders`` locks in ``cache``; raise :exc:`InstallFailed` otherwise."""
    if platform.machine() != "x86_64":
        raise InstallFailed("the Node the clients run on is locked for x86-64 only")
    cache.mkdir(parents=True, exist_ok=True)
    for locked in folders:
        install(locked, cache)


def install(locked: Path, cache: Path) -> None:
    """Make ``cache/<name>``, unless it was made from the same lock file before."""
    target = cache / locked.name
    stamp = target / ".made-from"
    wanted = fingerprint(locked)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    report(f"Installing {locked.name} from npm")
    with tempfile.TemporaryDirectory(dir=cache, prefix=".making-") as folder:
        draft = Path(folder) / locked.name
        draft.mkdir()
        for name in MANIFESTS:
            shutil.copyfile(locked / name, draft / name)
        npm(draft)
        (draft / stamp.name).write_text(wanted)
        # Only what is complete gets the name, so that an interrupted run leaves nothing half made.
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)


def fingerprint(locked: Path) -> str:
    digest = hashlib.sha256()
    for name in MANIFESTS:
        digest.update((locked / name).read_bytes())
    return digest.hexdigest()


def npm(folder: Path) -> None:
    try:
        done = subprocess.run(NPM, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise InstallFailed(
            "npm is not there. Debian has it in the package npm; any npm since version 7 will do"
        ) from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-1500:]
        raise InstallFailed(
            f"npm could not install {folder.name}. Is its registry reachable? What it said:\n{said}"
        )


def default_cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "openclawmu" / "clients"


def report(text: str) -> None:
    # The caller reads what is printed.
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Install other people's clients from npm.")
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="with a lock file")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where to keep them")
    options = parser.parse_args(argv)
    cache: Path = options.cache.absolute()
    all_of_them = sorted(path for path in LOCKS.iterdir() if path.is_dir())
    try:
        install_all([path.absolute() for path in options.folders] or all_of_them, cache)
    except (InstallFailed, OSError) as exc:
        report(f"node_clients: {exc}")
        return 1
    print(cache)
    return 0


def _run() -> NoReturn:
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    _run()
