"""Commands in a chat, and words that stop."""

import pytest

from appliance.model.chat_commands import COMMANDS, CommandName, Thinking, is_stop, parse_command
from appliance.model.chat_commands import help_text as helps


@pytest.mark.parametrize(
    ("text", "name", "rest"),
    [
        ("/status", "status", ""),
        ("  /NEW  fast hello ", "new", "fast hello"),
        ("/model: stub/mock", "model", "stub/mock"),
        ("/compact keep\nthe names", "compact", "keep\nthe names"),
        ("/think high", "think", "high"),
        ("/t high", "think", "high"),
        ("/queue steer", "queue", "steer"),
    ],
)
def test_a_command_is_a_slash_a_name_and_the_rest(text: str, name: str, rest: str) -> None:
    found = parse_command(text)

    assert found is not None
    assert (found.command.name, found.rest) == (name, rest)


@pytest.mark.parametrize(
    "text", ["", "/", "/etc/passwd", "/newer", "/unknown thing", "see /status", "//new", "status"]
)
def test_any_other_text_is_a_message(text: str) -> None:
    assert parse_command(text) is None


def test_further_words_begin_a_session_anew() -> None:
    found = parse_command("/Fresh start", resets=["/new", "/fresh"])
    plain = parse_command("/new", resets=["/new"])

    assert found is not None
    assert plain is not None
    assert (found.command.name, found.rest) == (CommandName.RESET, "start")
    assert plain.command.name is CommandName.NEW
    assert parse_command("/freshly", resets=["/fresh"]) is None


@pytest.mark.parametrize(
    "text", ["/stop", "/stop now", "stop", " STOP ", "Abort!", "stop  run", "halt.", "стоп", "停止"]
)
def test_a_stop_word_said_alone_stops(text: str) -> None:
    assert is_stop(text)


@pytest.mark.parametrize("text", ["stop it from raining", "how do I stop?", "/stopper", "", "go"])
def test_a_sentence_with_a_stop_word_does_not(text: str) -> None:
    assert not is_stop(text)


def test_every_command_is_listed_once_and_helped_with() -> None:
    assert [command.name for command in COMMANDS] == list(CommandName)
    assert all(f"/{command.name}" in helps() for command in COMMANDS)


def test_every_level_of_thinking_has_an_effort_but_off() -> None:
    assert [level for level in Thinking if level.effort is None] == [Thinking.OFF]
