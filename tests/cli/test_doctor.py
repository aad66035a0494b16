import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli


@pytest.fixture
def place(tmp_path: Path, cli: Cli) -> Path:
    path = tmp_path / "state"
    cli.environ["OPENCLAW_STATE_DIR"] = str(path)
    cli.ok("init")
    return path


def findings(cli: Cli, exit_code: int) -> dict[str, Any]:
    result = cli.run("doctor", "--json")
    assert result.exit_code == exit_code, result.output
    return {finding["name"]: finding for finding in json.loads(result.stdout)}


def test_a_new_installation_is_well(cli: Cli, place: Path) -> None:
    found = findings(cli, 0)

    assert {finding["verdict"] for finding in found.values()} <= {"ok", "warning"}
    assert str(place) in found["state directory"]["found"]


def test_people_are_told_the_remedy(cli: Cli, place: Path) -> None:
    place.chmod(0o755)
    result = cli.run("doctor")

    assert result.exit_code == 1
    assert f"chmod 700 {place}" in result.stdout.replace("\n", "")


def test_no_directory_is_told_how_to_make_one(cli: Cli, tmp_path: Path) -> None:
    cli.environ["OPENCLAW_STATE_DIR"] = str(tmp_path / "nowhere")
    found = findings(cli, 1)

    assert "openclawmu init" in found["state directory"]["remedy"]
    assert not (tmp_path / "nowhere").exists()


def test_a_broken_config_is_told_with_its_line(cli: Cli, place: Path) -> None:
    (place / "config.yaml").write_text("server:\n  bnid: 127.0.0.1:1\n")
    found = findings(cli, 1)

    assert found["config"]["verdict"] == "broken"
    assert "line 2" in found["config"]["found"]
    assert "bind" in found["config"]["found"]


def test_a_broken_record_is_told_and_left_as_it_is(cli: Cli, place: Path) -> None:
    record = place / "tenants" / "acme" / "tenant.json"
    record.parent.mkdir(mode=0o700)
    record.write_text("{")
    found = findings(cli, 0)

    assert found["tenants"]["verdict"] == "warning"
    assert "acme" in found["tenants"]["found"]
    assert record.read_text() == "{"


def test_an_open_door_without_tls_is_broken(cli: Cli, place: Path) -> None:
    config = place / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("127.0.0.1:18789", "0.0.0.0:18789"))
    found = findings(cli, 1)

    assert any(
        finding["verdict"] == "broken" and "TLS" in finding["found"] for finding in found.values()
    )
