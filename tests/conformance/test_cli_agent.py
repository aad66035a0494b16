"""The commands that make an agent work: agent, tui, acp, message."""

import json
import os
import pty
import re
import select
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conformance.clients import Cli
from tests.conformance.commands import command

pytestmark = pytest.mark.system

LAST_WORD = "w019"  # of the stub's answer
TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?<>=]*[a-zA-Z]|\x1b\][^\x07]*\x07|\x1b[=>]")
PATIENCE = 250.0  # seconds


@command("agent")
def test_an_agents_answer_is_printed(cli: Cli) -> None:
    assert cli.run("agent", "--agent", "main", "-m", "hello").text.strip().endswith(LAST_WORD)


@command("agent")
def test_an_agents_answer_comes_as_json_with_what_it_used(cli: Cli) -> None:
    answer = cli.run("agent", "--agent", "main", "-m", "hello", "--json").json

    assert answer["status"] == "ok"
    assert answer["result"]["payloads"][0]["text"].endswith(LAST_WORD)
    assert answer["result"]["meta"]["agentMeta"]["usage"]["output"] == 20


@command("agent --session-id")
def test_a_session_of_any_name_is_opened_and_gone_on_with(cli: Cli) -> None:
    name = uuid.uuid4().hex
    for text in ("first", "second"):
        answer = cli.run("agent", "--session-id", name, "-m", text, "--json").json
        assert answer["status"] == "ok"

    [session] = cli.call("sessions.list", search=name)["sessions"]
    history = cli.call("chat.history", sessionKey=session["key"])
    assert [each["role"] for each in history["messages"]] == ["user", "assistant"] * 2


@command("agent --to")
def test_a_recipient_has_the_agents_main_session(cli: Cli) -> None:
    answer = cli.run("agent", "--agent", "main", "--to", "+15551234567", "-m", "hi", "--json").json

    assert answer["status"] == "ok"


@command("agent")
def test_an_agent_that_does_not_exist_is_called_unknown(cli: Cli) -> None:
    refusal = cli.run("agent", "--agent", "ghost", "-m", "hello").refusal

    assert 'unknown agent id "ghost"' in refusal.lower()


@contextmanager
def terminal(cli: Cli, *arguments: str) -> Iterator[int]:
    """The command at a terminal of its own; yields the terminal's other end."""
    ours, theirs = pty.openpty()
    environ = {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    try:
        with cli.running(*arguments, environ=environ, stdin=theirs, stdout=theirs, stderr=theirs):
            os.close(theirs)
            yield ours
    finally:
        os.close(ours)


def shown_until(screen: int, wanted: str) -> str:
    """What a terminal shows, up to and with ``wanted``."""
    seen, deadline = b"", time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if select.select([screen], [], [], 1)[0]:
            seen += os.read(screen, 65536)
            text = TERMINAL_CODES.sub("", seen.decode(errors="replace"))
            if wanted in text:
                return text
    raise AssertionError(f"no {wanted!r} on the screen:\n{seen.decode(errors='replace')[-3000:]}")


@command("tui")
def test_the_terminal_ui_chats(cli: Cli) -> None:
    session = f"tui-{uuid.uuid4().hex[:8]}"
    with terminal(cli, "tui", *cli.flags, "--session", session, "--message", "hello") as screen:
        assert "hello" in shown_until(screen, LAST_WORD)


class AcpBridge:
    """An editor's side of ``openclaw acp``: JSON-RPC, one message a line."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.updates: list[dict[str, Any]] = []
        self._requests = process.stdin
        self._answers = process.stdout.fileno()
        self._unread = b""
        self._number = 0

    def request(self, method: str, **params: Any) -> Any:
        self._number += 1
        frame = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        self._requests.write(json.dumps(frame) + "\n")
        self._requests.flush()
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for message in self._messages():
                if message.get("id") == self._number:
                    assert "error" not in message, message
                    return message["result"]
                if message.get("method") == "session/update":
                    self.updates.append(message["params"]["update"])
        kinds = [update["sessionUpdate"] for update in self.updates]
        raise AssertionError(f"{method} was not answered after the updates {kinds}")

    def _messages(self) -> list[dict[str, Any]]:
        if select.select([self._answers], [], [], 1)[0]:
            self._unread += os.read(self._answers, 65536)
        *lines, self._unread = self._unread.split(b"\n")
        return [json.loads(line) for line in lines]


@contextmanager
def acp_bridge(cli: Cli) -> Iterator[AcpBridge]:
    with cli.running(
        "acp", *cli.flags, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        yield AcpBridge(process)


@command("acp")
def test_an_editor_prompts_through_the_acp_bridge(cli: Cli) -> None:
    with acp_bridge(cli) as bridge:
        bridge.request("initialize", protocolVersion=1, clientCapabilities={})
        session = bridge.request("session/new", cwd=str(cli.home), mcpServers=[])["sessionId"]
        prompt = [{"type": "text", "text": "hello"}]
        ended = bridge.request("session/prompt", sessionId=session, prompt=prompt)

    said = "".join(
        update["content"]["text"]
        for update in bridge.updates
        if update["sessionUpdate"] == "agent_message_chunk"
    )
    assert ended["stopReason"] == "end_turn"
    assert said.endswith(LAST_WORD)


@command("message send", comes_with="channels")
def test_a_message_needs_a_channel_which_there_is_none_of_yet(cli: Cli) -> None:
    outcome = cli.run("message", "send", "--channel", "telegram", "--target", "1", "-m", "hello")

    assert outcome.refusal
