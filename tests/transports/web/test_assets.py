"""The table of files that pages load."""

from pathlib import Path

import pytest

from appliance.transports.web.assets import Assets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "page.css").write_text("body {}")
    (tmp_path / "page.js").write_text("export {};")
    (tmp_path / "page.js.gz").write_bytes(b"compressed")
    (tmp_path / "secrets.yaml").write_text("key: value")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "inner.js").write_text("0")
    return tmp_path


def test_a_file_is_found_by_its_address(folder: Path) -> None:
    assets = Assets.of([folder])

    style, script = assets.find(assets.digest, "page.css"), assets.find(assets.digest, "page.js")

    assert style is not None
    assert (style.content, style.media_type) == (b"body {}", "text/css; charset=utf-8")
    assert style.compressed is None
    assert script is not None
    assert (script.media_type, script.compressed) == (
        "text/javascript; charset=utf-8",
        b"compressed",
    )


@pytest.mark.parametrize(
    "name",
    [
        "secrets.yaml",
        "deeper",
        "deeper/inner.js",
        "page.js.gz",
        "../page.css",
        "./page.css",
        "/etc/passwd",
        "page.css\0",
        "PAGE.CSS",
        "",
    ],
)
def test_nothing_else_is(folder: Path, name: str) -> None:
    assets = Assets.of([folder])

    assert assets.find(assets.digest, name) is None


def test_the_address_changes_with_any_file(folder: Path) -> None:
    before = Assets.of([folder]).digest
    assert Assets.of([folder]).digest == before

    (folder / "page.css").write_text("body { }")

    after = Assets.of([folder])
    assert after.digest != before
    assert after.find(before, "page.css") is None


def test_a_folder_that_was_not_built_has_no_files(folder: Path, tmp_path: Path) -> None:
    assets = Assets.of([folder, tmp_path / "vendor"])

    assert "page.css" in assets
    assert "xterm.mjs" not in assets
