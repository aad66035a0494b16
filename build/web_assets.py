"""Fetch the browser code of others: ``python build/web_assets.py appliance/web/vendor``.

xterm.js and its addons come from the npm registry this machine is set up with,
by the lock file in ``build/web/``: exact versions, each tarball checked by
hash, no install script of any package run. Of what they unpack to, the few
files that the pages load are kept, and each package's licence beside them.

Without npm nothing is written and nothing fails: the page says that its code
was not built, and the next ``make`` tries again. ``--required`` makes it fail.
"""

import argparse
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

LOCKED = Path(__file__).resolve().parent / "web"
MANIFESTS = ("package.json", "package-lock.json")
STAMP = ".made"

# What a page loads, by package. The name a file is kept under is the name it is served under.
FILES = {
    "@xterm/xterm": ("lib/xterm.mjs", "css/xterm.css"),
    "@xterm/addon-fit": ("lib/addon-fit.mjs",),
    "@xterm/addon-unicode11": ("lib/addon-unicode11.mjs",),
}

NPM = (
    *("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"),
    *("--fetch-retries=5", "--loglevel=error"),
)
# Worth a compressed copy beside it, which is then served to whoever takes it.
COMPRESSED_FROM = 16 * 1024  # bytes
# A browser's developer tools would ask us for a map that we do not serve.
SOURCE_MAP = re.compile(rb"\n//# sourceMappingURL=\S+\s*\Z")


class FetchFailed(Exception):
    """The files could not be had; the text says why and what to do."""


def fetch(target: Path) -> None:
    """Fill ``target``, which is replaced as a whole. Raises :exc:`FetchFailed`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as folder:
        work, draft = Path(folder) / "npm", Path(folder) / "draft"
        work.mkdir()
        draft.mkdir()
        for name in MANIFESTS:
            shutil.copyfile(LOCKED / name, work / name)
        _npm(work)
        for package, names in FILES.items():
            keep(work / "node_modules" / package, names, draft)
        (draft / STAMP).touch()
        # Only what is complete gets the name, so that an interrupted run leaves nothing half made.
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)


def keep(package: Path, names: Sequence[str], target: Path) -> None:
    """Copy ``names`` of one unpacked package, and its licence."""
    for name in names:
        source = package / name
        if not source.is_file():
            raise FetchFailed(f"{package.name} has no {name} any more: change FILES")
        content = SOURCE_MAP.sub(b"\n", source.read_bytes())
        (target / source.name).write_bytes(content)
        if len(content) >= COMPRESSED_FROM:
            # No time in it: the same input makes the same file, and so the same address.
            (target / f"{source.name}.gz").write_bytes(gzip.compress(content, mtime=0))
    licence = package / "LICENSE"
    if not licence.is_file():
        raise FetchFailed(f"{package.name} comes without its licence, so it cannot be shipped")
    shutil.copyfile(licence, target / f"LICENSE-{package.name}.txt")


def _npm(folder: Path) -> None:
    try:
        done = subprocess.run(NPM, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise FetchFailed(
            "npm is not there. Debian has it in the package npm; any npm since version 7 will do"
        ) from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-1500:]
        raise FetchFailed(f"npm ci failed. Is its registry reachable? What it said:\n{said}")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Fetch the browser code of others from npm.")
    parser.add_argument("target", type=Path, help="the folder to write")
    parser.add_argument("--required", action="store_true", help="fail if it cannot be had")
    options = parser.parse_args(arguments)
    try:
        fetch(options.target)
    except FetchFailed as failed:
        print(f"web_assets: {failed}", file=sys.stderr)
        print("web_assets: the page /terminal will say that it was not built", file=sys.stderr)
        return os.EX_UNAVAILABLE if options.required else 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
