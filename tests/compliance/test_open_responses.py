"""The official compliance suite of Open Responses, against every kind of upstream."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import node_folder as node_folder
from tests.clients.conftest import served as served
from tests.clients.gateway import DIALECTS, Serving
from tests.system.conftest import stub_port as stub_port

pytestmark = pytest.mark.system

CHECKOUT = "OPENRESPONSES_DIR"
_BUN = "compliance/node_modules/@oven/bun-linux-x64-baseline/bin/bun"
_PROGRAM = "bin/compliance-test.ts"
_TESTS = 17
_PATIENCE = 250.0  # seconds


@pytest.fixture(scope="session")
def suite(node_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite's own files beside the one module they need; nothing of them is changed."""
    checkout = os.environ.get(CHECKOUT)
    if not checkout:
        pytest.skip(
            f"the official suite is in no package registry: set {CHECKOUT} to a checkout of it"
        )
    folder = tmp_path_factory.mktemp("suite")
    for part in ("bin", "src"):
        shutil.copytree(Path(checkout) / part, folder / part)
    shutil.copyfile(Path(checkout) / "package.json", folder / "package.json")
    (folder / "node_modules").symlink_to(node_folder / "compliance" / "node_modules")
    return folder


# All of one run's tests are under way at the same time.
@pytest.mark.parametrize("model", [*(f"{each}/assistant" for each in DIALECTS), "openclaw"])
def test_the_suite_passes(model: str, suite: Path, node_folder: Path, served: Serving) -> None:
    report = run_suite(suite, node_folder, served, model)

    failed = {each["id"]: each["errors"] for each in report["results"] if is_failed(each)}
    assert not failed, json.dumps(failed, indent=1)
    assert report["summary"]["passed"] == _TESTS
    assert report["summary"]["skipped"] == 0


def is_failed(result: dict[str, Any]) -> bool:
    return bool(result["status"] == "failed")


def run_suite(suite: Path, node_folder: Path, served: Serving, model: str) -> dict[str, Any]:
    base = f"{served.gateway.url}/v1"
    done = subprocess.run(
        [
            *(str(node_folder / _BUN), "run", _PROGRAM, "--json"),
            *("--base-url", base, "--api-key", served.token, "--model", model),
        ],
        cwd=suite,
        env={"HOME": str(suite), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    assert done.stdout.startswith("{"), done.stdout[-2000:] + done.stderr[-2000:]
    report: dict[str, Any] = json.loads(done.stdout)
    return report
