"""MCP's messages on a pipe: one JSON text a line, within bounds."""

from collections.abc import Iterator


class LineTooLong(Exception):
    """A line passed the limit; what follows cannot be made sense of."""


class Lines:
    """Cuts a stream of bytes into lines of at most ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that are complete with ``data``, without their ends and without empty ones.

        Raises :exc:`LineTooLong`.
        """
        *ended, rest = data.split(b"\n")
        for piece in ended:
            self._keep(piece)
            line = b"".join(self._pieces).strip()
            self._pieces.clear()
            self._size = 0
            if line:
                yield line
        self._keep(rest)

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._limit:
            self._pieces.clear()
            raise LineTooLong
        if piece:
            self._pieces.append(piece)


class Allowance:
    """So much at once, and from then on so much a second."""

    def __init__(self, burst: float, per_second: float, *, now: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = burst
        self._at = now

    def take(self, amount: float, *, now: float) -> bool:
        """Whether there is as much left; what is refused is not counted."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if amount > self._left:
            return False
        self._left -= amount
        return True
