"""What may be passed on to a sandbox, and how a refusal reads."""

import pytest

from appliance.model.errors import InvalidRequest
from appliance.sandboxes.base import SandboxSpec, TerminalSize
from appliance.sandboxes.commands import Command


def spec(*command: str, **changes: object) -> SandboxSpec:
    return SandboxSpec(group="g", workspace=0, command=command, **changes)  # type: ignore[arg-type]  # a test names them


def refusal(tried: SandboxSpec) -> str:
    with pytest.raises(InvalidRequest) as caught:
        Command.of(tried)
    return caught.value.detail


def test_text_becomes_bytes() -> None:
    command = Command.of(
        spec("echo", "ü", "", environment={"A_1": "ä", "HOME": "/x"}, directory="/a/b")
    )

    assert command.arguments == (b"echo", "ü".encode(), b"")
    assert command.environment[b"A_1"] == "ä".encode()
    assert command.environment[b"HOME"] == b"/x"
    assert command.environment[b"USER"] == b"agent"
    assert command.environment[b"TERM"] == b"dumb"
    assert command.directory == b"/a/b"


def test_a_terminal_has_a_kind() -> None:
    command = Command.of(spec("sh", terminal=TerminalSize(80, 24)))
    assert command.environment[b"TERM"] == b"xterm-256color"


@pytest.mark.parametrize(
    ("tried", "said"),
    [
        (spec(), "names no program"),
        (spec(""), "names no program"),
        (spec("-c", "x"), "hyphen"),
        (spec("echo", "a\0b"), r"command[1]: contains a NUL"),
        (spec("echo", "\ud800"), r"command[1]: is not valid Unicode"),
        (spec("x", environment={"A": "\0"}), "environment.A: contains a NUL"),
        (spec("x", environment={"A": "\udc80"}), "environment.A: is not valid Unicode"),
        (spec("x", directory="/a\0"), "directory: contains a NUL"),
        (spec("x", directory="/\udfff"), "directory: is not valid Unicode"),
        (spec("x", directory="/" + "a" * 4096), "4095 bytes"),
    ],
)
def test_what_linux_cannot_pass_on(tried: SandboxSpec, said: str) -> None:
    assert said in refusal(tried)


@pytest.mark.parametrize("directory", ["", ".", "a", "/a/../b", "/a/./b", "/a/", "//a", "/a//b"])
def test_a_directory_is_absolute_and_normal(directory: str) -> None:
    assert "absolute path" in refusal(spec("x", directory=directory))


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=B", "A-B", "Ä", "A\0", "\ud800", "A\n"])
def test_a_variables_name_is_one(name: str) -> None:
    assert "letters, digits" in refusal(spec("x", environment={name: "v"}))


def test_the_name_of_a_bad_variable_is_not_repeated() -> None:
    assert "hunter2" not in refusal(spec("x", environment={"export KEY=hunter2": ""}))


def test_sizes_up_to_the_limit() -> None:
    largest = "x" * (128 * 1024 - 1)
    assert Command.of(spec("echo", largest))
    assert "131,072 bytes; one argument may have 131,071" in refusal(spec("echo", largest + "x"))
    assert "131,071 bytes" in refusal(spec("x", environment={"A": largest}))
    assert Command.of(spec("x", environment={"A": largest[2:]}))
    # Characters are not bytes.
    assert "one argument may have" in refusal(spec("echo", "😀" * 40_000))


def test_a_command_counts_with_its_variables() -> None:
    half = {f"V{number}": "x" * 100_000 for number in range(6)}
    assert Command.of(spec("echo", environment=half))
    assert Command.of(spec("echo", *["x" * 100_000] * 10))
    said = refusal(spec("echo", *["x" * 100_000] * 10, environment=half))
    assert "the limit is 1,048,576" in said
    # Many small arguments cost pointers.
    assert "the limit is" in refusal(spec("echo", *["x"] * 200_000))


def test_there_are_not_too_many_variables() -> None:
    many = {f"V{number}": "" for number in range(1001)}
    assert "more than 1000" in refusal(spec("x", environment=many))
