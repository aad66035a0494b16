"""A body that is sent piece by piece, past ASGI where the server is the one that allows it.

:class:`~appliance.transports.hypercorn_door.DoorStream` is the only
implementation. Where a scope has none, ASGI's ``send`` does the same, slower.
"""

from typing import Protocol

CHUNKS = "openclaw.chunks"
"""Key in an ASGI scope's ``state``: the :class:`Chunks` of the request, if there are any."""


class Chunks(Protocol):
    @property
    def are_open(self) -> bool:
        """Whether the answer's head was sent, has a body, and a client is there to read it."""

    def write(self, data: bytes) -> bool:
        """Begin to send a piece; return whether all of it has left. If not, await :meth:`drain`.

        Never waits and never raises: sending the rest notices a broken connection.
        """

    async def drain(self) -> None:
        """Send the rest, however long the client takes to read."""
