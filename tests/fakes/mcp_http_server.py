"""A streamable-HTTP MCP server on loopback, with all that one may do wrong."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h11
import trio

from tests.fakes.mcp_server import TOOLS, words

Headers = dict[str, str]
JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream"}


@dataclass
class HttpServer:
    """``behaviour``: good, events, or what goes wrong with ``tools/call``."""

    port: int = 0
    behaviour: str = "good"
    heard: list[tuple[str, Mapping[str, str], Any]] = field(default_factory=list)
    sessions: int = 0
    location: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def methods(self) -> list[str]:
        return [message.get("method", "") for _, _, message in self.heard if message]

    async def serve(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            while await self._one(stream, connection):
                connection.start_next_cycle()
        except (trio.BrokenResourceError, h11.RemoteProtocolError, h11.LocalProtocolError):
            pass
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    async def _one(self, stream: trio.SocketStream, connection: h11.Connection) -> bool:
        request: h11.Request | None = None
        body = b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return False
        assert request is not None
        headers = {name.decode(): value.decode() for name, value in request.headers}
        message = json.loads(body) if body else None
        self.heard.append((request.method.decode(), headers, message))
        answer = _Answer(stream, connection)
        await self._answer(answer, request.method.decode(), headers, message)
        return connection.our_state is h11.DONE

    async def _answer(
        self, answer: "_Answer", method: str, headers: Mapping[str, str], message: Any
    ) -> None:
        if self.behaviour == "denied":
            await answer.whole(401, JSON, b"who are you?")
        elif self.behaviour == "redirect":
            await answer.whole(307, {"location": self.location}, b"")
        elif method == "GET":
            await self._unasked(answer)
        elif method == "DELETE" or "id" not in message:
            await answer.whole(202, {}, b"")
        elif message["method"] == "initialize":
            self.sessions += 1
            session = {"mcp-session-id": f"s{self.sessions}"}
            result = {
                "protocolVersion": message["params"]["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "fake", "version": "1"},
            }
            await self._result(answer, message, result, session)
        elif headers.get("mcp-session-id") != f"s{self.sessions}":
            await answer.whole(404, {}, b"")
        elif message["method"] == "tools/list":
            await self._result(answer, message, {"tools": TOOLS}, {})
        else:
            await self._called(answer, message)

    async def _called(self, answer: "_Answer", message: Any) -> None:
        match self.behaviour:
            case "hang":
                await trio.sleep_forever()
            case "broken":
                await answer.whole(500, {"content-type": "text/html"}, b"<h1>Oops</h1>")
            case "huge":
                await answer.endless(JSON, b"x" * 65536)
            case "endless-events":
                await answer.endless(EVENTS, b": nothing\n\n" * 6000)
            case "trickle":
                await answer.endless(EVENTS, b": nothing\n\n", pause=0.05)
            case "compressed":
                await answer.whole(200, {**JSON, "content-encoding": "gzip"}, b"\x1f\x8b")
            case "garbage":
                await answer.whole(200, JSON, b"{{{{" * 1000)
            case "lost":
                raise trio.BrokenResourceError
            case _:
                text = str((message["params"].get("arguments") or {}).get("text", ""))
                await self._result(answer, message, words(text), {})

    async def _result(self, answer: "_Answer", message: Any, result: Any, headers: Headers) -> None:
        told = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result})
        if self.behaviour == "events":
            await answer.whole(200, {**EVENTS, **headers}, f"data: {told}\n\n".encode())
        else:
            await answer.whole(200, {**JSON, **headers}, told.encode())

    async def _unasked(self, answer: "_Answer") -> None:
        if self.behaviour == "reconnect":
            await answer.whole(200, EVENTS, b"retry: 0\nid: 1\ndata:\n\n")
        elif self.behaviour == "flood":
            note = b'data: {"jsonrpc": "2.0", "method": "notifications/message"}\n\n'
            await answer.endless(EVENTS, note * 100)
        else:
            await answer.whole(405, {}, b"")


class _Answer:
    def __init__(self, stream: trio.SocketStream, connection: h11.Connection) -> None:
        self._stream = stream
        self._connection = connection

    async def _send(self, event: Any) -> None:
        data = self._connection.send(event)
        if data:
            await self._stream.send_all(data)

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        framed = {**headers, "content-length": str(len(body))}
        await self._send(h11.Response(status_code=status, headers=list(framed.items())))
        await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())

    async def endless(self, headers: Headers, piece: bytes, *, pause: float = 0.0) -> None:
        await self._send(h11.Response(status_code=200, headers=list(headers.items())))
        while True:
            await self._send(h11.Data(data=piece))
            await trio.sleep(pause)


@asynccontextmanager
async def http_server(behaviour: str = "good") -> AsyncIterator[HttpServer]:
    server = HttpServer(behaviour=behaviour)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, server.serve, listeners)
        server.port = listeners[0].socket.getsockname()[1]
        yield server
        nursery.cancel_scope.cancel()
