"""The two directions of a terminal as streams."""

import errno

import trio
from trio.lowlevel import FdStream

from appliance.sandboxes.spawning import read_available

_PIECE = 65_536  # bytes


class Terminal:
    """The gateway's end of a terminal, and whether it was hung up."""

    def __init__(self, descriptor: int) -> None:
        self.stream = FdStream(descriptor)
        self.is_hung_up = False

    async def hang_up(self) -> None:
        self.is_hung_up = True
        await self.stream.aclose()


class TerminalOutput(trio.abc.ReceiveStream):
    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        most = _PIECE if max_bytes is None else max_bytes
        try:
            read = bytes(await self._terminal.stream.receive_some(most))
        except trio.BrokenResourceError as exc:
            # How Linux says that the last process has closed the terminal.
            if isinstance(exc.__cause__, OSError) and exc.__cause__.errno == errno.EIO:
                return b""
            raise
        except trio.ClosedResourceError:
            if self._terminal.is_hung_up:
                return b""
            raise
        # The kernel gives out at most 4 KiB at once, and a turn of the event loop for each
        # of them would cost more than reading them.
        if read and len(read) < most:
            read += read_available(self._terminal.stream.fileno(), most - len(read))
        return read

    async def aclose(self) -> None:
        await self._terminal.stream.aclose()


class TerminalInput(trio.abc.SendStream):
    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._terminal.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._terminal.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._terminal.hang_up()
