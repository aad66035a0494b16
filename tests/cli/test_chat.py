from typing import Any

import pytest

from tests.cli.conftest import SocketCli
from tests.cli.fake_gateway import FakeGateway, Peer, Refused


def message(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


class Agent:
    """Answers each message with the same chat events."""

    def __init__(self, gateway: FakeGateway, *events: dict[str, Any]) -> None:
        self.said: list[dict[str, Any]] = []
        self._events = events
        gateway.methods["chat.send"] = self._send

    def _send(self, peer: Peer, params: Any) -> Any:
        self.said.append(params)
        run = params["idempotencyKey"]
        peer.event_later("chat", {"runId": "another", "state": "final", "message": message("no")})
        peer.event_later("agent", {"runId": run, "stream": "assistant", "data": {"text": "no"}})
        for event in self._events:
            peer.event_later("chat", {"runId": run, "sessionKey": params["sessionKey"], **event})
        return {"runId": run, "status": "started"}


def delta(text: str) -> dict[str, Any]:
    return {"state": "delta", "message": message(text)}


def final(text: str | None) -> dict[str, Any]:
    return {"state": "final", **({} if text is None else {"message": message(text)})}


def test_one_message_gets_one_answer(socket_cli: SocketCli, gateway: FakeGateway) -> None:
    agent = Agent(gateway, delta("Hel"), delta("Hello"), final("Hello!"))
    printed = socket_cli.ok("chat", "-m", "hi", "--session", "s1", "--tenant", "acme")

    assert printed == "Hello!\n"
    (said,) = agent.said
    assert (said["sessionKey"], said["message"]) == ("s1", "hi")
    assert gateway.headers[0][b"x-openclaw-tenant"] == b"acme"


def test_a_pipe_is_one_message(socket_cli: SocketCli, gateway: FakeGateway) -> None:
    agent = Agent(gateway, final("yes"))

    assert socket_cli.ok("chat", typed="one\ntwo\n") == "yes\n"
    assert [said["message"] for said in agent.said] == ["one\ntwo\n"]


def test_an_empty_pipe_is_a_mistake(socket_cli: SocketCli, gateway: FakeGateway) -> None:
    result = socket_cli.run("chat", typed=" \n")

    assert result.exit_code == 2
    assert gateway.asked == []


def test_a_conversation_at_a_terminal_stays_in_its_session(
    socket_cli: SocketCli, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Agent(gateway, final("yes"))
    monkeypatch.setattr("appliance.cli.chat._is_terminal", lambda: True)
    printed = socket_cli.ok("chat", typed="one\ntwo\n\nnever\n")

    assert printed.count("yes") == 2
    assert [said["message"] for said in agent.said] == ["one", "two"]
    assert len({said["sessionKey"] for said in agent.said}) == 1
    assert len(gateway.introductions) == 1


def test_an_agent_may_begin_again(socket_cli: SocketCli, gateway: FakeGateway) -> None:
    Agent(gateway, delta("I think"), delta("No"), final("No."))

    assert socket_cli.ok("chat", "-m", "hi") == "I think\nNo.\n"


def test_an_answer_without_words_is_an_answer(socket_cli: SocketCli, gateway: FakeGateway) -> None:
    Agent(gateway, final(None))

    assert socket_cli.ok("chat", "-m", "hi") == "\n"


def test_content_may_be_plain_text(socket_cli: SocketCli, gateway: FakeGateway) -> None:
    Agent(gateway, {"state": "final", "message": {"role": "assistant", "content": "plain"}})

    assert socket_cli.ok("chat", "-m", "hi") == "plain\n"


@pytest.mark.parametrize("model", ["openclaw/ops", "openclaw:ops"])
def test_another_agent_has_its_own_sessions(
    socket_cli: SocketCli, gateway: FakeGateway, model: str
) -> None:
    agent = Agent(gateway, final("ok"))
    socket_cli.ok("chat", "-m", "hi", "--model", model, "--session", "s1")

    assert agent.said[0]["sessionKey"] == "agent:ops:s1"


def test_a_model_is_set_for_the_session(socket_cli: SocketCli, gateway: FakeGateway) -> None:
    Agent(gateway, final("ok"))
    gateway.methods["sessions.patch"] = lambda peer, params: {"ok": True}
    socket_cli.ok("chat", "-m", "hi", "--model", "stub/m", "--session", "s1")

    assert gateway.asked[0] == ("sessions.patch", {"key": "s1", "model": "stub/m"})


def test_an_answer_that_breaks_off_is_a_failure(
    socket_cli: SocketCli, gateway: FakeGateway
) -> None:
    Agent(gateway, delta("Hel"), {"state": "aborted", "message": message("Hel")})
    result = socket_cli.run("chat", "-m", "hi")

    assert (result.exit_code, result.stdout) == (1, "Hel\n")
    assert "stopped" in result.stderr


def test_a_connection_that_breaks_cuts_the_answer_off(
    socket_cli: SocketCli, gateway: FakeGateway
) -> None:
    def send(peer: Peer, params: Any) -> Any:
        peer.event_later("chat", {"runId": params["idempotencyKey"], **delta("Hel")})
        gateway.closing.append(peer)
        return {"status": "started"}

    gateway.methods["chat.send"] = send
    result = socket_cli.run("chat", "-m", "hi")

    assert (result.exit_code, result.stdout) == (1, "Hel\n")
    assert "cut off" in result.stderr


@pytest.mark.parametrize(("kind", "exit_code"), [("timeout", 1), ("rate_limit", 4), (None, 1)])
def test_a_failure_in_the_answer_is_told(
    socket_cli: SocketCli, gateway: FakeGateway, kind: str | None, exit_code: int
) -> None:
    Agent(gateway, {"state": "error", "errorMessage": "it went wrong", "errorKind": kind})
    result = socket_cli.run("chat", "-m", "hi")

    assert result.exit_code == exit_code
    assert "it went wrong" in result.stderr


def test_a_budget_that_is_used_up_is_a_refusal(socket_cli: SocketCli, gateway: FakeGateway) -> None:
    def refuse(peer: Peer, params: Any) -> Any:
        raise Refused("UNAVAILABLE", "tokens_per_day is used up", "INSUFFICIENT_QUOTA")

    gateway.methods["chat.send"] = refuse
    result = socket_cli.run("chat", "-m", "hi")

    assert result.exit_code == 4
    assert "tokens_per_day is used up" in result.stderr


def test_a_model_cannot_drive_the_terminal(socket_cli: SocketCli, gateway: FakeGateway) -> None:
    Agent(gateway, final("\x1b]0;owned\x07\x9bred\nnext"))

    assert socket_cli.ok("chat", "-m", "hi") == "]0;ownedred\nnext\n"
