"""A WebSocket by hand, for clients that do not keep to the protocol."""

import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio

from tests.gateway.websocket import CLIENT

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """One frame, masked with zeros."""
    return head(opcode, len(payload), final=final) + payload


def head(opcode: int, length: int, *, final: bool = True) -> bytes:
    """The beginning of a frame of ``length`` bytes."""
    first = opcode | (0x80 if final else 0)
    if length < 126:
        return bytes((first, 0x80 | length, 0, 0, 0, 0))
    if length < 65536:
        return struct.pack("!BBHI", first, 0x80 | 126, length, 0)
    return struct.pack("!BBQI", first, 0x80 | 127, length, 0)


class RawWebSocket:
    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.events: list[str] = []
        self._received = b""

    async def send(self, data: bytes) -> bool:
        """Send raw bytes; False if the gateway does not take them any more."""
        try:
            await self.stream.send_all(data)
        except trio.BrokenResourceError:
            return False
        return True

    async def say(self, message: object) -> bool:
        text = message if isinstance(message, bytes) else json.dumps(message).encode()
        return await self.send(frame(TEXT, text))

    async def connect(self, token: str) -> None:
        """Shake hands and read the greeting."""
        auth = {"auth": {"token": token}, "client": CLIENT, "minProtocol": 3, "maxProtocol": 4}
        await self.say({"type": "req", "id": "hello", "method": "connect", "params": auth})
        assert (await self.answer("hello"))["ok"]

    async def answer(self, request_id: str) -> dict[str, Any]:
        while True:
            opcode, payload = await self.frame()
            assert opcode == TEXT, (opcode, payload)
            message: dict[str, Any] = json.loads(payload)
            if message.get("id") == request_id:
                return message
            self.events.append(message.get("event", ""))

    async def frame(self) -> tuple[int, bytes]:
        """The next frame. Raises ``EOFError`` at the end of the connection."""
        first, length = await self._take(2)
        if length == 126:
            (length,) = struct.unpack("!H", await self._take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self._take(8))
        return first & 0x0F, await self._take(length)

    async def closed(self) -> int:
        """Read to the goodbye and leave; the code, 1006 if there is none."""
        with trio.fail_after(60):
            while True:
                try:
                    opcode, payload = await self.frame()
                except EOFError:
                    return 1006
                if opcode == CLOSE:
                    return int.from_bytes(payload[:2], "big")
                if opcode == TEXT:
                    self.events.append(json.loads(payload).get("event", ""))

    async def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            with suppress(trio.BrokenResourceError):
                if data := await self.stream.receive_some(1024 * 1024):
                    self._received += data
                    continue
            raise EOFError
        taken, self._received = self._received[:count], self._received[count:]
        return taken


@asynccontextmanager
async def raw(port: int) -> AsyncIterator[RawWebSocket]:
    """A WebSocket that the gateway agreed to."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(UPGRADE)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += await stream.receive_some(1)
        assert answer.startswith(b"HTTP/1.1 101"), answer
        try:
            yield RawWebSocket(stream)
        finally:
            await trio.aclose_forcefully(stream)
