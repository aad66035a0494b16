"""``@openclaw/gateway-client``, the library other programs connect with."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.clients import Clients
from tests.system.processes import Gateway

pytestmark = pytest.mark.system

SCRIPT = Path(__file__).with_name("library.mjs")


@pytest.fixture(scope="module")
def session(clients: Clients, gateway: Gateway) -> dict[str, Any]:
    """What a program of a tenant of its own saw from connecting to leaving."""
    token = gateway.create_tenant("library")
    url = f"ws://127.0.0.1:{gateway.port}"
    done = subprocess.run(
        [str(clients.node), str(SCRIPT), str(clients.library), url, token],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert isinstance(seen, dict)
    return seen


def test_the_library_connects_with_a_token_alone(session: dict[str, Any]) -> None:
    hello = session["hello"]

    assert hello["protocol"] == 4
    assert hello["auth"]["role"] == "operator"
    assert {"chat.send", "sessions.list"} <= set(hello["features"]["methods"])
    assert hello["snapshot"]["sessionDefaults"]["mainSessionKey"] == "agent:main:main"


def test_the_library_asks_for_health(session: dict[str, Any]) -> None:
    assert session["health"]["ok"] is True


def test_the_library_chats_and_hears_the_answer(session: dict[str, Any]) -> None:
    assert session["started"]["status"] == "started"
    assert session["final"]["runId"] == session["started"]["runId"]
    assert session["final"]["message"]["content"][0]["text"].endswith("w019")


def test_the_library_reads_the_transcript(session: dict[str, Any]) -> None:
    assert [each["role"] for each in session["history"]["messages"]] == ["user", "assistant"]


def test_the_library_is_told_of_every_event_in_order(session: dict[str, Any]) -> None:
    counted = [each["seq"] for each in session["heard"] if each.get("seq") is not None]

    assert counted == list(range(1, len(counted) + 1))


def test_the_library_is_told_what_does_not_exist(session: dict[str, Any]) -> None:
    assert session["refused"] == "unknown method: nope.nope"
