"""What may be passed on to a sandbox: command, variables and directory, as bytes.

Checked once for every backend, before anything is started. The kernel's own
limits would fail much later, in a program of the launcher that says only
"Argument list too long".
"""

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from appliance.model.errors import InvalidRequest
from appliance.sandboxes.base import WORKSPACE, SandboxSpec

LONGEST_ARGUMENT = 128 * 1024 - 1  # bytes, MAX_ARG_STRLEN without its NUL
# Of the command with its variables. The kernel takes 2 MiB with the usual stack limit.
MOST_BYTES = 1024 * 1024
MOST_VARIABLES = 1000
LONGEST_PATH = 4095  # bytes, PATH_MAX without its NUL
_POINTER = 8  # bytes the kernel counts for each string besides the string

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

USER = "agent"
ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": WORKSPACE,
        "USER": USER,
        "LOGNAME": USER,
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",  # noqa: S108 - a private directory inside the sandbox
    }
)


@dataclass(frozen=True, slots=True)
class Command:
    """A command that can be started, as far as that can be known from outside."""

    arguments: Sequence[bytes]
    environment: Mapping[bytes, bytes]
    directory: bytes

    @classmethod
    def of(cls, spec: SandboxSpec) -> "Command":
        """Raises ``InvalidRequest`` that names what cannot be passed on, and why."""
        command = cls(
            _arguments(spec.command),
            _environment(spec),
            _directory(spec.directory),
        )
        size = _size(command.arguments) + sum(
            _size(variable) for variable in command.environment.items()
        )
        if size > MOST_BYTES:
            raise InvalidRequest.at(
                "command",
                f"with its variables it takes {size:,} bytes; the limit is {MOST_BYTES:,}",
                "write large input to a file, or send it to the command's input",
            )
        return command


def _size(strings: Iterable[bytes]) -> int:
    return sum(len(string) + 1 + _POINTER for string in strings)


def _arguments(command: Sequence[str]) -> tuple[bytes, ...]:
    if not command or not command[0]:
        raise InvalidRequest.at("command", "names no program")
    if command[0].startswith("-"):
        raise InvalidRequest.at(
            "command", "the program's name starts with a hyphen", "put ./ before it"
        )
    arguments = []
    for index, argument in enumerate(command):
        arguments.append(_encode(f"command[{index}]", argument))
        if len(arguments[-1]) > LONGEST_ARGUMENT:
            raise InvalidRequest.at(
                f"command[{index}]",
                f"has {len(arguments[-1]):,} bytes; one argument may have {LONGEST_ARGUMENT:,}",
                "write large input to a file, or send it to the command's input",
            )
    return tuple(arguments)


def _environment(spec: SandboxSpec) -> Mapping[bytes, bytes]:
    if len(spec.environment) > MOST_VARIABLES:
        raise InvalidRequest.at("environment", f"has more than {MOST_VARIABLES} variables")
    for name in spec.environment:
        if not _NAME.fullmatch(name):
            # What is a mistake here may be a secret in the wrong place: it is not repeated.
            raise InvalidRequest.at(
                "environment",
                "a variable's name is letters, digits and underscores, not a digit first",
            )
    terminal = "dumb" if spec.terminal is None else "xterm-256color"
    variables = {**ENVIRONMENT, "TERM": terminal, **spec.environment}
    encoded = {}
    for name, value in variables.items():
        encoded[name.encode()] = _encode(f"environment.{name}", value)
        if len(name) + 1 + len(encoded[name.encode()]) > LONGEST_ARGUMENT:
            raise InvalidRequest.at(
                f"environment.{name}",
                f"has more than the {LONGEST_ARGUMENT:,} bytes a variable may have",
            )
    return encoded


def _directory(directory: str) -> bytes:
    encoded = _encode("directory", directory)
    normal = posixpath.normpath(directory)
    # POSIX lets two leading slashes mean something else, and normpath keeps them.
    if directory != normal or not directory.startswith("/") or directory.startswith("//"):
        raise InvalidRequest.at(
            "directory", "is not an absolute path without '.', '..' and double slashes"
        )
    if len(encoded) > LONGEST_PATH:
        raise InvalidRequest.at("directory", f"has more than {LONGEST_PATH} bytes")
    return encoded


def _encode(field: str, text: str) -> bytes:
    if "\0" in text:
        raise InvalidRequest.at(field, "contains a NUL character, which ends a string in Linux")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest.at(field, "is not valid Unicode: half of a surrogate pair") from None
