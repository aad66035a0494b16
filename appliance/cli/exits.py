"""How a command ends: the one table from failures to exit codes."""

from collections.abc import Mapping
from enum import IntEnum
from typing import IO, Any

import click

from appliance.model.errors import ApplianceError, Kind


class Exit(IntEnum):
    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    UNREACHABLE = 5


OF_STATUS: Mapping[int, Exit] = {
    401: Exit.REFUSED,
    403: Exit.REFUSED,
    404: Exit.NOT_FOUND,
    408: Exit.FAILURE,
    409: Exit.FAILURE,
    413: Exit.USAGE,
    421: Exit.NOT_FOUND,
    422: Exit.USAGE,
    429: Exit.REFUSED,
}

OF_KIND: Mapping[Kind, Exit] = {
    Kind.INVALID: Exit.USAGE,
    Kind.UNAUTHENTICATED: Exit.REFUSED,
    Kind.FORBIDDEN: Exit.REFUSED,
    Kind.MISSING: Exit.NOT_FOUND,
    Kind.MISDIRECTED: Exit.NOT_FOUND,
    Kind.TOO_LARGE: Exit.USAGE,
    Kind.LIMITED: Exit.REFUSED,
}


class CommandFailed(click.ClickException):
    """Ends the command with ``exit_code`` and the message on stderr."""

    def __init__(self, message: str, exit_code: Exit = Exit.FAILURE) -> None:
        super().__init__(message)
        self.exit_code = int(exit_code)  # type: ignore[misc] # click reads it off the instance

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"openclawmu: {self.format_message()}", err=True, file=file)


def failed(error: ApplianceError) -> CommandFailed:
    """A failure of our own services, as a command that works without the gateway ends."""
    return CommandFailed(error.detail, OF_KIND.get(error.kind, Exit.FAILURE))
