import json
from pathlib import Path

import pytest

from appliance.config.loading import parse_config
from appliance.model.tokens import AdminKey, stored_digest
from appliance.storage.state import StateDirectory
from tests.cli.conftest import Cli


@pytest.fixture
def place(tmp_path: Path, cli: Cli) -> Path:
    path = tmp_path / "state"
    cli.environ["OPENCLAW_STATE_DIR"] = str(path)
    return path


def hashes(place: Path) -> list[str]:
    config = parse_config((place / "config.yaml").read_text(), name="config.yaml")
    return [key.hash for key in config.server.admin_keys]


def test_init_prints_the_admin_key_and_keeps_its_hash(cli: Cli, place: Path) -> None:
    printed = cli.ok("init").strip()

    key = AdminKey.parse(printed)
    assert key is not None
    assert hashes(place) == [stored_digest(key.digest())]
    assert key.secret not in (place / "config.yaml").read_text()
    assert place.stat().st_mode & 0o777 == 0o700
    assert (place / "config.yaml").stat().st_mode & 0o777 == 0o600


def test_init_changes_nothing_that_is_there(cli: Cli, place: Path) -> None:
    cli.ok("init")
    before = (place / "config.yaml").read_bytes()
    result = cli.run("init")

    assert result.exit_code == 1
    assert result.stdout == ""
    assert (place / "config.yaml").read_bytes() == before


def test_a_key_that_was_given_is_not_printed(cli: Cli, place: Path) -> None:
    cli.environ["OPENCLAW_ADMIN_KEY"] = "admin:chosen-by-the-operator"
    printed = json.loads(cli.ok("init", "--json"))

    assert printed == {"state_dir": str(place), "admin_key": None}
    assert hashes(place) == [stored_digest(AdminKey("chosen-by-the-operator").digest())]


def test_a_key_that_is_none_is_not_repeated(cli: Cli, place: Path) -> None:
    cli.environ["OPENCLAW_ADMIN_KEY"] = "hunter2hunter2"
    result = cli.run("init")

    assert result.exit_code == 2
    assert "hunter2" not in result.output
    assert not (place / "config.yaml").exists()


def test_init_leaves_a_running_gateway_alone(cli: Cli, place: Path) -> None:
    with StateDirectory.open(place) as state, state.lock():
        result = cli.run("init")

    assert result.exit_code == 1
    assert "in use" in result.stderr
