"""Running Python as an ordinary user, also where Python and the repository are root's alone."""

import os
import shlex
import site
import subprocess
import sys
from pathlib import Path

UID = 60_901
ROOT = Path(__file__).resolve().parents[2]


def run_as_ordinary_user(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """``python arguments`` in the repository. ``folder`` is where everybody can go.

    The same Python and the same packages, mounted where that user can read
    them, in a mount namespace of its own.
    """
    places = {
        "python": Path(sys.base_prefix),
        "packages": Path(next(path for path in site.getsitepackages() if "packages" in path)),
        "repository": ROOT,
    }
    lines = ["set -e"]
    for name, path in places.items():
        (folder / name).mkdir()
        lines.append(f"mount --bind {shlex.quote(str(path))} {shlex.quote(str(folder / name))}")
    home = folder / "home"
    home.mkdir()
    os.chown(home, UID, UID)
    environment = {
        "HOME": str(home),
        "TMPDIR": str(home),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(home),
        "PATH": os.defpath,
        "LD_LIBRARY_PATH": str(folder / "python" / "lib"),  # a shared libpython says where it was
        "PYTHONPATH": f"{folder / 'packages'}:{folder / 'repository'}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    command = shlex.join([str(folder / "python" / "bin" / version), *arguments])
    lines += [
        f"cd {shlex.quote(str(folder / 'repository'))}",
        f"exec setpriv --reuid={UID} --regid={UID} --clear-groups --inh-caps=-all {command}",
    ]
    return subprocess.run(
        ["unshare", "-m", "/bin/sh", "-c", "\n".join(lines)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
