"""Freeze the gateway into one executable: ``dist/openclawmu``.

``make binary`` runs this with the Python of an environment that holds the
run-time packages and PyInstaller, and nothing else.

The weights go into ELF sections in front of PyInstaller's archive rather than
into it: the archive is unpacked at every start (98 MB of it would cost half a
second each time), and the start-up code searches the file backwards for it, so
that what lies behind it would be read, too. Without objcopy they go into the
archive; the executable then does the same, only slower.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WEB = ROOT / "appliance" / "web" / "vendor"  # filled by web_assets.py
sys.path.insert(0, str(ROOT))

from appliance.providers.frozen_weights import find_section, section_name  # noqa: E402 - needs ROOT

ARCHIVE_SECTION = "pydata"

# Found by name at run time, so that PyInstaller cannot see them.
HIDDEN_IMPORTS = ("apsw", "sqlite_vec", "xllamacpp", "cryptography")

# Asked at run time for the version that is installed. Nothing else's metadata
# is packed: every file that is unpacked makes each start slower.
WITH_METADATA = ("hypercorn",)

LICENCE_FILE = re.compile(r"(?i)(licen[cs]e|copying|notice|authors)")
LICENCES = "third-party-licences.txt"

# Reached only by code of our dependencies that we never call, and large.
EXCLUDED = (
    "IPython",
    "PIL",
    "_pytest",
    "apsw.shell",
    "apsw.tests",
    "curses",
    "idlelib",
    "ipywidgets",
    "lib2to3",
    "numpy",
    "pytest",
    "readline",
    "setuptools",
    "test",
    "tkinter",
    "trio.testing",
    "turtle",
    "xmlrpc",
)


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    weights = sorted(options.models.glob("*.gguf"))
    if not weights:
        print(f"There are no weights in {options.models}: run `make models` first", file=sys.stderr)
        return 1
    objcopy = shutil.which("objcopy")
    if objcopy is None:
        print("objcopy (binutils) is missing: the weights are unpacked at every start instead")
    with _scratch(options.work) as scratch:
        frozen = _freeze(options.work, unpacked=() if objcopy else weights)
        if objcopy:
            frozen = _carry(frozen, weights, objcopy=objcopy, scratch=scratch)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        frozen.chmod(0o755)
        frozen.replace(options.output)
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.0f} MB")
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Freeze the gateway into one executable.")
    parser.add_argument("--models", type=Path, required=True, help="folder with *.gguf files")
    parser.add_argument("--work", type=Path, required=True, help="folder for intermediate files")
    parser.add_argument("--output", type=Path, required=True, help="the executable to write")
    return parser.parse_args(arguments)


@contextmanager
def _scratch(work: Path) -> Iterator[Path]:
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        yield Path(folder)


def _freeze(work: Path, *, unpacked: Sequence[Path]) -> Path:
    """Run PyInstaller and return the executable it made."""
    import PyInstaller.__main__
    import sqlite_vec

    arguments = [
        str(ROOT / "appliance" / "__main__.py"),
        "--name=openclawmu",
        "--onefile",
        "--strip",
        "--noconfirm",
        "--log-level=ERROR",
        f"--distpath={work / 'frozen'}",
        f"--workpath={work / 'pyinstaller'}",
        f"--specpath={work}",
        f"--runtime-hook={ROOT / 'build' / 'runtime_hook.py'}",
        "--collect-submodules=appliance",
        "--collect-data=appliance",
        f"--add-data={_licences(work.resolve() / LICENCES)}{os.pathsep}.",
        f"--add-binary={sqlite_vec.loadable_path()}.so{os.pathsep}sqlite_vec",
    ]
    arguments += [f"--hidden-import={name}" for name in HIDDEN_IMPORTS]
    arguments += [f"--copy-metadata={name}" for name in WITH_METADATA]
    arguments += [f"--exclude-module={name}" for name in EXCLUDED]
    arguments += [f"--add-data={path.resolve()}{os.pathsep}models" for path in unpacked]
    PyInstaller.__main__.run(arguments)
    return work / "frozen" / "openclawmu"


def _licences(target: Path) -> Path:
    """Write one text with the licences of everything installed here."""
    with target.open("w") as out:
        for found in sorted(distributions(), key=lambda found: found.name.lower()):
            out.write(f"==== {found.name} {found.version}\n\n")
            for file in found.files or ():
                if LICENCE_FILE.match(file.name) and ".dist-info" in str(file):
                    out.write(f"{Path(str(file.locate())).read_text(errors='replace').strip()}\n\n")
        for licence in sorted(WEB.glob("LICENSE-*.txt")):
            out.write(f"==== {licence.stem.removeprefix('LICENSE-')}, for browsers\n\n")
            out.write(f"{licence.read_text().strip()}\n\n")
    return target


def _carry(frozen: Path, weights: Sequence[Path], *, objcopy: str, scratch: Path) -> Path:
    """Put ``weights`` into sections of ``frozen``, in front of the archive."""
    archive, bare, loaded, whole = (
        scratch / name for name in ("archive", "bare", "loaded", "openclawmu")
    )
    _run(objcopy, "--dump-section", f"{ARCHIVE_SECTION}={archive}", frozen)
    _run(objcopy, "--remove-section", ARCHIVE_SECTION, frozen, bare)
    adding: list[str | Path] = []
    for path in weights:
        name = section_name(path.name)
        adding += ["--add-section", f"{name}={path}"]
        adding += ["--set-section-flags", f"{name}=noload,readonly"]
    _run(objcopy, *adding, bare, loaded)
    flags = f"{ARCHIVE_SECTION}=noload,readonly"
    add = f"{ARCHIVE_SECTION}={archive}"
    _run(objcopy, "--add-section", add, "--set-section-flags", flags, loaded, whole)
    for path in weights:
        section = find_section(whole, section_name(path.name))
        if section is None or section.size != path.stat().st_size:
            raise RuntimeError(f"objcopy did not carry {path.name}")
    return whole


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
