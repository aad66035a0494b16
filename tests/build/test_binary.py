"""Carrying weights in an executable, on a small one of the system's."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from appliance.providers.frozen_weights import find_section, open_section, section_name

ROOT = Path(__file__).resolve().parent.parent.parent
OBJCOPY = shutil.which("objcopy")


@pytest.fixture(scope="module")
def binary() -> ModuleType:
    # By path: "build" is also the name of a well-known package.
    spec = importlib.util.spec_from_file_location("build_binary", ROOT / "build" / "binary.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.mark.skipif(OBJCOPY is None, reason="objcopy (binutils) is not installed")
def test_weights_are_carried_in_front_of_the_archive(binary: ModuleType, tmp_path: Path) -> None:
    assert OBJCOPY is not None
    archive = tmp_path / "archive.bin"
    archive.write_bytes(b"the archive" * 100)
    weights = tmp_path / "small.gguf"
    weights.write_bytes(b"GGUF" + os.urandom(100_000))
    frozen = tmp_path / "frozen"
    added = ("--add-section", f"pydata={archive}")
    subprocess.run([OBJCOPY, *added, "/bin/true", frozen], check=True)
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    whole = binary._carry(frozen, [weights], objcopy=OBJCOPY, scratch=scratch)

    carried = find_section(whole, section_name("small.gguf"))
    kept = find_section(whole, "pydata")
    assert carried is not None
    assert kept is not None
    assert carried.offset < kept.offset
    memory = open_section(whole, carried, label="small.gguf")
    try:
        assert Path(f"/proc/self/fd/{memory}").read_bytes() == weights.read_bytes()
    finally:
        os.close(memory)
    content = whole.read_bytes()[kept.offset : kept.offset + kept.size]
    assert content == archive.read_bytes()
    subprocess.run([whole], check=True)


def test_without_weights_nothing_is_built(
    binary: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "dist" / "openclawmu"

    code = binary.main(
        ["--models", str(tmp_path), "--work", str(tmp_path / "work"), "--output", str(output)]
    )

    assert code == 1
    assert "make models" in capsys.readouterr().err
    assert not output.exists()


def test_the_licences_of_what_is_packed_go_along(binary: ModuleType, tmp_path: Path) -> None:
    text = binary._licences(tmp_path / "licences.txt").read_text()

    assert "==== trio " in text
    assert "MIT" in text
    assert "Apache License" in text
