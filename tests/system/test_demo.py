"""`make run`: what a newcomer sees first, pasted as it is printed."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.processes import PATIENCE, Launcher, environment, free_port, launching, wait_until

pytestmark = [
    pytest.mark.system,
    pytest.mark.model,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    with launching(tmp_path) as launcher:
        yield launcher


def printed_curl(text: str) -> str:
    """The command as printed, with the lines it goes on to."""
    match = re.search(r"^\s*(curl (?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert match is not None, text
    return match[1]


def test_the_curl_it_prints_gets_an_answer_from_the_embedded_model(launcher: Launcher) -> None:
    address = f"127.0.0.1:{free_port()}"
    demo = launcher.start("demo", "--bind", address, "--state-dir", str(launcher.state))

    def printed() -> bool:
        assert demo.exit_code is None, demo.said
        return "curl " in demo.said and "tenant:demo:" in demo.said

    wait_until(printed, "the demo to print its curl")
    answered = subprocess.run(
        ["/bin/sh", "-c", printed_curl(demo.said)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(),
        check=True,
    )

    text = answered.stdout
    if "data: " in text:
        assert "data: [DONE]" in text
        deltas = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        said = "".join(
            d["choices"][0]["delta"].get("content") or "" for d in deltas if d["choices"]
        )
    else:
        said = json.loads(text)["choices"][0]["message"]["content"]
    assert said.strip()
    assert demo.stop() == 0
