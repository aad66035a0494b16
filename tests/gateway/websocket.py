"""A client of the Gateway's WebSocket, small enough to see every frame."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio_websocket

CLIENT = {"id": "cli", "version": "1.0", "platform": "linux", "mode": "cli"}


class Refused(Exception):
    """The gateway answered with an error."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.error = error

    @property
    def code(self) -> str:
        return str(self.error["code"])

    @property
    def message(self) -> str:
        return str(self.error["message"])


class Client:
    """One connection. Everything that arrives is kept in order in ``events`` or an answer."""

    def __init__(self, socket: trio_websocket.WebSocketConnection) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []
        self.hello: dict[str, Any] = {}
        self._next = 0
        self._answers: dict[str, list[dict[str, Any]]] = {}

    async def send(self, frame: object) -> None:
        await self.socket.send_message(frame if isinstance(frame, str) else json.dumps(frame))

    async def receive(self) -> Any:
        """The next message, whatever it is."""
        with trio.fail_after(60):
            return json.loads(await self.socket.get_message())

    async def connect(self, token: str, **params: Any) -> dict[str, Any]:
        """Shake hands; return ``hello-ok``. Raises :exc:`Refused`."""
        await self.event("connect.challenge")
        asked = {"minProtocol": 3, "maxProtocol": 4, "client": CLIENT, "auth": {"token": token}}
        self.hello = await self.call("connect", **{**asked, **params})
        return self.hello

    async def call(self, method: str, **params: Any) -> Any:
        """Return the payload of the answer. Raises :exc:`Refused`."""
        return await self.answer(await self.ask(method, **params))

    async def ask(self, method: str, **params: Any) -> str:
        """Send a request and return its id."""
        self._next += 1
        request_id = f"r{self._next}"
        frame: dict[str, Any] = {"type": "req", "id": request_id, "method": method}
        if params:
            frame["params"] = params
        await self.send(frame)
        return request_id

    async def answer(self, request_id: str) -> Any:
        """The next answer to ``request_id``."""
        while not self._answers.get(request_id):
            self._sort(await self.receive())
        answer = self._answers[request_id].pop(0)
        if not answer["ok"]:
            raise Refused(answer["error"])
        return answer.get("payload")

    async def event(self, name: str, **payload: Any) -> dict[str, Any]:
        """The next event ``name`` whose payload has these members; others are kept."""
        while True:
            for place, event in enumerate(self.events):
                body = event.get("payload") or {}
                if event["event"] == name and payload.items() <= body.items():
                    return self.events.pop(place)
            self._sort(await self.receive())

    async def closed(self) -> tuple[int, str]:
        """Wait for the end; return its code and reason. What arrives before is kept."""
        try:
            while True:
                self._sort(await self.receive())
        except trio_websocket.ConnectionClosed as closed:
            reason = closed.reason
            return (1006, "") if reason is None else (reason.code, reason.reason or "")

    def answered(self, request_id: str) -> int:
        """How many answers to ``request_id`` came that nobody asked for yet."""
        return len(self._answers.get(request_id, ()))

    def _sort(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "event":
            self.events.append(frame)
        else:
            self._answers.setdefault(frame["id"], []).append(frame)


@asynccontextmanager
async def dialled(
    port: int, path: str = "/", *, headers: Mapping[str, str] | None = None, **options: Any
) -> AsyncIterator[Client]:
    """A connection that has not said anything yet."""
    extra = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    # The stream is ours: the library leaves it to the collector where the
    # handshake is refused, or where the server says goodbye first.
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    failed: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                socket = await trio_websocket.wrap_client_stream(
                    nursery,
                    stream,
                    f"127.0.0.1:{port}",
                    path,
                    extra_headers=extra,
                    # With room for one, what nobody reads keeps it from closing.
                    **{"message_queue_size": 10_000, **options},
                )
                yield Client(socket)
                await socket.aclose()
            except Exception as error:  # noqa: BLE001 - the nursery would wrap it
                failed = error
            nursery.cancel_scope.cancel()
    except* trio_websocket.ConnectionRejected as rejected:
        (failed,) = rejected.exceptions
    finally:
        await trio.aclose_forcefully(stream)
    if failed is not None:
        raise failed


@asynccontextmanager
async def connected(port: int, token: str, path: str = "/", **params: Any) -> AsyncIterator[Client]:
    """A connection that is through the handshake."""
    async with dialled(port, path) as client:
        await client.connect(token, **params)
        yield client
