"""``llm``, the command line: its file of further models, and its Python API."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path: Path, url: str, token: str) -> Path:
    """The folder of a user who added the gateway's models."""
    base = {"api_base": f"{url}/v1", "supports_tools": True, "supports_schema": True}
    listed = [
        {**base, "model_id": "gateway", "model_name": "chat/assistant", "vision": True},
        {**base, "model_id": "translated", "model_name": "messages/assistant"},
        {**base, "model_id": "agent", "model_name": "openclaw"},
    ]
    # YAML takes JSON.
    (tmp_path / "extra-openai-models.yaml").write_text(
        json.dumps([{**each, "api_key_name": "gateway"} for each in listed])
    )
    (tmp_path / "keys.json").write_text(json.dumps({"gateway": token}))
    return tmp_path


def llm(home: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "llm", *arguments],
        env={**os.environ, "LLM_USER_PATH": str(home), "LLM_LOAD_PLUGINS": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "model", [("gateway",), ("gateway", "--no-stream"), ("translated",), ("agent",)]
)
def test_it_answers(home: Path, model: tuple[str, ...]) -> None:
    assert llm(home, "-m", *model, "Count from 1 to 3.") == "1, 2, 3"


def test_a_conversation_goes_on(home: Path) -> None:
    llm(home, "-m", "gateway", "My name is Alice.")

    assert llm(home, "-c", "What is my name?") == "The name is Alice."


@pytest.mark.parametrize("name", ["gateway", "translated"])
def test_a_schema(home: Path, name: str) -> None:
    said = llm(home, "-m", name, "--schema", "name, age int", "Ada is 36.")

    assert set(json.loads(said)) == {"name", "age"}


@pytest.mark.parametrize("name", ["gateway", "translated"])
def test_a_tool(home: Path, name: str) -> None:
    source = (
        "def get_weather(city: str) -> str:\n    'The weather'\n    return 'sunny in ' + city\n"
    )

    said = llm(home, "-m", name, "--functions", source, "What is the weather in Oslo?")

    assert "The tool says: sunny in Oslo" in said
