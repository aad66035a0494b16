"""The commands about devices and nodes, with a real node host to talk to."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.clients import PROTOCOL_3, PROTOCOL_4, Cli
from tests.conformance.commands import command
from tests.system.processes import wait_until

pytestmark = pytest.mark.system


@contextmanager
def node_host(cli: Cli, name: str, log: Path) -> Iterator[dict[str, Any]]:
    """``openclaw node run`` as a program of its own; yields it as the gateway lists it."""
    host, _, port = cli.url.removeprefix("ws://").partition(":")
    arguments = ("node", "run", "--host", host, "--port", port, "--display-name", name)
    found: list[dict[str, Any]] = []
    with (
        log.open("w") as output,
        cli.running(
            *arguments,
            environ={"OPENCLAW_GATEWAY_TOKEN": cli.token},
            stdout=output,
            stderr=output,
        ) as process,
    ):

        def connected() -> bool:
            assert process.poll() is None, log.read_text()
            nodes = cli.call("node.list")["nodes"]
            found[:] = [node for node in nodes if node.get("connected")]
            return bool(found)

        wait_until(connected, "the node to connect", patience=100)
        yield found[0]


@command("node run", "nodes status", "nodes describe", "nodes invoke", "nodes rename")
def test_a_node_host_joins_and_is_listed_described_and_asked(cli: Cli, tmp_path: Path) -> None:
    with node_host(cli, "workbench", tmp_path / "node.log") as node:
        listed = cli.run("nodes", "status", "--json").json["nodes"]
        described = cli.run("nodes", "describe", "--node", node["nodeId"], "--json").json
        invoked = cli.run(
            *("nodes", "invoke", "--node", node["nodeId"], "--json"),
            *("--command", "system.which", "--params", json.dumps({"bins": ["no-such-program"]})),
        ).json
        rename = cli.run("nodes", "rename", "--node", node["nodeId"], "--name", "bench two")
        renamed = cli.run("nodes", "status", "--json").json["nodes"]

    rename.require_success()
    assert node["displayName"] == "workbench"
    assert "system.which" in node["commands"]
    assert node["nodeId"] in {each["nodeId"] for each in listed}
    assert described["connected"] is True
    assert invoked["ok"] is True
    assert invoked["payload"] == {"bins": {}}
    assert "bench two" in {each["displayName"] for each in renamed}


@command("nodes list")
def test_paired_nodes_and_those_that_wait_are_listed(cli: Cli) -> None:
    listing = cli.run("nodes", "list", "--json").json

    assert listing["pending"] == []
    assert isinstance(listing["paired"], list)


@command("nodes pending")
def test_no_node_waits_for_approval(cli: Cli) -> None:
    assert cli.run("nodes", "pending", "--json").json == []


@command("nodes approve")
def test_a_node_that_never_asked_cannot_be_approved(cli: Cli) -> None:
    assert "requestid" in cli.run("nodes", "approve", "nope").refusal.lower()


@command("nodes reject")
def test_a_node_that_never_asked_cannot_be_rejected(cli: Cli) -> None:
    assert "unknown requestId" in cli.run("nodes", "reject", "nope").refusal


@command("nodes describe")
def test_a_node_that_is_not_there_is_unknown(cli: Cli) -> None:
    assert "unknown node: nope" in cli.run("nodes", "describe", "--node", "nope").refusal


@command("nodes invoke")
def test_a_node_that_is_not_there_cannot_be_asked(cli: Cli) -> None:
    outcome = cli.run("nodes", "invoke", "--node", "nope", "--command", "system.which")

    assert "unknown node: nope" in outcome.refusal


@command("nodes rename")
def test_a_node_that_is_not_there_cannot_be_renamed(cli: Cli) -> None:
    outcome = cli.run("nodes", "rename", "--node", "nope", "--name", "x")

    assert "unknown node: nope" in outcome.refusal


def own_device(cli: Cli) -> str:
    """The identity which the old release's CLI makes at first use and always shows."""
    cli.run("health").require_success()
    identity = json.loads((cli.home / "state" / "identity" / "device.json").read_text())
    return str(identity["deviceId"])


@command("devices list")
def test_devices_are_listed_without_their_tokens(cli: Cli) -> None:
    outcome = cli.run("devices", "list", "--json")

    assert outcome.json["pending"] == []
    assert '"token"' not in outcome.out
    if cli.release == PROTOCOL_3:  # the new one shows no device on loopback
        assert own_device(cli) in {device["deviceId"] for device in outcome.json["paired"]}


@command("devices approve")
def test_a_device_that_never_asked_cannot_be_approved(cli: Cli) -> None:
    assert "unknown requestId" in cli.run("devices", "approve", "nope").refusal


@command("devices reject")
def test_a_device_that_never_asked_cannot_be_rejected(cli: Cli) -> None:
    assert "unknown requestId" in cli.run("devices", "reject", "nope").refusal


@command("devices rotate", "devices revoke", releases=(PROTOCOL_3,))
def test_a_devices_token_is_rotated_and_revoked(cli: Cli) -> None:
    device = own_device(cli)

    rotated = cli.run("devices", "rotate", "--device", device, "--role", "operator", "--json").json
    revoked = cli.run("devices", "revoke", "--device", device, "--role", "operator", "--json").json

    assert rotated["token"]
    assert revoked["revokedAtMs"] > 0


@command("devices rotate", "devices revoke", releases=(PROTOCOL_4,))
def test_the_token_of_an_unknown_device_is_neither_rotated_nor_revoked(cli: Cli) -> None:
    for verb in ("rotate", "revoke"):
        outcome = cli.run("devices", verb, "--device", "nope", "--role", "operator")
        assert "unknown deviceId" in outcome.refusal


@command("devices remove")
def test_an_unknown_device_cannot_be_removed(cli: Cli) -> None:
    assert "unknown deviceId" in cli.run("devices", "remove", "nope").refusal
