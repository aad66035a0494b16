"""A gateway's WebSocket, as far as commands can see it, in a thread of its own."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

TOKEN = "tenant:acme:" + "s" * 43

Handler = Callable[["Peer", Any], Any]


class Refused(Exception):
    """The error that a method answers with."""

    def __init__(self, code: str, message: str, detail: str) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message, "details": {"code": detail}}


class Peer:
    """The client at the other end."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self.socket = socket
        self._later: list[tuple[str, Any]] = []

    def event_later(self, name: str, payload: Any) -> None:
        """Tell the client once its request is answered."""
        self._later.append((name, payload))

    async def send(self, **frame: Any) -> None:
        await self.socket.send_message(msgspec.json.encode(frame).decode())

    async def send_events(self) -> None:
        later, self._later = self._later, []
        for name, payload in later:
            await self.send(type="event", event=name, payload=payload)


@dataclass
class FakeGateway:
    """``methods`` answer by name; what was asked is kept."""

    url: str = ""
    methods: dict[str, Handler] = field(default_factory=dict)
    introductions: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[Mapping[bytes, bytes]] = field(default_factory=list)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    status: int | None = None  # refuse the upgrade with it
    greeting: str | None = None  # say this in place of the challenge
    hang_up_after: str | None = None  # close instead of answering this method
    closing: list[Peer] = field(default_factory=list)  # hang up once they are answered
    silent: frozenset[str] = frozenset()  # methods that are never answered
    twice: frozenset[str] = frozenset()  # methods that are accepted first

    async def serve(self, task_status: trio.TaskStatus[Any]) -> None:
        await serve_websocket(self._admit, "127.0.0.1", 0, None, task_status=task_status)

    async def _admit(self, request: WebSocketRequest) -> None:
        self.paths.append(request.path)
        self.headers.append(dict(request.headers))
        if self.status is not None:
            await request.reject(self.status, body=b'{"detail": "not here"}')
            return
        socket = await request.accept()
        try:
            await self._talk(Peer(socket))
        except ConnectionClosed:
            return

    async def _talk(self, peer: Peer) -> None:
        if self.greeting is not None:
            await peer.socket.send_message(self.greeting)
        await peer.send(type="event", event="connect.challenge", payload={"nonce": "n", "ts": 1})
        while True:
            request = msgspec.json.decode(await peer.socket.get_message())
            name, params = request["method"], request.get("params")
            if name in self.silent:
                continue
            if name == self.hang_up_after:
                await peer.socket.aclose(1012, "service restart")
                return
            await self._answer(peer, request["id"], name, params)

    async def _answer(self, peer: Peer, number: str, name: str, params: Any) -> None:
        try:
            if name == "connect":
                payload = self._greet(params)
            else:
                self.asked.append((name, params))
                if name in self.twice:
                    await peer.send(type="res", id=number, ok=True, payload={"status": "accepted"})
                if name not in self.methods:
                    raise Refused("INVALID_REQUEST", f"unknown method: {name}", "UNKNOWN_METHOD")
                payload = self.methods[name](peer, params)
        except Refused as refused:
            await peer.send(type="res", id=number, ok=False, error=refused.error)
            if name == "connect":
                await peer.socket.aclose(1008, str(refused))
            return
        await peer.send(type="event", event="tick", payload={"ts": 1})
        await peer.send(type="res", id=number, ok=True, payload=payload)
        await peer.send_events()
        if peer in self.closing:
            await peer.socket.aclose(1012, "service restart")

    def _greet(self, params: Any) -> Any:
        self.introductions.append(params)
        if params.get("auth", {}).get("token") != TOKEN:
            raise Refused(
                "INVALID_REQUEST",
                "unauthorized: gateway token mismatch",
                "AUTH_TOKEN_MISMATCH",
            )
        return {"type": "hello-ok", "protocol": 4}


@contextmanager
def fake_gateway() -> Iterator[FakeGateway]:
    """Serve until the block ends."""
    gateway = FakeGateway()
    up = threading.Event()
    stop: list[Callable[[], None]] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(gateway.serve)
            gateway.url = f"http://127.0.0.1:{server.port}"
            token = trio.lowlevel.current_trio_token()
            stop.append(lambda: token.run_sync_soon(nursery.cancel_scope.cancel))
            up.set()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    try:
        assert up.wait(60)
        yield gateway
    finally:
        for each in stop:
            each()
        thread.join(60)
    assert not thread.is_alive()
