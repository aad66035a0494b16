"""Where weights are looked for."""

from pathlib import Path

import pytest

from appliance.providers import weights
from appliance.providers.weights import Weights, find_weights


@pytest.fixture(autouse=True)
def _nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PACKAGE_FOLDER", tmp_path / "package")


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF")
    return path


def test_a_path_in_the_config_counts_alone(tmp_path: Path) -> None:
    named = put(tmp_path / "own.gguf")

    found = find_weights("x.gguf", configured=str(named), environ={})

    assert found == Weights("own.gguf", named)
    assert found.arguments == ("--model", str(named))
    missing = str(tmp_path / "none.gguf")
    assert find_weights(weights.CHAT, configured=missing, environ={}) is None


def test_the_folder_in_the_environment_comes_before_the_packages(tmp_path: Path) -> None:
    environ = {"OPENCLAW_MODELS_DIR": str(tmp_path / "named")}
    packaged = put(tmp_path / "package" / "x.gguf")
    assert find_weights("x.gguf", configured=None, environ=environ) == Weights("x.gguf", packaged)

    named = put(tmp_path / "named" / "x.gguf")
    assert find_weights("x.gguf", configured=None, environ=environ) == Weights("x.gguf", named)


def test_what_is_nowhere_is_none() -> None:
    assert find_weights("no-such-model.gguf", configured=None, environ={}) is None


def test_weights_inside_the_executable_are_named_not_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("appliance.providers.frozen_weights.carried", lambda name: True)

    found = find_weights("carried.gguf", configured=None, environ={})

    assert found is not None
    assert found.arguments == ("--carried", "carried.gguf")
