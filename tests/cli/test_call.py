import json
from typing import Any

import pytest

from appliance import __version__
from tests.cli.conftest import SocketCli
from tests.cli.fake_gateway import TOKEN, FakeGateway, Peer, Refused


def answer(payload: Any) -> Any:
    return lambda peer, params: payload


def test_a_method_is_called_and_its_answer_printed(
    socket_cli: SocketCli, gateway: FakeGateway
) -> None:
    gateway.methods["sessions.list"] = answer({"count": 1})
    printed = socket_cli.ok("call", "sessions.list", "--params", '{"limit": 5}')

    assert json.loads(printed) == {"count": 1}
    assert gateway.asked == [("sessions.list", {"limit": 5})]
    assert gateway.paths == ["/ws"]


def test_the_client_introduces_itself(socket_cli: SocketCli, gateway: FakeGateway) -> None:
    gateway.methods["health"] = answer({})
    socket_cli.ok("call", "health")

    (introduction,) = gateway.introductions
    assert (introduction["minProtocol"], introduction["maxProtocol"]) == (3, 4)
    assert introduction["client"]["id"] == "cli"
    assert introduction["client"]["version"] == __version__
    assert (introduction["role"], introduction["auth"]) == ("operator", {"token": TOKEN})
    # No params at all, as OpenClaw's own clients do it.
    assert gateway.asked == [("health", None)]


def test_an_admin_names_the_tenant_it_acts_for(socket_cli: SocketCli, gateway: FakeGateway) -> None:
    gateway.methods["health"] = answer({})
    socket_cli.ok("call", "health", "--tenant", "acme")

    assert gateway.headers[0][b"x-openclaw-tenant"] == b"acme"
    assert not any(TOKEN.encode() in value for value in gateway.headers[0].values())


@pytest.mark.parametrize("suffix", ["", "/", "/ws"])
def test_the_address_may_be_that_of_a_socket(
    socket_cli: SocketCli, gateway: FakeGateway, suffix: str
) -> None:
    gateway.methods["health"] = answer({})
    url = gateway.url.replace("http", "ws") + "/t/acme" + suffix
    socket_cli.ok("call", "health", "--url", url)

    assert gateway.paths == ["/t/acme/ws"]


def test_params_may_come_from_stdin(socket_cli: SocketCli, gateway: FakeGateway) -> None:
    gateway.methods["send"] = answer({})
    socket_cli.ok("call", "send", "--params", "-", typed='{"to": "me"}')

    assert gateway.asked == [("send", {"to": "me"})]


@pytest.mark.parametrize("params", ["nonsense", "[1]", '"text"', "{"])
def test_params_must_be_an_object(socket_cli: SocketCli, gateway: FakeGateway, params: str) -> None:
    result = socket_cli.run("call", "health", "--params", params)

    assert result.exit_code == 2
    assert gateway.introductions == []


def test_of_two_answers_the_last_is_printed(socket_cli: SocketCli, gateway: FakeGateway) -> None:
    gateway.twice = frozenset({"agent"})
    gateway.methods["agent"] = answer({"status": "ok"})

    assert json.loads(socket_cli.ok("call", "agent", "--params", "{}")) == {"status": "ok"}


@pytest.mark.parametrize(
    ("code", "detail", "exit_code"),
    [
        ("INVALID_REQUEST", "INVALID_REQUEST", 2),
        ("INVALID_REQUEST", "ALREADY_EXISTS", 1),
        ("INVALID_REQUEST", "MISSING_SCOPE", 4),  # the first protocol has no FORBIDDEN
        ("FORBIDDEN", "ADMIN_ONLY", 4),
        ("FORBIDDEN", "FOREIGN_SESSION", 4),
        ("NOT_FOUND", "TENANT_UNKNOWN", 3),
        ("UNAVAILABLE", "INSUFFICIENT_QUOTA", 4),
        ("UNAVAILABLE", "RATE_LIMIT_EXCEEDED", 4),
        ("UNAVAILABLE", "METHOD_UNAVAILABLE", 1),
        ("NOT_PAIRED", "PAIRING_REQUIRED", 4),
        ("SOMETHING_NEW", "", 1),
    ],
)
def test_an_error_is_told_with_its_exit_code(
    socket_cli: SocketCli, gateway: FakeGateway, code: str, detail: str, exit_code: int
) -> None:
    def refuse(peer: Peer, params: Any) -> Any:
        raise Refused(code, "because", detail)

    gateway.methods["health"] = refuse
    result = socket_cli.run("call", "health")

    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert result.stderr == "openclawmu: because\n"


def test_an_unknown_method_is_not_found(socket_cli: SocketCli) -> None:
    result = socket_cli.run("call", "nonsense")

    assert result.exit_code == 3
    assert "unknown method: nonsense" in result.stderr


def test_a_token_that_grants_nothing_is_a_refusal_and_is_not_repeated(
    socket_cli: SocketCli,
) -> None:
    secret = "tenant:acme:" + "x" * 43
    socket_cli.environ["OPENCLAW_GATEWAY_TOKEN"] = secret
    result = socket_cli.run("call", "health")

    assert result.exit_code == 4
    assert "token mismatch" in result.stderr
    assert "OPENCLAW_GATEWAY_TOKEN" in result.stderr
    assert secret not in result.output


@pytest.mark.parametrize(("status", "exit_code"), [(403, 4), (404, 3), (421, 3), (503, 1)])
def test_a_door_that_stays_shut_says_why(
    socket_cli: SocketCli, gateway: FakeGateway, status: int, exit_code: int
) -> None:
    gateway.status = status
    result = socket_cli.run("call", "health")

    assert (result.exit_code, result.stderr) == (exit_code, "openclawmu: not here\n")


@pytest.mark.parametrize("greeting", ["hello?", "[]", '{"type": "event", "event": "tick"}'])
def test_what_is_no_gateway_is_recognised(
    socket_cli: SocketCli, gateway: FakeGateway, greeting: str
) -> None:
    gateway.greeting = greeting
    result = socket_cli.run("call", "health")

    assert result.exit_code == 5
    assert "no gateway" in result.stderr


def test_where_nobody_listens_there_is_no_gateway(socket_cli: SocketCli) -> None:
    result = socket_cli.run("call", "health", "--url", "http://127.0.0.1:1")

    assert result.exit_code == 5
    assert "openclawmu serve" in result.stderr


def test_a_gateway_that_leaves_is_told(socket_cli: SocketCli, gateway: FakeGateway) -> None:
    gateway.hang_up_after = "health"
    result = socket_cli.run("call", "health")

    assert result.exit_code == 5
    assert "service restart (1012)" in result.stderr


def test_an_answer_that_does_not_come_is_not_waited_for(
    socket_cli: SocketCli, gateway: FakeGateway
) -> None:
    gateway.silent = frozenset({"slow"})
    result = socket_cli.run("call", "slow", "--timeout", "0.05")

    assert result.exit_code == 1
    assert "slow did not answer within 0.05 s" in result.stderr
