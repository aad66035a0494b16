"""Whatever is asked of a route, it answers as ``/openapi.json`` says, and never with a 500."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from tests.clients.conftest import pythons as pythons
from tests.clients.gateway import Serving, serving
from tests.system.conftest import stub_port as stub_port
from tests.system.processes import ADMIN_KEY

pytestmark = pytest.mark.system

# Names that lead somewhere; what is asked of a tenant that is not there ends too early.
CONFIG = """\
[parameters]
"path.id" = "clients"
"""
# These would end the tenant or its token, and every answer after that would be the same refusal.
_LETHAL = ("tenants.delete", "tokens.rotate", "tickets.logout", "internal.delete")
_PATIENCE = 600.0  # seconds


# Its own for each caller: what one has broken on purpose is not another's.
@pytest.fixture
def served(tmp_path: Path, stub_port: int) -> Iterator[Serving]:
    home = tmp_path / "gateway"
    home.mkdir()
    with serving(home, stub_port) as what:
        yield what


@pytest.mark.parametrize("caller", ["tenant", "admin", "nobody"])
def test_every_route_answers_as_documented(
    caller: str, served: Serving, pythons: dict[str, str], tmp_path: Path
) -> None:
    headers = {
        "tenant": [f"Authorization: Bearer {served.token}"],
        "admin": [f"Authorization: Bearer {ADMIN_KEY}", "X-OpenClaw-Tenant: clients"],
        "nobody": ["X-Test: nobody"],
    }
    (tmp_path / "config.toml").write_text(CONFIG)

    fuzz(pythons["clients"], served.gateway.url, headers[caller], tmp_path)

    log = served.gateway.process.said
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:4000]


def fuzz(python: str, url: str, headers: Sequence[str], home: Path) -> None:
    routes = httpx.get(f"{url}/openapi.json", timeout=60).json()["paths"].values()
    known = {operation["operationId"] for path in routes for operation in path.values()}
    # One worker, which takes no longer: CPython 3.11 counts the depth of ``ast.parse`` for all
    # threads together, so two that parse at once can end in a SystemError ("AST constructor
    # recursion depth mismatch"), and Hypothesis parses every lambda that it describes.
    done = subprocess.run(
        [
            *(str(Path(python).with_name("schemathesis")), "--config-file", "config.toml"),
            *("--no-color", "run", f"{url}/openapi.json"),
            *(part for each in headers for part in ("--header", each)),
            *("--checks", "not_a_server_error,status_code_conformance"),
            *("--max-examples", "10", "--generation-deterministic", "--workers", "1"),
            *("--suppress-health-check", "all", "--warnings", "off", "--continue-on-failure"),
            *(
                part
                for name in _LETHAL
                if name in known
                for part in ("--exclude-operation-id", name)
            ),
        ],
        cwd=home,
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
