"""The frozen executable does the main job, with nothing beside it."""

import json
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.processes import (
    ADMIN_KEY,
    FROZEN,
    Launcher,
    answer_of,
    environment,
    launching,
    wait_until,
)

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        not FROZEN.exists(), reason="dist/openclawmu has not been built: run `make binary`"
    ),
]

QUICK_START = 0.6  # seconds of a processor to --version


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Launcher]:
    """Starts the executable from a folder of its own, out of sight of the sources."""
    alone = tmp_path / "bin" / "openclawmu"
    alone.parent.mkdir()
    try:
        alone.hardlink_to(FROZEN)
    except OSError:  # another file system
        shutil.copy2(FROZEN, alone)
    with launching(tmp_path, command=[str(alone)]) as launcher:
        launcher.environ["TMPDIR"] = str(tmp_path)  # where it unpacks itself
        launcher.environ["HOME"] = str(tmp_path)
        yield launcher


def unpacked(frozen: Launcher) -> list[Path]:
    return list(frozen.home.glob("_MEI*"))


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found


def descendants(pid: int) -> list[int]:
    found = children(pid)
    return found + [below for child in found for below in descendants(child)]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def processor_seconds() -> float:
    """What the processes have used that were started here and have ended, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_it_starts_quickly(frozen: Launcher) -> None:
    """Of a processor's time, and the best of three: neighbours only ever make it slower."""
    times = []
    for _ in range(3):
        began = processor_seconds()
        done = subprocess.run(
            [*frozen.command, "--version"],
            env=environment(**frozen.environ),
            capture_output=True,
            text=True,
            check=True,
        )
        times.append(processor_seconds() - began)
        assert "openclawmu" in done.stdout

    assert min(times) < 2 * QUICK_START
    assert unpacked(frozen) == []


def test_it_answers_a_chat_with_the_model_it_carries(frozen: Launcher) -> None:
    gateway = frozen.serve()
    assert gateway.get("/healthz").json() == {"status": "ok"}
    token = gateway.create_tenant()

    assert answer_of(gateway.chat(token, "Say hello."))
    with (
        gateway.client(token) as tenant,
        tenant.stream(
            "POST",
            "/v1/chat/completions",
            json={
                "model": "openclaw",
                "stream": True,
                "messages": [{"role": "user", "content": "Say hello."}],
            },
        ) as response,
    ):
        assert response.status_code == 200
        lines = [line for line in response.iter_lines() if line.startswith("data: ")]

    assert len(lines) > 2
    assert lines[-1] == "data: [DONE]"
    with gateway.client(ADMIN_KEY) as admin:
        assert admin.get("/openapi.json").json()["openapi"].startswith("3.1")
        assert admin.get("/v1/tenants/acme/usage").status_code == 200
    workers = descendants(gateway.process.pid)
    assert gateway.process.stop() == 0
    wait_until(lambda: not any(map(alive, workers)), "everything it started to be gone")
    assert unpacked(frozen) == []


def test_everything_it_carries_works(frozen: Launcher) -> None:
    done = frozen.run("doctor", "--self", "--json")

    assert done.exit_code == 0, done.said
    checks = {check["name"]: check for check in json.loads((done.home / "stdout").read_text())}
    assert [name for name, check in checks.items() if check["verdict"] != "ok"] == []
    assert checks["vector search"]["found"].startswith("sqlite-vec")


def test_killing_the_outer_process_ends_the_gateway_and_frees_its_state(frozen: Launcher) -> None:
    first = frozen.serve()
    inner = descendants(first.process.pid)
    assert inner
    first.process.signal(signal.SIGKILL)
    first.process.wait()

    wait_until(lambda: not any(map(alive, inner)), "the inner process to follow")

    assert unpacked(frozen) == []
    assert frozen.serve().process.stop() == 0
