"""How the browser code of others comes into the package."""

import gzip
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
LOCKED = ROOT / "build" / "web"
SCRIPT = runpy.run_path(str(ROOT / "build" / "web_assets.py"))
keep, FILES, FetchFailed = SCRIPT["keep"], SCRIPT["FILES"], SCRIPT["FetchFailed"]


def run(target: Path, *options: str, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "build" / "web_assets.py"), str(target), *options],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "some-package"
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "code.mjs").write_text("export {};\n//# sourceMappingURL=code.mjs.map\n")
    (folder / "LICENSE").write_text("As you like it.")
    return folder


def test_a_file_is_kept_without_its_map_and_with_its_licence(package: Path, tmp_path: Path) -> None:
    keep(package, ["lib/code.mjs"], tmp_path)

    assert (tmp_path / "code.mjs").read_text() == "export {};\n"
    assert (tmp_path / "LICENSE-some-package.txt").read_text() == "As you like it."
    assert not (tmp_path / "code.mjs.gz").exists()


def test_a_large_file_gets_a_compressed_copy_that_is_always_the_same(
    package: Path, tmp_path: Path
) -> None:
    content = b"export {};" * 10_000
    (package / "lib" / "code.mjs").write_bytes(content)

    copies = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        keep(package, ["lib/code.mjs"], tmp_path / name)
        copies.append((tmp_path / name / "code.mjs.gz").read_bytes())

    assert gzip.decompress(copies[0]) == content
    assert copies[0] == copies[1]


@pytest.mark.parametrize("missing", ["LICENSE", "lib/code.mjs"])
def test_a_package_that_lacks_something_is_not_taken(
    package: Path, tmp_path: Path, missing: str
) -> None:
    (package / missing).unlink()

    with pytest.raises(FetchFailed):
        keep(package, ["lib/code.mjs"], tmp_path)


def test_without_npm_the_build_goes_on_and_says_what_is_missing(tmp_path: Path) -> None:
    done = run(tmp_path / "vendor", path=str(tmp_path))

    assert done.returncode == 0
    assert "Debian has it in the package npm" in done.stderr
    assert "/terminal will say" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_where_it_is_required_the_build_stops(tmp_path: Path) -> None:
    assert run(tmp_path / "vendor", "--required", path=str(tmp_path)).returncode != 0


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "npm").write_text("#!/bin/sh\necho no such registry >&2\nexit 1\n")
    (tmp_path / "npm").chmod(0o755)
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor" / "xterm.mjs").write_text("of before")

    done = run(tmp_path / "vendor", path=f"{tmp_path}:/usr/bin:/bin")

    assert "no such registry" in done.stderr
    assert (tmp_path / "vendor" / "xterm.mjs").read_text() == "of before"


def test_everything_is_locked_by_hash_and_named_exactly() -> None:
    wanted = json.loads((LOCKED / "package.json").read_text())["dependencies"]
    packages = json.loads((LOCKED / "package-lock.json").read_text())["packages"]
    locked = {name.removeprefix("node_modules/"): of for name, of in packages.items() if name}

    assert set(FILES) == set(wanted)
    assert {name: of["version"] for name, of in locked.items()} == wanted
    for of in locked.values():
        assert of["integrity"].startswith("sha512-")
        assert "resolved" not in of
        assert of["license"] == "MIT"
        assert "hasInstallScript" not in of
