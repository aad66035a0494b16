import json
from collections.abc import Callable
from typing import Any

import pytest

from appliance.cli import logs
from tests.cli.conftest import SocketCli
from tests.cli.fake_gateway import FakeGateway, Peer, Refused

LINE = json.dumps(
    {"ts": "2026-11-21T12:00:00.125Z", "level": "info", "event": "request", "status": 200}
)


def tail(*lines: str, cursor: int = 7, **more: Any) -> dict[str, Any]:
    empty = {"file": "tenant:acme.log", "size": cursor, "truncated": False, "reset": False}
    return {**empty, "cursor": cursor, "lines": list(lines), **more}


def answers(*tails: dict[str, Any]) -> Callable[[Peer, Any], Any]:
    left = list(tails)

    def answer(peer: Peer, params: Any) -> Any:
        if not left:
            raise Refused("UNAVAILABLE", "that was all", "")
        return left.pop(0)

    return answer


def test_the_latest_lines_are_shown_for_people(socket_cli: SocketCli, gateway: FakeGateway) -> None:
    gateway.methods["logs.tail"] = answers(tail(LINE))

    assert socket_cli.ok("logs", "-n", "5") == "12:00:00 INFO    request  status=200\n"
    assert gateway.asked == [("logs.tail", {"limit": 5})]


def test_machines_get_the_lines_as_they_are(socket_cli: SocketCli, gateway: FakeGateway) -> None:
    gateway.methods["logs.tail"] = answers(tail(LINE))

    assert socket_cli.ok("logs", "--json") == LINE + "\n"


@pytest.mark.parametrize("line", ["\x1b[31mred", "[1]", '{"ts": 7}', '{"event": "x"}'])
def test_a_line_of_another_kind_is_shown_harmlessly(
    socket_cli: SocketCli, gateway: FakeGateway, line: str
) -> None:
    gateway.methods["logs.tail"] = answers(tail(line))
    printed = socket_cli.ok("logs")

    assert printed == line.replace("\x1b", "�") + "\n"


def test_following_goes_on_where_the_answer_before_ended(
    socket_cli: SocketCli, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_EVERY", 0)
    gateway.methods["logs.tail"] = answers(
        tail("one", cursor=3),
        tail("two", cursor=6),
        tail("three", cursor=2, reset=True),
        tail("four", cursor=9, truncated=True),
    )
    result = socket_cli.run("logs", "--follow")

    # The gateway fails when it has no more to say; otherwise this never ends.
    assert result.exit_code == 1
    assert result.stdout.split() == ["one", "two", "three", "four"]
    cursors = [params.get("cursor") for _, params in gateway.asked]
    assert cursors == [None, 3, 6, 2, 9]
    assert "begins anew" in result.stderr
    assert "missing" in result.stderr


def test_an_admin_reads_a_tenants_log(socket_cli: SocketCli, gateway: FakeGateway) -> None:
    gateway.methods["logs.tail"] = answers(tail())

    assert socket_cli.ok("logs", "--tenant", "acme") == ""
    assert gateway.headers[0][b"x-openclaw-tenant"] == b"acme"
