from collections.abc import Sequence
from typing import Any

import msgspec

from tests.cli.conftest import Cli


def chunk(text: str) -> bytes:
    return b"data: " + msgspec.json.encode({"choices": [{"delta": {"content": text}}]}) + b"\n\n"


DONE = b"data: [DONE]\n\n"


class Agent:
    """Answers every chat completion with the same bytes, and notes what it was asked."""

    def __init__(self, *pieces: bytes, status: int = 200) -> None:
        self.pieces: Sequence[bytes] = pieces
        self.status = status
        self.asked: list[tuple[dict[bytes, bytes], Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        while message["more_body"]:
            message["body"] += (more := await receive())["body"]
            message["more_body"] = more["more_body"]
        self.asked.append((dict(scope["headers"]), msgspec.json.decode(message["body"])))
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        for piece in self.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def test_one_message_gets_one_answer(cli: Cli) -> None:
    agent = cli.door = Agent(b": keep-alive\n\n", chunk("Hel"), chunk("lo"), DONE)
    printed = cli.ok("chat", "-m", "hi", "--session", "s1", "--tenant", "acme")

    assert printed == "Hello\n"
    (headers, body) = agent.asked[0]
    assert headers[b"x-openclaw-session-key"] == b"s1"
    assert headers[b"x-openclaw-tenant"] == b"acme"
    assert body == {
        "model": "openclaw",
        "stream": True,
        "messages": [{"role": "user", "content": "hi"}],
    }


def test_a_conversation_stays_in_its_session(cli: Cli) -> None:
    agent = cli.door = Agent(chunk("yes"), DONE)
    printed = cli.ok("chat", typed="one\ntwo\n\nnever\n")

    assert printed.count("yes") == 2
    sessions = {headers[b"x-openclaw-session-key"] for headers, _ in agent.asked}
    assert len(sessions) == 1
    assert [body["messages"][0]["content"] for _, body in agent.asked] == ["one", "two"]


def test_an_answer_that_breaks_off_is_a_failure(cli: Cli) -> None:
    cli.door = Agent(chunk("Hel"))
    result = cli.run("chat", "-m", "hi")

    assert result.exit_code == 1
    assert result.stdout.startswith("Hel")
    assert "cut off" in result.stderr


def test_a_failure_in_the_stream_is_told(cli: Cli) -> None:
    cli.door = Agent(chunk("Hel"), b'data: {"error": {"message": "the provider failed"}}\n\n', DONE)
    result = cli.run("chat", "-m", "hi")

    assert result.exit_code == 1
    assert "the provider failed" in result.stderr


def test_a_budget_that_is_used_up_is_a_refusal(cli: Cli) -> None:
    cli.door = Agent(b'{"error": {"message": "tokens_per_day is used up"}}', status=429)
    result = cli.run("chat", "-m", "hi")

    assert result.exit_code == 4
    assert "tokens_per_day is used up" in result.stderr


def test_a_model_cannot_drive_the_terminal(cli: Cli) -> None:
    cli.door = Agent(chunk("\x1b]0;owned\x07\x9bred\nnext"), DONE)
    printed = cli.ok("chat", "-m", "hi")

    assert printed == "]0;ownedred\nnext\n"
