"""What people type into a terminal, in the order in which they typed it."""

from collections import deque

import trio

from appliance.model.errors import RateLimited

MOST_TYPED = 4 * 1024 * 1024  # bytes that wait for a program to read them
_WRITTEN = 64 * 1024  # bytes of one write


class TerminalInput:
    def __init__(self) -> None:
        self._typed: deque[bytes] = deque()
        self._stirred = trio.Event()
        self.waiting = 0  # bytes

    def put(self, data: bytes) -> None:
        """Raises :exc:`RateLimited` while the program does not read what it has."""
        if self.waiting + len(data) > MOST_TYPED:
            raise RateLimited(
                f"{MOST_TYPED} bytes wait for the program to read them; send more when it does",
                retry_after=1,
                limit=MOST_TYPED,
            )
        self._typed.append(data)
        self.waiting += len(data)
        self._stirred.set()

    async def run(self, program: trio.abc.SendStream) -> None:
        """Hand over what is put, until the program hangs up."""
        try:
            while True:
                while self._typed:
                    await self._hand_over(program, self._typed.popleft())
                self._stirred = trio.Event()
                await self._stirred.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # it ended, or is about to

    async def _hand_over(self, program: trio.abc.SendStream, data: bytes) -> None:
        for start in range(0, len(data), _WRITTEN):
            piece = data[start : start + _WRITTEN]
            await program.send_all(piece)
            self.waiting -= len(piece)
