import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.model.audit import Actor, AuditEntry, Result
from appliance.model.callers import ActorKind
from appliance.storage.audit_log import AuditLog
from appliance.storage.state import StateDirectory
from tests.cli.conftest import Cli


def draft(number: int) -> AuditEntry:
    return AuditEntry(
        ts=datetime(2026, 11, 21, tzinfo=UTC),
        seq=0,
        actor=Actor(ActorKind.ADMIN, "first"),
        tenant="acme",
        action="tenant.update",
        target=str(number),
        result=Result.OK,
        ip="",
        request_id="",
        details={},
    )


@pytest.fixture
def place(tmp_path: Path, cli: Cli) -> Path:
    path = tmp_path / "state"
    cli.environ["OPENCLAW_STATE_DIR"] = str(path)
    cli.ok("init")
    with StateDirectory.open(path) as state:
        log = AuditLog(state, clock=lambda: datetime(2026, 11, 21, tzinfo=UTC))
        log.append([draft(number) for number in range(3)])
        log.close()
    return path


def test_an_intact_log_is_said_to_be_intact(cli: Cli, place: Path) -> None:
    found = json.loads(cli.ok("audit", "verify", "--json"))

    assert found["intact"] is True
    assert found["lines"] == 3
    assert found["head"]["seq"] == 3
    assert "intact" in cli.ok("audit", "verify")
    assert place.exists()


def test_the_config_may_lie_elsewhere(cli: Cli, place: Path) -> None:
    (place / "config.yaml").unlink()

    assert "intact" in cli.ok("audit", "verify")


def test_an_edit_is_found(cli: Cli, place: Path) -> None:
    log = place / "audit.log"
    log.write_bytes(log.read_bytes().replace(b'"target":"1"', b'"target":"9"'))
    result = cli.run("audit", "verify")

    assert result.exit_code == 1
    assert "audit.log:2:" in result.stdout


def test_a_cut_is_found(cli: Cli, place: Path) -> None:
    log = place / "audit.log"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:2]))
    result = cli.run("audit", "verify", "--json")

    assert result.exit_code == 1
    assert json.loads(result.stdout)["findings"]


def test_where_there_is_no_gateway_there_is_no_log(cli: Cli, tmp_path: Path) -> None:
    result = cli.run("audit", "verify", "--state-dir", str(tmp_path / "nowhere"))

    assert result.exit_code == 3
    assert not (tmp_path / "nowhere").exists()


def test_tail_reads_the_running_gateways_log(cli: Cli) -> None:
    lines = json.loads(cli.ok("audit", "tail", "-n", "5", "--tenant", "acme", "--json"))

    assert len(lines) == 5
    assert cli.bench.audit.asked == [("acme", 5, None)]
    assert "tenant.update" in cli.ok("audit", "tail", "-n", "1")
